"""The recurring jobs of one agent: which ticks are due, and a keyed job for each.

A tick's key is the schedule's name and the tick's time, so that whichever agent of the identity submits it, and
however often, it is one job. Nothing is remembered on disk: an agent that starts submits what may have been missed,
and a tick that was done is found at the fence. So no tick is looked back at for longer than that remembers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from bridge.clock import now_ms
from bridge.core import MAX_LIFETIME_MS
from bridge.errors import BridgeError, KeyConflict
from bridge.identity import Connection, ScheduleSettings
from bridge.ticks import Ticks, as_text

GRACE_MS: Final = 60_000
"""How late a tick may be and not be missed: a restart of an agent or of a server takes less."""
SKEW_MS: Final = 300_000
"""How far ahead an agent's clock may be: beyond, workers park what it submits."""
MOST_MISSED: Final = 100
"""Missed ticks of one schedule that are made up for under ``missed: all``: the newest."""
MOST_COUNTED: Final = 1_000
"""Ticks given up at once that are counted one by one."""
LONGEST_PAUSE_S: Final = 30.0
"""Between two looks at the clock, which may be put forward or back meanwhile; also the longest wait after a failure."""
AT_ONCE: Final = 8
"""Schedules that submit at once, as at midnight."""

Submit = Callable[[ScheduleSettings, str], Awaitable[None]]
"""Has the local server store the job of a schedule under a key, unless it is stored or done; raises a `BridgeError`."""
Producing = Callable[[Path], AbstractAsyncContextManager[Submit]]
"""Connects as the identity of a folder, to submit."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Progress:
    """How far a schedule is. Times are milliseconds UTC."""

    settled: int | None = None
    """Up to here nothing is left to submit; None until this agent has submitted or given up anything."""
    last: int | None = None
    """The newest tick whose job is known to be stored or done."""
    next: int | None = None
    """The first tick that is not settled: in the past where it cannot be submitted; None where there is none."""
    submitted: int = 0
    missed: int = 0
    """Ticks given up, by the schedule's own policy."""
    conflicts: int = 0
    """Ticks that stand already with another kind or other arguments."""
    failures: Counter[str] = field(default_factory=Counter)
    """Submits that failed, and are tried again, by error."""


def look_back_ms(schedule: ScheduleSettings, result_ttl_ms: int) -> int:
    """For how long a missed tick may still be submitted: while it is certain that it cannot run twice.

    The result of its job stands for ``result_ttl`` from when it was done. A tick submitted again within what this
    returns is refused by the fence; and by an agent whose clock is behind, it is too late for its own deadline.
    """
    return max(min(result_ttl_ms, MAX_LIFETIME_MS) - schedule.deadline_ms - SKEW_MS, 0)


def due(schedule: ScheduleSettings, ticks: Ticks, after: int, now: int) -> list[int]:
    """The ticks to submit, oldest first, of those after a time and not after now.

    A tick is missed once it is `GRACE_MS` late; which missed ones are made up for is the schedule's policy.
    """
    missed_until = max(now - GRACE_MS, after)
    timely = ticks.newest(missed_until, now, GRACE_MS // 1000)
    if schedule.missed == "skip" or missed_until == after or (schedule.missed == "last" and timely):
        return timely
    return ticks.newest(after, missed_until, 1 if schedule.missed == "last" else MOST_MISSED) + timely


class Scheduler:
    """Submits the jobs of an agent's schedules.

    Args:
        connection: Names the schedules and their queues.
        now: The clock.
        pause: Waits for seconds.
    """

    def __init__(
        self,
        connection: Connection,
        now: Callable[[], int] = now_ms,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._schedules = connection.schedules
        self._ticks = {
            name: Ticks(each.cron, each.timezone, each.every_ms) for name, each in connection.schedules.items()
        }
        self._look_back = {
            name: look_back_ms(each, connection.queues[each.queue].result_ttl_ms)
            for name, each in connection.schedules.items()
        }
        self._now, self._pause = now, pause
        self._free = asyncio.Semaphore(AT_ONCE)
        self.progress: Mapping[str, Progress] = {name: Progress() for name in connection.schedules}

    async def run(self, submit: Submit) -> None:
        """Submit what is due, for ever."""
        async with asyncio.TaskGroup() as group:
            for name in self._schedules:
                group.create_task(self._follow(name, submit), name=f"schedule {name}")

    async def _follow(self, name: str, submit: Submit) -> None:
        progress, failed = self.progress[name], 0
        while True:
            try:
                async with self._free:
                    await self.turn(name, submit)
                failed = 0
            except BridgeError as error:
                failed += 1
                progress.failures[type(error).__name__] += 1
                _log.error("schedule_failed", schedule=name, queue=self._schedules[name].queue, exc_info=error)
                await self._pause(min(2.0 ** min(failed - 1, 10), LONGEST_PAUSE_S))
                continue
            wait = LONGEST_PAUSE_S if progress.next is None else (progress.next - self._now()) / 1000
            await self._pause(min(max(wait, 0.001), LONGEST_PAUSE_S))

    async def turn(self, name: str, submit: Submit) -> None:
        """Submit what is due of one schedule now.

        Raises:
            BridgeError: One could not be submitted. It stays due, for as long as its policy says.
        """
        schedule, ticks, progress, now = self._schedules[name], self._ticks[name], self.progress[name], self._now()
        if progress.settled is not None and progress.settled > now:
            # The clock was put back. What was submitted too early is found under its key.
            _log.warning("schedule_clock_put_back", schedule=name, seconds=(progress.settled - now) / 1000)
            progress.settled = now
        oldest = max(now - self._look_back[name], schedule.since_ms - 1)
        after = oldest if progress.settled is None else max(progress.settled, oldest)
        chosen = due(schedule, ticks, after, now)
        self._give_up(name, progress, chosen[0] - 1 if chosen else now)
        progress.next = chosen[0] if chosen else ticks.next(max(now, schedule.since_ms - 1))
        for tick in chosen:
            await self._submit(name, schedule, tick, submit)
            progress.settled = progress.last = tick
            progress.next = ticks.next(tick)
        progress.settled = now

    def _give_up(self, name: str, progress: Progress, until: int) -> None:
        """Settle the ticks before the first that is chosen; counted where it is known that they were not done."""
        schedule, before = self._schedules[name], progress.settled
        if before is not None and until > before:
            missed = len(self._ticks[name].newest(max(before, schedule.since_ms - 1), until, MOST_COUNTED))
            if missed:
                progress.missed += missed
                _log.warning("schedule_ticks_missed", schedule=name, queue=schedule.queue, count=missed)
            progress.settled = until

    async def _submit(self, name: str, schedule: ScheduleSettings, tick: int, submit: Submit) -> None:
        progress, text = self.progress[name], as_text(tick)
        try:
            await submit(schedule, f"schedule {name} {text}")
        except KeyConflict:
            # Before the policy was changed, or by an agent that has another one: a tick is one job all the same.
            progress.conflicts += 1
            _log.warning("schedule_tick_stands", schedule=name, queue=schedule.queue, tick=text)
            return
        progress.submitted += 1
        _log.info("schedule_tick", schedule=name, queue=schedule.queue, kind=schedule.kind, tick=text)
