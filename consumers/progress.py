"""How far a job is, told to its producer: sealed, the latest word only, never in the way of the job."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Final

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Draft, Opener, Sealer
from bridge.errors import BridgeError, TransportError
from bridge.job import MAX_STEP_CHARS, Step, encode
from bridge.transport import Transport
from consumers.case import Case

INTERVAL_S: Final = 0.1
"""The least between two events of a job; of what it reports meanwhile the last is sent."""
WAITING: Final = 1000
"""Reports that wait to be sent, over all jobs; then the oldest is dropped."""
EVENT_LIFE_MS: Final = 300_000
"""How long an event says something about now."""

_log = structlog.get_logger(__name__)


class Report:
    """What one attempt reports; to be called from any thread."""

    __slots__ = ("_loop", "_reports", "case", "due", "latest", "over", "queued")

    def __init__(self, reports: Reports, case: Case, loop: asyncio.AbstractEventLoop) -> None:
        self._reports, self._loop = reports, loop
        self.case = case
        self.latest = (0, Step(0.0, ""))
        """When it was said, and what."""
        self.due = 0.0
        """The loop's time from which the next may be sent."""
        self.queued = False
        self.over = False
        """Whether the attempt has ended; a thread that nobody waits for any more may go on."""

    def __call__(self, fraction: float, text: str) -> None:
        """Report; it returns at once and never fails."""
        if self.over:
            return
        # Not a number is nothing: in this order `max` prefers 0 to it.
        self.latest = (now_ms(), Step(min(max(0.0, fraction), 1.0), text[:MAX_STEP_CHARS]))
        # After what it says is there: whoever sends it takes the flag away first, and so never misses the last word.
        if not self.queued:
            self.queued = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and this thread has not
                self._loop.call_soon_threadsafe(self._reports.add, self)


class Reports:
    """Sends what the handlers of one worker process report.

    Args:
        sealer: Seals events.
        opener: Its bundle says whom they are sealed to.
        transport: The workers' local broker.
        worker: The name of this process, for people.
    """

    def __init__(self, sealer: Sealer, opener: Opener, transport: Transport, worker: str) -> None:
        self._sealer = sealer
        self._opener = opener
        self._transport = transport
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Report] = deque(maxlen=WAITING)
        self._news = asyncio.Event()

    def of(self, case: Case) -> Report:
        """What the handler of an attempt reports by."""
        return Report(self, case, self._loop)

    def add(self, report: Report) -> None:
        """Have a report sent when it is due."""
        self._waiting.append(report)
        self._news.set()

    async def send(self) -> None:
        """Send what is reported, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            now = self._loop.time()
            waiting, later = list(self._waiting), []
            self._waiting.clear()
            for report in waiting:
                if report.due > now and not report.over:
                    later.append(report)
                    continue
                report.queued = False
                await self._send(report)
                report.due = self._loop.time() + INTERVAL_S  # from when it was sent: sealing takes its time
            self._waiting.extendleft(reversed(later))
            if later:
                self._loop.call_at(min(report.due for report in later), self._news.set)

    async def _send(self, report: Report) -> None:
        case, (said, step) = report.case, report.latest
        try:
            sealed = self._seal(case, step, said)
            await self._transport.tell(subjects.event(case.key), sealed)
        except TransportError:  # the transport logs; the next may get through
            pass
        except BridgeError as error:
            _log.warning("event_not_sealed", queue=case.queue, job=case.core.job, error=type(error).__name__)
        except Exception as error:  # a bug here must not end the worker
            _log.error("event_failed", queue=case.queue, job=case.core.job, exc_info=error)

    def _seal(self, case: Case, step: Step, said: int) -> bytes:
        core = Core(
            type="event",
            queue=case.queue,
            kind=case.core.kind,
            job=case.core.job,
            generation=case.core.generation,
            sender=case.settings.workers,
            sender_kid=b"",
            recipient=case.core.sender,
            issued=said,
            expires=said + EVENT_LIFE_MS,
            job_digest=case.job.digest,
            attempt=case.attempt,
            worker=self._worker,
        )
        now = now_ms()
        recipients = (self._opener.trust.peer(case.core.sender).kem_key(now),)
        return self._sealer.seal(Draft(core, recipients, encode(step), packing=case.settings.packing), now).data
