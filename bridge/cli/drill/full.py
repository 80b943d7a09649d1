"""The disk under one server's streams is full: the kernel refuses its writes, until there is room again."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from bridge.cli.drill.stage import WAYS, Stage
from bridge.cli.drill.strike import Strike, submit
from bridge.devserver import monitor

FULL: Final = frozenset({"disk_full"})
HASTY_S: Final = 2.0
"""How long a job is tried to be submitted to a server that cannot store it."""
HEALTHY: Final = 200
_NOT_STORED: Final = frozenset({"PublishTimeout", "QueueFull"})


async def disk_full(stage: Stage, strike: Strike, *, hub: bool) -> None:
    """Fill it under load, have jobs refused, make room, and start the server again.

    nats-server 2.15.1 writes no more to a stream to which it could not once: it answers nobody, and when there is room
    it must be started again. Its ``/healthz`` says so, for a probe; ``/healthz?js-server-only=true`` does not.
    """
    server = stage.bridge.hub if hub else stage.bridge.leaf
    way = next(way for way in WAYS if way.home == server.name)
    disk = stage.disks[server.name]
    strike.struck, strike.severed = monotonic(), True
    strike.forgets = frozenset(way.queues)
    disk.fill()
    try:
        await stage.until(lambda: stage.watch.first(strike.struck, FULL) is not None, "the server to find no room")
        await _refused(stage, strike, way.queue)
        if (await monitor.get(server.monitor_port, "/healthz"))[0] == HEALTHY:
            strike.problems.append(f"{server.name} is called healthy while its disk is full")
        await asyncio.sleep(stage.random.uniform(0.5, 3.0))  # how long it is full is part of the fault
    finally:
        disk.make_room()
        await stage.bridge.restart(server.name)


async def _refused(stage: Stage, strike: Strike, queue: str) -> None:
    """Wait until the producer is told that a job is not stored."""
    while True:
        job = submit(stage, queue, timeout=HASTY_S)
        await stage.until(
            lambda: stage.ledger.refusal(job) is not None or stage.ledger.is_stored(job),  # noqa: B023  # called in here
            "a word on a job that cannot be stored",
        )
        if (error := stage.ledger.refusal(job)) is not None:
            if error not in _NOT_STORED:
                strike.problems.append(f"a job for a full disk was refused with {error}")
            return
