"""What jobs that wait for their time cost the hub: bytes of memory and disk for each, and what a restart takes.

``python -m bench.waiting --help``. The jobs are one real job's bytes, stored under as many subjects: what the server
keeps depends on size and subject, and it reads neither. The worker's part is its own connection, consumer and naks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

from bench import plain
from bench.policy import bench_policy
from bridge import subjects
from bridge.devserver import Bridge, running
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import JetStreamTransport, connect
from bridge.observe import configure
from bridge.subjects import JobKey
from bridge.transport import Message
from producers import Producer

AHEAD = timedelta(hours=12)
"""When the jobs may start: long after the measurement."""
CHUNK = 2_000
"""Messages on their way at once: a stream takes 10,000, and refuses more."""
IDLE_S = 10
ROOM = ", max_pending: 10000000, max_bytes: 32GiB"
"""As many jobs as a queue may have."""
QUEUE, POOL = "bench", "pool"


@contextlib.asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[JetStreamTransport]:
    """A connection of an identity."""
    seed = Identity.load(folder).nkey_seed
    async with await connect(Connection.load(folder), seed, folder / CA_FILE, name="bench", timeout=30) as transport:
        yield transport


async def template(folder: Path, size: int) -> tuple[JobKey, Message]:
    """A job of ``size`` bytes of JSON that waits, and how it lies in the stream."""
    async with Producer.open(folder) as producer:
        handle = await producer.submit(QUEUE, "echo", {"data": "x" * (size - len('{"data":""}'))}, delay=AHEAD)
    async with connected(folder) as transport:
        stream, subject = subjects.delayed_stream(QUEUE), subjects.delayed(handle.key)
        message = await transport.lookup(stream, subject)
    assert message is not None
    return handle.key, message


async def store(folder: Path, message: Message, names: Sequence[str]) -> None:
    """Store the same bytes under so many subjects: a PubAck for every `CHUNK`, which the server has then all."""
    headers = {name: value for name, value in message.headers.items() if name.startswith("Bunny-")}
    async with plain.connected(folder) as client:
        jetstream = client.jetstream()
        for n, subject in enumerate(names, 1):
            unique = {**headers, "Nats-Msg-Id": f"{n:032x}"}
            if n % CHUNK and n != len(names):
                await client.publish(subject, message.data, headers=unique)
            else:
                await jetstream.publish(subject, message.data, headers=unique, timeout=60)


async def put_off(folder: Path, home: str, jobs: int, patience: float) -> int:
    """Be handed up to ``jobs`` jobs and nak each until its time, as a worker does; how many came."""
    seen = 0
    async with plain.connected(folder) as client:
        remote = client.jetstream(domain=home)
        pull = await remote.pull_subscribe_bind(POOL, stream=subjects.delayed_stream(QUEUE), pending_msgs_limit=-1)
        with contextlib.suppress(TimeoutError):
            while seen < jobs:
                messages = await pull.fetch(CHUNK, timeout=patience)
                for message in messages:
                    await message.nak(delay=AHEAD.total_seconds())
                seen += len(messages)
        await client.flush(60)
    return seen


def memory(bridge: Bridge) -> int:
    """Resident bytes of the hub's server."""
    status = Path(f"/proc/{bridge.hub.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024


def disk(folder: Path) -> int:
    """Bytes that the hub's store takes on disk."""
    files = (Path(root, name) for root, _, names in os.walk(folder) for name in names)
    return sum(file.stat().st_blocks * 512 for file in files)


async def settled(look: Callable[[], int]) -> int:
    """A measure once it no longer moves: the server writes its state, and gives memory back, with some delay."""
    before = look()
    for _ in range(30):
        await asyncio.sleep(2)
        now = look()
        if abs(now - before) < 0.005 * before:
            return now
        before = now
    return before


async def idle(bridge: Bridge) -> float:
    """The share of a processor that the hub takes while nothing happens."""

    def used() -> float:
        fields = Path(f"/proc/{bridge.hub.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, began = used(), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    return (used() - before) / (time.perf_counter() - began)


async def timed(step: Awaitable[object]) -> float:
    """Seconds that a step takes."""
    began = time.perf_counter()
    await step
    return time.perf_counter() - began


async def measure(options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each number of waiting jobs, each on a bridge of its own."""
    rows = []
    for jobs in options.jobs:
        with tempfile.TemporaryDirectory() as place:
            async with running(bench_policy(Path(place), room=ROOM), Path(place, "bridge")) as bridge:
                rows.append(await row(bridge, jobs, options.size))
    return rows


async def row(bridge: Bridge, jobs: int, size: int) -> dict[str, object]:
    """One measurement: what each job costs, in bytes above what the hub had without them."""
    producer, pool, folder = bridge.identity("producer"), bridge.identity("pool"), bridge.folder.store("aws")
    key, message = await template(producer, size)
    empty = await settled(lambda: memory(bridge)), await settled(lambda: disk(folder))

    async def costs(what: str, seconds: float) -> dict[str, float]:
        resident = (await settled(lambda: memory(bridge)) - empty[0]) / jobs
        stored = (await settled(lambda: disk(folder)) - empty[1]) / jobs
        found = {"seconds": round(seconds, 1), "memory": round(resident), "disk": round(stored)}
        found["idle"] = round(await idle(bridge), 3)
        print(f"{jobs} {what}: {found}", file=sys.stderr, flush=True)
        return found

    copies = [subjects.delayed(key._replace(n=n)) for n in range(2, jobs + 1)]
    found: dict[str, object] = {"jobs": jobs, "message_bytes": len(message.data)}
    found["stored"] = await costs("stored", await timed(store(producer, message, copies)))
    found["stored, restarted"] = await costs("stored, restarted", await timed(bridge.restart("aws")))
    await bridge.until_flowing()
    found["put off"] = await costs("put off", await timed(put_off(pool, "aws", jobs, 30)))
    found["put off, restarted"] = await costs("put off, restarted", await timed(bridge.restart("aws")))
    await bridge.until_flowing()
    found["handed out after the restart"] = await put_off(pool, "aws", jobs, 10)
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.waiting", description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[100_000], help="jobs that wait, one row each")
    parser.add_argument("--size", type=int, default=256, help="bytes of a job's JSON")
    options = parser.parse_args()
    configure(level="error")
    rows = asyncio.run(measure(options))
    print(json.dumps({"size": options.size, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
