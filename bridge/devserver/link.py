"""A TCP relay to put between the leaf and the hub: it can be cut, reset, delayed, choked and made a black hole.

It sees what an eavesdropper on the path would see, and records the first bytes of it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

RECORDED_BYTES: Final = 16 * 1024
"""How much of each direction is recorded: the whole of a TLS 1.3 handshake."""

RECORDED_CONNECTIONS: Final = 16
_CHUNK: Final = 64 * 1024
_BURST_S: Final = 0.02
"""How much of a choked link's time that was not used may be made up for."""
_NO_FAREWELL: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of no time at all: to close is then to reset."""


@dataclass(slots=True)
class Recording:
    """The first bytes of one connection, by who sent them."""

    from_leaf: bytearray = field(default_factory=bytearray, repr=False)
    from_hub: bytearray = field(default_factory=bytearray, repr=False)


class Relay:
    """Forwards TCP connections from a loopback port to the hub's leafnode port.

    Args:
        target: The hub's leafnode port on loopback.
        port: Where to listen; 0 means any free port.

    Use it as an asynchronous context manager; `port` is set inside.
    """

    def __init__(self, target: int, port: int = 0) -> None:
        self.target, self.port = target, port
        self.delay = 0.0
        """Seconds that every byte takes each way, so half of what is added to the round trip."""
        self.rate: float | None = None
        """Bytes per second each way; None is as fast as it goes."""
        self.recordings: deque[Recording] = deque(maxlen=RECORDED_CONNECTIONS)
        """Of the latest connections, the newest last."""
        self.carried = {"from_leaf": 0, "from_hub": 0}
        """Bytes that were forwarded each way."""
        self.resets = 0
        """How many connections were reset amid a message."""
        self._reset_before = 0
        """Connections of a lower number are to be reset."""
        self._accepted = 0
        self._cut = False
        self._open = asyncio.Event()
        self._open.set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self._cut = True
        await self._drop()

    @property
    def connections(self) -> int:
        """How many connections are open now."""
        return len(self._connections)

    async def cut(self) -> None:
        """Close every connection, and every new one as it comes, until `heal`."""
        self._cut = True
        await self._drop()

    def black_hole(self) -> None:
        """Forward nothing and tell nobody, until `heal`: connections stay open, as behind a dead router."""
        self._open.clear()

    def reset(self) -> None:
        """Reset every connection that is open (RST, no farewell) in the middle of the next bytes it carries."""
        self._reset_before = self._accepted

    def heal(self) -> None:
        """Take connections and forward again, including what a black hole held back."""
        self._cut = False
        self._open.set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="relay connection")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recording, number = Recording(), self._accepted
        self._accepted += 1
        self.recordings.append(recording)
        writers = [writer]
        try:
            await self._open.wait()
            hub_reader, hub_writer = await asyncio.open_connection("127.0.0.1", self.target)
            writers.append(hub_writer)
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._forward(reader, hub_writer, recording.from_leaf, number, "from_leaf"))
                down = group.create_task(self._forward(hub_reader, writer, recording.from_hub, number, "from_hub"))
                # Either end closing ends both directions, as it would for a NATS connection anyway.
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
                up.cancel()
                down.cancel()
        except* OSError:
            pass  # an end that closes or resets is what a relay sees every day
        finally:
            for each in writers:
                if number < self._reset_before:
                    each.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_FAREWELL)
                each.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray, number: int, way: str
    ) -> None:
        loop = asyncio.get_running_loop()
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1024)

        async def write() -> None:
            free = 0.0  # when the next byte may go: what a sleep lasts too long is made up for
            while True:
                due, data = await held.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._open.wait()
                if number < self._reset_before:
                    writer.write(data[: len(data) // 2])
                    self.resets += 1
                    raise ConnectionResetError
                writer.write(data)
                await writer.drain()
                self.carried[way] += len(data)
                if data == b"":
                    return
                if self.rate is not None:
                    free = max(free, loop.time() - _BURST_S) + len(data) / self.rate
                    await asyncio.sleep(max(0.0, free - loop.time()))

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write())
            while not writing.done():
                # Choked, small chunks: a large one would arrive at once after a long silence.
                size = _CHUNK if self.rate is None else max(1, min(_CHUNK, int(self.rate / 50)))
                data = await reader.read(size)
                record += data[: RECORDED_BYTES - len(record)]
                await held.put((loop.time() + self.delay, data))
                if not data:
                    return

    async def _drop(self) -> None:
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
