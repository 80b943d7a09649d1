"""Jobs per second and round trips, beside plain nats-py over the same hub and leaf, alternating, in one run.

``make bench`` or ``python -m bench --help``. Absolute numbers belong to the machine; compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

from bench import plain
from bench.pace import Result, paced
from bridge.devserver import running
from bridge.observe import configure
from bridge.policy import Policy, load_policy
from producers import Producer

POLICY = """\
version: 1
bridge: bench
clouds:
  aws:   {{role: hub, clients: "tls://hub.test:4222", leafnodes: "tls://leaf.test:7422", durability: {durability}}}
  azure: {{role: leaf, clients: "tls://azure.test:4222", durability: {durability}}}
identities:
  producer:   {{cloud: aws}}
  pool:       {{cloud: azure}}
  prov-aws:   {{cloud: aws, role: provisioner}}
  prov-azure: {{cloud: azure, role: provisioner}}
  link:       {{cloud: azure, role: link}}
queues:
  bench: {{producers: [producer], workers: pool, kinds: [echo]}}
"""

Run = Callable[[int, int], Awaitable[Result]]
"""A number of jobs, and how many are in flight at once."""


async def sealed(folder: Path, args: dict[str, str], jobs: int, window: int) -> Result:
    """The bridge as a user has it: sealed, signed, fenced."""
    async with Producer.open(folder) as producer:

        async def submit(_: int) -> None:
            handle = await producer.submit("bench", "echo", args)
            assert await handle.result() == args

        return await paced(jobs, window, submit)


@contextlib.asynccontextmanager
async def process(*arguments: str, identity: Path, data: Path | None = None) -> AsyncIterator[None]:
    """A worker process, ended with the block; with a ledger where it has a folder for it."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, "BUNNY_IDENTITY": str(identity), "BUNNY_DATA": str(data or "")},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        if worker.returncode is None:
            worker.terminate()
        await worker.wait()


async def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """The sides in turn, for each window; medians over the repetitions."""
    args = {"data": "x" * (options.size - len('{"data":""}'))}
    body = json.dumps(args, separators=(",", ":")).encode()
    with tempfile.TemporaryDirectory() as place:
        async with running(_policy(Path(place), options.durability), Path(place, "bridge")) as bridge:
            pool, producer = bridge.identity("pool"), bridge.identity("producer")
            sides: dict[str, tuple[list[str], Run]] = {
                "bridge": (["-m", "bench.noop"], partial(sealed, producer, args)),
                "plain": (["-m", "bench.plain", str(pool)], partial(plain.produce, producer, body)),
            }
            if options.ledger:
                sides["ledger"] = sides["bridge"]
            rows = []
            for window in options.windows:
                jobs = options.jobs if window > 1 else max(1000, options.jobs // 10)
                results: dict[str, list[Result]] = {name: [] for name in sides}
                for _ in range(options.repeat):
                    for name, (worker, run) in sides.items():
                        data = Path(place, "data") if name == "ledger" else None
                        async with process(*worker, identity=pool, data=data):
                            await run(min(200, jobs), window)  # connections made, code warm
                            results[name].append(await run(jobs, window))
                rows.append(summary(window, jobs, results))
                print(line(rows[-1]), file=sys.stderr, flush=True)
            return rows


def _policy(folder: Path, durability: str) -> Policy:
    path = folder / "bridge.yaml"
    path.write_text(POLICY.format(durability=durability))
    return load_policy(path)


def summary(window: int, jobs: int, results: dict[str, list[Result]]) -> dict[str, object]:
    """One window's medians, and the ratios of each pair of runs."""
    row: dict[str, object] = {"window": window, "jobs": jobs, "repetitions": len(results["bridge"])}
    for name, runs in results.items():
        times = sorted(t for _, each in runs for t in each)
        row[name] = {
            "jobs_per_s": statistics.median(jobs / seconds for seconds, _ in runs),
            "p50_ms": 1000 * times[len(times) // 2],
            "p99_ms": 1000 * times[len(times) * 99 // 100],
        }
    row["ratio"] = _ratio(results["bridge"], results["plain"])
    if "ledger" in results:
        row["ledger_ratio"] = _ratio(results["ledger"], results["bridge"])
    return row


def _ratio(one: list[Result], other: list[Result]) -> float:
    """How fast one side is, in units of the other's speed."""
    return statistics.median(other_s / one_s for (one_s, _), (other_s, _) in zip(one, other, strict=True))


def line(row: dict[str, object]) -> str:
    """A row for people."""
    sides = []
    for name, side in row.items():
        if isinstance(side, dict):
            sides.append(f"{name} {side['jobs_per_s']:7.0f}/s p50 {side['p50_ms']:6.2f} p99 {side['p99_ms']:6.2f} ms")
    ratios = f"bridge/plain {row['ratio']:.2f}"
    if "ledger_ratio" in row:
        ratios += f"   ledger/bridge {row['ledger_ratio']:.2f}"
    return f"window {row['window']:>4}: {'   '.join(sides)}   {ratios}"


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs per run (a tenth of it at window 1)")
    parser.add_argument("--size", type=int, default=1024, help="bytes of a job's JSON, and of its result's")
    parser.add_argument("--windows", type=int, nargs="+", default=[1, 100, 500], help="jobs in flight")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each side; medians are printed")
    parser.add_argument("--durability", choices=["process", "power-loss"], default="process")
    parser.add_argument("--ledger", action="store_true", help="and a third side: the bridge, its worker with a ledger")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    configure(level="error")
    rows = asyncio.run(measure(options))
    if options.json:
        print(json.dumps({"size": options.size, "durability": options.durability, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
