"""Reading the records that a handler yields while its job runs: in order, each once, and none that is not signed.

Segments are read by name from the workers' cloud, one after the other; what is told meanwhile only says when to look.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, Generic, Self, TypeVar

import structlog

from bridge import segments, subjects
from bridge.clock import now_ms
from bridge.envelope import Authenticated, Opened, Opener
from bridge.errors import (
    BridgeError,
    ConfigurationError,
    Denied,
    NotConnected,
    OutcomeUnknown,
    PartMissing,
    StreamRestarted,
    TransportError,
    UsageError,
)
from bridge.fence import authenticate_answer
from bridge.identity import Connection
from bridge.job import INLINE_LIMIT, Content, Status, decode
from bridge.segments import HINT, MAX_RUNS, Chain, End, Position
from bridge.transport import Message, Transport
from producers.handle import Handle
from producers.outcome import natural, value_of

T = TypeVar("T")

AHEAD: Final = 16
"""Segments that are asked for at once where there are so many: at most 4 MiB."""
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0
"""Between two looks for the next segment where nobody says that it is there: twice as long each time."""
LOOKUP_TIMEOUT_S: Final = 10.0
STALL_S: Final = 120.0
"""How long no answer may come, over cuts of the link, once the job is done."""
MISSING_TRIES: Final = 5
"""Of three servers, one may not have yet what the others have: how often a segment must be called missing."""
MISSING_PAUSE_S: Final = 0.5

_log = structlog.get_logger(__name__)


class Records(Generic[T]):
    """The records of one job, to be gone through once: ``async for record in records``. Made by `Handle.records`."""

    def __init__(self, source: AsyncGenerator[tuple[Content, Position], None], type_: type[Any] | None) -> None:
        self._source, self._type = source, type_
        self._position: Position | None = None

    @property
    def position(self) -> str:
        """Where the last record was: kept with what was made of it, ``records(after=)`` goes on behind it.

        Empty before the first one.
        """
        return "" if self._position is None else str(self._position)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        content, position = await anext(self._source)
        value: T = decode(content, self._type if self._type is not None else natural(content))
        self._position = position
        return value

    async def aclose(self) -> None:
        """Read no more."""
        await self._source.aclose()


class Reader:
    """Reads the streams of one identity's jobs.

    Args:
        connection: Names the queues' workers, and where they are.
        transport: The producer's local broker.
        opener: Verifies and opens segments.
    """

    def __init__(self, connection: Connection, transport: Transport, opener: Opener) -> None:
        self._connection, self._transport, self._opener = connection, transport, opener

    def records(
        self, handle: Handle[Any], type_: type[Any] | None, after: Position | None, patience: float | None
    ) -> Records[Any]:
        """See `Handle.records`."""
        return Records(self._read(handle, after, patience), type_)

    async def _read(
        self, handle: Handle[Any], after: Position | None, patience: float | None
    ) -> AsyncGenerator[tuple[Content, Position], None]:
        settings = self._connection.queues[handle.key.queue]
        if settings.max_payload <= INLINE_LIMIT:
            raise ConfigurationError(
                f"queue {handle.key.queue!r} takes no records that stream: its max_payload is not above "
                f"{INLINE_LIMIT // 1024}KiB in bridge.yaml"
            )
        reading = _Reading(self, handle, settings.work, settings.workers, after, patience)
        end = await self._transport.subscribe(subjects.event(handle.key), reading.heard)
        unwatch = handle.when_done(reading.news.set)
        try:
            async for found in reading.records():
                yield found
        finally:
            unwatch()
            await end()

    def verify(self, handle: Handle[Any], workers: str, message: Message) -> Authenticated:
        """Check that a message is a segment of a job.

        Raises:
            Refusal: It is not, and why.
        """
        tag = handle.keyed.tag if handle.keyed is not None else None
        digest = bytes.fromhex(handle.token.digest)
        return authenticate_answer(self._opener, message.data, "segment", handle.key, digest, workers, now_ms(), tag)

    def open(self, message: Authenticated) -> Opened:
        """Open a segment."""
        return self._opener.open(message)

    async def look(self, handle: Handle[Any], cloud: str, run: int, number: int) -> Message | None:
        """What stands as a segment.

        Raises:
            TransportError: No answer; the link may be down.
        """
        stream, subject = subjects.parts_stream(handle.key.queue), segments.subject(handle.key, run, number)
        message = await self._transport.lookup(stream, subject, cloud=cloud, timeout=LOOKUP_TIMEOUT_S)
        return message if message is not None and message.data else None  # an empty one says that it was withdrawn


class _Reading:
    """One reader of one stream."""

    def __init__(
        self,
        reader: Reader,
        handle: Handle[Any],
        cloud: str,
        workers: str,
        after: Position | None,
        patience: float | None,
    ) -> None:
        self._reader, self._handle, self._cloud, self._workers = reader, handle, cloud, workers
        self._chain = Chain(1) if after is None else after.chain
        self._given = 0 if after is None else after.given
        self._attached = after is not None
        self._patience = patience
        self._clock = asyncio.get_running_loop().time
        self._ahead, self._pause = 1, FIRST_PAUSE_S
        self._missing, self._silent = 0, math.inf
        self.news = asyncio.Event()

    async def heard(self, message: Message) -> None:
        """Look now, if this says so; whoever says it."""
        if message.data == HINT:
            self.news.set()

    async def records(self) -> AsyncGenerator[tuple[Content, Position], None]:
        """The records, each with where it was."""
        if not self._attached:
            await self._begin()
        give_up = self._gives_up()
        while True:
            self.news.clear()
            ended = self._ended()  # before looking: what is there from then on is all there is
            found = await self._look(ended)
            for message in found or ():
                for each in self._take(message):
                    yield each
            if found:
                give_up, self._pause, self._missing = self._gives_up(), FIRST_PAUSE_S, 0
            elif isinstance(ended, End):
                if found is not None and await self._over(ended):
                    return
            elif await self._restarted(self._chain.run + 1):
                self._start_over(self._chain.run + 1)
            elif ended is None:
                await self._wait(give_up)
            elif found is not None:
                _fail(ended)

    async def _begin(self) -> None:
        """Go to the beginning of the last run that is there."""
        ended = self._ended()
        if isinstance(ended, End):
            self._chain = Chain(ended.run)
            return
        # Where nobody answers, a later run is found by and by.
        self._chain = Chain(max(await segments.last(self._restarted, 1, MAX_RUNS), 1))

    async def _look(self, ended: End | Opened | BridgeError | None) -> list[Message] | None:
        """What follows, as far as it is there; None where nobody answers.

        Raises:
            TransportError: For 2 min since the job was done.
        """
        first, ahead = self._chain.segments, self._ahead
        if isinstance(ended, End) and ended.run == self._chain.run:
            ahead = min(AHEAD, max(ended.segments - first, 0))
        looks = (self._reader.look(self._handle, self._cloud, self._chain.run, first + each) for each in range(ahead))
        found: list[Message] = []
        for answer in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(answer, TransportError) and not isinstance(answer, Denied | NotConnected):
                if found:
                    break
                _log.info("segment_awaited", queue=self._handle.key.queue, error=type(answer).__name__)
                if ended is not None:
                    await self._stall(answer)
                return None
            if isinstance(answer, BaseException):
                raise answer
            self._silent = math.inf
            if answer is None:
                break
            found.append(answer)
        self._ahead = min(2 * self._ahead, AHEAD) if len(found) == ahead else 1
        return found

    def _take(self, message: Message) -> Sequence[tuple[Content, Position]]:
        """The records of the segment that follows, but for those that were given out before."""
        chain, segment = self._chain, self._reader.verify(self._handle, self._workers, message)
        after = chain.follow(segment.core, segment.digest)
        opened = self._reader.open(segment)
        records = chain.contents(segment.core, opened.content)
        taken = []
        for count, record in enumerate(records, chain.records + 1):
            if count > self._given:
                at = Position.of(after if count == after.records else chain, count)
                taken.append((record, at))
        self._chain, self._given = after, max(self._given, after.records)
        return taken

    def _ended(self) -> End | Opened | BridgeError | None:
        """How the stream ends, or why it does not, once the job is done."""
        outcome = self._handle.outcome
        if not isinstance(outcome, Opened) or outcome.status is not Status.SUCCEEDED:
            return outcome
        end = End.read(outcome.content)
        if end is None:
            raise UsageError(f"job {self._handle.id}: its handler returned a value and yielded none; take its result()")
        return end

    async def _over(self, ended: End) -> bool:
        """Whether all was read, of a job that succeeded and of which nothing more was found."""
        if ended.run != self._chain.run:
            self._start_over(ended.run)
            return False
        if self._chain.segments >= ended.segments:
            self._chain.check_end(ended)
            return True
        self._missing += 1
        if self._missing >= MISSING_TRIES:
            raise PartMissing(
                f"{subjects.parts_stream(self._handle.key.queue)}: segment {self._chain.segments} of {ended.segments} "
                f"of job {self._handle.id} is not there: its stream was emptied, or it is past its time"
            )
        await asyncio.sleep(MISSING_PAUSE_S)
        return False

    async def _stall(self, error: TransportError) -> None:
        """Wait a little for whoever does not answer, though all is stored; not for ever."""
        now = self._clock()
        self._silent = min(self._silent, now)
        if now >= self._silent + STALL_S:
            raise error
        await asyncio.sleep(MISSING_PAUSE_S)

    async def _restarted(self, run: int) -> bool:
        """Whether a run has begun, by the word of its worker."""
        try:
            message = await self._reader.look(self._handle, self._cloud, run, 0)
        except (Denied, NotConnected):
            raise
        except TransportError:
            return False
        if message is None:
            return False
        core = self._reader.verify(self._handle, self._workers, message).core
        return (core.run, core.segment) == (run, 0)

    def _start_over(self, run: int) -> None:
        """Go to the beginning of another run.

        Raises:
            StreamRestarted: Records of this one were given out.
        """
        if self._given:
            raise StreamRestarted(
                f"job {self._handle.id}: another attempt has written its records anew; what was read of them is void: "
                "call records() again"
            )
        self._chain, self._ahead = Chain(run), 1

    def _gives_up(self) -> float:
        return self._handle.gives_up if self._patience is None else self._clock() + self._patience

    async def _wait(self, give_up: float) -> None:
        pause = min(self._pause * random.uniform(0.8, 1.2), max(give_up - self._clock(), 0))  # noqa: S311  # spreads load
        try:
            async with asyncio.timeout(pause):
                await self.news.wait()
            self._pause = FIRST_PAUSE_S
        except TimeoutError:
            self._pause = min(self._pause * 2, LONGEST_PAUSE_S)
            if self._clock() >= give_up:
                await self._handle.look()
                if not self._handle.done():
                    raise OutcomeUnknown(
                        f"job {self._handle.id} on {self._handle.key.queue}: no record, and no result, in time; it may "
                        "still run; read on after `position`, or attach its token later"
                    ) from None


def _fail(ended: Opened | BridgeError) -> None:
    """Raise what became of a job instead of its last record."""
    if isinstance(ended, BridgeError):
        raise ended.__class__(*ended.args) from ended
    value_of(ended, None)
