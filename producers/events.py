"""How far a job is, as its worker tells while it runs: sealed, verified, and lost without harm."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import check_time
from bridge.envelope import Opener
from bridge.errors import BridgeError, InvalidArguments
from bridge.fence import authenticate_answer
from bridge.identity import Connection
from bridge.job import MAX_STEP_CHARS, Step, decode
from bridge.segments import HINT
from bridge.transport import Message, Transport
from producers.handle import Handle

WAITING: Final = 64
"""Events that wait for whoever reads them; then the oldest is dropped."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is."""

    fraction: float
    """From 0 to 1."""
    text: str = field(repr=False)
    """The worker's words."""
    attempt: int
    """From 1. A later one may be less far."""
    at: datetime
    """By the worker's clock."""


class Events:
    """Hears the events of one identity's jobs.

    Args:
        connection: Names the queues' workers.
        transport: The producer's local broker.
        opener: Verifies and opens events.
    """

    def __init__(self, connection: Connection, transport: Transport, opener: Opener) -> None:
        self._connection = connection
        self._transport = transport
        self._opener = opener

    async def of(self, handle: Handle[Any]) -> AsyncGenerator[Progress, None]:
        """See `Handle.events`."""
        waiting: deque[Progress] = deque(maxlen=WAITING)
        news = asyncio.Event()
        last = (0, 0)

        async def heard(message: Message) -> None:
            nonlocal last
            if message.data == HINT:  # for whoever reads records
                return
            try:
                when, event = self._read(handle, message)
            except BridgeError as error:
                _log.warning("event_ignored", queue=handle.key.queue, job=handle.id, cause=type(error).__name__)
                return
            if when > last:  # else it came before, or was overtaken
                last = when
                waiting.append(event)
                news.set()

        end = await self._transport.subscribe(subjects.event(handle.key), heard)
        unwatch = handle.when_done(news.set)
        try:
            while not handle.done():
                try:
                    async with asyncio.timeout_at(handle.gives_up):  # never around a yield: it would cancel the reader
                        await news.wait()
                except TimeoutError:
                    return
                news.clear()
                while waiting:
                    yield waiting.popleft()
        finally:
            unwatch()
            await end()

    def _read(self, handle: Handle[Any], message: Message) -> tuple[tuple[int, int], Progress]:
        workers, digest = self._connection.queues[handle.key.queue].workers, bytes.fromhex(handle.token.digest)
        event = authenticate_answer(self._opener, message.data, "event", handle.key, digest, workers, now_ms())
        check_time(event.core, now_ms())
        step = decode(self._opener.open(event).content, Step)
        if not 0 <= step.fraction <= 1:
            raise InvalidArguments("an event speaks of less than nothing, or of more than all")
        core = event.core
        at = datetime.fromtimestamp(core.issued / 1000, UTC)
        return (core.attempt, core.issued), Progress(step.fraction, step.text[:MAX_STEP_CHARS], core.attempt, at)
