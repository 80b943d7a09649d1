"""Jobs, a number of them in flight or so many a second: how all sides of the comparison are driven and timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Job: TypeAlias = Callable[[int], Awaitable[None]]
"""Does the job of a number, from submit to result."""

MOST_LATE: Final = 10_000
"""Jobs in flight at which a rate is given up: it is more than can be done."""


@dataclass(slots=True)
class Result:
    """One run.

    Args:
        jobs: How many.
        seconds: For all of them.
        times: Each job's seconds from submit to result.
    """

    jobs: int
    seconds: float
    times: list[float] = field(repr=False)

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return self.jobs / self.seconds


async def paced(jobs: int, window: int, job: Job) -> Result:
    """Do ``job`` for the numbers from 1 to ``jobs``, ``window`` of them at once."""
    times: list[float] = []
    numbers = iter(range(1, jobs + 1))

    async def one_by_one() -> None:
        for n in numbers:
            began = time.perf_counter()
            await job(n)
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(window):
            group.create_task(one_by_one())
    return Result(jobs, time.perf_counter() - began, times)


async def timed(jobs: int, rate: float, job: Job) -> Result:
    """Do ``job`` for the numbers from 1 to ``jobs``, ``rate`` of them a second, evenly, whatever came of those before.

    A job's seconds count from when it was to begin: one that waits for others to be submitted is late by that.

    Raises:
        RuntimeError: It is more than can be done.
    """
    times: list[float] = []
    began = time.perf_counter()

    async def one(n: int, due: float) -> None:
        await job(n)
        times.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as group:
        for n in range(1, jobs + 1):
            due = began + (n - 1) / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            if n - len(times) > MOST_LATE:
                raise RuntimeError(f"{rate:.0f} jobs a second are more than this machine does")
            group.create_task(one(n, due))
    return Result(jobs, time.perf_counter() - began, times)


Drive: TypeAlias = Callable[[Job], Awaitable[Result]]
"""One of the two, but for what it drives."""
