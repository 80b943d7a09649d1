"""Permits: slots of a queue, or of a concurrency key, that this worker process holds for its jobs.

A slot is a subject of ``SLOTS_<queue>`` in the workers' cloud. Whoever writes it, knowing what it held before, has it:
the server takes one of those who try. What is written goes by itself after `life_of` seconds, so that a worker that is
killed frees its slots without anybody's clock but the server's. What is held is written again in time, in whatever loop
and over whatever connection leases are renewed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from bridge import subjects
from bridge.errors import NotConnected, SubjectChanged, TransportError
from bridge.identity import QueueSettings
from bridge.transport import Message, Transport

LONGEST_LIFE_S: Final = 30
"""After how long, at most, a slot whose worker was killed is free; the server takes up to 2 s more to notice."""
RENEWALS: Final = 3
"""In a slot's life: two may be lost."""
TICKS: Final = 6
"""Looks at what is held, in a slot's life. A slot is given up for lost one look before it can be another's."""

_log = structlog.get_logger(__name__)


def life_of(settings: QueueSettings) -> int:
    """Seconds for which a slot is held without being renewed: the queue's ack wait, and 30 at most."""
    return min(math.ceil(settings.ack_wait_ms / 1000), LONGEST_LIFE_S)


@dataclass(slots=True, eq=False)
class Permit:
    """A slot that is held. Its fields are for `Permits`."""

    stream: str
    subject: str
    life: int
    sequence: int
    """Of what was written last and is known to be stored."""
    good_until: float
    """By `time.monotonic`: nobody else can have it before, since the server counts from later on."""
    since: float
    """When it was got, by whichever job."""
    written: dict[bytes, float] = field(default_factory=dict)
    """What was written since and may be stored, and when it was sent at the earliest."""
    due: float = 0.0
    renewing: bool = False
    released: bool = False
    lost: bool = False
    wanted: Callable[[], bool] = lambda: True
    """Whether whoever uses it may still do so."""
    on_lost: Callable[[], object] | None = None
    """Told, in the loop of the worker, when another may have got it."""


class Permits:
    """What one worker process holds. `keep` is for whoever renews, the rest for the loop that made it.

    Args:
        transport: The workers' local broker.
        worker: The name of this process, for people.
        shortest: Seconds of the shortest life that any of them has.
    """

    def __init__(self, transport: Transport, worker: str, shortest: int) -> None:
        self._tick = shortest / TICKS
        self._transport = transport
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._held: set[Permit] = set()

    def __len__(self) -> int:
        return len(self._held)

    async def write(self, stream: str, subject: str, life: int, expected: int, word: bytes) -> Permit:
        """Hold a slot.

        Args:
            stream: Where it is.
            subject: Which it is.
            life: Seconds for which it is held without being renewed.
            expected: The sequence of what it held before, 0 for nothing.
            word: What nobody else writes.

        Raises:
            SubjectChanged: Somebody else was first, or this very write got through and its PubAck did not.
            TransportError: It is not known to be held.
        """
        sent = time.monotonic()
        ack = await self._transport.publish(
            stream, subject, word, self._headers(life), expected=expected, timeout=float(life)
        )
        return self.adopt(stream, subject, life, ack.sequence, sent)

    def adopt(self, stream: str, subject: str, life: int, sequence: int, sent: float) -> Permit:
        """Hold what was written at ``sent`` or later, and is stored."""
        permit = Permit(stream, subject, life, sequence, sent + life, time.monotonic(), due=sent + life / RENEWALS)
        with self._lock:
            self._held.add(permit)
        return permit

    async def release(self, permit: Permit) -> int:
        """Let others have it; the sequence of what says so, 0 where the slot goes by itself."""
        with self._lock:
            self._held.discard(permit)
            permit.released = True
            if permit.lost or permit.renewing:  # whoever renews it releases it
                return 0
        return await self._release(permit, self._transport)

    async def keep(self, transport: Transport) -> None:
        """Renew what is held, in whatever loop the transport is of, until cancelled. Never raises."""
        under_way: set[asyncio.Task[None]] = set()
        try:
            while True:
                await asyncio.sleep(self._tick)
                with self._lock:
                    held = tuple(self._held)
                for permit in held:
                    if self._look(permit, time.monotonic()):
                        task = asyncio.create_task(self._renew(permit, transport), name="renew-slot")
                        under_way.add(task)
                        task.add_done_callback(under_way.discard)
        finally:
            for task in under_way:
                task.cancel()
            if under_way:
                await asyncio.wait(under_way)

    def _look(self, permit: Permit, now: float) -> bool:
        """Whether it is to be renewed now."""
        with self._lock:
            if permit not in self._held:
                return False
            if now <= permit.good_until - permit.life / TICKS and permit.wanted():
                if permit.renewing or now < permit.due:
                    return False
                permit.renewing = True
                return True
        self._lose(permit)
        return False

    async def _renew(self, permit: Permit, transport: Transport) -> None:
        word, sent = _word(), time.monotonic()
        permit.written[word] = sent
        permit.due = sent + permit.life / RENEWALS
        try:
            ack = await transport.publish(
                permit.stream,
                permit.subject,
                word,
                self._headers(permit.life),
                expected=permit.sequence,
                timeout=permit.life / RENEWALS,
            )
            self._renewed(permit, ack.sequence, sent)
        except SubjectChanged:
            with contextlib.suppress(TransportError):
                await self._find(permit, transport)
        except TransportError as error:  # the next look tries again, or gives it up
            _log.warning("slot_not_renewed", subject=permit.subject, error=type(error).__name__)
        finally:
            with self._lock:
                permit.renewing = False
                released = permit.released and not permit.lost
        if released:
            await self._release(permit, transport)

    async def _find(self, permit: Permit, transport: Transport) -> bool:
        """Whether a write of ours stands after all."""
        found = await transport.lookup(permit.stream, permit.subject)
        if found is not None and found.data in permit.written:
            self._renewed(permit, sequence_of(found), permit.written[found.data])
            return True
        if found is None or sequence_of(found) != permit.sequence:  # else it was read where the news is not yet known
            self._lose(permit)
        return False

    def _renewed(self, permit: Permit, sequence: int, sent: float) -> None:
        with self._lock:
            permit.sequence, permit.good_until = sequence, sent + permit.life
            permit.written.clear()

    async def _release(self, permit: Permit, transport: Transport) -> int:
        for _ in range(2):
            try:
                ack = await transport.publish(
                    permit.stream, permit.subject, b"", self._headers(1), expected=permit.sequence, timeout=5.0
                )
                return ack.sequence
            except SubjectChanged:
                with contextlib.suppress(TransportError):
                    if await self._find(permit, transport):
                        continue
            except NotConnected:
                pass
            except TransportError as error:
                _log.warning("slot_kept", subject=permit.subject, seconds=permit.life, error=type(error).__name__)
            return 0
        return 0

    def _lose(self, permit: Permit) -> None:
        with self._lock:
            if permit.lost or permit.released:
                return
            permit.lost = True
            self._held.discard(permit)
        _log.warning("slot_lost", subject=permit.subject)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(_tell, permit)

    def _headers(self, life: int) -> dict[str, str]:
        return {"Nats-TTL": f"{life}s", "Bunny-Worker": self._worker}


def _tell(permit: Permit) -> None:
    if permit.on_lost is not None:
        permit.on_lost()


def _word() -> bytes:
    return secrets.token_hex(12).encode()


def sequence_of(message: Message) -> int:
    """Where a message that was found stands in its stream."""
    return subjects.parse_decimal(message.headers.get("Nats-Sequence", "")) or 0
