"""Handles to jobs that were submitted before: by a token, or because the outbox of an ended process has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from bridge.clock import now_ms
from bridge.fence import Tag
from bridge.identity import Connection
from bridge.job import JobToken
from bridge.transport import Transport
from producers import generations
from producers.arrivals import Arrivals, session_of
from producers.copies import Copy
from producers.handle import Handle
from producers.keyed import Keyed
from producers.terms import token_of

AT_ONCE: Final = 16
"""Results that are looked up at once for what was found in an outbox."""

Make = Callable[[JobToken, int, type[Any] | None, Keyed | None], Handle[Any]]
"""Makes a handle: token, lifetime in milliseconds, the result's type, and the key."""


class Attacher:
    """Makes handles of one producer for jobs that are there already.

    Args:
        connection: Names the producer and its queues.
        transport: The producer's local broker.
        arrivals: Settles handles.
        make: Makes them.
    """

    def __init__(self, connection: Connection, transport: Transport, arrivals: Arrivals, make: Make) -> None:
        self._connection, self._transport, self._arrivals, self._make = connection, transport, arrivals, make

    async def attach(self, token: str | JobToken, generation: int | None) -> Handle[Any]:
        """See `producers.client.Producer.attach`."""
        token, settings = token_of(token, self._connection, generation)
        handle = await self._attach(token, settings.deadline_ms)
        if generation is None and not handle.succeeded():
            newest = await generations.newest(self._transport, token.key)
            if newest > token.generation:
                return await self._attach(token._replace(generation=newest), settings.deadline_ms, handle.tag)
        return handle

    async def recovered(self, copies: Iterable[Copy]) -> list[Handle[Any]]:
        """See `producers.client.Producer.recovered`."""
        found, now = list(copies), now_ms()
        handles: list[Handle[Any]] = []
        for first in range(0, len(found), AT_ONCE):
            some = found[first : first + AT_ONCE]
            attached = [self._attach(copy.token, max(copy.expires - now, 0), copy.tag) for copy in some]
            handles += await asyncio.gather(*attached)
        return handles

    async def _attach(self, token: JobToken, lifetime_ms: int, tag: Tag | None = None) -> Handle[Any]:
        await self._arrivals.listen(token.queue, session_of(token))
        known = self._arrivals.get(token.key)
        if known is not None and known.token == token:
            return known
        handle = self._make(token, lifetime_ms, None, Keyed(token.key, tag) if tag is not None else None)
        self._arrivals.expect(handle)
        await self._arrivals.ask(handle)
        return handle
