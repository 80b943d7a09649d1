"""What carries the same bytes and promises less: core NATS with byte credits, nats-py's object store, one hop of TLS.

Each has a process at either end, under uvloop, as the bridge has: the one that runs the bench, and a child that gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import random
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import nats
import uvloop

from bench.processes import Watched, started
from bridge.devserver import Bridge, Server
from bridge.devserver.ports import free_port
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import JetStreamTransport, connect
from bridge.observe import configure
from bridge.payload import PART
from bridge.transport import Message

CREDIT: Final = 16 * 1024 * 1024
"""Bytes that core NATS may have under way, which nothing else would bound."""
_PORTION: Final = 8
"""Parts that are credited at once."""
_THERE: Final = ("events.bench.producer.*.*", "events.bench.producer.x.1")
_PLAIN: Final = """\
listen: "127.0.0.1:{clients}"
http: "127.0.0.1:{monitor}"
max_payload: 1114112
tls {{ cert_file: "{pki}/clients.pem", key_file: "{pki}/clients.key" }}
jetstream {{ store_dir: "{store}", domain: {name} }}
leafnodes {{ compression: off, {leafnodes} }}
"""
_LISTEN: Final = (
    'listen: "127.0.0.1:{port}", tls {{ cert_file: "{pki}/leafnodes.pem", key_file: "{pki}/leafnodes.key" }}'
)
_DIAL: Final = 'remotes: [{{ urls: ["tls://127.0.0.1:{port}"], tls {{ ca_file: "{pki}/ca.pem" }} }}]'


def generated(size: int) -> Iterator[bytes]:
    """Bytes that no part has in common with another, at no cost."""
    block = bytearray(random.Random(7).randbytes(PART))  # noqa: S311  # no secret
    for at in range(0, size, PART):
        block[:8] = at.to_bytes(8)
        yield bytes(block[: min(PART, size - at)])


async def flowing(size: int) -> AsyncIterator[bytes]:
    """`generated`, as a payload takes it."""
    for block in generated(size):
        yield block


def digest_of(size: int) -> str:
    """That of `generated`."""
    digest = hashlib.sha256()
    for block in generated(size):
        digest.update(block)
    return digest.hexdigest()


async def transport(place: Path) -> JetStreamTransport:
    """A connection of an identity."""
    seed = Identity.load(place).nkey_seed
    return await connect(Connection.load(place), seed, place / CA_FILE, name=place.name, timeout=20)


# --- core NATS -------------------------------------------------------------------------------------


async def core(bridge: Bridge, size: int, watched: Watched) -> dict[str, Any]:
    """MB/s from the workers' cloud to the producers', over a subject that crosses anyway, and processor time.

    The subjects that cross carry messages to producers alone; each server does the same the other way.
    """
    parts, got, done = -(-size // PART), 0, asyncio.Event()
    async with (
        await transport(bridge.identity("producer")) as reader,
        started("bench.rivals", "core", str(bridge.identity("pool")), str(size)) as child,
    ):

        async def arrived(_: Message) -> None:
            nonlocal got
            got += 1
            if got % _PORTION == 0:
                child.tell(b"\n")
            if got == parts:
                done.set()

        async def all_of_it() -> float:
            begun = time.perf_counter()
            child.tell(b"\n" * (CREDIT // PART // _PORTION))
            await done.wait()
            return size / 1e6 / (time.perf_counter() - begun)

        await reader.subscribe(_THERE[0], arrived)
        assert await child.line() == "ready"
        await asyncio.sleep(0.5)  # interest crosses the link
        rate, cpu = await Watched({**watched.pids, "worker": child.process.pid}).spent(all_of_it())
        return {"rate": round(rate, 1), "cpu": cpu}


async def _write_core(place: Path, size: int) -> None:
    credit = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(credit), sys.stdin)
    async with await transport(place) as writer:
        print("ready", flush=True)
        for number, block in enumerate(generated(size)):
            if number % _PORTION == 0:
                await credit.readline()
            await writer.tell(_THERE[1], block)
        await writer.flush(60)
        await asyncio.sleep(3600)  # its end is that of the one who reads


# --- nats-py's object store ------------------------------------------------------------------------


async def object_store(bridge: Bridge, size: int) -> dict[str, Any]:
    """MB/s of a put at a plain hub and then a get at its leaf: the same servers and certificates, no walls."""
    folder = bridge.folder.path / "plain"
    pki, ports, watched = bridge.folder.pki / "aws", set[int](), Watched({"producer": os.getpid()})
    async with contextlib.AsyncExitStack() as stack:
        port, clients = free_port(ports), {}
        for name, leafnodes in (("hub", _LISTEN), ("leaf", _DIAL)):
            clients[name], monitor = free_port(ports), free_port(ports)
            config, store = folder / f"{name}.conf", folder / name
            config.parent.mkdir(exist_ok=True)
            links = leafnodes.format(port=port, pki=pki)
            config.write_text(
                _PLAIN.format(clients=clients[name], monitor=monitor, pki=pki, store=store, name=name, leafnodes=links)
            )
            server = Server(name, config, {}, monitor_port=monitor, log=folder / f"{name}.log")
            await server.start()
            stack.push_async_callback(server.stop)
            assert server.pid is not None
            watched.pids[name] = server.pid
        reader = await nats.connect(f"tls://127.0.0.1:{clients['leaf']}", tls=_trusting(pki))
        stack.push_async_callback(reader.close)
        args = ("put", f"tls://127.0.0.1:{clients['hub']}", str(pki), str(size))
        child = await stack.enter_async_context(started("bench.rivals", *args))
        watched.pids["worker"] = child.process.pid

        async def both() -> float:
            begun = time.perf_counter()
            child.tell(b"\n")
            assert await child.line() == "stored"
            bucket = await reader.jetstream(domain="hub").object_store("bench")
            with (folder / "got").open("wb") as file:
                await bucket.get("payload", writeinto=file)
            return round(size / 1e6 / (time.perf_counter() - begun), 1)

        assert await child.line() == "ready"
        rate, cpu = await watched.spent(both())
        return {"rate": rate, "cpu": cpu}


async def _put(url: str, pki: Path, size: int) -> None:
    client = await nats.connect(url, tls=_trusting(pki))
    bucket = await client.jetstream(domain="hub").create_object_store("bench")
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await bucket.put("payload", io.BufferedReader(_Generated(size), PART))
    print("stored", flush=True)
    await asyncio.sleep(3600)  # as above


class _Generated(io.RawIOBase):
    """`generated`, as a file."""

    def __init__(self, size: int) -> None:
        self._blocks, self._rest = generated(size), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # any writable buffer
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


# --- one hop of TLS --------------------------------------------------------------------------------


async def one_hop(bridge: Bridge, size: int) -> float:
    """MB/s over one TLS connection from another process, read and thrown away."""
    pki, finished, begun = bridge.folder.pki / "aws", asyncio.Event(), 0.0
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(pki / "clients.pem", pki / "clients.key")

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal begun
        left, begun = size, time.perf_counter()
        while left > 0 and (data := await reader.read(PART)):
            left -= len(data)
        finished.set()
        writer.transport.abort()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0, ssl=served, limit=4 * PART) as server:
        port = server.sockets[0].getsockname()[1]
        async with started("bench.rivals", "tls", str(port), str(pki), str(size)):
            await finished.wait()
        return round(size / 1e6 / (time.perf_counter() - begun), 1)


async def _write_tls(port: int, pki: Path, size: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_trusting(pki))
    for block in generated(size):
        writer.write(block)
        await writer.drain()
    await asyncio.sleep(3600)  # as above


def _trusting(pki: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki / "ca.pem"))
    context.check_hostname = False
    return context


def main(arguments: list[str]) -> None:
    """The end that gives bytes."""
    configure(level="error")
    match arguments:
        case ["core", place, size]:
            work = _write_core(Path(place), int(size))
        case ["put", url, pki, size]:
            work = _put(url, Path(pki), int(size))
        case ["tls", port, pki, size]:
            work = _write_tls(int(port), Path(pki), int(size))
        case _:
            raise SystemExit("started by bench.payload")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


if __name__ == "__main__":
    main(sys.argv[1:])
