"""Large payloads both ways through hub and leaf, beside what carries the same bytes and promises less, in one run.

``python -m bench.payload --help``. Compared are the bridge (sealed, signed, stored, and verified to the end), core NATS
with byte credits through the same leaf (nothing stored, nothing sealed), and one TLS connection of a Python process to
itself. Rates belong to the machine; compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import resource
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bridge.devserver import Bridge, running
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import JetStreamTransport, connect
from bridge.observe import configure
from bridge.payload import PART
from bridge.policy import Policy, load_policy
from bridge.transport import Message
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
  bench: {producers: [producer], workers: pool, kinds: [sink, source, small], deadline: 6h,
          result_ttl: 24h, max_payload: 16GiB, payload_bytes: 64GiB}
"""
MIB = 1024 * 1024
SINK = 4 * MIB

worker = Worker(concurrency=4)


@worker.handler("bench", "sink")
def sink(payload: Payload) -> dict[str, Any]:
    """Read all of it, and say what it was and how much memory this process has taken."""
    digest = hashlib.sha256()
    with payload.open() as file:
        while chunk := file.read(SINK):
            digest.update(chunk)
    return {"sha256": digest.hexdigest(), "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


@worker.handler("bench", "source")
async def source(size: int) -> AsyncIterator[bytes]:
    """So many bytes."""
    return generated(size)


@worker.handler("bench", "small")
async def small(args: dict[str, str]) -> dict[str, str]:
    """An echo."""
    return args


async def generated(size: int) -> AsyncIterator[bytes]:
    """Bytes that no part has in common with another, at no cost."""
    block = bytearray(random.Random(7).randbytes(PART))  # noqa: S311  # no secret
    for at in range(0, size, PART):
        block[:8] = at.to_bytes(8)
        yield bytes(block[: min(PART, size - at)])


def digest_of(size: int) -> str:
    """That of `generated`."""
    digest, block = hashlib.sha256(), bytearray(random.Random(7).randbytes(PART))  # noqa: S311  # no secret
    for at in range(0, size, PART):
        block[:8] = at.to_bytes(8)
        digest.update(block[: min(PART, size - at)])
    return digest.hexdigest()


class Peak:
    """The most memory that processes took, looked at ten times a second."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids, self.mb = pids, dict.fromkeys(pids, 0)

    async def watch(self) -> None:
        while True:
            for name, pid in self._pids.items():
                with contextlib.suppress(OSError):
                    text = Path(f"/proc/{pid}/status").read_text()  # noqa: ASYNC240  # no disk is behind it
                    self.mb[name] = max(self.mb[name], int(text.partition("VmRSS:")[2].split()[0]) // 1024)
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def serving(identity: Path, spool: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The worker, as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.payload", "--serve"),
        env={**os.environ, "BUNNY_IDENTITY": str(identity), "BUNNY_SPOOL": str(spool)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def bridged(producer: Producer, size: int, folder: Path) -> dict[str, float]:
    """Both ways: MB/s, and the memory that the worker said it took."""
    begun = time.perf_counter()
    job = await producer.submit("bench", "sink", generated(size), timeout=600)
    stored = time.perf_counter() - begun
    told = await job.result()
    there = time.perf_counter() - begun
    assert told["sha256"] == digest_of(size)
    begun = time.perf_counter()
    job = await producer.submit("bench", "source", size)
    out = await job.result(to=folder / "out")
    back = time.perf_counter() - begun
    with out.open("rb") as file:  # nothing else runs
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest_of(size)
    out.unlink()
    return {
        "store": size / 1e6 / stored,
        "there": size / 1e6 / there,
        "back": size / 1e6 / back,
        "worker_mb": told["peak_mb"],
        "producer_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


async def transport(bridge: Bridge, name: str) -> JetStreamTransport:
    """A connection of an identity."""
    place = bridge.identity(name)
    seed = Identity.load(place).nkey_seed
    return await connect(Connection.load(place), seed, place / CA_FILE, name=name, timeout=20)


async def core(bridge: Bridge, size: int, window: int = 16 * MIB) -> float:
    """MB/s over core NATS through the leaf, with byte credits; the subject is one that crosses anyway."""
    async with await transport(bridge, "producer") as reader, await transport(bridge, "pool") as writer:
        free, got, done = asyncio.Semaphore(window // PART), [0], asyncio.Event()
        parts = -(-size // PART)

        async def arrived(_: Message) -> None:
            got[0] += 1
            free.release()
            if got[0] == parts:
                done.set()

        await reader.subscribe("events.bench.producer.*.*", arrived)
        await asyncio.sleep(0.5)  # interest crosses the link
        begun = time.perf_counter()
        async for block in generated(size):
            await free.acquire()
            await writer.tell("events.bench.producer.x.1", block)
        await done.wait()
        return size / 1e6 / (time.perf_counter() - begun)


async def one_hop(bridge: Bridge, size: int) -> float:
    """MB/s over one TLS connection, this process to another that hashes nothing."""
    ours = bridge.folder.pki / "aws"
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(ours / "clients.pem", ours / "clients.key")
    asked = ssl.create_default_context(cafile=str(ours / "ca.pem"))
    asked.check_hostname = False
    finished = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = size
        while left > 0 and (data := await reader.read(PART)):
            left -= len(data)
        finished.set()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0, ssl=served, limit=MIB) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=asked)
        begun = time.perf_counter()
        async for block in generated(size):
            writer.write(block)
            await writer.drain()
        await finished.wait()
        writer.transport.abort()
        return size / 1e6 / (time.perf_counter() - begun)


async def beside(bridge: Bridge, producer: Producer, size: int, jobs: int) -> dict[str, float]:
    """The round trips of small jobs, one after another, without and with a large transfer beside them: p99, ms."""

    async def p99(until: asyncio.Task[Any] | None) -> tuple[float, int]:
        times = []
        while len(times) < jobs if until is None else not until.done():
            begun = time.perf_counter()
            await (await producer.submit("bench", "small", {"x": "y"})).result()
            times.append(time.perf_counter() - begun)
        return 1000 * sorted(times)[len(times) * 99 // 100], len(times)

    async def large() -> None:
        await (await producer.submit("bench", "sink", generated(size))).result()

    await p99(None)
    alone, _ = await p99(None)
    with_it, count = await p99(asyncio.create_task(large()))
    return {"alone_ms": alone, "beside_ms": with_it, "ratio": with_it / alone, "jobs": count}


async def broken(bridge: Bridge, identity: Path, folder: Path, size: int, times: int) -> list[dict[str, Any]]:
    """Cut the link, kill the worker or the hub amid a transfer: was the digest right?"""
    rows: list[dict[str, Any]] = []
    async with Producer.open(bridge.identity("producer")) as producer:
        for n in range(times):
            how = ("cut", "kill -9 the worker", "restart the hub", "cut")[n % 4]
            job = await producer.submit("bench", "sink", generated(size), timeout=600)
            async with contextlib.AsyncExitStack() as stack:
                spool = folder / f"spool-{n}"
                process = await stack.enter_async_context(serving(identity, spool))
                while sum(each.stat().st_size for each in spool.glob("*")) < size // 3:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                if how == "cut":
                    assert bridge.relay is not None
                    await bridge.relay.cut()
                    await asyncio.sleep(0.5)
                    bridge.relay.heal()
                elif how == "restart the hub":
                    await bridge.hub.kill()
                    await bridge.hub.start()
                else:
                    process.send_signal(signal.SIGKILL)
                    await process.wait()
                    await stack.enter_async_context(serving(identity, spool))
                told = await job.result(timeout=300)
            rows.append({"how": how, "right": told["sha256"] == digest_of(size)})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for."""
    size = options.mib * MIB
    with tempfile.TemporaryDirectory(dir=options.dir) as place:
        folder = Path(place)
        async with running(_policy(folder), folder / "bridge", relay=options.relayed) as bridge:
            if bridge.relay is not None:
                bridge.relay.delay = options.delay_ms / 2000
                bridge.relay.rate = options.mbit * 125_000 if options.mbit else None
            assert bridge.hub.pid is not None
            assert bridge.leaf.pid is not None
            peak = Peak({"hub": bridge.hub.pid, "leaf": bridge.leaf.pid})
            watching = asyncio.create_task(peak.watch())
            found: dict[str, Any] = {"mib": options.mib, "delay_ms": options.delay_ms, "mbit": options.mbit}
            if options.breaks:
                found["breaks"] = await broken(bridge, bridge.identity("pool"), folder, size, options.breaks)
            else:
                async with (
                    serving(bridge.identity("pool"), folder / "spool"),
                    Producer.open(bridge.identity("producer")) as producer,
                ):
                    await (await producer.submit("bench", "small", {})).result()
                    runs = []
                    for _ in range(options.repeat):
                        runs.append({"bridge": await bridged(producer, size, folder)})
                        if not options.alone:
                            runs[-1]["core"] = {"back": await core(bridge, size)}
                            runs[-1]["tls"] = {"hop": await one_hop(bridge, size)}
                        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
                    found["runs"] = runs
                    if options.jobs:
                        found["beside"] = await beside(bridge, producer, size, options.jobs)
            watching.cancel()
            return found | {"servers_mb": peak.mb}


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
    parser.add_argument("--breaks", type=int, default=0, help="cuts and kills instead")
    parser.add_argument("--dir", type=Path, default=None, help="where to keep keys and streams meanwhile")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    configure(level="error")
    if options.serve:
        worker.main()
    print(json.dumps(asyncio.run(measure(options)), indent=2))


if __name__ == "__main__":
    main()
