"""Jobs per second, round trips and processor time, beside nats-py over the same hub and leaf, alternating, in one run.

``make bench`` or ``python -m bench --help``. Absolute numbers belong to the machine; compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import uvloop

from bench.policy import bench_policy
from bench.sides import SIDES, one_run
from bench.table import Run, line, summary
from bridge.devserver import running
from bridge.observe import configure


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
        print(
            json.dumps({"what": "jobs", "size": options.size, "durability": options.durability, "rows": rows}, indent=2)
        )


if __name__ == "__main__":
    main()
