"""Leases: every delivery that is held, running or waiting for a slot, is acked as in progress in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from bridge.errors import TransportError
from bridge.transport import Delivery, Transport

RENEWALS_PER_ACK_WAIT: Final = 3
"""Two renewals may be lost before the broker gives a job to someone else."""

_log = structlog.get_logger(__name__)


class Lease:
    """The deliveries held of one queue.

    Args:
        transport: Where acks go.
        ack_wait: Seconds after which the broker would deliver an unsettled message again.
        lost: Called once for each delivery held whose renewal can no longer be relied on.
    """

    def __init__(self, transport: Transport, ack_wait: float, lost: Callable[[], None]) -> None:
        self._transport = transport
        self._ack_wait = ack_wait
        self._period = ack_wait / RENEWALS_PER_ACK_WAIT
        self._lost = lost
        self._clock = asyncio.get_running_loop().time
        self._held: dict[str, Delivery] = {}
        self._good_until: dict[str, float] = {}
        """By ack subject, when the broker gives it to another unless a renewal gets there; lost ones are left out."""

    def hold(self, delivery: Delivery) -> None:
        """Renew ``delivery`` from now on."""
        if delivery.delivered > 1:
            for held in self._held.values():
                if held.message.subject == delivery.message.subject:  # the broker says so itself
                    self._lose(held)
        self._held[delivery.ack_subject] = delivery
        self._good_until[delivery.ack_subject] = self._clock() + self._ack_wait

    def release(self, delivery: Delivery) -> None:
        """Stop renewing it: it was settled."""
        self._held.pop(delivery.ack_subject, None)
        self._good_until.pop(delivery.ack_subject, None)

    def _lose(self, delivery: Delivery) -> None:
        if self._good_until.pop(delivery.ack_subject, None) is not None:
            _log.warning("lease_lost", subject=delivery.message.subject, delivered=delivery.delivered)
            self._lost()

    def __len__(self) -> int:
        return len(self._held)

    async def keep(self) -> None:
        """Renew all that is held, until cancelled."""
        while True:
            due = self._clock() + self._period
            await asyncio.sleep(self._period)
            if (late := self._clock() - due) > self._period:
                # A handler that computes in the event loop starves every lease of the process.
                _log.warning("event_loop_blocked", seconds=round(late, 1))
            for delivery in list(self._held.values()):
                await self._renew(delivery)

    async def _renew(self, delivery: Delivery) -> None:
        key = delivery.ack_subject
        if self._clock() > self._good_until.get(key, float("inf")):
            self._lose(delivery)
        reachable = self._transport.connected  # what is sent without a connection goes out too late, or never
        try:
            await self._transport.in_progress(delivery)
        except TransportError:  # the transport logs; the next round tries again
            return
        if reachable and key in self._good_until:
            self._good_until[key] = self._clock() + self._ack_wait
