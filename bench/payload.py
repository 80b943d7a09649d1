"""Large payloads both ways through hub and leaf, beside what carries the same bytes and promises less, in one run.

``python -m bench.payload --help``; figures and their commands are in ``docs/performance.md``. Compared are the bridge
(sealed, signed, stored, and verified to the end), core NATS with byte credits through the same leaf (nothing stored,
nothing sealed), nats-py's object store, and one hop of TLS. Every end is a process of its own under uvloop. Rates
belong to the machine; compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import uvloop

from bench import breaks, rivals
from bench.processes import Watched, resident_mb, serving
from bench.rivals import digest_of, flowing
from bridge.devserver import Bridge, running
from bridge.observe import configure
from bridge.policy import Policy, load_policy
from consumers import Worker
from producers import Payload, Producer

POLICY = """\
version: 1
bridge: bench
clouds:
  aws:   {role: hub, clients: "tls://hub.test:4222", leafnodes: "tls://leaf.test:7422", durability: process}
  azure: {role: leaf, clients: "tls://azure.test:4222", durability: process}
identities:
  producer:   {cloud: aws}
  pool:       {cloud: azure}
  prov-aws:   {cloud: aws, role: provisioner}
  prov-azure: {cloud: azure, role: provisioner}
  link:       {cloud: azure, role: link}
queues:
  bench: {producers: [producer], workers: pool, kinds: [sink, check, source, small], deadline: 6h,
          ack_wait: 5s, backoff: {initial: 100ms, max: 1s}, result_ttl: 24h, max_payload: 16GiB, payload_bytes: 64GiB}
"""
MIB: Final = 1024 * 1024
SINK: Final = 4 * MIB

worker = Worker(concurrency=4)


@worker.handler("bench", "sink")
def sink(payload: Payload) -> int:
    """Read all of it, as whoever is at the other end of core NATS does: what it was is verified before."""
    total = 0
    with payload.open() as file:
        while chunk := file.read(SINK):
            total += len(chunk)
    return total


@worker.handler("bench", "check")
def check(payload: Payload) -> str:
    """Read all of it, and say what it was."""
    digest = hashlib.sha256()
    with payload.open() as file:
        while chunk := file.read(SINK):
            digest.update(chunk)
    return digest.hexdigest()


@worker.handler("bench", "source")
async def source(size: int) -> AsyncIterator[bytes]:
    """So many bytes."""
    return flowing(size)


@worker.handler("bench", "small")
async def small(args: dict[str, str]) -> dict[str, str]:
    """An echo."""
    return args


async def bridged(producer: Producer, size: int, folder: Path, watched: Watched, digest: str) -> dict[str, Any]:
    """Both ways: MB/s, and the processor time of each process."""
    stored = 0.0

    async def there() -> float:
        nonlocal stored
        begun = time.perf_counter()
        job = await producer.submit("bench", "sink", flowing(size), timeout=600)
        stored = time.perf_counter() - begun
        assert await job.result() == size
        return time.perf_counter() - begun

    async def back() -> float:
        begun = time.perf_counter()
        job = await producer.submit("bench", "source", size)
        await job.result(to=folder / "out")
        return time.perf_counter() - begun

    went, cpu_there = await watched.spent(there())
    came, cpu_back = await watched.spent(back())
    await asyncio.to_thread(_verify, folder / "out", digest)
    rates = {"store": stored, "there": went, "back": came}
    return {name: round(size / 1e6 / took, 1) for name, took in rates.items()} | {
        "cpu_there": cpu_there,
        "cpu_back": cpu_back,
    }


def _verify(path: Path, digest: str) -> None:
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    path.unlink()


async def beside(producer: Producer, size: int, jobs: int) -> dict[str, float]:
    """The round trips of small jobs, one after another, without and with large transfers beside them: ms.

    Both ways in turn: a payload that goes there, and one that comes back; with the MB/s of each meanwhile.
    """

    async def small_jobs(until: asyncio.Task[Any] | None) -> list[float]:
        times: list[float] = []
        while len(times) < jobs if until is None else not until.done():
            begun = time.perf_counter()
            await (await producer.submit("bench", "small", {"x": "y"})).result()
            times.append(1000 * (time.perf_counter() - begun))
        return sorted(times)

    async def there() -> None:
        await (await producer.submit("bench", "sink", flowing(size), timeout=600)).result()

    async def back() -> None:
        async for _ in (await producer.submit("bench", "source", size)).stream():
            pass

    await small_jobs(None)
    alone = await small_jobs(None)
    found: dict[str, float] = {"alone_p50": _at(alone, 0.5), "alone_p99": _at(alone, 0.99)}
    for name, large in (("there", there), ("back", back)):
        begun = time.perf_counter()
        times = await small_jobs(asyncio.create_task(large()))
        found[f"{name}_rate"] = round(size / 1e6 / (time.perf_counter() - begun), 1)
        found |= {f"{name}_p50": _at(times, 0.5), f"{name}_p99": _at(times, 0.99), f"{name}_jobs": len(times)}
        found[f"{name}_ratio"] = round(found[f"{name}_p99"] / found["alone_p99"], 2)
    return found


def _at(times: list[float], share: float) -> float:
    return round(times[int(len(times) * share)], 2)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for."""
    with tempfile.TemporaryDirectory(dir=options.dir) as place:
        folder = Path(place)
        async with running(_policy(folder), folder / "bridge", relay=options.relayed) as bridge:
            if bridge.relay is not None:
                bridge.relay.delay = options.delay_ms / 2000
                bridge.relay.rate = options.mbit * 125_000 if options.mbit else None
            found: dict[str, Any] = {"mib": options.mib, "delay_ms": options.delay_ms, "mbit": options.mbit}
            if options.breaks:
                return found | {"breaks": await breaks.broken(bridge, folder, options.mib * MIB, options.breaks)}
            return found | await _measured(bridge, folder, options)


async def _measured(bridge: Bridge, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    size, digest, runs = options.mib * MIB, digest_of(options.mib * MIB), list[dict[str, Any]]()
    assert bridge.hub.pid is not None
    assert bridge.leaf.pid is not None
    watched = Watched({"hub": bridge.hub.pid, "leaf": bridge.leaf.pid, "producer": os.getpid()})
    found: dict[str, Any] = {}
    async with contextlib.AsyncExitStack() as stack:
        child = await stack.enter_async_context(serving(bridge.identity("pool"), folder / "spool"))
        producer = await stack.enter_async_context(Producer.open(bridge.identity("producer")))
        watched.pids["worker"] = child.process.pid
        await (await producer.submit("bench", "small", {})).result()
        found["idle_mb"] = {name: resident_mb(pid) for name, pid in watched.pids.items()}
        watching = asyncio.create_task(watched.watch())
        if options.jobs:
            found["beside"] = await beside(producer, size, options.jobs)
        for _ in range(options.repeat):
            run: dict[str, Any] = {"bridge": await bridged(producer, size, folder, watched, digest)}
            if not options.alone:
                run["core"] = await rivals.core(bridge, size, watched)
                run["tls"] = await rivals.one_hop(bridge, size)
                run["object_store"] = await rivals.object_store(bridge, size)
            runs.append(run)
            print(json.dumps(run), file=sys.stderr, flush=True)
        watching.cancel()
    return found | {"runs": runs, "peak_mb": watched.peak_mb}


def _policy(folder: Path) -> Policy:
    path = folder / "bridge.yaml"
    path.write_text(POLICY)
    return load_policy(path)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.payload", description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the payload")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="the bridge alone")
    parser.add_argument("--relayed", action="store_true", help="put a relay (Python) into the link")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="with --relayed: added to the round trip")
    parser.add_argument("--mbit", type=float, default=0.0, help="with --relayed: choke the link to so many Mbit/s")
    parser.add_argument("--jobs", type=int, default=0, help="small jobs, without and with a transfer beside them")
    parser.add_argument("--breaks", type=int, default=0, help="with --relayed: so many cuts and kills instead")
    parser.add_argument("--dir", type=Path, default=None, help="where to keep keys and streams meanwhile")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        configure(level="error")
        worker.main()
    if options.breaks and not options.relayed:
        parser.error("--breaks needs --relayed: it cuts the link, and counts what it carries")
    configure(level="critical" if options.breaks else "error")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure(options)), indent=2))


if __name__ == "__main__":
    main()
