"""Jobs that flow while something else is done: a producer and a worker as services run them, and what came of each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from bridge.errors import BridgeError
from consumers import Worker
from producers import Handle, Producer


@dataclass
class Traffic:
    """What was sent, and what came back. Read it when `flowing` is over."""

    sent: int = 0
    answered: int = 0
    refused: list[BridgeError] = field(default_factory=list)
    """Of submits."""
    wrong: list[str] = field(default_factory=list)
    """Of results: errors, and answers that are not the arguments."""
    slowest: float = 0.0
    """Seconds from the submit to the result."""


@contextlib.asynccontextmanager
async def flowing(
    sender: Path, pool: Path, rate: float, *, queue: str = "thumbs", kind: str = "resize", patience: float = 120.0
) -> AsyncIterator[Traffic]:
    """Submit jobs at a rate until the block ends, then wait for the results of all.

    Args:
        sender: The producer's identity folder.
        pool: The workers'.
        rate: Jobs a second.
        queue: The queue.
        kind: The kind of job.
        patience: Seconds that a result may take.
    """
    traffic, worker = Traffic(), Worker(pool, concurrency=100)

    @worker.handler(queue, kind)
    async def handle(args: int) -> int:
        return args

    working = asyncio.create_task(worker.run())
    async with Producer.open(sender) as producer, asyncio.TaskGroup() as group:
        sending = group.create_task(_send(traffic, producer, queue, kind, rate, patience, group))
        try:
            while not worker.serving:
                if working.done():
                    await working
                await asyncio.sleep(0.005)
            yield traffic
        finally:
            sending.cancel()
    worker.stop()
    await working


async def _send(
    traffic: Traffic, producer: Producer, queue: str, kind: str, rate: float, patience: float, group: asyncio.TaskGroup
) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        while due <= loop.time():  # what a pause kept back is made up for: the rate is the whole's
            group.create_task(_one(traffic, producer, queue, kind, traffic.sent, patience))
            traffic.sent += 1
            due += 1 / rate
        await asyncio.sleep(due - loop.time())


async def _one(traffic: Traffic, producer: Producer, queue: str, kind: str, number: int, patience: float) -> None:
    begun = time.monotonic()
    try:
        handle: Handle[object] = await producer.submit(queue, kind, number, deadline=patience)
    except BridgeError as error:
        traffic.refused.append(error)
        return
    try:
        answer = await handle.result(int, timeout=patience)
    except (BridgeError, TimeoutError) as error:
        traffic.wrong.append(f"{number}: {type(error).__name__}: {error}")
    else:
        traffic.answered += 1
        traffic.slowest = max(traffic.slowest, time.monotonic() - begun)
        if answer != number:
            traffic.wrong.append(f"{number}: answered {answer}")
