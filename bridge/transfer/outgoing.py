"""Storing a payload's parts and index in one's own cloud, before the message that names them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from types import AsyncGeneratorType
from typing import Final

import structlog

from bridge import subjects
from bridge.errors import (
    Denied,
    NotConnected,
    PayloadTooLarge,
    PublishTimeout,
    QueueFull,
    SubjectTaken,
    TransportError,
)
from bridge.payload import PART, SEALED_PART, Manifest, PartSealer
from bridge.render.lifetimes import SENDING_S
from bridge.subjects import JobKey
from bridge.transfer.window import Others
from bridge.transfer.withdrawals import Withdrawals
from bridge.transport import Transport

WINDOW_BYTES: Final = 2 * 1024 * 1024
"""Of sealed parts that await their PubAcks: the server is near, this keeps it busy. Beside others it is one part."""
TURNS: Final = 3
"""Of the event loop between two parts: one is handed over, and written by itself, before the next one is sealed. Eight
in one turn held up whatever else the process had to do for as long as all of them took, and went in one write."""
PUBLISH_TIMEOUT_S: Final = 10.0
"""How long one PubAck is waited for before the same bytes are sent again."""
STALL_S: Final = 120.0
"""How long the local server may keep a part waiting: the restart of a broker takes less."""
PAUSE_S: Final = 0.5
FULL_PAUSE_S: Final = 5.0
WITHDRAW_WAIT_S: Final = 1.0
"""How long a failure waits for what was stored to be withdrawn; a cancel does not, and either goes on meanwhile."""
_FINAL: Final = (Denied, NotConnected, SubjectTaken)

_log = structlog.get_logger(__name__)

Told = Callable[[int], None]
"""Told how many bytes of the payload are stored or verified so far."""


async def send(
    transport: Transport,
    key: JobKey,
    chunks: AsyncIterator[bytes],
    sealer: PartSealer,
    withdrawals: Withdrawals,
    *,
    limit: int,
    full: Callable[[], Awaitable[None]] | None = None,
    told: Told | None = None,
) -> Manifest:
    """Seal and store a payload; nothing names it yet.

    What was stored is withdrawn if the rest cannot be, or this is cancelled. A process that dies meanwhile leaves parts
    that nothing names, which go with the stream's age.

    Args:
        transport: To the local server.
        key: The job that it belongs to.
        chunks: Its bytes, in pieces of any size.
        sealer: Under the secret of the message that is to name it.
        withdrawals: Those of ``transport``.
        limit: The queue's ``max_payload``.
        full: Called, any number of times, where there is no room, which is then waited for as long as it takes.
        told: For progress bars.

    Raises:
        PayloadTooLarge: There are more bytes than ``limit``.
        QueueFull: The queue has no room for it (``payload_bytes``), and there is no ``full``.
        TransportError: The local server did not store a part within 2 min, or refused it.
    """
    stored = _Storing(transport, key, sealer.transfer.hex(), full)
    total = 0
    try:
        async for data in _cut(_padded(chunks, sealer, key.queue, limit)):
            total += len(data)
            await stored.start(*sealer.seal(data))
            if told is not None:
                told(min(total, sealer.content))
        for number, piece in sealer.pieces():
            await stored.start(number, piece)
        await stored.all()
    except BaseException as error:
        try:
            await stored.cancel()
        finally:  # cancelled again meanwhile, too
            withdrawn = withdrawals.start(key, sealer.transfer, stored.begun)
        if not isinstance(error, asyncio.CancelledError):
            await asyncio.wait([withdrawn], timeout=WITHDRAW_WAIT_S)
        raise
    return sealer.manifest()


class _Storing:
    """Parts on their way to the local server, bounded by bytes."""

    def __init__(
        self, transport: Transport, key: JobKey, transfer: str, full: Callable[[], Awaitable[None]] | None
    ) -> None:
        self._transport, self._key, self._transfer, self._full = transport, key, transfer, full
        self._stream = subjects.parts_stream(key.queue)
        self._tasks: set[asyncio.Task[None]] = set()
        self._others = Others(transport)
        self._ends = asyncio.get_running_loop().time() + SENDING_S - STALL_S
        self.begun = 0

    async def start(self, number: int, data: bytes) -> None:
        """Begin to store a message, once there is room; raises what an earlier one came to."""
        while len(self._tasks) * SEALED_PART >= (SEALED_PART if self._others.there() else WINDOW_BYTES):
            await self._some(asyncio.FIRST_COMPLETED)
        self._check_age()
        self.begun += 1
        self._tasks.add(asyncio.create_task(self._store(number, data), name="part"))
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def all(self) -> None:
        """Wait for all of them."""
        while self._tasks:
            await self._some(asyncio.ALL_COMPLETED)
        self._check_age()

    async def cancel(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _some(self, when: str) -> None:
        done, self._tasks = await asyncio.wait(self._tasks, return_when=when)
        for error in [task.exception() for task in done]:
            if error is not None:
                raise error

    def _check_age(self) -> None:
        """Check that the first parts will be there for as long as the message that is to name them."""
        if asyncio.get_running_loop().time() > self._ends:
            raise PublishTimeout(
                f"{self._stream}: a payload is not stored in a day (SENDING_S), which is what its stream's age allows "
                "for; it was withdrawn"
            )

    async def _store(self, number: int, data: bytes) -> None:
        clock = asyncio.get_running_loop().time
        give_up = clock() + STALL_S
        subject = subjects.part(self._key, self._transfer, number)
        while True:
            try:
                # Stored twice, the same bytes take their own place.
                await self._transport.publish(self._stream, subject, data, timeout=PUBLISH_TIMEOUT_S)
            except QueueFull:
                if self._full is None:
                    raise
                await self._full()
                self._check_age()
                _log.warning("payload_waits_for_room", stream=self._stream)
                await asyncio.sleep(FULL_PAUSE_S)
                give_up = clock() + STALL_S
            except _FINAL:
                raise
            except TransportError as error:
                if clock() >= give_up:
                    raise PublishTimeout(
                        f"{self._stream}: a part is not known to be stored in {STALL_S:g} s"
                    ) from error
                await asyncio.sleep(PAUSE_S)
            else:
                return


async def _padded(
    chunks: AsyncIterator[bytes], sealer: PartSealer, queue: str, limit: int
) -> AsyncGenerator[bytes, None]:
    """The same bytes, if they are no more than the limit, and what they are padded with."""
    total = 0
    try:
        async for chunk in chunks:
            total += len(chunk)
            if total > limit:
                raise PayloadTooLarge(
                    f"a payload of more than {limit} bytes; queue {queue} takes {limit} (max_payload)"
                )
            yield chunk
    finally:
        if isinstance(chunks, AsyncGeneratorType):
            await chunks.aclose()
    padding = sealer.padding(total)
    for at in range(0, padding, PART):
        yield bytes(min(PART, padding - at))


async def _cut(chunks: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes | memoryview]:
    """The same bytes in parts; what gives them is closed at the end."""
    held = bytearray()
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            rest = memoryview(chunk)
            if held and len(held) + len(rest) >= PART:
                taken = PART - len(held)
                yield bytes(held + rest[:taken])
                held, rest = bytearray(), rest[taken:]
            while len(rest) >= PART:  # not copied
                yield rest[:PART]
                rest = rest[PART:]
            held += rest
    if held:
        yield bytes(held)
