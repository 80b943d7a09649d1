"""How many messages and bytes a job is for the servers: ``python -m bench.wire``.

Read off the servers' own counters before and after: what crosses the link is in them, and what a worker asks for.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from bench import rows
from bench.pace import Drive, Job, Result, paced
from bench.policy import bench_policy
from bench.report import NAMES
from bench.sides import SIDES, driven
from bridge.devserver import Bridge, monitor, running

SETTLED_S: Final = 0.5
"""After the last result: acks and PubAcks that nobody waits for."""


async def counts(bridge: Bridge) -> dict[str, int]:
    """What both servers have read and written since they started."""
    found: dict[str, int] = {}
    for name, server in (("hub", bridge.hub), ("leaf", bridge.leaf)):
        _, page = await monitor.get(server.monitor_port, "/varz")
        found |= {f"{name} reads": page["in_msgs"], f"{name} writes": page["out_msgs"]}
    _, page = await monitor.get(bridge.hub.monitor_port, "/leafz")
    links: list[dict[str, Any]] = page["leafs"]
    found["bytes over the link, there"] = sum(link["out_bytes"] for link in links)
    found["back"] = sum(link["in_bytes"] for link in links)
    return found


async def per_job(bridge: Bridge, drive: Drive, job: Job) -> tuple[Result, dict[str, float]]:
    """Drive jobs, and say what the servers counted for each."""
    before = await counts(bridge)
    result = await drive(job)
    await asyncio.sleep(SETTLED_S)
    after = await counts(bridge)
    return result, {what: (after[what] - before[what]) / result.jobs for what in after}


async def measure(options: argparse.Namespace) -> AsyncIterator[rows.Row]:
    """A row for each side at each window."""
    args = {"data": "x" * (options.size - len('{"data":""}'))}
    with tempfile.TemporaryDirectory() as place:
        async with running(bench_policy(Path(place)), Path(place, "bridge")) as bridge:
            for window in options.windows:
                for name in options.sides:
                    found: dict[str, float] = {}

                    async def drive(job: Job, window: int = window, found: dict[str, float] = found) -> Result:
                        result, counted = await per_job(bridge, lambda job: paced(options.jobs, window, job), job)
                        found.update(counted)
                        return result

                    await driven(bridge, SIDES[name], args, drive, window, Path(place, "data"))
                    yield {"in flight": window, "": NAMES[name], **found}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.wire", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000, help="jobs per run")
    parser.add_argument("--size", type=int, default=1024, help="bytes of a job's JSON, and of its result's")
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 100], help="jobs in flight")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["bridge", "floor"])
    rows.run("wire", parser, measure)


if __name__ == "__main__":
    main()
