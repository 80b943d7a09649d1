"""Which run of a job counts: generation 0 is the first, and every replay of its dead letter is one more."""

from __future__ import annotations

import asyncio
from typing import Final

from bridge import subjects
from bridge.subjects import JobKey
from bridge.transport import Transport

AHEAD: Final = 3
"""How many generations without a result are looked past: those whose results are too old to stand."""


async def newest(transport: Transport, key: JobKey) -> int:
    """The latest generation after the key's whose result stands; the key's own where none does.

    Raises:
        TransportError: The local server does not answer.
    """
    stream, last = subjects.results_stream(key.queue), key.generation
    while True:
        ahead = [key._replace(generation=last + step) for step in range(1, AHEAD + 1)]
        found = await asyncio.gather(*(transport.lookup(stream, subjects.result(each)) for each in ahead))
        standing = [each.generation for each, message in zip(ahead, found, strict=True) if message is not None]
        if not standing:
            return last
        last = standing[-1]
