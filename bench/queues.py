"""What many queues cost a bridge and a worker that serves all of them: ``python -m bench.queues``.

For each number of queues: how long the servers and the worker take to start, jobs a second with the queues in turn, and
what all of it takes with nothing to do, and how long after the hub is killed results flow again. Streams have small
limits, so that the disk does.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from bench import rows
from bench.cost import Meter
from bench.pace import paced
from bench.policy import bench_policy
from bench.processes import resident_mb
from bench.sides import process
from bridge.devserver import Bridge, running
from bridge.observe import configure
from bridge.policy.queues import MAX_QUEUES
from consumers import Worker
from producers import Producer

SMALL: Final = ", max_bytes: 64MiB"
SETTLED_S: Final = 5.0
"""After the last job, before what has nothing to do is measured."""


def names(queues: int) -> list[str]:
    """That of each."""
    return [f"bench-{n}" for n in range(1, queues + 1)]


async def measure(options: argparse.Namespace) -> AsyncIterator[rows.Row]:
    """A row for each number of queues, each with servers of its own."""
    for queues in options.queues:
        with tempfile.TemporaryDirectory() as place:
            policy, began = bench_policy(Path(place), room=SMALL, queues=names(queues)), time.perf_counter()
            async with running(policy, Path(place, "bridge")) as bridge:
                up = {"queues": queues, "servers and streams up, s": time.perf_counter() - began}
                row = up | await used(bridge, names(queues), options)
                yield row | {"hub killed, results flow again, s": await back(bridge)}


async def used(bridge: Bridge, queues: list[str], options: argparse.Namespace) -> dict[str, float]:
    """What a worker of all of them does, and takes when it has nothing to do."""
    serving = process("-m", "bench.queues", "--serve", str(len(queues)), identity=bridge.identity("pool"))
    async with Producer.open(bridge.identity("producer")) as producer:

        async def submit(n: int) -> None:
            handle = await producer.submit(queues[n % len(queues)], "echo", {"data": "x" * 1000})
            await handle.result()

        began = time.perf_counter()
        async with serving as pid:
            await paced(len(queues), len(queues), submit)
            started = time.perf_counter() - began
            result = await paced(options.jobs, options.window, submit)
            await asyncio.sleep(SETTLED_S)
            hub, leaf = bridge.hub.pid or 0, bridge.leaf.pid or 0
            meter = Meter({"worker": [pid], "hub": [hub], "leaf": [leaf]})
            await asyncio.sleep(options.seconds)
            idle = {who: us / 1e4 / options.seconds for who, us in meter.per_job(1).items()}
            return {
                "worker up, a job of each done, s": started,
                "jobs/s": result.rate,
                "idle: worker, % of a core": idle["worker"],
                "hub, %": idle["hub"],
                "leaf, %": idle["leaf"],
                "worker, MB": resident_mb(pid),
                "hub, MB": resident_mb(hub),
            }


async def back(bridge: Bridge) -> float:
    """Seconds after which all is as it was before the hub was killed."""
    began = time.perf_counter()
    await bridge.hub.kill()
    await bridge.hub.start()
    await bridge.until_flowing()
    return time.perf_counter() - began


def serve(queues: int) -> None:
    """The worker of all of them."""
    worker = Worker.from_env(concurrency=64, prefetch=64)

    async def echo(args: dict[str, str]) -> dict[str, str]:
        return args

    for name in names(queues):
        worker.handler(name, "echo")(echo)
    configure(level="error")
    worker.main()


def main() -> None:
    """Parse, measure, print."""
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]))
    parser = argparse.ArgumentParser(prog="python -m bench.queues", description=__doc__)
    parser.add_argument("--queues", type=int, nargs="+", default=[1, 10, 100, MAX_QUEUES], help="one row each")
    parser.add_argument("--jobs", type=int, default=2_000, help="over all queues")
    parser.add_argument("--window", type=int, default=100, help="jobs in flight")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which nothing happens")
    rows.run("queues", parser, measure)


if __name__ == "__main__":
    main()
