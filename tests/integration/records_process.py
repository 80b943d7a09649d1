"""A worker that yields, or a reader, to be run as a process of its own and killed.

``python -m tests.integration.records_process work`` yields a row for each file that appears in the folder that the job
names, up to ten. ``… read TOKEN [POSITION]`` says each row, and where it was, on a line of its own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from bridge.devserver import monitor
from consumers import Job, Worker
from producers import Producer
from tests.integration.worker_process import exists, say

ROWS = 10
worker = Worker.from_env(drain_timeout=20)


@worker.on_startup
def ready() -> None:
    say("ready")


async def rows(folder: Path, first: int) -> AsyncIterator[int]:
    for n in range(first, ROWS):
        await monitor.until(exists(folder / str(n)), 60, str(folder / str(n)))
        yield n


@worker.handler("films", "resume")
async def goes_on(args: str, job: Job) -> AsyncIterator[int]:
    say("started", job.attempt, job.written)
    async for n in rows(Path(args), job.resume()):
        yield n


@worker.handler("films", "restart")
async def starts_over(args: str, job: Job) -> AsyncIterator[int]:
    say("started", job.attempt, job.written)
    async for n in rows(Path(args), 0):
        yield n


async def read(token: str, after: str | None) -> None:
    async with Producer.from_env(timeout=30) as relay:
        records = (await relay.attach(token)).records(int, after=after)
        async for n in records:
            say(n, records.position)
    say("end")


if __name__ == "__main__":
    if sys.argv[1] == "read":
        asyncio.run(read(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
    else:
        worker.main()
