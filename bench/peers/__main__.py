"""Other Python job queues beside the bridge, on the same work, alternating, in one run.

``make bench-peers``. A no-op handler, JSON in and out, one producer process and one worker process. They have neither
TLS nor a second broker, seal nothing and prove nothing; the bridge has its hub, its link and its leaf. Versions are
pinned in ``bench/peers/requirements``; each is set as its documentation says it goes fastest without losing a job that
its worker had when it was killed, as far as it can.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.pace import Result
from bench.peers.servers import HERE, environment, nats, redis
from bench.policy import bench_policy
from bench.sides import SIDES, one_run
from bridge.devserver import running
from bridge.observe import configure

PEERS: Final[Mapping[str, tuple[str, str]]] = {
    "celery": ("redis", "peers"),
    "dramatiq": ("redis", "peers"),
    "arq": ("redis", "arq"),
    "taskiq": ("redis", "peers"),
    "faststream": ("nats", "peers"),
}
"""The broker of each, and its environment."""
TIMEOUT_S: Final = 300.0


async def peer(name: str, url: str, jobs: int, window: int, size: int) -> Result:
    """One run of one of them: its worker started, warmed up, and measured by its own producer."""
    python, script = str(environment(PEERS[name][1])), str(HERE / f"{name}_side.py")
    variables = {**os.environ, "URL": url}
    quiet = asyncio.subprocess.DEVNULL
    worker = await asyncio.create_subprocess_exec(python, script, "work", env=variables, stdout=quiet, stderr=quiet)
    try:
        producer = await asyncio.create_subprocess_exec(
            *(python, script, "produce", str(jobs), str(window), str(size)),
            env=variables,
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(TIMEOUT_S):
            said, _ = await producer.communicate()
    finally:
        worker.kill()
        await worker.wait()
    if producer.returncode != 0:
        sys.exit(f"{name}: its producer ended with {producer.returncode}, and says why above")
    found = json.loads(said.splitlines()[-1])
    return Result(found["jobs"], found["seconds"], found["times"])


async def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All of them in turn, for each window; medians, and the ratios of what ran in one round."""
    args = {"data": "x" * (options.size - len('{"data":""}'))}
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place, name) for name in ("redis", "nats")}
        for folder in folders.values():
            folder.mkdir()
        async with (
            redis(folders["redis"], options.durability) as redis_url,
            nats(folders["nats"], options.durability) as nats_url,
            running(bench_policy(Path(place), options.durability), Path(place, "bridge")) as bridge,
        ):
            urls = {"redis": redis_url, "nats": nats_url}
            for window in options.windows:
                jobs = options.jobs if window > 1 else max(100, options.jobs // 10)
                runs: dict[str, list[Result]] = {name: [] for name in ("bridge", *options.peers)}
                for _ in range(options.repeat):
                    run = await one_run(bridge, SIDES["bridge"], args, jobs, window, Path(place, "data"))
                    runs["bridge"].append(run.result)
                    for name in options.peers:
                        url = urls[PEERS[name][0]]
                        runs[name].append(await peer(name, url, jobs, window, options.size))
                rows.append(row(window, jobs, options.durability, runs))
                print(line(rows[-1]), file=sys.stderr, flush=True)
    return rows


def row(window: int, jobs: int, durability: str, runs: Mapping[str, list[Result]]) -> dict[str, Any]:
    """One window."""
    sides = {}
    for name, each in runs.items():
        times = sorted(t for run in each for t in run.times)
        pairs = zip(runs["bridge"], each, strict=True)
        sides[name] = {
            "jobs_per_s": statistics.median(run.rate for run in each),
            "p50_ms": 1000 * times[len(times) // 2],
            "p99_ms": 1000 * times[len(times) * 99 // 100],
            "bridge_ratio": statistics.median(bridge.rate / other.rate for bridge, other in pairs),
        }
    return {"window": window, "jobs": jobs, "durability": durability, "sides": sides}


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    lines = [f"window {row['window']}, {row['jobs']} jobs, durability {row['durability']}"]
    lines += [
        f"  {name:<11}{side['jobs_per_s']:7.0f}/s   p50 {side['p50_ms']:7.2f}   p99 {side['p99_ms']:7.2f} ms   "
        f"bridge/{name} {side['bridge_ratio']:.2f}"
        for name, side in row["sides"].items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000, help="jobs per run (a tenth of it at window 1)")
    parser.add_argument("--size", type=int, default=1024, help="bytes of a job's JSON, and of its result's")
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 100], help="jobs in flight")
    parser.add_argument("--repeat", type=int, default=5, help="rounds; medians are printed")
    parser.add_argument("--durability", choices=["process", "power-loss"], default="process")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    configure(level="error")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(measure(options))
    if options.json:
        print(
            json.dumps(
                {"what": "peers", "size": options.size, "durability": options.durability, "rows": rows}, indent=2
            )
        )


if __name__ == "__main__":
    main()
