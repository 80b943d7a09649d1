"""What workers cost that have nothing to do, in percent of one core: ``python -m bench.idle``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Final

from bench.__main__ import process, sealed
from bench.cost import Meter
from bench.policy import bench_policy
from bridge.devserver import running
from bridge.observe import configure

SETTLED_S: Final = 5.0
"""After the last job, before it is measured."""


async def idle(workers: int, seconds: float) -> dict[str, float]:
    """Percent of one core that each worker takes, and each server for all of them."""
    with tempfile.TemporaryDirectory() as place:
        async with (
            running(bench_policy(Path(place)), Path(place, "bridge")) as bridge,
            contextlib.AsyncExitStack() as stack,
        ):
            pool = bridge.identity("pool")
            pids = [await stack.enter_async_context(process("-m", "bench.noop", identity=pool)) for _ in range(workers)]
            await sealed(bridge.identity("producer"), {"data": "x"}, 100, 10)
            await asyncio.sleep(SETTLED_S)
            meter = Meter({"worker": pids, "hub": [bridge.hub.pid or 0], "leaf": [bridge.leaf.pid or 0]})
            await asyncio.sleep(seconds)
            used = meter.per_job(1)
            used["worker"] /= workers
            return {who: us / 1e6 / seconds * 100 for who, us in used.items()}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    configure(level="error")
    print(json.dumps(asyncio.run(idle(options.workers, options.seconds))))


if __name__ == "__main__":
    main()
