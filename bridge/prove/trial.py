"""One identity at its server: everything that it might do is tried, in ways that change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeVar

from bridge.doctor.session import Reply, Session
from bridge.errors import TransportError
from bridge.explain import Ground
from bridge.policy import IdentityEntry
from bridge.prove.acts import Expectation, expectations, of_headers
from bridge.prove.harmless import SPECIAL, answered, unheard

T = TypeVar("T")

BATCH: Final = 256
"""Acts that are sent before their refusals are read: some 30 KB each way, which no socket holds up."""

_NO_JETSTREAM: Final = b'"err_code":10039'
"""What an account answers that has not been given the call: it got no further than there."""


class Found(StrEnum):
    """What came of an act."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    UNANSWERED = "unanswered"
    """The permissions let it through, and nobody is there: an import, an export, the link or a stream is missing."""
    NOT_RUN = "not run"
    """What it takes is not at hand, which is no pass."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An act, what was expected of it, and what came of it."""

    expected: Expectation
    found: Found

    @property
    def equal(self) -> bool:
        """Whether it is what the policy says."""
        return self.found is (Found.ALLOWED if self.expected.allowed else Found.REFUSED)


async def trial(session: Session, ground: Ground, me: IdentityEntry) -> list[Outcome]:
    """Try everything as one identity.

    Raises:
        TransportError: The connection broke, or its server is none whose refusals can be told apart.
    """
    tried = expectations(ground, me)
    said = [each for each in tried if each.act.way == "publish"]
    heard = [each for each in tried if each.act.way == "subscribe"]
    await _be_sure(session, said)
    passed: list[bool] = []
    for batch in _batches(said):
        passed += await session.permitted([unheard(each.act.subject) for each in batch])
    refused: set[str] = set()
    for batch in _batches(heard):
        refused |= set(await session.refused_subscriptions([each.act.subject for each in batch]))
    found = [Found.ALLOWED if passes else Found.REFUSED for passes in passed]
    found = await _reached(session, said, found)
    return [
        *(Outcome(each, what) for each, what in zip(said, found, strict=True)),
        *(Outcome(each, Found.REFUSED if each.act.subject in refused else Found.ALLOWED) for each in heard),
        *await _headers(session, of_headers(ground, me, tried)),
    ]


async def _be_sure(session: Session, said: Sequence[Expectation]) -> None:
    """Before anything that is to be refused: see, on what is allowed, that the server delivers nothing of it."""
    for each in said:
        if each.allowed and answered(each.act.subject) and (await session.permitted([unheard(each.act.subject)]))[0]:
            return
    raise TransportError(f"{session.name}: nothing that it may publish is let through, so nothing more is tried")


async def _reached(session: Session, said: Sequence[Expectation], found: Sequence[Found]) -> list[Found]:
    """What is allowed and was let through must also get to whoever answers, in this cloud or behind the link."""
    after = list(found)
    asked = [
        (index, question)
        for index, each in enumerate(said)
        if each.allowed and found[index] is Found.ALLOWED and (question := answered(each.act.subject)) is not None
    ]
    for batch in _batches(asked):
        replies = await session.ask([question for _, question in batch], session.timeout)
        for (index, _), reply in zip(batch, replies, strict=True):
            if reply.nobody or _NO_JETSTREAM in (reply.data or b"").replace(b" ", b""):
                after[index] = Found.UNANSWERED
    return after


async def _headers(session: Session, wanted: Sequence[Expectation]) -> list[Outcome]:
    questions = [replace(unheard(each.act.subject), headers=SPECIAL[each.act.what].headers) for each in wanted]
    replies = await session.ask(questions, session.timeout) if questions else []
    return [Outcome(each, _taken(each, reply)) for each, reply in zip(wanted, replies, strict=True)]


def _taken(wanted: Expectation, reply: Reply) -> Found:
    if reply.denied or reply.nobody or reply.data is None:
        return Found.UNANSWERED
    refused = SPECIAL[wanted.act.what].refused
    return Found.REFUSED if refused in reply.data.decode(errors="replace") else Found.ALLOWED


def _batches(whole: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(whole), BATCH):
        yield whole[at : at + BATCH]
