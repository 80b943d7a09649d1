"""Having parts of one's own pass, beside whatever else goes on: nobody waits long for it, and no cancel stops it."""

from __future__ import annotations

import asyncio
from typing import Final

from bridge import subjects
from bridge.errors import TransportError
from bridge.subjects import JobKey
from bridge.transport import Transport

WITHDRAW_S: Final = 60.0
"""How long the parts of one payload may take: a server takes some thousands a second, and 65,544 are the most."""
AT_ONCE: Final = 64
"""Withdrawn at once, of one payload."""
PAYLOADS: Final = 8
"""Withdrawn at once; the others, whose answers came all together, wait for their turn."""
CLOSE_S: Final = 2.0
"""How long the end of a process waits for what is under way."""


class Withdrawals:
    """The payloads that are being withdrawn, each once; what is not done in time goes with the stream's age.

    Args:
        transport: To the local server.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(PAYLOADS)

    def start(self, key: JobKey, transfer: bytes, messages: int) -> asyncio.Task[None]:
        """Begin to withdraw a payload; the task never fails for what the server says.

        Args:
            key: The job that it belongs to.
            transfer: Names it.
            messages: Its parts and the pieces of its index, stored or not.
        """
        task = asyncio.get_running_loop().create_task(self._in_turn(key, transfer.hex(), messages), name="withdraw")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Wait a little for what is under way, and leave the rest."""
        if not self._tasks:
            return
        try:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
        finally:
            for task in self._tasks:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _in_turn(self, key: JobKey, name: str, messages: int) -> None:
        async with self._turns:
            await self._withdraw(key, name, messages)

    async def _withdraw(self, key: JobKey, name: str, messages: int) -> None:
        """An empty message takes the place of each, and lives a second."""
        stream, clock = subjects.parts_stream(key.queue), asyncio.get_running_loop().time
        give_up = clock() + WITHDRAW_S
        for first in range(0, messages, AT_ONCE):
            left = give_up - clock()
            if left <= 0:
                return
            sent = [
                self._transport.publish(
                    stream, subjects.part(key, name, number), b"", {"Nats-TTL": "1s"}, timeout=min(left, 10.0)
                )
                for number in range(first, min(first + AT_ONCE, messages))
            ]
            for outcome in await asyncio.gather(*sent, return_exceptions=True):
                if isinstance(outcome, TransportError):
                    return
                if isinstance(outcome, BaseException):
                    raise outcome
