"""What each identity may publish and subscribe to: the second wall, the first being the receiver's own checks. No I/O.

Everything is allowed by name and all else is denied. Calls of the local domain are checked as ``$JS.API…``,
those of the other cloud as ``$JS.<cloud>.API…``.

What subjects cannot separate, and who is trusted with it:

- Any member of a pool can settle its peers' deliveries: kinds of ack are not separate subjects. A producer that
  sends its job again closes that hole.
- A provisioner updates streams of its own cloud, so it could shorten a stream, or have it republished to its own
  inbox, or point the ``home`` consumer there while the link is down. It would see ciphertext. It cannot read, pull,
  delete or purge, and no call of it crosses the link.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge import subjects
from bridge.policy import IdentityEntry, Policy, Queue, Role
from bridge.render.crossings import Crossing
from bridge.render.streams import plan
from bridge.subjects import api_call


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that may be published and subscribed to; all others are denied."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def permissions(policy: Policy, identity: IdentityEntry) -> Permissions:
    """The permissions of a user. The link's are `link_permissions`.

    A service has what it needs as a producer of some queues and as the worker of others.
    """
    inbox = f"{subjects.inbox_prefix(identity.name)}.>"
    publish: list[str] = []
    subscribe = [inbox]
    match identity.role:
        case Role.SERVICE:
            for name in sorted(policy.queues):
                queue = policy.queues[name]
                if identity.name in queue.producers:
                    publish += _producer(queue, identity.name)
                    subscribe.append(subjects.done_of_producer(queue.name, identity.name))
                if identity.name == queue.workers:
                    publish += _worker(queue)
        case Role.INSPECTOR | Role.OPERATOR:
            publish += _inspector(policy, identity.cloud)
            subscribe += ["$JS.EVENT.ADVISORY.>", "$JS.EVENT.METRIC.>"]
        case Role.PROVISIONER:
            publish += _provisioner(policy, identity.cloud)
        case Role.AGENT:
            pass
        case Role.LINK:
            raise ValueError("a link is no user of a cloud's account")
    return Permissions(tuple(dict.fromkeys(publish)), tuple(dict.fromkeys(subscribe)))


def link_permissions(policy: Policy, crossings: tuple[Crossing, ...]) -> Permissions:
    """What the leaf may send to the hub, and what the hub may send to the leaf."""
    sent = [c.remote for c in crossings if (c.kind == "service") == (c.owner == policy.hub.name)]
    received = [c.remote for c in crossings if (c.kind == "service") == (c.owner == policy.leaf.name)]
    # Replies to services that cross; without them copying results hangs and says nothing.
    replies = "_R_.>"
    return Permissions((*sent, replies), (*received, replies))


def _producer(queue: Queue, me: str) -> list[str]:
    results, jobs = subjects.results_stream(queue.name), subjects.jobs_stream(queue.name)
    mine = [subjects.any_job(queue.name, priority, me) for priority in subjects.PRIORITIES]
    return [
        *mine,
        subjects.direct_get(results, subjects.any_result(queue.name, me)),
        *(subjects.direct_get(jobs, subject) for subject in mine),
    ]


def _worker(queue: Queue) -> list[str]:
    name = queue.name
    jobs, results, starts = subjects.jobs_stream(name), subjects.results_stream(name), subjects.starts_stream(name)
    allowed = []
    for priority in subjects.PRIORITIES:
        consumer = subjects.jobs_consumer(queue.workers, priority)
        allowed.append(subjects.next_message(jobs, consumer, queue.home))
        allowed += subjects.acks(jobs, consumer, queue.home)
    return [
        *allowed,
        subjects.any_result(name),
        subjects.any_start(name),
        subjects.any_dead(name),
        subjects.any_refused(name),
        subjects.direct_get(results, subjects.any_result(name)),
        subjects.direct_get(starts, subjects.any_start(name)),
    ]


def _inspector(policy: Policy, cloud: str) -> list[str]:
    gets = []
    for stream in plan(policy, cloud)["streams"]:
        get = api_call("DIRECT.GET", stream["name"])
        gets += [get, f"{get}.>"]
    return [*_overview(), api_call("CONSUMER.INFO", "*", "*"), "$SYS.REQ.USER.INFO", *gets]


def _overview() -> list[str]:
    return [
        api_call("INFO"),
        api_call("STREAM.NAMES"),
        api_call("STREAM.LIST"),
        api_call("STREAM.INFO", "*"),
        api_call("CONSUMER.NAMES", "*"),
        api_call("CONSUMER.LIST", "*"),
    ]


def _provisioner(policy: Policy, cloud: str) -> list[str]:
    assets = plan(policy, cloud)
    allowed = _overview()
    for stream in assets["streams"]:
        allowed += [api_call("STREAM.CREATE", stream["name"]), api_call("STREAM.UPDATE", stream["name"])]
    for consumer in assets["consumers"]:
        # Never a name that the plan has not: a consumer of its own would deliver a stream to its inbox.
        path = (consumer["stream"], consumer["config"]["name"])
        create = api_call("CONSUMER.CREATE", *path)
        allowed += [create, f"{create}.>", api_call("CONSUMER.DURABLE.CREATE", *path), api_call("CONSUMER.INFO", *path)]
    return allowed
