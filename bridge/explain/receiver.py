"""What whoever reads a message checks after every server: the grants of the trust bundle. No I/O.

As the policy has them: which bundle a receiver has is told by ``bunny trust show``.
"""

from __future__ import annotations

from typing import Final

from bridge.bundle import senders
from bridge.explain.walls import TRUST, Verdict, Wall
from bridge.policy import IdentityEntry, Policy, Queue, Role
from bridge.subjects import parse_job, parse_result

_PRODUCER_AT: Final = {"jobs": 3, **dict.fromkeys(("delayed", "control", "results", "starts", "events", "replay"), 2)}
"""Which token of a subject names the producer; what is not here is checked by nobody."""

_SAID: Final = {"jobs": "jobs", "delayed": "jobs", "control": "controls", "results": "results", "starts": "starts"}


def trust_wall(policy: Policy, me: IdentityEntry, subject: str) -> Wall | None:
    """What the receiver of a published message makes of its author; None where no receiver asks for a grant."""
    kind, *rest = subject.split(".")
    queue = policy.queues.get(rest[0]) if rest else None
    at = _PRODUCER_AT.get(kind)
    if queue is None or at is None or len(rest) < at:
        return None
    producer = rest[at - 1]
    if kind in ("jobs", "delayed", "control"):
        return _from_producer(policy, me, queue, kind, producer, subject)
    if kind == "replay":
        return _from_operator(policy, me, queue, producer)
    return _from_worker(policy, me, queue, kind, producer, subject)


def _from_producer(policy: Policy, me: IdentityEntry, queue: Queue, kind: str, producer: str, subject: str) -> Wall:
    where = f"grants of queue {queue.name}, read by {queue.workers}"
    kinds = senders(policy, queue).get(me.name)
    if kinds is None:
        return Wall(TRUST, where, Verdict.REFUSED, f"none from {me.name} to {queue.workers}: NotAuthorised")
    if producer != me.name:
        verdict = Verdict.PARTLY if producer in ("*", ">") else Verdict.REFUSED
        return Wall(TRUST, where, verdict, f"the subject must name the author, {me.name}: else WrongSubject")
    if kind == "jobs" and _is_concrete(subject) and parse_job(subject) is None:
        return Wall(TRUST, where, Verdict.REFUSED, "no job has this subject: WrongSubject")
    what = f"{_SAID[kind]} of kinds {', '.join(sorted(kinds))} from {me.name} to {queue.workers}"
    return Wall(TRUST, where, Verdict.ALLOWED, what)


def _from_worker(
    policy: Policy, me: IdentityEntry, queue: Queue, kind: str, producer: str, subject: str
) -> Wall | None:
    granted = senders(policy, queue)
    reader = queue.workers if kind == "starts" else "the producer"
    where, what = f"grants of queue {queue.name}, read by {reader}", _SAID.get(kind, kind)
    if me.name != queue.workers:
        return Wall(TRUST, where, Verdict.REFUSED, f"{what} of {queue.workers} alone: NotAuthorised")
    if producer in ("*", ">"):
        said = f"{what} from {me.name} to {', '.join(sorted(granted))}, and to nobody else"
        return Wall(TRUST, where, Verdict.PARTLY, said)
    if producer not in granted:
        return Wall(TRUST, where, Verdict.REFUSED, f"none from {producer} to {me.name}: NotAuthorised")
    if kind == "results" and _is_concrete(subject) and parse_result(subject) is None:
        return Wall(TRUST, where, Verdict.REFUSED, "no result has this subject: WrongSubject")
    kinds = ", ".join(sorted(granted[producer]))
    return Wall(TRUST, where, Verdict.ALLOWED, f"{what} of kinds {kinds} from {me.name} to {producer}")


def _from_operator(policy: Policy, me: IdentityEntry, queue: Queue, producer: str) -> Wall:
    where = f"principals and grants of queue {queue.name}, read by {queue.workers}"
    if (me.role, me.cloud) != (Role.OPERATOR, queue.work):
        return Wall(TRUST, where, Verdict.REFUSED, f"replays by operators of {queue.work} alone: NotAuthorised")
    granted = senders(policy, queue)
    if producer in granted:
        return Wall(TRUST, where, Verdict.ALLOWED, f"replays by {me.name} of what {producer} sent")
    verdict = Verdict.PARTLY if producer in ("*", ">") else Verdict.REFUSED
    return Wall(TRUST, where, verdict, f"replays of what {', '.join(sorted(granted))} sent alone")


def _is_concrete(subject: str) -> bool:
    return not {"*", ">"} & set(subject.split("."))
