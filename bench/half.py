"""Round trips at half of the rate that a side reaches: ``python -m bench.half``.

The full rate is that of ``--window`` jobs in flight, in a run just before. Then jobs begin one after the other at half
of it, evenly, whatever has become of those before, and their seconds count from when they were to begin.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from bench import rows
from bench.pace import timed
from bench.policy import bench_policy
from bench.report import NAMES
from bench.sides import SIDES, driven, one_run
from bridge.devserver import running


async def measure(options: argparse.Namespace) -> AsyncIterator[rows.Row]:
    """A row for each side: medians of all rounds, and of all their jobs."""
    args = {"data": "x" * (options.size - len('{"data":""}'))}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place, "data")
        async with running(bench_policy(Path(place), options.durability), Path(place, "bridge")) as bridge:
            for name in options.sides:
                full, reached, times = list[float](), list[float](), list[float]()
                for _ in range(options.repeat):
                    run = await one_run(bridge, SIDES[name], args, options.jobs, options.window, data)
                    full.append(run.result.rate)
                    half = partial(timed, options.jobs, run.result.rate / 2)
                    run = await driven(bridge, SIDES[name], args, half, options.window, data)
                    reached.append(run.result.rate)
                    times += run.result.times
                times.sort()
                p50, p99 = 1000 * times[len(times) // 2], 1000 * times[len(times) * 99 // 100]
                yield {
                    "": NAMES[name],
                    "full rate, jobs/s": statistics.median(full),
                    "half of it, jobs/s": statistics.median(reached),
                    "p50 ms": p50,
                    "p99 ms": p99,
                    "p99 / p50": p99 / p50,
                }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.half", description=__doc__)
    parser.add_argument("--jobs", type=int, default=4_000, help="jobs per run, two runs a round")
    parser.add_argument("--size", type=int, default=1024, help="bytes of a job's JSON, and of its result's")
    parser.add_argument("--window", type=int, default=100, help="jobs in flight at the full rate")
    parser.add_argument("--repeat", type=int, default=3, help="rounds of each side; medians are printed")
    parser.add_argument("--durability", choices=["process", "power-loss"], default="process")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["bridge", "floor"])
    rows.run("half", parser, measure)


if __name__ == "__main__":
    main()
