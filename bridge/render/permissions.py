"""What each identity may do: the second wall, the first being the receiver's own checks. No I/O.

A `Grant` is one subject by name; all else is denied. It becomes a permission of the identity's user and an import
into the identity's own account.

Why an account each: a server does not check the *reply* subject of a request, and answers with rights of its own. A
user in the account of the streams needs no more than one permitted request to delete any of them: it names
``$JS.API.STREAM.DELETE.<stream>`` as the reply subject. In an account of its own, an identity's replies reach
nothing that it could not publish to anyway, and nothing delivers or republishes to its inbox but what it asked for.

What subjects cannot separate, and who is trusted with it:

- Any member of a pool can settle its peers' deliveries: kinds of ack are not separate subjects. A producer that
  sends its job again closes that hole.
- A provisioner updates the streams of its own cloud, and so could shorten one, or have one republish into JetStream's
  API, which then deletes. It reads none, and no call of it crosses the link.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from bridge import subjects
from bridge.job import CANARY_PRIORITY
from bridge.policy import IdentityEntry, Policy, Queue, Role
from bridge.receipt import any_page
from bridge.render.crossings import Crossing, crossings
from bridge.render.streams import plan
from bridge.subjects import api_call

SERVER_REQUESTS: Final = (
    *("STATSZ", "VARZ", "HEALTHZ", "SUBSZ", "ROUTEZ", "GATEWAYZ", "LEAFZ", "ACCOUNTZ", "JSZ"),
    *("EXPVARZ", "RAFTZ", "IPQUEUESZ"),
)
"""What a server tells of itself, at its own id or at ``PING``, which all servers of the cloud answer."""

ACCOUNT_REQUESTS: Final = ("CONNZ", "SUBSZ", "LEAFZ", "JSZ", "INFO")
"""What the servers tell of an account."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One subject that an identity may use."""

    kind: Literal["publish", "subscribe"]
    subject: str
    cloud: str
    """Where it is offered: the identity's own cloud, or the other one through the link."""
    responses: bool = False
    """Whether one request may be answered by many messages."""
    system: bool = False
    """Whether the servers of that cloud themselves offer it, in their system account."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What in the policy grants something."""

    why: str
    """In words: ``producer of queue thumbnails``."""
    at: tuple[str, ...]
    """The keys that lead there: ``("queues", "thumbnails", "producers", "relay-api")``."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that may be published and subscribed to; all others are denied."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def grants(policy: Policy, identity: IdentityEntry) -> tuple[Grant, ...]:
    """What an identity may do beyond its own inbox; nothing for a link, which is no user of a cloud's account."""
    return tuple(dict.fromkeys(grant for _, given in origins(policy, identity) for grant in given))


def origins(policy: Policy, identity: IdentityEntry) -> Iterator[tuple[Origin, list[Grant]]]:
    """The same, by what grants it; a grant may have several origins.

    A service has what it needs as a producer of some queues and as the worker of others.
    """
    me, cloud = identity.name, identity.cloud
    of_role = Origin(f"{identity.role} of cloud {cloud}", ("identities", me, "role"))
    match identity.role:
        case Role.SERVICE:
            for name, queue in sorted(policy.queues.items()):
                if me in queue.producers:
                    yield Origin(f"producer of queue {name}", ("queues", name, "producers", me)), _producer(queue, me)
                if me in queue.inbox:
                    yield Origin(f"inbox of queue {name}", ("queues", name, "inbox", me)), _read_inbox(queue, me)
                if me == queue.workers:
                    yield Origin(f"workers of queue {name}", ("queues", name, "workers")), _worker(queue)
        case Role.INSPECTOR:
            yield of_role, _inspector(policy, cloud)
        case Role.OPERATOR:
            yield of_role, [*_inspector(policy, cloud), *_operator(policy, cloud)]
        case Role.PROVISIONER:
            yield of_role, _provisioner(policy, cloud)
        case Role.SYSTEM:
            yield of_role, _system(cloud)
        case Role.AGENT:
            yield of_role, _agent(policy, identity)
            mine = [schedule for _, schedule in sorted(policy.schedules.items()) if schedule.agent == me]
            for each in sorted(mine, key=lambda schedule: schedule.queue):
                origin = Origin(f"agent of schedule {each.name}", ("schedules", each.name, "agent"))
                yield origin, _scheduler(policy.queues[each.queue], me)
            for name, queue in sorted(policy.queues.items()):
                if me in policy.canary_senders(queue):
                    yield Origin(f"canary of queue {name}", ("queues", name, "canary")), _canary(queue, me)
        case Role.LINK:
            pass


def private(policy: Policy, identity: IdentityEntry) -> list[tuple[Origin, Grant]]:
    """What stays in an identity's own account, its inbox first: nothing exports it, and nothing imports it."""
    name, cloud = identity.name, identity.cloud
    itself = Origin("every identity", ("identities", name))
    found = [(itself, Grant("subscribe", f"{subjects.inbox_prefix(name)}.>", cloud))]
    worked = next((queue for _, queue in sorted(policy.queues.items()) if name == queue.workers), None)
    if worked is not None:
        origin = Origin(f"workers of queue {worked.name}", ("queues", worked.name, "workers"))
        mine = subjects.health(name, "*")
        found += [(origin, Grant("publish", mine, cloud)), (origin, Grant("subscribe", mine, cloud))]
    if identity.role in (Role.INSPECTOR, Role.OPERATOR, Role.SYSTEM):
        origin = Origin(f"{identity.role} of cloud {cloud}", ("identities", name, "role"))
        found.append((origin, Grant("publish", "$SYS.REQ.USER.INFO", cloud)))
    return found


def permissions(policy: Policy, identity: IdentityEntry) -> Permissions:
    """The same as permissions of the identity's user, who may also hear its inbox, and itself, and ask who it is."""
    inbox, *others = (grant for _, grant in private(policy, identity))
    given = (inbox, *grants(policy, identity), *others)
    return Permissions(
        publish=tuple(grant.subject for grant in given if grant.kind == "publish"),
        subscribe=tuple(grant.subject for grant in given if grant.kind == "subscribe"),
    )


def link_permissions(policy: Policy, crossing: tuple[Crossing, ...]) -> Permissions:
    """What the leaf may send to the hub, and what the hub may send to the leaf."""
    sent = [c.remote for c in crossing if (c.kind == "service") == (c.owner == policy.hub.name)]
    received = [c.remote for c in crossing if (c.kind == "service") == (c.owner == policy.leaf.name)]
    # Replies to services that cross; without them copying results hangs and says nothing.
    replies = "_R_.>"
    return Permissions((*sent, replies), (*received, replies))


def _producer(queue: Queue, me: str) -> list[Grant]:
    name = queue.name
    mine = [subjects.any_job(name, priority, me) for priority in subjects.PRIORITIES]
    later = subjects.any_delayed(name, me)
    return [
        *_publish(queue.home, [*mine, later, subjects.any_control(name, me)]),
        *_publish(
            queue.home,
            [
                subjects.direct_get(subjects.results_stream(name), subjects.any_result(name, me)),
                *(subjects.direct_get(subjects.jobs_stream(name), subject) for subject in mine),
                subjects.direct_get(subjects.delayed_stream(name), later),
            ],
        ),
        *_parts(queue, subjects.any_part(name, me), queue.home, subjects.get_parts(name, me, queue.work), queue.work),
        *_receipts(queue, me, queue.home),
        Grant("subscribe", subjects.any_event(name, me), queue.work),
        Grant("subscribe", subjects.done_of_producer(name, me), queue.home),
    ]


def _read_inbox(queue: Queue, me: str) -> list[Grant]:
    """Pull and settle one's own results, by a consumer whose filter nobody but the provisioner may set."""
    return _pull(subjects.results_stream(queue.name), subjects.inbox_consumer(me), queue.home, queue.home)


def _scheduler(queue: Queue, me: str) -> list[Grant]:
    """What an agent needs of a queue to submit a keyed job for each tick, and no other job."""
    name, jobs = queue.name, subjects.any_keyed_job(queue.name, me)
    asked = [
        jobs,
        subjects.direct_get(subjects.jobs_stream(name), jobs),
        subjects.direct_get(subjects.results_stream(name), subjects.any_keyed_result(name, me)),
    ]
    heard = Grant("subscribe", subjects.done_of_keyed(name, me), queue.home)
    return [*_publish(queue.home, asked), *_receipts(queue, me, queue.home), heard]


def _canary(queue: Queue, me: str) -> list[Grant]:
    """What an agent needs of a queue to submit canaries, of priority high, and to hear and look up their results."""
    name, jobs = queue.name, subjects.any_job(queue.name, CANARY_PRIORITY, me)
    asked = [
        jobs,
        subjects.direct_get(subjects.jobs_stream(name), jobs),
        subjects.direct_get(subjects.results_stream(name), subjects.any_result(name, me)),
    ]
    return [*_publish(queue.home, asked), Grant("subscribe", subjects.done_of_producer(name, me), queue.home)]


def _worker(queue: Queue) -> list[Grant]:
    name, jobs = queue.name, subjects.jobs_stream(queue.name)
    found: list[Grant] = []
    for priority in subjects.PRIORITIES:
        found += _pull(jobs, subjects.jobs_consumer(queue.workers, priority), queue.home, queue.work)
    found += _pull(subjects.delayed_stream(name), queue.workers, queue.home, queue.work)
    found += _pull(subjects.replay_stream(name), queue.workers, queue.work, queue.work)
    asked = subjects.api_call("DIRECT.GET", subjects.control_stream(name), cloud=queue.home)
    found.append(Grant("publish", asked, queue.home, responses=True))
    found.append(Grant("subscribe", subjects.any_control(name), queue.home))
    local = [
        subjects.any_event(name),
        subjects.any_result(name),
        subjects.any_start(name),
        subjects.any_dead(name),
        subjects.any_refused(name),
        subjects.direct_get(subjects.results_stream(name), subjects.any_result(name)),
        subjects.direct_get(subjects.starts_stream(name), subjects.any_start(name)),
    ]
    if queue.limited:
        local += [subjects.any_slot(name), subjects.direct_get(subjects.slots_stream(name), subjects.any_slot(name))]
        read = api_call("DIRECT.GET", subjects.slots_stream(name))
        found.append(Grant("publish", read, queue.work, responses=True))
    found += _parts(queue, subjects.any_part(name), queue.work, subjects.get_parts(name, None, queue.home), queue.home)
    # What an earlier attempt streamed, to go on after it: sealed to the producer, like all that the pool writes.
    found += _publish(queue.work, [subjects.get_parts(name)] if queue.payload_bytes else [])
    return [*found, *_publish(queue.work, local), *_receipts(queue, queue.workers, queue.work)]


def _parts(queue: Queue, written: str, here: str, read: str, there: str) -> list[Grant]:
    """Write parts of payloads in one's own cloud, and read the other's, one at a time and by name."""
    return [Grant("publish", written, here), Grant("publish", read, there)] if queue.payload_bytes else []


def _receipts(queue: Queue, me: str, here: str) -> list[Grant]:
    """Store one's own receipts in one's own cloud; inspectors read them."""
    return _publish(here, [any_page(queue.name, me)] if queue.receipts_bytes else [])


def _pull(stream: str, consumer: str, cloud: str, here: str) -> list[Grant]:
    """Pull from a consumer of a cloud, called from another or from itself, and settle what it delivers."""
    pull = subjects.next_message(stream, consumer, None if cloud == here else cloud)
    return [Grant("publish", pull, cloud, responses=True), *_publish(cloud, subjects.acks(stream, consumer, cloud))]


def _operator(policy: Policy, cloud: str) -> list[Grant]:
    """What an inspector may, and to order replays and drop dead letters of the queues worked in its cloud."""
    found: list[Grant] = []
    for name, queue in sorted(policy.queues.items()):
        if queue.work == cloud:
            drop = api_call("STREAM.MSG.DELETE", subjects.dead_stream(name))
            found += _publish(cloud, [subjects.any_replay(name), drop])
    return found


def _inspector(policy: Policy, cloud: str) -> list[Grant]:
    found = _publish(cloud, [*_overview(), api_call("CONSUMER.INFO", "*", "*")])
    for stream in plan(policy, cloud)["streams"]:
        get = api_call("DIRECT.GET", stream["name"])
        found += [Grant("publish", get, cloud, responses=True), Grant("publish", f"{get}.>", cloud)]
        # What `nats stream get` asks; it can do no more than a direct get.
        found += _publish(cloud, [api_call("STREAM.MSG.GET", stream["name"])])
    return [*found, Grant("subscribe", "$JS.EVENT.ADVISORY.>", cloud), Grant("subscribe", "$JS.EVENT.METRIC.>", cloud)]


def _overview() -> list[str]:
    return [
        api_call("INFO"),
        api_call("STREAM.NAMES"),
        api_call("STREAM.LIST"),
        api_call("STREAM.INFO", "*"),
        api_call("CONSUMER.NAMES", "*"),
        api_call("CONSUMER.LIST", "*"),
    ]


def _agent(policy: Policy, me: IdentityEntry) -> list[Grant]:
    """How much each planned stream and consumer holds, whether the link stands, and what the other agents tell."""
    assets, crossing = plan(policy, me.cloud), {each.local for each in crossings(policy)}
    return [
        # An account without JetStream that does not import INFO is given the whole API of its own, which shadows what
        # is imported by name and answers 10039.
        *_publish(me.cloud, [api_call("INFO")]),
        *_publish(me.cloud, [api_call("STREAM.INFO", stream["name"]) for stream in assets["streams"]]),
        *_publish(me.cloud, [api_call("CONSUMER.INFO", c["stream"], c["config"]["name"]) for c in assets["consumers"]]),
        *_publish(me.cloud, [subjects.stats(me.cloud, me.name)]),
        Grant("publish", "$SYS.REQ.SERVER.*.LEAFZ", me.cloud, responses=True, system=True),
        *(
            Grant("subscribe", subjects.any_stats(cloud), cloud)
            for cloud in sorted(policy.clouds)
            if cloud != me.cloud and subjects.any_stats(cloud) in crossing
        ),
    ]


def _system(cloud: str) -> list[Grant]:
    # By name and never `$SYS.REQ.SERVER.PING.>`: profiles are among what answers there. Nothing that acts is here,
    # of a server (RELOAD, KICK, LDM, PROFILEZ) or of an account (CLAIMS).
    requests = [
        "$SYS.REQ.SERVER.PING",
        # By its whole name, and so for all servers at once only: without that name a server adds an import of its own
        # beside ours, and answers twice, once with the connections of the asking account alone.
        "$SYS.REQ.SERVER.PING.CONNZ",
        *(f"$SYS.REQ.SERVER.*.{call}" for call in SERVER_REQUESTS),
        *(f"$SYS.REQ.ACCOUNT.*.{call}" for call in ACCOUNT_REQUESTS),
    ]
    events = ("$SYS.ACCOUNT.*.CONNECT", "$SYS.ACCOUNT.*.DISCONNECT", "$SYS.SERVER.*.CLIENT.AUTH.ERR")
    return [
        *(Grant("publish", subject, cloud, responses=True, system=True) for subject in requests),
        *(Grant("subscribe", subject, cloud, system=True) for subject in events),
    ]


def _provisioner(policy: Policy, cloud: str) -> list[Grant]:
    assets = plan(policy, cloud)
    allowed = _overview()
    for stream in assets["streams"]:
        allowed += [api_call("STREAM.CREATE", stream["name"]), api_call("STREAM.UPDATE", stream["name"])]
    for consumer in assets["consumers"]:
        # Never a name that the plan has not: a consumer of its own would deliver a stream to its inbox.
        path = (consumer["stream"], consumer["config"]["name"])
        create = api_call("CONSUMER.CREATE", *path)
        allowed += [create, f"{create}.>", api_call("CONSUMER.DURABLE.CREATE", *path), api_call("CONSUMER.INFO", *path)]
    return _publish(cloud, allowed)


def _publish(cloud: str, allowed: list[str] | tuple[str, ...]) -> list[Grant]:
    return [Grant("publish", subject, cloud) for subject in allowed]
