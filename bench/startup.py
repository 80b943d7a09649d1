"""How long a worker and a producer take to start: ``python -m bench.startup``.

A worker: from its process's start to the result of a job that waited for it. A producer: from its process's start until
its first job is stored. Processor time is that of the whole process by then.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bench import rows
from bench.cost import processor_s
from bench.policy import bench_policy
from bench.processes import resident_mb, started
from bench.sides import process
from bridge.devserver import Bridge, running
from producers import Producer


async def worker(bridge: Bridge) -> tuple[float, float, int]:
    """Seconds, those of a processor, and megabytes."""
    async with Producer.open(bridge.identity("producer")) as producer:
        job, began = await producer.submit("bench", "echo", {"data": "x"}), time.perf_counter()
        async with process("-m", "bench.noop", identity=bridge.identity("pool")) as pid:
            await job.result()
            return time.perf_counter() - began, processor_s(pid), resident_mb(pid)


async def producer(bridge: Bridge) -> tuple[float, float, int]:
    """The same of a producer; its job is not worked."""
    began, environment = time.perf_counter(), {"BUNNY_IDENTITY": str(bridge.identity("producer"))}
    async with started("bench.startup", "--submit", env=environment) as child:
        assert await child.line() == "stored"
        pid = child.process.pid
        return time.perf_counter() - began, processor_s(pid), resident_mb(pid)


async def measure(options: argparse.Namespace) -> AsyncIterator[rows.Row]:
    """A row for each of the two: medians."""
    with tempfile.TemporaryDirectory() as place:
        async with running(bench_policy(Path(place)), Path(place, "bridge")) as bridge:
            for what, start in (("worker, to its first result", worker), ("producer, to its first PubAck", producer)):
                found = [await start(bridge) for _ in range(options.repeat)]
                seconds, processor, megabytes = (statistics.median(each) for each in zip(*found, strict=True))
                yield {"": what, "s": seconds, "of a processor, s": processor, "MB": megabytes}


async def submit() -> None:
    """Submit one job, and wait to be ended."""
    async with Producer.open(Path(os.environ["BUNNY_IDENTITY"])) as relay:
        await relay.submit("bench", "echo", {"data": "x"})
        print("stored", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Parse, measure, print."""
    if sys.argv[1:] == ["--submit"]:
        asyncio.run(submit())
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("--repeat", type=int, default=7, help="starts of each; medians are printed")
    rows.run("startup", parser, measure)


if __name__ == "__main__":
    main()
