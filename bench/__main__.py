"""Jobs per second, round trips and processor time, beside nats-py over the same hub and leaf, alternating, in one run.

``make bench`` or ``python -m bench --help``. Absolute numbers belong to the machine; compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from bench import floor, plain
from bench.cost import Meter
from bench.noop import Echo
from bench.pace import Result, paced
from bench.policy import bench_policy
from bench.table import Run, line, summary
from bridge.devserver import Bridge, running
from bridge.observe import configure
from producers import Producer

WARM: Final = 500
"""Jobs before those that count, a tenth of them at window 1: connections made, code warm, wraps known."""


async def sealed(folder: Path, args: dict[str, str], jobs: int, window: int, queue: str = "bench") -> Result:
    """The bridge as a user has it: sealed, signed, fenced."""
    async with Producer.open(folder) as producer:

        async def submit(_: int) -> None:
            handle = await producer.submit(queue, "echo", args)
            assert await handle.result() == args

        return await paced(jobs, window, submit)


async def noted(folder: Path, args: dict[str, str], jobs: int, window: int) -> Result:
    """The same, of a queue whose jobs leave receipts; the last of them are stored within what is measured."""
    return await sealed(folder, args, jobs, window, "noted")


async def modelled(folder: Path, args: dict[str, str], jobs: int, window: int) -> Result:
    """The same, with pydantic models at both ends."""
    value = Echo(**args)
    async with Producer.open(folder) as producer:

        async def submit(_: int) -> None:
            handle = await producer.submit("bench", "model", value)
            assert await handle.result(Echo) == value

        return await paced(jobs, window, submit)


@dataclass(frozen=True, slots=True)
class Side:
    """One of what is compared: what its worker process runs, and how its jobs are made."""

    worker: tuple[str, ...]
    produce: Callable[[Path, dict[str, str], int, int], Awaitable[Result]]
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
    """One side, once: its workers started, warmed up, and measured."""
    pool, producer = bridge.identity(side.pool), bridge.identity("producer")
    arguments = [each.format(pool=pool) for each in side.worker]
    async with contextlib.AsyncExitStack() as stack:
        pids = [
            await stack.enter_async_context(process(*arguments, identity=pool, data=data if side.ledger else None))
            for _ in range(workers)
        ]
        await side.produce(producer, args, WARM if window > 1 else WARM // 10, window)
        meter = Meter(
            {"producer": [os.getpid()], "worker": pids, "hub": [bridge.hub.pid or 0], "leaf": [bridge.leaf.pid or 0]}
        )
        result = await side.produce(producer, args, jobs, window)
        run = Run(result, meter.per_job(jobs))
    await asyncio.sleep(side.lingers)
    return run


async def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """The sides in turn, for each window; medians over the repetitions."""
    args = {"data": "x" * (options.size - len('{"data":""}'))}
    with tempfile.TemporaryDirectory() as place:
        policy = bench_policy(Path(place), options.durability, receipts="receipts" in options.sides)
        async with running(policy, Path(place, "bridge"), relay=options.delay > 0) as bridge:
            for relay in bridge.relays:
                relay.delay = options.delay / 2000
            rows = []
            for window in options.windows:
                jobs = options.jobs if window > 1 else max(100, options.jobs // 10)
                runs: dict[str, list[Run]] = {name: [] for name in options.sides}
                for _ in range(options.repeat):
                    for name in options.sides:
                        run = one_run(bridge, SIDES[name], args, jobs, window, Path(place, "data"), options.workers)
                        runs[name].append(await run)
                rows.append(summary(window, jobs, runs))
                print(line(rows[-1]), file=sys.stderr, flush=True)
            return rows


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs per run (a tenth of it at window 1)")
    parser.add_argument("--size", type=int, default=1024, help="bytes of a job's JSON, and of its result's")
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 100, 500], help="jobs in flight")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each side; medians are printed")
    parser.add_argument("--workers", type=int, default=1, help="worker processes")
    parser.add_argument("--delay", type=float, default=0, help="ms that the link adds to a round trip")
    parser.add_argument("--durability", choices=["process", "power-loss"], default="process")
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=SIDES,
        default=["bridge", "pydantic", "floor", "plain"],
        help="bridge; pydantic: with models at both ends; floor: nats-py, tuned; plain: nats-py as its users write it; "
        "ledger: the bridge, its worker with a ledger; receipts: the bridge, of a queue whose jobs leave them",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    configure(level="error")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as a worker has it, and on all sides
        rows = runner.run(measure(options))
    if options.json:
        print(json.dumps({"size": options.size, "durability": options.durability, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
