"""Canaries: jobs by which an agent proves, queue by queue, that what is submitted is worked and answered.

A canary goes where every job goes: signed and sealed in the producers' cloud, stored, pulled through the link,
verified, opened and answered by a worker, fenced, copied home, verified. Workers answer it by themselves, without a
slot. It has priority high, so that it tells of the way and not of the backlog. An agent has one under way at most for
each queue, so that none pile up while the link is cut.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from bridge.errors import BridgeError
from bridge.identity import Connection

DEADLINE_S: Final = 600.0
"""How long a canary may be answered, or half the queue's ``result_ttl`` where that is less: no deadline may outlast the
fence. After an outage that is longer there is another."""

Ask = Callable[[str, str, float], Awaitable[None]]
"""Has the workers of a queue answer a canary with the text given, in so many seconds; raises a `BridgeError`."""
Proving = Callable[[Path], AbstractAsyncContextManager[Ask]]
"""Connects as the identity of a folder, to ask."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Proof:
    """What is known of the way of a queue. Times are the loop's."""

    good: float
    """When the last answer came home; at first, when the agent began."""
    took: float | None = None
    """Seconds from submitting to the verified answer, the last time."""
    failures: Counter[str] = field(default_factory=Counter)
    """Canaries that were not answered, by error."""


class Canaries:
    """The canaries of one agent.

    Args:
        connection: Names its queues.
        clock: The loop's.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._every = queues_of(connection)
        self._deadlines = {name: min(DEADLINE_S, connection.queues[name].result_ttl_ms / 2000) for name in self._every}
        self.proofs: Mapping[str, Proof] = {queue: Proof(clock()) for queue in self._every}

    async def run(self, ask: Ask) -> None:
        """Send them, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for queue, every_s in self._every.items():
                group.create_task(self._prove(queue, every_s, ask), name=f"canary {queue}")

    async def _prove(self, queue: str, every_s: float, ask: Ask) -> None:
        while True:
            begun = self._clock()
            await self.once(queue, ask)
            # Spread, so that agents that were started together do not stay in step.
            pause = every_s * random.uniform(0.9, 1.1)  # noqa: S311  # nothing secret
            await asyncio.sleep(max(begun + pause - self._clock(), every_s / 10))

    async def once(self, queue: str, ask: Ask) -> None:
        """Send one and wait for its answer."""
        proof, begun = self.proofs[queue], self._clock()
        try:
            await ask(queue, secrets.token_hex(8), self._deadlines[queue])
        except BridgeError as error:
            proof.failures[type(error).__name__] += 1
            _log.error("canary_failed", queue=queue, error=type(error).__name__)
            return
        proof.good = self._clock()
        proof.took = proof.good - begun


def queues_of(connection: Connection) -> dict[str, float]:
    """The queues that an agent sends canaries on, and how often, in seconds."""
    return {
        name: queue.canary_ms / 1000
        for name, queue in connection.queues.items()
        if queue.canary_ms and queue.home == connection.cloud
    }
