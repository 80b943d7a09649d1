"""Dead letters as an operator has them: listed a few at a time, ordered to run again, or dropped.

What a letter's headers say is the worker's word and nobody's proof; before a job is ordered to run again, its envelope
is verified, as the worker will verify it once more.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from bridge import replay, subjects
from bridge.clock import now_ms
from bridge.core import MAX_LIFETIME_MS, Core
from bridge.envelope import Authenticated, Draft, Opener, Sealer
from bridge.errors import ConfigurationError, SubjectTaken, TransportError, UsageError, WrongSubject
from bridge.identity import Connection, Identity, QueueSettings
from bridge.job import Content, JobToken
from bridge.policy import Role
from bridge.replay import HISTORY_HEADER, REPLAYED_HEADER
from bridge.subjects import JobKey
from bridge.transport import Message, Transport
from bridge.trust import Trust

PAGE: Final = 16
"""Letters that are asked for at once, each with its job."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter. All but key, sequence and bytes is what its headers say."""

    queue: str
    sequence: int
    key: JobKey
    stored: int
    """When, in milliseconds UTC, by the server's clock; 0 where it does not say."""
    kind: str
    cause: str
    attempt: str
    """The last one, a number where the worker wrote one."""
    deadline: str
    digest: str
    history: str
    """Generation, cause and attempt of each time it died before."""
    data: bytes = field(repr=False)
    """The producer's envelope, not verified."""

    @property
    def name(self) -> str:
        """``<queue>/<sequence>``: what a command takes."""
        return f"{self.queue}/{self.sequence}"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; None is any."""

    kind: str | None = None
    producer: str | None = None
    cause: str | None = None
    since: int = 0
    """The earliest time, in milliseconds UTC."""

    def __contains__(self, letter: Letter) -> bool:
        return (
            self.kind in (None, letter.kind)
            and self.producer in (None, letter.key.producer)
            and self.cause in (None, letter.cause)
            and self.since <= letter.stored
        )


ALL: Final = Filter()


class DeadLetters:
    """The dead letters of the queues that are worked in one cloud.

    Args:
        identity: An operator of that cloud; an inspector may list, too.
        trust: What verifies the jobs.
        connection: Names the queues.
        transport: A connection to the cloud's broker.
    """

    def __init__(self, identity: Identity, trust: Trust, connection: Connection, transport: Transport) -> None:
        self._me = identity.name
        self._role = connection.role
        self._trust = trust
        self._transport = transport
        self._opener = Opener(identity, trust)
        self._sealer = Sealer(identity)
        self.queues: Final = {name: q for name, q in connection.queues.items() if q.work == connection.cloud}
        """Their settings, by name."""

    def settings(self, queue: str) -> QueueSettings:
        """The settings of a queue.

        Raises:
            ConfigurationError: It is not worked in this cloud.
        """
        if queue not in self.queues:
            known = ", ".join(sorted(self.queues)) or "none"
            raise ConfigurationError(f"no dead letters of queue {queue!r} are kept in this cloud; of {known} they are")
        return self.queues[queue]

    async def search(self, queue: str, wanted: Filter = ALL, after: int = 0) -> AsyncIterator[Letter]:
        """The letters of a queue, oldest first, asked for some at a time, as they are needed.

        Args:
            queue: The queue.
            wanted: Which of them.
            after: The sequence after which to begin.

        Raises:
            TransportError: The server does not answer.
        """
        self.settings(queue)
        if wanted.producer is not None and not subjects.is_name(wanted.producer):
            raise UsageError(f"{wanted.producer[:40]!r} cannot name a producer")
        pattern = subjects.any_dead(queue, wanted.producer or "*")
        while page := await self._page(queue, pattern, after):
            after = page[-1][0]
            for _, letter in page:
                if letter is not None and letter in wanted:
                    yield letter

    async def get(self, queue: str, sequence: int) -> Letter:
        """The letter of a sequence.

        Raises:
            UsageError: There is none.
        """
        self.settings(queue)
        page = await self._page(queue, subjects.any_dead(queue), sequence - 1, most=1)
        letter = page[0][1] if page and page[0][0] == sequence else None
        if letter is None:
            raise UsageError(f"{queue}/{sequence}: no such dead letter; see `bunny dead ls {queue}`")
        return letter

    async def of_job(self, token: JobToken) -> Letter:
        """The newest letter of a job.

        Raises:
            UsageError: It has none.
        """
        self.settings(token.queue)
        after, newest = 0, None
        while page := await self._page(token.queue, subjects.dead_of_job(token.key), after):
            after = page[-1][0]
            newest = max(filter(None, [newest, *(letter for _, letter in page)]), key=_generation, default=None)
        if newest is None:
            raise UsageError(f"job {token.key.job_id} on {token.queue}: it has no dead letter")
        return newest

    def verify(self, letter: Letter) -> Authenticated:
        """Check the producer's envelope, but for its times.

        Raises:
            Refusal: It would not be run again, and why.
            BundleExpired: Nothing can be said about it.
        """
        job = self._opener.authenticate(letter.data, now_ms())
        if job.core.type != "job" or job.core.key._replace(generation=letter.key.generation) != letter.key:
            raise WrongSubject("what lies here is not the job that its subject names")
        return job

    async def replay(self, letter: Letter, lifetime_ms: int | None = None) -> JobToken:
        """Order a job to run again, as its next generation.

        Args:
            letter: Its newest letter, which stays until the replay is answered.
            lifetime_ms: How long it may take until it runs, instead of the queue's deadline.

        Returns:
            The token by which its producer finds the result.

        Raises:
            UsageError: It is ordered already, or was answered since.
            Refusal: It does not verify, or this identity may not order it.
            TransportError: The order is not known to be stored.
        """
        self._must_operate()
        settings, job, now = self.settings(letter.queue), self.verify(letter), now_ms()
        self._trust.check(now)
        key = letter.key._replace(generation=letter.key.generation + 1)
        about = f"job {key.job_id} on {key.queue}"
        lifetime = settings.deadline_ms if lifetime_ms is None else lifetime_ms
        # Beyond the results' lifetime the fence would be gone before the order is.
        if not 0 < lifetime < min(settings.result_ttl_ms, MAX_LIFETIME_MS):
            raise UsageError(f"a deadline of {lifetime / 1000:g} s; it must be above 0 and below the result_ttl")
        if await self._transport.lookup(subjects.results_stream(key.queue), subjects.result(key)) is not None:
            raise UsageError(f"{about}: generation {key.generation} is answered already; nothing is left to replay")
        core = Core(
            type="replay",
            queue=key.queue,
            kind=job.core.kind,
            job=key.job_id,
            generation=key.generation,
            sender=self._me,
            sender_kid=b"",
            recipient=settings.workers,
            issued=now,
            expires=now + lifetime,
            job_digest=job.digest,
            producer=key.producer,
        )
        self._trust.authorise("replay", key.queue, core.kind, self._me, core.recipient, core.producer)
        recipients = (self._trust.peer(settings.workers).kem_key(now),)
        order = self._sealer.seal(Draft(core, recipients, Content("application/json", b"null")), now)
        headers = {
            **job.core.hints(),
            "Bunny-Digest": job.digest.hex(),
            HISTORY_HEADER: replay.history(letter.history, letter.key.generation, letter.cause, letter.attempt),
        }
        data, stream = replay.pack(order.data, letter.data), subjects.replay_stream(key.queue)
        try:
            await self._transport.publish(stream, subjects.replay(key), data, headers)
        except SubjectTaken:
            raise UsageError(f"{about}: generation {key.generation} is ordered already, and waits or runs") from None
        return JobToken(*key, job.digest.hex())

    async def drop(self, letter: Letter) -> None:
        """Remove a letter for good.

        Raises:
            UsageError: It is gone already, or a newer one has taken its place.
            TransportError: The server does not answer, or does not let this identity.
        """
        self._must_operate()
        if not await self._transport.remove(subjects.dead_stream(letter.queue), letter.sequence):
            raise UsageError(f"{letter.name}: it is gone already; look again with `bunny dead ls {letter.queue}`")

    def _must_operate(self) -> None:
        if self._role != Role.OPERATOR:
            raise ConfigurationError(f"{self._me} has role {self._role}; only an operator replays and drops")

    async def _page(self, queue: str, pattern: str, after: int, most: int = PAGE) -> list[tuple[int, Letter | None]]:
        """Some messages after a sequence, with theirs."""
        messages = await self._transport.read(subjects.dead_stream(queue), pattern, first=after + 1, most=most)
        page = []
        for message in messages:
            sequence = subjects.parse_decimal(message.headers.get("Nats-Sequence", ""))
            if sequence is None or sequence <= after:
                raise TransportError(
                    f"{subjects.dead_stream(queue)}: a direct get answered with what was not asked for"
                )
            after = sequence
            page.append((sequence, _letter(queue, sequence, message)))
        return page


def _generation(letter: Letter) -> int:
    return letter.key.generation


def _letter(queue: str, sequence: int, message: Message) -> Letter | None:
    """None for what has taken the place of a letter that has served, or was never one."""
    key, headers = subjects.parse_dead(message.subject), message.headers
    if key is None or REPLAYED_HEADER in headers or not message.data:
        return None
    return Letter(
        queue,
        sequence,
        key,
        stored=stored_ms(headers),
        kind=headers.get("Bunny-Kind", ""),
        cause=headers.get("Bunny-Cause", ""),
        attempt=headers.get("Bunny-Attempt", ""),
        deadline=headers.get("Bunny-Deadline", ""),
        digest=headers.get("Bunny-Digest", ""),
        history=headers.get(HISTORY_HEADER, ""),
        data=message.data,
    )


def stored_ms(headers: Mapping[str, str]) -> int:
    """When a server that was asked for a message stored it, in milliseconds UTC; 0 where it does not say."""
    text = headers.get("Nats-Time-Stamp", "")  # RFC 3339 with up to nine decimals, of which Python takes six
    try:
        return round(datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0
