"""Many jobs at once: sealed by the batch, and stored within a window."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from bridge.errors import BridgeError, UsageError
from bridge.job import Content, Kind
from bridge.transfer.fields import Large
from producers.handle import Handle
from producers.outbox import Outbox, Parcel
from producers.terms import Terms

BATCH: Final = 64
"""Jobs of one `Producer.submit_many` under one signature: more save little, and delay the first."""

UPLOADS: Final = 4
"""Payloads of one `Producer.submit_many` that are stored at once, each with 8 MiB under way."""

_PENDING: Final = BridgeError("not stored yet")


async def in_batches(
    values: object,
    window: int,
    outbox: Outbox,
    kind: Kind[Any, Any],
    terms: Terms,
    ready: Callable[[], Awaitable[object]],
    store: Callable[[Parcel], Awaitable[Handle[Any]]],
) -> list[Handle[Any] | BridgeError]:
    """Seal and store a job for each value, read as they are needed.

    Args:
        values: Their arguments.
        window: How many may be on their way to the server at once.
        outbox: Seals them, and stores first what does not travel inline, `UPLOADS` at once.
        kind, terms: Of all of them.
        ready: Waited for before each batch; what it raises is the outcome of the whole batch.
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
    free, uploads = asyncio.Semaphore(window), asyncio.Semaphore(UPLOADS)

    async def stored(index: int, job: Parcel | Large) -> None:
        try:
            if isinstance(job, Large):
                try:
                    job = await outbox.seal_any(kind, job, terms)
                finally:
                    uploads.release()
            outcomes[index] = await store(job)
        except BridgeError as error:
            outcomes[index] = error
        finally:
            free.release()

    rest = iter(values)
    async with asyncio.TaskGroup() as group:
        while batch := list(islice(rest, min(BATCH, window))):
            for job in await _sealed(batch, outbox, kind, terms, ready):
                if isinstance(job, BridgeError):
                    outcomes.append(job)
                    continue
                if isinstance(job, Large):  # before more of them are begun: each holds what was read of it
                    await uploads.acquire()
                await free.acquire()
                outcomes.append(_PENDING)
                group.create_task(stored(len(outcomes) - 1, job))
    return outcomes


async def _sealed(
    batch: Sequence[object],
    outbox: Outbox,
    kind: Kind[Any, Any],
    terms: Terms,
    ready: Callable[[], Awaitable[object]],
) -> list[Parcel | Large | BridgeError]:
    """In order, what has become of each: what travels in its message is sealed, and what is large is not yet."""
    packed: list[Content | Large | BridgeError] = []
    for value in batch:
        try:
            packed.append(await outbox.pack(kind, value))
        except BridgeError as error:
            packed.append(error)
    contents = [each for each in packed if isinstance(each, Content)]
    try:
        await ready()
        sealed = iter(await outbox.seal(kind, contents, terms))
    except BridgeError as error:
        return [each if isinstance(each, BridgeError) else error for each in packed]
    return [next(sealed) if isinstance(each, Content) else each for each in packed]
