"""Records that a handler yields: sealed, signed and stored segment by segment while it runs.

One segment is being stored while the next fills, so a handler is at most that far ahead of what stands; a segment is
sent once the one before it is known to stand. So what stands is always a whole beginning, on which a later attempt
may build. A reader that is slow, or away, holds nothing up: the segments lie in the workers' own cloud.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import structlog

from bridge import segments, subjects
from bridge.clock import now_ms
from bridge.envelope import Draft, Opener, Sealed, Sealer
from bridge.errors import (
    Denied,
    InvalidArguments,
    NotConnected,
    PayloadTooLarge,
    QueueFull,
    Refusal,
    SubjectChanged,
    TransportError,
    TrustError,
)
from bridge.fence import authenticate_answer
from bridge.job import Content, encode
from bridge.segments import MAX_BYTES, MAX_RECORD, MAX_RECORDS, MAX_RUNS, Chain, End
from bridge.signals import metrics
from bridge.signals.meter import Meter
from bridge.signals.metrics import Metric
from bridge.transport import Message, Transport
from consumers.case import Case
from consumers.payloads import TROUBLE_DELAY_S, Hindered
from consumers.verdict import Done, Reject, Snooze
from consumers.written import Written

FLUSH_S: Final = 0.1
"""How long a record waits for others to share its segment."""
PUBLISH_TIMEOUT_S: Final = 10.0
"""How long one PubAck is waited for before the same segment is sent again."""
STALL_S: Final = 120.0
"""How long the local server may keep a segment waiting: the restart of a broker takes less."""
PAUSE_S: Final = 0.5
FULL_PAUSE_S: Final = 5.0
"""Between two tries to store a segment where the queue has no room for it (``payload_bytes``)."""
LAST_WORDS_S: Final = 5.0
"""How long what was yielded before a handler failed is tried to be stored."""
MAX_SEGMENTS: Final = 2**31

_log = structlog.get_logger(__name__)


class Streams:
    """Runs handlers that yield, as one member of a pool.

    Args:
        opener: Holds the trust bundle: whom segments are sealed to.
        sealer: Seals and signs them.
        transport: The workers' local broker.
        worker: The name of this process, for people.
        meter: Counts what is stored.
    """

    def __init__(self, opener: Opener, sealer: Sealer, transport: Transport, worker: str, meter: Meter) -> None:
        self._opener, self._sealer, self._worker = opener, sealer, worker
        self.transport, self.meter = transport, meter

    async def run(self, case: Case, written: Written, begin: Callable[[], AsyncGenerator[Any, None]]) -> Done:
        """Run a handler to its end, and have all that it yields stored.

        Args:
            case: The attempt.
            written: What the handler learns of earlier ones, and decides.
            begin: Calls it.

        Raises:
            Hindered: What it yields cannot be written, or not be stored.
        """
        with _hindering(case):
            standing, following = await self._standing(case)
        written.count = standing.records
        async with _Writer(self, case, written, standing, following) as writer:
            async with contextlib.aclosing(begin()) as records:
                await writer.take(records)
            with _hindering(case):
                return Done(End.of(await writer.finish()).content())

    def seal(self, case: Case, chain: Chain, content_type: str, records: list[bytes]) -> Sealed:
        """The segment that follows a chain.

        Raises:
            Refusal: The bundle has no valid key of the producer.
        """
        now = now_ms()
        answer = case.answer("segment", case.attempt, self._worker, now, None, case.core.args_tag)
        recipients = (self._opener.trust.peer(case.core.sender).kem_key(now),)
        content = Content(content_type, segments.pack(records))
        core = chain.core(answer, list(map(len, records)))
        return self._sealer.seal(Draft(core, recipients, content, packing=case.settings.packing), now)

    async def look(self, case: Case, run: int, number: int) -> Message | None:
        """What stands as a segment.

        Raises:
            TransportError: The local broker does not answer.
        """
        stream = subjects.parts_stream(case.queue)
        message = await self.transport.lookup(stream, segments.subject(case.key, run, number))
        return message if message is not None and message.data else None  # an empty one says that it was withdrawn

    async def _standing(self, case: Case) -> tuple[Chain, int]:
        """How far the last run stands, and the number of the next one."""

        async def there(run: int, number: int) -> bool:
            return await self.look(case, run, number) is not None

        run = await segments.last(lambda run: there(run, 0), 1, MAX_RUNS)
        if run == MAX_RUNS:
            raise Hindered(Reject(f"its stream began {MAX_RUNS} times", type="AttemptsExhausted"), "AttemptsExhausted")
        number = await segments.last(lambda number: there(run, number), 1, MAX_SEGMENTS) if run else 0
        message = await self.look(case, run, number) if run else None
        if message is None:
            return Chain(0), run + 1
        try:
            last = authenticate_answer(
                self._opener,
                message.data,
                "segment",
                case.key,
                case.job.digest,
                case.settings.workers,
                now_ms(),
                case.tag,
            )
        except Refusal as refusal:  # somebody's rubbish: nothing can follow it
            _log.error("segment_refused", queue=case.queue, job=case.core.job, refusal=refusal.name)
            return Chain(0), run + 1
        return Chain.at(last.core, last.digest), run + 1


class _Writer:
    """The stream of one attempt: a segment that fills, and a task that stores the one before it."""

    def __init__(self, streams: Streams, case: Case, written: Written, standing: Chain, following: int) -> None:
        self._streams, self._case, self._written = streams, case, written
        self._standing, self._following = standing, following
        self._chain: Chain | None = None
        self._size = 0
        """Bytes of all records of the run, those not yet stored among them."""
        self._records: list[bytes] = []
        self._room, self._content_type = MAX_BYTES, ""
        self._due = math.inf
        self._storing = False
        self._full = False
        self._error: Exception | None = None
        self._filled, self._moved = asyncio.Event(), asyncio.Event()
        self._clock = asyncio.get_running_loop().time

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._store_all(), name="records")
        return self

    async def __aexit__(
        self, type_: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def take(self, records: AsyncGenerator[Any, None]) -> None:
        """Take all that a handler yields; what it had yielded when it failed stands for the next attempt."""
        try:
            async for value in records:
                with _hindering(self._case):
                    await self._add(encode(value))
        except Hindered:
            raise
        except Exception:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._flush()
            raise

    async def finish(self) -> Chain:
        """Wait until all stands.

        Raises:
            TransportError, Refusal: It could not be stored.
        """
        await self._flush()
        return self._begun()

    # --- filling -----------------------------------------------------------------------------------

    async def _add(self, content: Content) -> None:
        size, limit = len(content.body), self._case.settings.max_payload
        if size > MAX_RECORD:
            raise PayloadTooLarge(f"a record of {size} bytes; one takes {MAX_RECORD} (MAX_RECORD): yield it in pieces")
        self._begun()
        self._size += size
        if self._size > limit:
            raise PayloadTooLarge(
                f"records of more than {limit} bytes; queue {self._case.queue} takes {limit} (max_payload)"
            )
        await self._until(lambda: self._fits(content))
        if not self._records:
            self._content_type, self._due = content.content_type, self._clock() + FLUSH_S
        self._records.append(content.body)
        self._room -= size + 4
        self._filled.set()

    def _begun(self) -> Chain:
        if self._chain is None:
            self._written.begun = True
            goes_on = self._written.resumed and self._standing.run > 0
            self._chain = self._standing if goes_on else Chain(self._following)
            if not goes_on and self._following > 1:
                self._count(metrics.RESTARTS)
            self._size = self._chain.size
        return self._chain

    def _fits(self, content: Content) -> bool:
        if not self._records:
            return True
        alike = content.content_type == self._content_type and len(self._records) < MAX_RECORDS
        if alike and len(content.body) + 4 <= self._room:
            return True
        self._hurry()
        return False

    def _hurry(self) -> None:
        self._due = -math.inf
        self._filled.set()

    async def _flush(self) -> None:
        self._hurry()
        await self._until(lambda: not self._records and not self._storing)

    async def _until(self, done: Callable[[], bool]) -> None:
        """Wait for the task that stores; where that waits for room, without a slot."""
        left = False
        while self._error is not None or not done():
            if self._error is not None:
                raise self._error
            if self._full and not left:
                left = True
                await self._case.place.leave()
                continue
            self._moved.clear()
            await self._moved.wait()
        if left:
            await self._case.place.back()

    # --- storing -----------------------------------------------------------------------------------

    async def _store_all(self) -> None:
        try:
            while True:
                await self._ripe()
                records, self._records = self._records, []
                self._room, self._storing = MAX_BYTES, True
                self._moved.set()
                await self._store(records, self._content_type)
                self._storing = False
                self._moved.set()
        except Exception as error:  # told to the handler's own task
            self._error = error
            self._moved.set()

    async def _ripe(self) -> None:
        while not self._records or self._clock() < self._due:
            self._filled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._due if self._records else None):
                    await self._filled.wait()

    async def _store(self, records: list[bytes], content_type: str) -> None:
        case, chain = self._case, self._begun()
        sealed = self._streams.seal(case, chain, content_type, records)
        await self._publish(chain, sealed.data)
        self._count(metrics.RECORDS, len(records))
        self._count(metrics.SEGMENTS)
        self._count(metrics.SEGMENT_BYTES, len(sealed.data))
        self._chain = chain.follow(sealed.core, sealed.digest)
        with contextlib.suppress(TransportError):  # whoever reads looks now and then, told or not
            await self._streams.transport.tell(subjects.event(case.key), segments.HINT)

    async def _publish(self, chain: Chain, data: bytes) -> None:
        """Have a segment stand; the first one of its place does."""
        case, transport = self._case, self._streams.transport
        stream, place = subjects.parts_stream(case.queue), segments.subject(case.key, chain.run, chain.segments)
        give_up = self._clock() + STALL_S
        while True:
            pause = PAUSE_S
            try:
                await transport.publish(stream, place, data, case.hints(), expected=0, timeout=PUBLISH_TIMEOUT_S)
            except SubjectChanged:
                standing = await self._streams.look(case, chain.run, chain.segments)
                if standing is None or standing.data != data:
                    raise  # another attempt writes: this one has lost its job
                break  # stored by a try whose PubAck got lost
            except QueueFull:
                _log.warning("records_wait_for_room", stream=stream, queue=case.queue, job=case.core.job)
                self._full = True
                self._moved.set()
                pause, give_up = FULL_PAUSE_S, self._clock() + STALL_S
            except (Denied, NotConnected):
                raise
            except TransportError:
                if self._clock() >= give_up:
                    raise
            else:
                break
            await asyncio.sleep(pause)
        self._full = False

    def _count(self, metric: Metric, by: int = 1) -> None:
        self._streams.meter.count(metric, self._case.queue, self._case.core.kind, by=by)


@contextlib.contextmanager
def _hindering(case: Case) -> Iterator[None]:
    """What stands in the way of a stream, and is not of the handler's own making."""
    try:
        yield
    except (PayloadTooLarge, InvalidArguments) as error:
        name = "PayloadTooLarge" if isinstance(error, PayloadTooLarge) else "InvalidResult"
        raise Hindered(Reject(str(error), type=name), name) from None
    except (TransportError, Refusal, TrustError) as error:
        _log.warning("records_not_stored", queue=case.queue, job=case.core.job, error=type(error).__name__)
        raise Hindered(Snooze(TROUBLE_DELAY_S), type(error).__name__) from None
