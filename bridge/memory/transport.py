"""The transport protocol over a `MemoryBridge`."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice

import structlog

from bridge.errors import NotConnected, PayloadTooLarge, TransportError
from bridge.matching import matches
from bridge.memory.clouds import Cloud, Clouds, found, now
from bridge.memory.consumer import Consumer
from bridge.transport import MAX_MESSAGE, PARTS, Delivery, Message, PubAck, Unsubscribe

_log = structlog.get_logger(__name__)


class MemoryPull:
    """See `bridge.transport.Pull`. Made by `MemoryTransport.pull`."""

    def __init__(self, bridge: Clouds, here: str, there: str, consumer: Consumer) -> None:
        self._bridge, self._here, self._there, self._consumer = bridge, here, there, consumer
        self._credit = 0
        self._arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()  # None: closed
        self._ended = False
        self._taken = 0
        self.brought = -math.inf
        """By `time.monotonic`, when it last brought a message."""
        self._reached = now()
        consumer.join(self)

    @property
    def answered(self) -> int:
        """See `bridge.transport.Pull.answered`: here every message is a request's whole answer."""
        return self._taken

    @property
    def silent(self) -> float:
        """See `bridge.transport.Pull.silent`: from when it was last looked at and could be reached."""
        if not self._credit or self._bridge.reaches(self._here, self._there):
            self._reached = now()
        return now() - self._reached

    @property
    def interrupted(self) -> int:
        """See `bridge.transport.Pull.interrupted`: here nothing is issued anew."""
        return 0

    def grant(self, n: int) -> None:
        """See `bridge.transport.Pull.grant`."""
        self._credit += n
        asyncio.get_running_loop().call_soon(self._consumer.pump)

    async def get(self) -> Delivery:
        """See `bridge.transport.Pull.get`.

        Raises:
            NotConnected: The pull or the transport was closed.
        """
        delivery = await self._arrived.get()
        if delivery is None:
            self._arrived.put_nowait(None)  # for the next who asks
            raise NotConnected(f"the pull from {self._consumer.stream.name} was closed")
        return delivery

    async def close(self) -> list[Delivery]:
        """See `bridge.transport.Pull.close`."""
        self.end()
        left = [self._arrived.get_nowait() for _ in range(self._arrived.qsize())]
        self._arrived.put_nowait(None)
        return [delivery for delivery in left if delivery is not None]

    async def closed(self) -> None:
        """See `bridge.transport.Pull.closed`."""

    def wants(self) -> bool:
        """See `bridge.memory.consumer.Taker`."""
        return self._credit > 0 and not self._ended and self._bridge.reaches(self._here, self._there)

    def take(self, delivery: Delivery) -> None:
        """See `bridge.memory.consumer.Taker`."""
        self._credit -= 1
        self._taken += 1
        self.brought = time.monotonic()
        self._arrived.put_nowait(delivery)

    def end(self) -> None:
        """Take nothing more; whoever waits in `get` is told."""
        if not self._ended:
            self._ended = True
            self._consumer.leave(self)
            self._arrived.put_nowait(None)


class MemoryTransport:
    """See `bridge.transport.Transport`. Made by `MemoryBridge.transport`; a context manager that closes it."""

    def __init__(self, bridge: Clouds, cloud: Cloud) -> None:
        self._bridge, self._cloud = bridge, cloud
        self._pulls: list[MemoryPull] = []
        self._endings: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self._moved = -math.inf

    async def __aenter__(self) -> MemoryTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """See `bridge.transport.Transport.connected`."""
        return not self._closed

    @property
    def moved(self) -> float:
        """See `bridge.transport.Transport.moved`."""
        return max([self._moved, *(pull.brought for pull in self._pulls)])

    async def publish(
        self,
        stream: str,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        expected: int | None = None,
        timeout: float = 10.0,
    ) -> PubAck:
        """See `bridge.transport.Transport.publish`."""
        self._check_open()
        if len(data) > MAX_MESSAGE:
            raise PayloadTooLarge(f"{subject}: {len(data)} bytes, above the {MAX_MESSAGE} of a message")
        sent = {**(headers or {}), "Nats-Msg-Id": secrets.token_hex(16), "Nats-Expected-Stream": stream}
        if expected is not None:
            sent["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        if not stream.startswith(PARTS):
            self._moved = time.monotonic()
        ack = self._bridge.publish(self._cloud, stream, subject, data, sent)
        await asyncio.sleep(0)  # as a real one does: others run before the PubAck is seen
        if ack.duplicate:
            raise TransportError(f"{subject}: {stream} calls a first send a duplicate: a poisoned Nats-Msg-Id")
        return ack

    async def lookup(
        self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
    ) -> Message | None:
        """See `bridge.transport.Transport.lookup`."""
        self._check_open()
        there = self._cloud.name if cloud is None else cloud
        await self._bridge.until_reachable(self._cloud.name, there, timeout)
        await asyncio.sleep(0)
        held = self._bridge.stream(there, stream)
        message = held.last_of(subject, now())
        return None if message is None else Message(message.subject, message.data, found(held, message))

    async def remove(self, stream: str, sequence: int, *, timeout: float = 5.0) -> bool:
        """See `bridge.transport.Transport.remove`."""
        self._check_open()
        await asyncio.sleep(0)
        held = self._bridge.stream(self._cloud.name, stream)
        there = held.get(sequence) is not None
        held.remove(sequence)
        return there

    async def read(
        self, stream: str, pattern: str, *, first: int, most: int, cloud: str | None = None, timeout: float = 5.0
    ) -> list[Message]:
        """See `bridge.transport.Transport.read`."""
        self._check_open()
        there = self._cloud.name if cloud is None else cloud
        await self._bridge.until_reachable(self._cloud.name, there, timeout)
        await asyncio.sleep(0)
        held = self._bridge.stream(there, stream)
        held.expire(now())
        wanted = (each for each in held.after(first - 1) if matches(pattern, each.subject))
        return [Message(each.subject, each.data, found(held, each)) for each in islice(wanted, most)]

    async def tell(self, subject: str, data: bytes) -> None:
        """See `bridge.transport.Transport.tell`."""
        self._check_open()
        self._bridge.tell(self._cloud, Message(subject, data))

    async def redial(self) -> None:
        """See `bridge.transport.Transport.redial`: there is nothing to dial."""

    def on_refused(self, callback: Callable[[NotConnected], None]) -> None:
        """See `bridge.transport.Transport.on_refused`: a bridge in memory refuses nobody."""

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """See `bridge.transport.Transport.on_reconnect`: the memory of a process is never lost and found again."""

    async def subscribe(self, subject: str, callback: Callable[[Message], Awaitable[None]]) -> Unsubscribe:
        """See `bridge.transport.Transport.subscribe`."""
        self._check_open()
        queue: asyncio.Queue[Message] = asyncio.Queue()
        unlisten = self._cloud.listen(subject, queue.put_nowait)
        self._endings.append(unlisten)

        async def receive() -> None:
            while True:
                message = await queue.get()
                self._moved = time.monotonic()
                try:
                    await callback(message)
                except Exception:  # one message must not end the subscription
                    _log.exception("subscription_callback_failed", subject=message.subject)

        task = asyncio.create_task(receive(), name=f"subscription to {subject}")
        self._tasks.append(task)

        async def end() -> None:
            if unlisten in self._endings:
                self._endings.remove(unlisten)
                self._tasks.remove(task)
                unlisten()
                await _ended(task)

        return end

    def pull(self, stream: str, consumer: str, *, cloud: str | None = None) -> MemoryPull:
        """See `bridge.transport.Transport.pull`."""
        self._check_open()
        there = self._cloud.name if cloud is None else cloud
        pull = MemoryPull(self._bridge, self._cloud.name, there, self._bridge.consumer(there, stream, consumer))
        self._pulls.append(pull)
        return pull

    async def ack(self, delivery: Delivery) -> None:
        """See `bridge.transport.Transport.ack`."""
        self._check_open()
        if settled := self._bridge.consumer_of(self._cloud.name, delivery):
            settled[0].ack(settled[1])

    async def nak(self, delivery: Delivery, delay: float = 0.0) -> None:
        """See `bridge.transport.Transport.nak`."""
        self._postpone(delivery, delay)

    async def in_progress(self, delivery: Delivery) -> None:
        """See `bridge.transport.Transport.in_progress`."""
        self._postpone(delivery, None)

    async def flush(self, timeout: float = 5.0) -> None:
        """See `bridge.transport.Transport.flush`."""
        self._check_open()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """See `bridge.transport.Transport.close`."""
        self._closed = True
        for pull in self._pulls:
            pull.end()
        for end in self._endings:
            end()
        self._endings.clear()
        for task in self._tasks:
            await _ended(task)
        self._tasks.clear()

    def _postpone(self, delivery: Delivery, seconds: float | None) -> None:
        self._check_open()
        if settled := self._bridge.consumer_of(self._cloud.name, delivery):
            settled[0].postpone(settled[1], seconds)

    def _check_open(self) -> None:
        if self._closed:
            raise NotConnected("the transport was closed")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


class MemoryBridge(Clouds):
    """Both clouds in memory.

    Args:
        plans: For each cloud, what its ``plan.json`` holds (`bridge.render.streams.plan`).
    """

    def transport(self, cloud: str) -> MemoryTransport:
        """A connection of a service in one of the clouds.

        Raises:
            TransportError: There is no such cloud.
        """
        return MemoryTransport(self, self.cloud(cloud))
