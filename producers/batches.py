"""Many jobs at once: sealed by the batch, and stored within a window."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from bridge.errors import BridgeError
from producers.handle import Handle
from producers.outbox import Parcel

BATCH: Final = 64
"""Jobs of one `Producer.submit_many` under one signature: more save little, and delay the first."""

_PENDING: Final = BridgeError("not stored yet")


async def in_batches(
    values: Iterable[object],
    window: int,
    seal: Callable[[Sequence[object]], Awaitable[list[Parcel | BridgeError]]],
    store: Callable[[Parcel], Awaitable[Handle[Any]]],
) -> list[Handle[Any] | BridgeError]:
    """Seal and store a job for each value, read as they are needed.

    Args:
        values: Their arguments.
        window: How many may be on their way to the server at once.
        seal: Seals a batch; what it raises is the outcome of the whole batch.
        store: Stores one job.

    Returns:
        In order, the handle of each, or why there is none.
    """
    outcomes: list[Handle[Any] | BridgeError] = []
    free = asyncio.Semaphore(window)

    async def stored(index: int, parcel: Parcel) -> None:
        try:
            outcomes[index] = await store(parcel)
        except BridgeError as error:
            outcomes[index] = error
        finally:
            free.release()

    rest = iter(values)
    async with asyncio.TaskGroup() as group:
        while batch := list(islice(rest, min(BATCH, window))):
            try:
                jobs = await seal(batch)
            except BridgeError as error:
                outcomes.extend([error] * len(batch))
                continue
            for job in jobs:
                if isinstance(job, BridgeError):
                    outcomes.append(job)
                    continue
                await free.acquire()
                outcomes.append(_PENDING)
                group.create_task(stored(len(outcomes) - 1, job))
    return outcomes
