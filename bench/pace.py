"""Jobs one after the other, a number of them in flight: how both sides of the comparison are driven and timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

Result = tuple[float, list[float]]
"""Seconds for all jobs, and each job's seconds from submit to result."""


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
    return time.perf_counter() - began, times
