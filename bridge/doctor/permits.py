"""The permissions check: what the policy grants is tried, in ways that store nothing and take no job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridge import subjects
from bridge.doctor.catalogue import Check
from bridge.doctor.finding import Findings
from bridge.doctor.patients import Patient
from bridge.doctor.session import Question, Reply, Session
from bridge.doctor.site import policy_of
from bridge.policy import Policy, Role
from bridge.render.permissions import ACCOUNT_REQUESTS, SERVER_REQUESTS, permissions

_READ_ONLY: Final = ("INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.INFO", "CONSUMER.NAMES", "CONSUMER.LIST")
_TELLING: Final = ("PING", *SERVER_REQUESTS, *ACCOUNT_REQUESTS)
"""Questions to the servers; what acts on them has other names."""

_STORED: Final = ("jobs.", "delayed.", "results.", "starts.", "dead.", "refused.", "replay.")
"""Subjects to which nothing but a stream listens: what the stream refuses, nobody hears."""

NOT_A_STREAM: Final = {"Nats-Expected-Stream": "DOCTOR"}
"""JetStream refuses a message that expects another stream (10060), after permissions and before it stores anything."""

_BAD_PULL: Final = b'{"batch":1,"expires":1000000000,"idle_heartbeat":1000000000}'
"""A pull that the consumer itself refuses (400): its heartbeat may be at most half of ``expires``."""

_BAD_JSON: Final = b"{"
"""Creates and updates nothing (10025)."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of everything that was tried as one identity."""

    questions: Sequence[Question]
    replies: Sequence[Reply]

    def unanswered(self) -> list[str]:
        """Subjects that are permitted and that nobody serves."""
        pairs = zip(self.questions, self.replies, strict=True)
        return [question.subject for question, reply in pairs if question.answered and reply.nobody]


async def try_permissions(found: Findings, patient: Patient, session: Session, policy: Policy | None) -> Tried:
    """Try every subject that is granted.

    Raises:
        TransportError: The connection broke.
    """
    known = policy if policy is not None and patient.name in policy.identities else policy_of(patient.connection)
    granted = permissions(known, known.identities[patient.name])
    questions = [question for subject in granted.publish if (question := _harmless(subject)) is not None]
    refused = await session.refused_subscriptions(list(granted.subscribe))
    replies = await session.ask(questions, session.timeout / 4)
    refused += [question.subject for question, reply in zip(questions, replies, strict=True) if reply.denied]
    total, untried = len(questions) + len(granted.subscribe), len(granted.publish) - len(questions)
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        found.trap("missing-permission", patient.name, f"{len(refused)} of {total} are refused: {refused[0]}{more}")
    else:
        rest = f"; {untried} more have no harmless try" if untried else ""
        found.ok(Check.PERMISSIONS, patient.name, f"all {total} subjects that were tried are permitted{rest}")
    return Tried(questions, replies)


def _harmless(granted: str) -> Question | None:
    """A message on a granted subject that changes nothing whatever comes of it; None if there is no such."""
    subject = granted.replace("*", "0").replace(">", "0")
    if subject.startswith(_STORED):
        return Question(subject, headers=NOT_A_STREAM)
    if subject.startswith("$JS.ACK."):
        # "In progress" for a delivery that never was: no reply, and nothing to extend.
        return Question(subject, b"+WPI", answered=False)
    head, _, call = subject.partition(".API.")
    if subject.startswith("$SYS.REQ."):
        return Question(subject, answered=False) if subject.rpartition(".")[2] in _TELLING else None
    if head != "$JS" and not head.startswith("$JS."):
        return None
    if call.startswith("CONSUMER.MSG.NEXT."):
        return Question(subject, _BAD_PULL)
    if call.startswith("DIRECT.GET."):
        return Question(subject)
    if call.startswith(("STREAM.CREATE.", "STREAM.UPDATE.", "CONSUMER.CREATE.", "CONSUMER.DURABLE.CREATE.")):
        return Question(subject, _BAD_JSON, answered=False)
    return Question(subject, answered=False) if call.startswith(_READ_ONLY) else None


def judge_unanswered(found: Findings, patient: Patient, tried: Tried) -> None:
    """What a service can tell of link and streams: a stream answers the bad message, a far consumer the bad pull."""
    if patient.connection.role != Role.SERVICE:
        return
    silent = set(tried.unanswered())
    asked = [question.subject for question in tried.questions]
    pulls = [each for each in asked if ".MSG.NEXT." in each and not each.startswith("$JS.API.")]
    lost = [each for each in pulls if each in silent]
    for cloud in sorted({_cloud(each) for each in lost}):
        names = ", ".join("/".join(each.split(".")[-2:]) for each in lost if _cloud(each) == cloud)
        found.trap("link-unanswered", patient.name, f"{cloud} does not answer for {names}")
    if pulls and not lost:
        found.ok(Check.LINK, patient.name, f"consumers in the other cloud that answer: {len(pulls)}")
    elif not pulls:
        found.not_run(Check.LINK, patient.name, "asks nothing of the other cloud; an inspector or monitor can see it")
    stored, here = [each for each in asked if each.startswith(_STORED)], patient.connection.cloud
    missing = sorted({_stream(subject) for subject in stored if subject in silent})
    for stream in missing:
        found.trap("missing-stream", patient.name, f"{stream} takes no messages in {here}")
    if stored and not missing:
        found.ok(
            Check.STREAMS, patient.name, f"streams that it writes and that are there: {len(set(map(_stream, stored)))}"
        )


def _cloud(subject: str) -> str:
    return subject.split(".")[1]


def _stream(subject: str) -> str:
    kind, queue = subject.split(".")[:2]
    streams = {
        "jobs": subjects.jobs_stream,
        "delayed": subjects.delayed_stream,
        "replay": subjects.replay_stream,
        "results": subjects.results_stream,
        "starts": subjects.starts_stream,
        "dead": subjects.dead_stream,
        "refused": subjects.refused_stream,
    }
    return streams[kind](queue)
