"""Jobs one after the other, a number of them in flight: how all sides of the comparison are driven and timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


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


async def paced(jobs: int, window: int, job: Callable[[int], Awaitable[None]]) -> Result:
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
