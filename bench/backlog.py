"""How fast a worker drains a queue that holds much: ``python -m bench.backlog``.

The first jobs of each backlog are real ones, and what is timed is their way: from the queue's head through the worker
and back to the producer. What lies behind them are the bytes of one of them under as many subjects, since a million
would take a quarter of an hour to seal: the servers hold and index them as any others, and no worker has got so far
that it would have to refuse them while it is timed. Each backlog has servers of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from bench import rows
from bench.cost import Meter
from bench.policy import bench_policy
from bench.processes import resident_mb
from bench.sides import process
from bench.waiting import ROOM, connected, store
from bridge import subjects
from bridge.devserver import Bridge, running
from producers import Handle, Producer

FIRST: Final = 0.1
LAST: Final = 0.8
"""The part of the real jobs that is timed: the worker has begun, and has asked for none of what is behind them yet."""


async def measure(options: argparse.Namespace) -> AsyncIterator[rows.Row]:
    """A row for each backlog."""
    base = 0.0
    for backlog in options.backlogs:
        with tempfile.TemporaryDirectory(dir=options.dir) as place:
            async with running(bench_policy(Path(place), room=ROOM), Path(place, "bridge")) as bridge:
                row = await drained(bridge, backlog, options.jobs, options.size)
        base = base or float(row["jobs/s"])
        yield {**row, "of the first": float(row["jobs/s"]) / base}


async def drained(bridge: Bridge, backlog: int, jobs: int, size: int) -> dict[str, str | int | float]:
    """One backlog: made, begun to be drained, and left."""
    folder, pool = bridge.identity("producer"), bridge.identity("pool")
    args = {"data": "x" * (size - len('{"data":""}'))}
    async with Producer.open(folder) as producer:
        stored = await producer.submit_many("bench", "echo", (args for _ in range(jobs)))
        handles = [each for each in stored if isinstance(each, Handle)]
        assert len(handles) == jobs
        began = time.perf_counter()
        await _behind(folder, handles[-1], backlog - jobs)
        filled = (backlog - jobs) / (time.perf_counter() - began)
        done = list[float]()

        async def answered(handle: Handle[object]) -> None:
            await handle.result()
            done.append(time.perf_counter())

        began = time.perf_counter()
        async with process("-m", "bench.noop", identity=pool) as pid:
            meter = Meter({"producer": [os.getpid()], "worker": [pid], "hub": [bridge.hub.pid or 0]})
            async with asyncio.TaskGroup() as group:
                for each in handles:
                    group.create_task(answered(each))
            cost = meter.per_job(jobs)
        first, last = (int(jobs * part) for part in (FIRST, LAST))
        return {
            "backlog": backlog,
            "jobs/s": (last - first) / (done[last] - done[first]),
            "first result, s": done[0] - began,
            "hub, MB": resident_mb(bridge.hub.pid or 0),
            "hub, CPU a job, µs": cost["hub"],
            "copies stored a second": filled,
        }


async def _behind(folder: Path, handle: Handle[object], count: int) -> None:
    """Store the bytes of a job as so many others of another session."""
    key = handle.token.key
    async with connected(folder) as transport:
        message = await transport.lookup(subjects.jobs_stream(key.queue), subjects.job(key, "normal"))
    assert message is not None
    other = key._replace(session=secrets.token_hex(12))
    await store(folder, message, [subjects.job(other._replace(n=n), "normal") for n in range(1, count + 1)])


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.backlog", description=__doc__)
    parser.add_argument("--backlogs", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="one row each")
    parser.add_argument("--jobs", type=int, default=5_000, help="real ones at the head of each")
    parser.add_argument("--size", type=int, default=256, help="bytes of a job's JSON, and of its result's")
    parser.add_argument("--dir", type=Path, help="where the servers store it: some 2 GB a million")
    rows.run("backlog", parser, measure)


if __name__ == "__main__":
    main()
