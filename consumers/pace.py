"""The rate of a queue: when its next jobs may start, agreed on by all its workers.

One message in the workers' cloud says from when on nothing is taken yet, by the server's clock. A worker takes the next
times by writing a later one over what it read; of those that try at once the server takes one. Clocks of workers do not
count: each measures how far its own is from the server's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import structlog

from bridge import subjects
from bridge.errors import SubjectChanged, TransportError
from bridge.identity import QueueSettings
from bridge.transport import Transport
from consumers.case import Place
from consumers.permits import sequence_of
from consumers.slots import Slots

AHEAD_S: Final = 0.5
"""How far ahead times are taken: less, and those who ask together get in each other's way; more, and a worker that
ends leaves more of them unused."""
SHARE_S: Final = 0.25
"""For how long a worker takes times at once, so that one that starts meanwhile has its share soon."""
LATE_S: Final = 0.25
"""A time that has passed for longer is not used: jobs that had to wait would start all at once."""
SLACK_S: Final = 5.0
"""What is further ahead than can be, by this much, is not believed: the server's clock was set back."""
RETRY_S: Final = 0.02
"""After another worker was first."""
LONGEST_PAUSE_S: Final = 1.0
"""While the server does not answer."""
LONGEST_WAIT_S: Final = 10.0
"""Between two looks at a time that is far ahead."""
MEASURE_S: Final = 60.0
"""How often a worker compares its clock with the server's."""
QUICK_S: Final = 0.25
"""A comparison that took longer says too little, if there is a better one."""

_MICRO: Final = 1_000_000
_log = structlog.get_logger(__name__)


class ServerClock:
    """The time as the server that stores a queue's slots has it.

    Args:
        queue: The queue.
        transport: The workers' local broker.
    """

    def __init__(self, queue: str, transport: Transport) -> None:
        self._queue, self._transport = queue, transport
        self._offset: float | None = None
        self._measured = float("-inf")

    async def now(self) -> float:
        """Seconds since 1970.

        Raises:
            TransportError: The server does not answer, and never did.
        """
        if time.monotonic() > self._measured + MEASURE_S:
            try:
                await self._measure()
            except TransportError:
                if self._offset is None:
                    raise
        assert self._offset is not None  # noqa: S101  # for the type checker: measuring sets it or raises
        return time.monotonic() + self._offset

    def here(self, moment: float) -> float:
        """A time of the server's by `time.monotonic`."""
        return moment - (self._offset or 0.0)

    async def _measure(self) -> None:
        stream = subjects.slots_stream(self._queue)
        subject = subjects.server_clock(self._queue, secrets.token_hex(12))
        begun = time.monotonic()
        await self._transport.publish(stream, subject, b"", {"Nats-TTL": "1s"}, timeout=5.0)
        ended = time.monotonic()
        if ended - begun > QUICK_S and self._offset is not None:
            return
        found = await self._transport.lookup(stream, subject)
        try:
            stored = datetime.fromisoformat(found.headers["Nats-Time-Stamp"] if found is not None else "")
        except (KeyError, ValueError):
            raise TransportError(f"{stream}: what was stored a moment ago is not found") from None
        self._offset, self._measured = stored.timestamp() - (begun + ended) / 2, ended


class Pace:
    """The rate, as the jobs of one worker process keep to it: one after the other, by weight.

    Args:
        queue: The queue.
        settings: Its rate.
        transport: The workers' local broker.
    """

    def __init__(self, queue: str, settings: QueueSettings, transport: Transport) -> None:
        self._stream, self._subject = subjects.slots_stream(queue), subjects.rate(queue)
        self._transport = transport
        self._clock = ServerClock(queue, transport)
        self._interval = settings.rate_per_ms / 1000 / (settings.rate_jobs or 1)
        self._burst = settings.rate_burst
        self._first = Slots(1)
        """Of those who wait, one looks for its time."""
        self._head: asyncio.Task[Any] | None = None
        self._news = asyncio.Event()
        self._known: tuple[int, float] | None = None
        """Sequence, and from when on nothing is taken, as far as is known here."""
        self._taken: deque[float] = deque()
        """Times that are this process's, in order, by `time.monotonic`."""

    async def take(self, place: Place, stopped: Callable[[], bool]) -> bool:
        """Wait until one more may start, and for its slot in this process; False where the task was excused.

        Args:
            place: Where it waits.
            stopped: Whether it has been excused; it may be so before it waits.
        """
        if self._first.full:
            await place.leave()
        if not await self._first.take(place.lane, place.weight):
            return False
        self._head = asyncio.current_task()
        try:
            while not stopped():
                # With the slot, so that no time passes unused for want of one.
                if not await place.back():
                    break
                try:
                    at, pause = await self._next()
                except TransportError as error:
                    at, pause = None, LONGEST_PAUSE_S
                    _log.warning("limit_unknown", stream=self._stream, error=type(error).__name__, reason=str(error))
                if at is not None:
                    await asyncio.sleep(at - time.monotonic())
                    return True
                if pause > RETRY_S:
                    await place.leave()
                    if stopped():  # who is not waiting is not told
                        break
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), pause)
            return False
        finally:
            self._head = None
            self._first.give()

    def excuse(self, task: asyncio.Task[Any]) -> None:
        """Let a task that waits go on without its time."""
        if task is self._head:
            self._news.set()
        self._first.excuse(task)

    async def _next(self) -> tuple[float | None, float]:
        """When the next one starts, by `time.monotonic`; or None, and after how many seconds to ask again."""
        while self._taken and self._taken[0] < time.monotonic() - LATE_S:
            self._taken.popleft()
        if self._taken:
            return self._taken.popleft(), 0.0
        if self._known is None:
            found = await self._transport.lookup(self._stream, self._subject)
            taken = subjects.parse_decimal(found.data.decode("ascii", "replace")) if found is not None else None
            self._known = (sequence_of(found) if found is not None else 0, (taken or 0) / _MICRO)
        now = await self._clock.now()
        sequence, free = self._known
        if free > now + AHEAD_S + SHARE_S + self._interval * (self._burst + 1) + SLACK_S:
            free = now
        begin = max(free, now - (self._burst - 1) * self._interval)
        if begin > now + AHEAD_S:
            self._known = None
            return None, min(begin - now - AHEAD_S, LONGEST_WAIT_S) + RETRY_S
        count = min(self._first.waiting + 1, max(int((now + SHARE_S - begin) / self._interval), 1))
        free = begin + count * self._interval
        data, self._known = b"%d" % round(free * _MICRO), None
        try:
            ack = await self._transport.publish(self._stream, self._subject, data, expected=sequence, timeout=5.0)
        except SubjectChanged:
            return None, RETRY_S * random.random()  # noqa: S311  # spreads load; nothing secret
        self._known = (ack.sequence, free)
        # Those of a burst lie behind, and are for now.
        self._taken.extend(self._clock.here(max(begin + each * self._interval, now)) for each in range(count))
        return self._taken.popleft(), 0.0
