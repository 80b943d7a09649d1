"""The relay, between two plain TCP ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from bridge.devserver import Relay
from tests.fleet import until
from tests.unit.test_memory import steered


@contextlib.asynccontextmanager
async def echo_through_relay() -> AsyncIterator[Relay]:
    serving: set[asyncio.Task[None]] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(echo(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server, Relay(server.sockets[0].getsockname()[1]) as relay:
        yield relay
    await asyncio.gather(*serving)


@contextlib.asynccontextmanager
async def dialled(relay: Relay) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def exchange(ends: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes) -> float:
    """Seconds from sending to having it all back."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    ends[1].write(data)
    assert await ends[0].readexactly(len(data)) == data
    return loop.time() - start


async def test_it_forwards_both_ways_and_records_the_beginning() -> None:
    async with echo_through_relay() as relay, dialled(relay) as ends:
        await exchange(ends, b"first")
        await exchange(ends, bytes(1 << 20))
        recording = relay.recordings[-1]
        assert recording.from_leaf.startswith(b"first")
        assert recording.from_hub.startswith(b"first")
        assert len(recording.from_leaf) == len(recording.from_hub) == 16 * 1024


async def test_a_cut_ends_connections_and_refuses_new_ones_until_healed() -> None:
    async with echo_through_relay() as relay:
        async with dialled(relay) as ends:
            await exchange(ends, b"here")
            await relay.cut()
            assert relay.connections == 0
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await exchange(ends, b"gone")
        async with dialled(relay) as ends:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await exchange(ends, b"still gone")
        relay.heal()
        async with dialled(relay) as ends:
            await exchange(ends, b"back")


async def test_a_black_hole_holds_everything_and_gives_it_back() -> None:
    async with echo_through_relay() as relay, dialled(relay) as ends:
        await exchange(ends, b"before")
        relay.black_hole()
        ends[1].write(b"during")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await ends[0].readexactly(1)
        assert relay.connections == 1
        relay.heal()
        assert await ends[0].readexactly(6) == b"during"


async def test_delay_counts_once_each_way() -> None:
    jump = steered()
    async with echo_through_relay() as relay, dialled(relay) as ends:
        relay.delay = 50.0
        ends[1].write(b"ping")
        await until(lambda: relay.recordings[-1].from_leaf == b"ping")
        assert relay.carried == {"from_leaf": 0, "from_hub": 0}
        jump(50)
        await until(lambda: relay.recordings[-1].from_hub == b"ping")
        assert relay.carried == {"from_leaf": 4, "from_hub": 0}
        jump(50)
        assert await ends[0].readexactly(4) == b"ping"
        relay.delay = 0.0
        await exchange(ends, b"ping")


async def test_a_choked_link_is_as_fast_as_asked() -> None:
    async with echo_through_relay() as relay, dialled(relay) as ends:
        relay.rate = 1_000_000
        took = [await exchange(ends, bytes(200_000)) for _ in range(3)]
    assert min(took) >= 0.15
    assert min(took) < 1.5  # a busy machine stops everything for longer, but not each time


async def test_an_end_that_closes_closes_the_other() -> None:
    async with echo_through_relay() as relay, dialled(relay) as ends:
        await exchange(ends, b"here")
        ends[1].write_eof()
        assert await ends[0].read() == b""
