"""Leases: every delivery that is held, running or waiting for a slot, is acked as in progress in time.

Whoever holds deliveries does so in one event loop, and is told there what is lost; renewing may be done by a thread of
its own (`consumers.leasethread`), so that a handler that blocks the loop keeps its job.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import structlog

from bridge.errors import NotConnected, TransportError
from bridge.transport import Delivery, Transport

RENEWALS_PER_ACK_WAIT: Final = 3
"""Two renewals may be lost before the broker gives a job to someone else."""
UNREAD_S: Final = 1.0
"""How long after a pause the event loop may still find what arrived in it."""

Lost: TypeAlias = Callable[[Delivery, bool], None]
"""Told of a delivery that another worker may have got, and whether its handler is done here."""

_FOREVER: Final = float("inf")
_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Held:
    delivery: Delivery
    good_until: float
    """When the broker gives it to another, unless a renewal gets there."""
    limit: float | None = None
    """When its handler must be done; None while none runs."""
    settling: bool = False
    lost: bool = False


class Lease:
    """The deliveries held of one consumer. Its methods but `renew` are for the event loop that made it.

    Args:
        ack_wait: Seconds after which the broker would deliver an unsettled message again.
        lost: Called in the loop, once for each delivery.
    """

    def __init__(self, ack_wait: float, lost: Lost) -> None:
        self.ack_wait = ack_wait
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        """Around what changes which are held; what is noted of one that is held is read without it."""
        self._held: dict[str, _Held] = {}
        self._of_message: dict[str, list[_Held]] = {}
        """The same by the message's subject: a worker holds hundreds, and asks at each delivery."""

    def hold(self, delivery: Delivery, sent: float) -> bool:
        """Renew ``delivery`` from now on.

        Args:
            delivery: What arrived.
            sent: When it can have been sent, at the earliest.

        Returns:
            False where it must not start. It is held already, and waits or runs under that lease: the broker takes a
            renewal or an ack of any delivery of a message for all of them. Or it lay unread for so long that another
            worker may have got it: it is delivered again, and looked up then.
        """
        good_until = sent + self.ack_wait
        if good_until < time.monotonic() + self.ack_wait / RENEWALS_PER_ACK_WAIT:
            return False
        with self._lock:
            again = self._of_message.setdefault(delivery.message.subject, [])
            if again and any(not held.lost and not held.settling for held in again):
                return False
            if (former := self._held.get(delivery.ack_subject)) is not None:
                again.remove(former)
            self._held[delivery.ack_subject] = held = _Held(delivery, good_until)
            again.append(held)
        return True

    def run(self, delivery: Delivery, seconds: float) -> None:
        """Its handler starts and must be done within ``seconds``: a stalled worker does not keep a job for ever."""
        if (held := self._held.get(delivery.ack_subject)) is not None:
            held.limit = time.monotonic() + seconds + self.ack_wait  # so that whoever runs it can stop it first

    def settle(self, delivery: Delivery) -> None:
        """Its handler is done; storing what came of it takes as long as it takes."""
        if (held := self._held.get(delivery.ack_subject)) is not None:
            held.limit, held.settling = None, True

    def release(self, delivery: Delivery) -> None:
        """Stop renewing it: it was settled."""
        with self._lock:
            held = self._held.pop(delivery.ack_subject, None)
            if held is None:
                return
            same = self._of_message[delivery.message.subject]
            same.remove(held)
            if not same:
                del self._of_message[delivery.message.subject]

    def has_lost(self, delivery: Delivery) -> bool:
        """Whether another worker may have got it: it must neither start here nor be handed back."""
        held = self._held.get(delivery.ack_subject)
        return held is not None and held.lost

    def __len__(self) -> int:
        return len(self._held)

    def in_time(self, now: float) -> bool:
        """Whether a handler runs that need not be done yet."""
        with self._lock:
            return any(held.limit is not None and now <= held.limit for held in self._held.values())

    async def renew(self, transport: Transport, *, idle: bool) -> None:
        """Renew, in whatever loop the transport is of, what is held.

        Args:
            transport: Where acks go.
            idle: Renew what waits as well, and what is being settled.

        Raises:
            NotConnected: The transport was closed for good.
        """
        with self._lock:
            due = [held for held in self._held.values() if held.settling or not held.lost]
        for held in due:
            now = time.monotonic()
            if held.delivery.ack_subject not in self._held:
                continue  # settled meanwhile; after a nak with a delay, a renewal would replace that delay
            if now > held.good_until or now > (held.limit or _FOREVER):
                self._lose(held, stalled=now <= held.good_until)
                if not held.settling:  # what is done is answered for, whoever else has begun it
                    continue
            if not idle and held.limit is None:
                continue
            reachable = transport.connected  # what is sent without a connection goes out too late, or never
            try:
                await transport.in_progress(held.delivery)
            except NotConnected:
                raise
            except TransportError:  # the transport logs; the next round tries again
                continue
            if reachable:
                held.good_until = now + self.ack_wait

    def _lose(self, held: _Held, *, stalled: bool) -> None:
        if held.lost:
            return
        held.lost = True
        log = _log.bind(subject=held.delivery.message.subject, delivered=held.delivery.delivered)
        if stalled:
            log.warning("handler_stalled")
        else:
            log.warning("lease_lost")
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who would want to know
            self._loop.call_soon_threadsafe(self._tell, held)

    def _tell(self, held: _Held) -> None:
        self._lost(held.delivery, held.settling)


class Leases:
    """All leases of a worker. `keep` is for whoever renews, and the rest for the loop that made it.

    Args:
        beside: Keeps what else is to be renewed over the same connection, until cancelled; it never raises.
    """

    def __init__(self, beside: Callable[[Transport], Coroutine[Any, Any, None]] | None = None) -> None:
        self._beside = beside
        self._loop = asyncio.get_running_loop()
        self._leases: list[Lease] = []
        self._turned = time.monotonic()
        """When the loop last ran something for this."""
        self._pause = (0.0, 0.0)
        """From when until when it has not turned, the last time that this was long."""

    def add(self, ack_wait: float, lost: Lost) -> Lease:
        """Another one, before `keep`; see `Lease`."""
        lease = Lease(ack_wait, lost)
        self._leases.append(lease)
        return lease

    def sent(self) -> float:
        """When what is read now can have been sent, at the earliest."""
        now, (begun, ended) = time.monotonic(), self._pause
        return begun if now < ended + UNREAD_S else now

    async def keep(self, transport: Transport) -> None:
        """Renew all that is held, in whatever loop the transport is of, until cancelled.

        Raises:
            NotConnected: The transport was closed for good.
        """
        if self._beside is None:
            await self._keep(transport)
            return
        beside = asyncio.create_task(self._beside(transport), name="slots")
        try:
            await self._keep(transport)
        finally:
            beside.cancel()
            await asyncio.wait([beside])

    async def _keep(self, transport: Transport) -> None:
        self._turned = begun = time.monotonic()
        periods = {lease: lease.ack_wait / RENEWALS_PER_ACK_WAIT for lease in self._leases}
        due = dict.fromkeys(self._leases, begun)
        step = min(periods.values())
        warn_from = long = 2 * step
        apart = asyncio.get_running_loop() is not self._loop
        while True:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._turn, long if apart else _FOREVER)
            await asyncio.sleep(step)
            now = time.monotonic()
            silent = now - self._turned
            if silent > warn_from:
                # A handler that computes in the event loop keeps all others from going on.
                _log.warning("event_loop_blocked", seconds=round(silent, 1))
                warn_from = 2 * silent
            elif silent < long:
                warn_from = long
            for lease in self._leases:
                if now >= due[lease]:
                    due[lease] = now + periods[lease] - step / 2
                    # What waits is kept while the loop turns, or something in it may take the time that it takes.
                    waits = silent < lease.ack_wait or any(each.in_time(now) for each in self._leases)
                    await lease.renew(transport, idle=waits)

    def _turn(self, long: float) -> None:
        # Before anything is read that has arrived meanwhile: a loop runs what it was told to before it looks for news.
        now = time.monotonic()
        if now - self._turned > long:
            self._pause = (self._turned, now)
        self._turned = now
