"""What is compared: what the worker process of each side runs, how its jobs are made, and one run of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench import floor, plain
from bench.cost import Meter
from bench.noop import Echo
from bench.pace import Drive, Result, paced
from bench.table import Run
from bridge.devserver import Bridge
from producers import Producer

WARM: Final = 500
"""Jobs before those that count, a tenth of them at window 1: connections made, code warm, wraps known."""


async def sealed(folder: Path, args: dict[str, str], drive: Drive, queue: str = "bench") -> Result:
    """The bridge as a user has it: sealed, signed, fenced."""
    async with Producer.open(folder) as producer:

        async def submit(_: int) -> None:
            handle = await producer.submit(queue, "echo", args)
            assert await handle.result() == args

        return await drive(submit)


async def noted(folder: Path, args: dict[str, str], drive: Drive) -> Result:
    """The same, of a queue whose jobs leave receipts; the last of them are stored within what is measured."""
    return await sealed(folder, args, drive, "noted")


async def modelled(folder: Path, args: dict[str, str], drive: Drive) -> Result:
    """The same, with pydantic models at both ends."""
    value = Echo(**args)
    async with Producer.open(folder) as producer:

        async def submit(_: int) -> None:
            handle = await producer.submit("bench", "model", value)
            assert await handle.result(Echo) == value

        return await drive(submit)


@dataclass(frozen=True, slots=True)
class Side:
    """One of what is compared: what its worker process runs, and how its jobs are made."""

    worker: tuple[str, ...]
    produce: Callable[[Path, dict[str, str], Drive], Awaitable[Result]]
    ledger: bool = False
    pool: str = "pool"
    """The identity of its worker."""
    lingers: float = 0.0
    """Seconds for which the hub goes on to serve the last request of a worker that has ended, and the next one's jobs
    with it, which come again only after their ack wait. The bridge's own worker stays until its requests are over."""


SIDES: Final[Mapping[str, Side]] = {
    "bridge": Side(("-m", "bench.noop"), sealed),
    "pydantic": Side(("-m", "bench.noop"), modelled),
    "floor": Side(("-m", "bench.floor", "{pool}"), floor.produce, lingers=floor.EXPIRES_S + 1),
    "plain": Side(("-m", "bench.plain", "{pool}"), plain.produce, lingers=plain.EXPIRES_S + 1),
    "ledger": Side(("-m", "bench.noop"), sealed, ledger=True),
    "receipts": Side(("-m", "bench.noop", "noted"), noted, pool="noter"),
}


@contextlib.asynccontextmanager
async def process(*arguments: str, identity: Path, data: Path | None = None) -> AsyncIterator[int]:
    """A worker process, ended with the block; with a ledger where it has a folder for it."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, "BUNNY_IDENTITY": str(identity), "BUNNY_DATA": str(data or "")},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield worker.pid
    finally:
        if worker.returncode is None:
            worker.terminate()
        await worker.wait()


async def one_run(
    bridge: Bridge, side: Side, args: dict[str, str], jobs: int, window: int, data: Path, workers: int = 1
) -> Run:
    """One side, once: its workers started, warmed up, and measured with ``window`` jobs in flight."""
    return await driven(bridge, side, args, partial(paced, jobs, window), window, data, workers)


async def driven(
    bridge: Bridge, side: Side, args: dict[str, str], drive: Drive, window: int, data: Path, workers: int = 1
) -> Run:
    """As `one_run`, driven in another way; ``window`` is that of the jobs before those that count."""
    pool, producer = bridge.identity(side.pool), bridge.identity("producer")
    arguments = [each.format(pool=pool) for each in side.worker]
    async with contextlib.AsyncExitStack() as stack:
        pids = [
            await stack.enter_async_context(process(*arguments, identity=pool, data=data if side.ledger else None))
            for _ in range(workers)
        ]
        await side.produce(producer, args, partial(paced, WARM if window > 1 else WARM // 10, window))
        meter = Meter(
            {"producer": [os.getpid()], "worker": pids, "hub": [bridge.hub.pid or 0], "leaf": [bridge.leaf.pid or 0]}
        )
        result = await side.produce(producer, args, drive)
        run = Run(result, meter.per_job(result.jobs))
    await asyncio.sleep(side.lingers)
    return run
