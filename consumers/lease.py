"""Leases: every delivery that is held, running or waiting for a slot, is acked as in progress in time."""

from __future__ import annotations

import asyncio
import contextlib
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
    """

    def __init__(self, transport: Transport, ack_wait: float) -> None:
        self._transport = transport
        self._period = ack_wait / RENEWALS_PER_ACK_WAIT
        self._held: dict[str, Delivery] = {}

    def hold(self, delivery: Delivery) -> None:
        """Renew ``delivery`` from now on."""
        self._held[delivery.ack_subject] = delivery

    def release(self, delivery: Delivery) -> None:
        """Stop renewing it: it was settled."""
        self._held.pop(delivery.ack_subject, None)

    def __len__(self) -> int:
        return len(self._held)

    async def keep(self) -> None:
        """Renew all that is held, until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + self._period
            await asyncio.sleep(self._period)
            if (late := clock() - due) > self._period:
                # A handler that computes in the event loop starves every lease of the process.
                _log.warning("event_loop_blocked", seconds=round(late, 1))
            for delivery in list(self._held.values()):
                with contextlib.suppress(TransportError):  # the transport logs; the next round tries again
                    await self._transport.in_progress(delivery)
