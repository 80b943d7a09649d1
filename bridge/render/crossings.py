"""Everything that may cross the link, by name: one list, from which both sides' exports and imports follow. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bridge import subjects
from bridge.policy import Policy, Role


@dataclass(frozen=True, slots=True)
class Crossing:
    """One subject that one cloud offers and the other may use."""

    owner: str
    """The cloud whose account exports it."""
    kind: Literal["service", "stream"]
    """A service is called by the other cloud; a stream flows to it."""
    local: str
    """The subject in the owner's account."""
    remote: str
    """The subject on the link and in the other cloud's account."""
    responses: bool = False
    """Whether one request may be answered by many messages."""
    copying: bool = False
    """Whether the other cloud's streams use it, and not its services: results are copied home by servers."""


def crossings(policy: Policy) -> tuple[Crossing, ...]:
    """What crosses for all queues: pulls and acks to the producers' cloud, results home from the workers'.

    Parts of payloads are read by name in either cloud.

    What producers ask of jobs under way, and what workers tell of them, flow as they are said; and so does what the
    agents of both clouds tell each other, where each has one.
    """
    found: list[Crossing] = []
    for name in sorted(policy.queues):
        queue = policy.queues[name]
        jobs, results = subjects.jobs_stream(name), subjects.results_stream(name)
        for priority in subjects.PRIORITIES:
            consumer = subjects.jobs_consumer(queue.workers, priority)
            pull = (subjects.next_message(jobs, consumer), subjects.next_message(jobs, consumer, queue.home))
            found.append(Crossing(queue.home, "service", *pull, responses=True))
            found += [Crossing(queue.home, "service", a, a) for a in subjects.acks(jobs, consumer, queue.home)]
        delayed = subjects.delayed_stream(name)
        pull = (
            subjects.next_message(delayed, queue.workers),
            subjects.next_message(delayed, queue.workers, queue.home),
        )
        found.append(Crossing(queue.home, "service", *pull, responses=True))
        found += [Crossing(queue.home, "service", a, a) for a in subjects.acks(delayed, queue.workers, queue.home)]
        asked = subjects.control_stream(name)
        get = (subjects.api_call("DIRECT.GET", asked), subjects.api_call("DIRECT.GET", asked, cloud=queue.home))
        found.append(Crossing(queue.home, "service", *get, responses=True))
        found.append(Crossing(queue.home, "stream", subjects.any_control(name), subjects.any_control(name)))
        found.append(Crossing(queue.work, "stream", subjects.any_event(name), subjects.any_event(name)))
        for cloud in (queue.home, queue.work) if queue.payload_bytes else ():
            get = (subjects.get_parts(name), subjects.get_parts(name, cloud=cloud))
            found.append(Crossing(cloud, "service", *get))
        home = subjects.home_subject(name)
        reset = ("CONSUMER.RESET", results, subjects.HOME_CONSUMER)
        reset_here, reset_there = subjects.api_call(*reset), subjects.api_call(*reset, cloud=queue.work)
        found += [
            Crossing(queue.work, "stream", home, home, copying=True),
            Crossing(queue.work, "service", reset_here, reset_there, copying=True),
        ]
        confirms = subjects.flow_controls(results, subjects.HOME_CONSUMER, queue.work)
        found += [Crossing(queue.work, "service", confirm, confirm, copying=True) for confirm in confirms]
    watched = sorted({identity.cloud for identity in policy.identities.values() if identity.role is Role.AGENT})
    if len(watched) == len(policy.clouds):  # an agent alone has nobody to tell
        stats = [(cloud, subjects.any_stats(cloud)) for cloud in watched]
        found += [Crossing(cloud, "stream", subject, subject) for cloud, subject in stats]
    return tuple(found)
