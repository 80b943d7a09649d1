"""What producers have asked to be cancelled: heard as it is said, read from the stream where it was missed.

A control counts for the one job whose subject and digest it names, and only if the job's own producer signed it. It is
remembered until the job could not start any more, in bounded memory: a job that is not here may be delivered later.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import Core, check_time
from bridge.envelope import Authenticated, Opener
from bridge.errors import BundleExpired, Expired, InvalidArguments, Refusal, TransportError, WrongSubject
from bridge.identity import QueueSettings
from bridge.job import MAX_REASON_CHARS, decode
from bridge.signals import metrics
from bridge.signals.meter import Meter
from bridge.subjects import JobKey
from bridge.transport import Message, Transport, Unsubscribe
from consumers.case import Case
from consumers.stop import Stop

LOOK_S: Final = 10.0
"""Seconds between two looks at the stream, give or take a fifth: how late a cancel may be heard after a cut."""
PAGE: Final = 256
"""Controls read at once."""
MAX_PAGES: Final = 4096
"""Read in one look: more than a stream holds, and an end to what a broker can make a worker read."""
MAX_REMEMBERED: Final = 100_000
"""Cancels of all queues; about 20 MiB without reasons. Beyond, the oldest is forgotten, and told."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Source:
    """Where one queue's controls come from, and how far they were read."""

    queue: str
    workers: str
    cloud: str | None
    last: tuple[int, str] = (1, "")
    """Sequence and subject of the last control read."""
    unsubscribe: Unsubscribe | None = None
    """Ends hearing what is said live; None while it is not heard."""
    behind: bool = True
    """Whether controls may have been missed since the last look."""
    looked: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Cancels:
    """The cancels that one worker process knows of.

    Args:
        opener: Verifies controls, and opens their reasons.
        transport: The workers' local broker.
        meter: Where measurements go.
    """

    def __init__(self, opener: Opener, transport: Transport, meter: Meter) -> None:
        self._opener = opener
        self._transport = transport
        self._meter = meter
        self._clock = asyncio.get_running_loop().time
        self._sources: dict[str, _Source] = {}
        self._asked: dict[bytes, tuple[int, str]] = {}
        """By `_mark`, oldest first: until when it counts, and the reason."""
        self._running: dict[Stop, Case] = {}
        self._wake = asyncio.Event()
        self.on_asked: Callable[[JobKey], None] = _nobody
        """Called for each cancel as it becomes known."""

    def __len__(self) -> int:
        return len(self._asked)

    async def serve(self, queues: dict[str, QueueSettings], cloud: str) -> None:
        """Know the cancels of these queues, now and from now on, until cancelled."""
        for queue, settings in queues.items():
            home = None if settings.home == cloud else settings.home
            self._sources[queue] = _Source(queue, settings.workers, home)
        self._transport.on_reconnect(self._missed)
        try:
            while True:
                self._wake.clear()
                for source in self._sources.values():
                    await self._look(source)
                self._forget(now_ms())
                with contextlib.suppress(TimeoutError):
                    pause = LOOK_S * random.uniform(0.8, 1.2)  # noqa: S311  # spreads load; nothing secret
                    await asyncio.wait_for(self._wake.wait(), pause)
        finally:
            for source in self._sources.values():
                if source.unsubscribe is not None:
                    await source.unsubscribe()

    async def asked(self, case: Case) -> str | None:
        """Why a job is to be cancelled, or None; to be asked before it starts, since it may take a look first."""
        source = self._sources.get(case.queue)
        # Of a stream that does not answer no job waits more than once in a while.
        if source is not None and source.behind and self._clock() - source.looked > LOOK_S / 2:
            async with source.lock:
                if source.behind and self._clock() - source.looked > LOOK_S / 2:
                    await self._read(source)
        return self.known(case)

    def known(self, case: Case) -> str | None:
        """As `asked`, as far as is known."""
        if not self._asked:
            return None
        until, reason = self._asked.get(_mark(case.key, case.job.digest), (0, ""))
        return reason if until > now_ms() else None

    def begin(self, case: Case) -> None:
        """Stop a job, which starts now, when it is cancelled."""
        self._running[case.stop] = case
        if (reason := self.known(case)) is not None:
            case.stop.ask(reason)

    def end(self, case: Case) -> None:
        """It runs no more."""
        self._running.pop(case.stop, None)

    # --- hearing and reading ------------------------------------------------------------------------

    def _missed(self) -> None:
        for source in self._sources.values():
            source.behind, source.looked = True, float("-inf")
        self._wake.set()

    async def _look(self, source: _Source) -> None:
        async with source.lock:
            if source.unsubscribe is None:
                await self._listen(source)
            await self._read(source)

    async def _listen(self, source: _Source) -> None:
        async def heard(message: Message) -> None:
            if (refusal := self._take(source, message)) is not None:
                _log.error("control_refused", queue=source.queue, refusal=refusal.name, bytes=len(message.data))

        try:
            source.unsubscribe = await self._transport.subscribe(subjects.any_control(source.queue), heard)
        except TransportError as error:  # the stream tells, only later
            _log.warning("cancels_unheard", queue=source.queue, error=type(error).__name__, reason=str(error))

    async def _read(self, source: _Source) -> None:
        """Read what was stored since the last look."""
        try:
            for _ in range(MAX_PAGES):
                if not await self._turn_page(source):
                    source.behind = False
                    break
        except TransportError as error:
            source.behind = True
            _log.warning("cancels_unread", queue=source.queue, error=type(error).__name__, reason=str(error))
        source.looked = self._clock()

    async def _turn_page(self, source: _Source) -> bool:
        """Read some; whether there may be more."""
        stream, pattern = subjects.control_stream(source.queue), subjects.any_control(source.queue)
        at, subject = source.last
        # From the last one that was read, which is to be there still: else the stream may be another than it was.
        page = await self._transport.read(stream, pattern, first=at, most=PAGE, cloud=source.cloud)
        places = [(_sequence(message), message.subject) for message in page]
        if subject and (not page or (places[0][0] <= at and places[0] != source.last)):
            source.last = (1, "")
            return True
        skipped = int(bool(page) and places[0] == source.last)
        refused = [each for message in page[skipped:] if (each := self._take(source, message)) is not None]
        if refused:  # of many, one line: anyone who may write to the stream decides how many there are
            _log.error("controls_refused", queue=source.queue, refusal=refused[0].name, count=len(refused))
        if len(page) == skipped:
            return False
        source.last = places[-1]
        return True

    def _take(self, source: _Source, message: Message) -> Refusal | None:
        """Act on a control, if it is one."""
        now = now_ms()
        try:
            control = self._opener.authenticate(message.data, now)
            core = control.core
            if (
                core.type != "control"
                or core.queue != source.queue
                or core.recipient != source.workers
                or message.subject != subjects.control(core.key)
            ):
                raise WrongSubject("the subject is not the one that the signed control names")
            check_time(core, now)
        except (Expired, BundleExpired):  # of the bundle's end the worker stops by itself
            return None
        except Refusal as refusal:
            self._meter.count(metrics.REFUSED, source.queue, refusal.name)
            return refusal
        mark = _mark(core.key, core.job_digest)
        if mark not in self._asked:
            self._remember(source, mark, core, self._reason(control))
            self.on_asked(core.key)
        return None

    def _reason(self, control: Authenticated) -> str:
        try:
            return decode(self._opener.open(control).content, str)[:MAX_REASON_CHARS]
        except (Refusal, InvalidArguments):  # what counts is signed, and was checked; this is for people
            return ""

    def _remember(self, source: _Source, mark: bytes, core: Core, reason: str) -> None:
        self._asked[mark] = (core.expires, reason)
        if len(self._asked) > MAX_REMEMBERED:
            del self._asked[next(iter(self._asked))]
            _log.error("cancel_forgotten", queue=source.queue, limit=MAX_REMEMBERED)
        for stop, case in tuple(self._running.items()):
            if case.job.digest == core.job_digest and case.key == core.key:
                stop.ask(reason)

    def _forget(self, now: int) -> None:
        for mark in [mark for mark, (until, _) in self._asked.items() if until <= now]:
            del self._asked[mark]


def _mark(key: JobKey, digest: bytes) -> bytes:
    """What a cancel and its job have in common: who submitted it, as what, and the bytes that were signed."""
    return hashlib.sha256(f"{subjects.result(key)}\0".encode() + digest).digest()


def _sequence(message: Message) -> int:
    text = message.headers.get("Nats-Sequence", "")
    return subjects.parse_decimal(text) or 1


def _nobody(key: JobKey) -> None:
    """Told as long as nobody wants to know."""
