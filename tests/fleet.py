"""Producers and workers over the transport in memory: `bridge.testing`, and what our own tests look into."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from bridge.envelope import Opener, Sealer
from bridge.identity import Connection
from bridge.policy import Backoff, IdentityEntry, Policy, Queue, Role
from bridge.testing import MemoryRig
from bridge.transport import Transport
from consumers import Worker
from producers import Producer
from tests.world import POLICY

FAST = Backoff(initial_ms=1, factor=1.0, max_ms=10, jitter=0.0)


def policy(**thumbs: Any) -> Policy:  # noqa: ANN401  fields of Queue
    """A queue in each direction; keyword arguments change the settings of ``thumbs``."""
    forth = Queue("thumbs", ("relay", "other"), "bunny", ("resize", "probe"), "aws", "azure", backoff=FAST)
    back = Queue("lookup", ("bunny",), "relay", ("find",), "azure", "aws", backoff=FAST)
    return replace(
        POLICY,
        identities={
            "relay": IdentityEntry("relay", "aws"),
            "other": IdentityEntry("other", "aws"),
            "bunny": IdentityEntry("bunny", "azure"),
            "boss": IdentityEntry("boss", "azure", Role.OPERATOR),
            "boss-aws": IdentityEntry("boss-aws", "aws", Role.OPERATOR),
            "ops": IdentityEntry("ops", "azure", Role.INSPECTOR),
        },
        queues={"thumbs": replace(forth, **thumbs), "lookup": back},
    )


class Fleet(MemoryRig):
    """Everything a test of jobs needs, in one process."""

    def connection(self, name: str) -> Connection:
        """As rendered."""
        return self.party(name).connection

    @contextlib.asynccontextmanager
    async def producer(self, name: str = "relay", transport: Transport | None = None) -> AsyncIterator[Producer]:
        """See `Rig.producer`."""
        async with super().producer(name, transport) as producer:
            yield producer

    @contextlib.asynccontextmanager
    async def working(
        self, worker: Worker, name: str = "bunny", transport: Transport | None = None
    ) -> AsyncIterator[asyncio.Task[None]]:
        """See `Rig.working`."""
        async with super().working(worker, name, transport) as serving:
            yield serving

    def sealer(self, name: str) -> Sealer:
        """To forge with."""
        return Sealer(self.identities[name])

    def opener(self, name: str) -> Opener:
        """To look inside with."""
        return Opener(self.identities[name], self.trust)


async def until(condition: Callable[[], bool], timeout: float = 60.0) -> None:
    """Wait for something that tells nobody."""
    give_up = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up, "the condition never came true"
        await asyncio.sleep(0.002)
