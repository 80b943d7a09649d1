"""Real servers: an administrator who alters, re-orders and publishes again, and a proxy that alters the link."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from bridge.devserver import monitor
from consumers import Worker
from producers import Handle, Producer
from tests.attacks.test_loss import administrator, holds
from tests.integration.plain import Plain
from tests.integration.test_jobs import SHORT, held, serving, until_empty
from tests.support import running_bridge

JOBS = "JOBS_thumbs"
HANDSHAKE = 8 * 1024
"""About what a handshake and the greetings of both servers have, in each direction."""


def counting(data: Path | None = None) -> tuple[Worker, list[int]]:
    worker, calls = Worker(data=data), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> int:
        calls.append(width)
        return width + 1

    return worker, calls


async def taken_out(admin: Plain, many: int) -> list[tuple[str, bytes]]:
    """Subject and data of every job that waits, which is then gone."""
    found = []
    for _ in range(many):
        message = await admin.pull(JOBS, "bunny-normal")
        found.append((message.subject, message.data))
        await admin.client.publish(message.reply, b"+ACK")
    await holds(admin, JOBS, 0)
    return found


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def test_h9_h28_h31_what_an_administrator_alters_reorders_and_publishes_again(tmp_path: Path) -> None:
    worker, calls = counting(tmp_path / "data")
    async with (
        running_bridge(tmp_path, SHORT) as bridge,
        administrator(bridge) as admin,
        Producer.open(bridge.identity("alpha")) as alpha,
    ):
        handles = [await alpha.submit("thumbs", "resize", n) for n in range(12)]
        jobs = await taken_out(admin, len(handles))
        assert len({subject for subject, _ in jobs}) == len(handles)
        # Bits of three are flipped, two stand on each other's subject, one is cut: the rest goes out last first, twice.
        hostile = [(jobs[n][0], flipped(jobs[n][1], at)) for n, at in enumerate((5, 300, 1700))]
        hostile += [(jobs[3][0], jobs[4][1]), (jobs[4][0], jobs[3][1]), (jobs[5][0], jobs[5][1][:-7])]
        for subject, data in hostile:
            await admin.ask(subject, data)
        async with serving(bridge, "bunny", worker):
            await until_empty(bridge, "ops-aws", JOBS)
            assert await held(bridge, "ops-azure", "REFUSED_thumbs") == len(hostile)
            assert calls == []
            for _ in range(2):
                for subject, data in reversed(jobs):
                    await admin.ask(subject, data)
                await until_empty(bridge, "ops-aws", JOBS)
            assert [await handle.result(int, timeout=60) for handle in handles] == list(range(1, 13))
        assert sorted(calls) == list(range(12))
        assert await held(bridge, "ops-azure", "RESULTS_thumbs") == len(handles)
        assert await held(bridge, "ops-azure", "DEAD_thumbs") == 0


class Altering:
    """A TCP proxy that alters what passes once the handshake is over, on its first two connections: one each way.

    Args:
        target: The port on loopback that it goes to.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.ways = ["from the leaf", "from the hub"]
        """What is still to be altered, the next connection's last."""
        self.altered = 0
        self._tasks = set[asyncio.Task[None]]()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there, thither = await asyncio.open_connection("127.0.0.1", self.target)
        way = self.ways.pop() if self.ways else ""
        ways = [
            asyncio.create_task(self._forward(reader, thither, way == "from the leaf")),
            asyncio.create_task(self._forward(there, writer, way == "from the hub")),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ways:
                each.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, thither):
                end.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, alters: bool) -> None:
        passed = 0
        while data := await reader.read(64 * 1024):
            passed += len(data)
            if alters and passed > HANDSHAKE:
                data = flipped(data, len(data) // 2)
                self.altered += 1
            writer.write(data)
            await writer.drain()


async def test_h9_h41_bytes_that_are_altered_on_the_link_reach_nobody_and_delay_the_work(tmp_path: Path) -> None:
    worker, calls = counting()
    async with running_bridge(tmp_path, SHORT, relay=True) as bridge:
        assert bridge.relay is not None
        proxy = Altering(bridge.relay.target)
        async with proxy.listening() as port:
            bridge.relay.target = port
            await bridge.relay.cut()
            bridge.relay.heal()
            async with Producer.open(bridge.identity("alpha")) as alpha, serving(bridge, "bunny", worker):
                handles = list[Handle[int]]()

                async def submitted() -> bool:
                    """More jobs, until some have met the proxy in each direction."""
                    if proxy.altered < 2:
                        width = len(handles)
                        handles.extend([await alpha.submit("thumbs", "resize", width + n) for n in range(10)])
                    return proxy.altered >= 2 and all(handle.done() for handle in handles)

                await monitor.until(submitted, 90, "every job to be answered over an altered link")
                assert [await handle.result(int) for handle in handles] == list(range(1, len(handles) + 1))
            assert await held(bridge, "ops-azure", "REFUSED_thumbs") == 0
            assert await held(bridge, "ops-azure", "DEAD_thumbs") == 0
            assert await held(bridge, "ops-azure", "RESULTS_thumbs") == len(handles)
    assert not proxy.ways
    assert set(calls) == set(range(len(handles)))
