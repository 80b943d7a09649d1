"""What workers cost that have nothing to do, in percent of one core: ``python -m bench.idle``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Final

from bench import rows
from bench.cost import Meter
from bench.pace import paced
from bench.policy import bench_policy
from bench.sides import process, sealed
from bridge.devserver import running

SETTLED_S: Final = 5.0
"""After the last job, before it is measured."""


async def measure(options: argparse.Namespace) -> AsyncIterator[rows.Row]:
    """One row: what each worker takes, and each server for all of them."""
    with tempfile.TemporaryDirectory() as place:
        async with (
            running(bench_policy(Path(place)), Path(place, "bridge")) as bridge,
            contextlib.AsyncExitStack() as stack,
        ):
            pool = bridge.identity("pool")
            starting = [process("-m", "bench.noop", identity=pool) for _ in range(options.workers)]
            pids = [await stack.enter_async_context(each) for each in starting]
            await sealed(bridge.identity("producer"), {"data": "x"}, partial(paced, 100, 10))
            await asyncio.sleep(SETTLED_S)
            meter = Meter({"worker": pids, "hub": [bridge.hub.pid or 0], "leaf": [bridge.leaf.pid or 0]})
            await asyncio.sleep(options.seconds)
            used = {who: us / 1e4 / options.seconds for who, us in meter.per_job(1).items()}
            yield {
                "workers": options.workers,
                "each worker, % of a core": used["worker"] / options.workers,
                "hub, % for all": used["hub"],
                "leaf, % for all": used["leaf"],
            }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0)
    rows.run("idle", parser, measure)


if __name__ == "__main__":
    main()
