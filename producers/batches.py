"""Many jobs at once: sealed by the batch, and stored within a window."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from bridge.errors import BridgeError, UsageError
from producers.handle import Handle
from producers.outbox import Parcel

BATCH: Final = 64
"""Jobs of one `Producer.submit_many` under one signature: more save little, and delay the first."""

_PENDING: Final = BridgeError("not stored yet")


async def in_batches(
    values: object,
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

    Raises:
        UsageError: The values are none, or no window is.
    """
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        raise UsageError(f"args is {type(values).__name__}; pass a list or an iterator of each job's arguments")
    if type(window) is not int or window < 1:
        raise UsageError(f"window={window!r}; pass how many jobs may be under way at once, from 1")
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
