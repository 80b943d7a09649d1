"""What was stored, and is neither stored nor answered any more: noticed, told, and sent again byte for byte.

A broker that deletes, purges or goes back to an earlier state says nothing of it. So each job that is kept is looked
for now and then, in its queue and among the results. Where it is in neither it was lost, or it is done and its result
still on its way: a producer cannot tell which. To send it again is right in both, since whoever gets it looks at the
fence before it runs; and it is done slowly, since in the second nothing was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import random
from collections import Counter
from itertools import count
from typing import Final

import structlog

from bridge.clock import now_ms
from bridge.errors import BridgeError
from bridge.signals import Signals, metrics
from bridge.transport import Transport
from producers.arrivals import Arrivals, session_of
from producers.copies import Copies, Copy
from producers.outbox import Outbox

FIRST_LOOK_S: Final = 30.0
"""From stored to the first look, and from one look that found a job stored to the next."""
LOOK_AGAIN_S: Final = 30.0
"""Between two looks in a row that find it neither stored nor answered: what a result takes through a short cut."""
LOOKS: Final = 2
"""How many of them make it missing."""
RESEND_S: Final = 60.0
LONGEST_RESEND_S: Final = 3600.0
"""Until a job that was sent again, and is missing once more, is sent another time; it doubles each time."""
SWEEP_S: Final = 5.0
"""Between sweeps, give or take a fifth, as those of the arrivals."""
SWEEP_LOOKS: Final = 64
"""Jobs looked for in a sweep: about 1 % of a server's time."""
TIDY_S: Final = 60.0
"""Between looks for what is too late to be sent again."""
HURRY_S: Final = 0.5
"""Between sweeps while jobs are missing, so that at most some 100 a second are sent again."""

_log = structlog.get_logger(__name__)


class Gaps:
    """Looks for what one producer has sent.

    Args:
        copies: What is kept.
        outbox: Sends again.
        arrivals: Knows what is answered.
        transport: The producer's local broker.
        signals: Where measurements go.
    """

    def __init__(
        self, copies: Copies, outbox: Outbox, arrivals: Arrivals, transport: Transport, signals: Signals
    ) -> None:
        self._copies, self._outbox, self._arrivals, self._transport = copies, outbox, arrivals, transport
        self._meter = signals.meter
        self._doubted: list[tuple[float, int, Copy]] = []
        """A heap, by when each is to be looked for again."""
        self._order = count()
        self._hurry = asyncio.Event()
        outbox.on_rolled_back = self._rolled_back

    async def watch(self) -> None:
        """Look, a few at a time, until cancelled; first for what an earlier process left."""
        heard, tidy_at = False, self._clock() + TIDY_S
        while True:
            try:
                if not heard:
                    await self._take_over()
                    heard = True
                if await self._sweep():
                    self._hurry.set()
                if self._clock() >= tidy_at:
                    tidy_at = self._clock() + TIDY_S
                    self._copies.forget_late()
            except BridgeError as error:  # the local server, or the trust bundle: later
                _log.warning("sweep_failed", error=type(error).__name__)
            await self._pause()

    async def _pause(self) -> None:
        hurried = self._hurry.is_set()
        self._hurry.clear()
        if hurried:
            await asyncio.sleep(HURRY_S)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                self._hurry.wait(),
                SWEEP_S * random.uniform(0.8, 1.2),  # noqa: S311  # spreads load; nothing secret
            )

    async def _take_over(self) -> None:
        """Hear of what an earlier process left, and look for it at once: it may never have been sent."""
        for queue, session in {(each.queue, session_of(each)) for each in (of.token for of in self._copies.recovered)}:
            await self._arrivals.listen(queue, session)
        for copy in self._copies.recovered:
            self._look_soon(copy)

    def _rolled_back(self, stream: str) -> None:
        """Look at once for all that a stream held: one look that does not find it is enough."""
        for copy in self._copies:
            if copy.stream == stream and copy.stored and not copy.doubts:
                self._look_soon(copy)
        self._hurry.set()

    def _look_soon(self, copy: Copy) -> None:
        copy.doubts = LOOKS - 1
        self._look_later(copy, 0.0)

    def _look_later(self, copy: Copy, seconds: float) -> None:
        heapq.heappush(self._doubted, (self._clock() + seconds, next(self._order), copy))

    async def _sweep(self) -> bool:
        """Look for what is due; whether there may be more that is missing."""
        lost, late, again = list[Copy](), list[Copy](), list[Copy]()
        try:
            for _ in range(SWEEP_LOOKS):
                copy = self._next()
                if copy is None:
                    break
                if await self._is_missing(copy):
                    (again if copy.resent else lost if copy.stored else late).append(copy)
                    await self._send_again(copy)
        finally:
            self._tell(lost, late, again)
        return bool(lost or late or again) or bool(self._doubted and self._doubted[0][0] <= self._clock())

    def _next(self) -> Copy | None:
        now = self._clock()
        while self._doubted and self._doubted[0][0] <= now:
            _, _, copy = heapq.heappop(self._doubted)
            if copy.doubts and self._copies.get(copy.key) is copy:  # else it was found, or answered meanwhile
                return copy
        return self._copies.longest(now - FIRST_LOOK_S)

    async def _is_missing(self, copy: Copy) -> bool:
        if copy.expires <= now_ms():  # nobody would start it: whoever waits is told that nothing is known
            self._copies.forget(copy.key)
            return False
        try:
            # In this order: what is done between the two looks is found by the second.
            if await self._transport.lookup(copy.stream, copy.subject) is not None:
                self._copies.stored(copy.key)
                return False
            if await self._arrivals.answered(copy):
                return False
        except BridgeError:
            if copy.doubts:
                self._look_later(copy, LOOK_AGAIN_S)
            raise
        copy.doubts += 1
        if copy.doubts >= LOOKS:
            return True
        again = LOOK_AGAIN_S if not copy.resent else min(RESEND_S * 2 ** (copy.resent - 1), LONGEST_RESEND_S)
        self._look_later(copy, again)
        return False

    async def _send_again(self, copy: Copy) -> None:
        copy.resent += 1
        self._meter.count(metrics.RESENT, copy.token.queue, copy.kind)
        try:
            await self._outbox.send_again(copy)
        except BridgeError as error:  # a full queue, say
            self._look_later(copy, LOOK_AGAIN_S)
            _log.warning("resend_failed", queue=copy.token.queue, job=copy.key.job_id, error=type(error).__name__)

    def _tell(self, lost: list[Copy], late: list[Copy], again: list[Copy]) -> None:
        """An alarm for each job once, in one line for those that are missed at once."""
        for copy in lost:
            self._meter.count(metrics.MISSING, copy.token.queue, copy.kind)
        for event, level, copies in (
            ("job_missing", logging.ERROR, lost),
            ("job_sent_after_restart", logging.WARNING, late),
            ("job_still_missing", logging.WARNING, again),
        ):
            first = {copy.token.queue: copy for copy in reversed(copies)}
            for queue, many in Counter(copy.token.queue for copy in copies).items():
                _log.log(level, event, queue=queue, job=first[queue].key.job_id, count=many)

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()
