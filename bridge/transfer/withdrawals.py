"""Having parts of one's own pass, beside whatever else goes on: nobody waits long for it, and no cancel stops it."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from bridge import subjects
from bridge.errors import TransportError
from bridge.subjects import JobKey
from bridge.transport import Transport

WITHDRAW_S: Final = 300.0
"""How long the parts of one payload may take: a server takes some thousands a second, 65,544 are the most, and one that
is restarted is back within a minute."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
"""Between two tries of what a server did not take; it doubles."""
AT_ONCE: Final = 64
"""Withdrawn at once, of one payload."""
PAYLOADS: Final = 8
"""Withdrawn at once; the others, whose answers came all together, wait for their turn."""
CLOSE_S: Final = 2.0
"""How long the end of a process waits for what is under way."""

_log = structlog.get_logger(__name__)


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
        """An empty message takes the place of each, and lives a second; what a server does not take is tried again."""
        give_up = asyncio.get_running_loop().time() + WITHDRAW_S
        for first in range(0, messages, AT_ONCE):
            left, pause = list(range(first, min(first + AT_ONCE, messages))), FIRST_PAUSE_S
            while left := await self._pass(key, name, left, give_up):
                if asyncio.get_running_loop().time() + pause >= give_up:
                    _log.warning("payload_not_withdrawn", queue=key.queue, job=key.job_id)
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _pass(self, key: JobKey, name: str, numbers: list[int], give_up: float) -> list[int]:
        """Those of some messages that no empty one is known to have taken the place of."""
        stream, clock = subjects.parts_stream(key.queue), asyncio.get_running_loop().time
        timeout = max(min(give_up - clock(), 10.0), 0.001)
        sent = [
            self._transport.publish(stream, subjects.part(key, name, number), b"", {"Nats-TTL": "1s"}, timeout=timeout)
            for number in numbers
        ]
        failed = []
        for number, outcome in zip(numbers, await asyncio.gather(*sent, return_exceptions=True), strict=True):
            if isinstance(outcome, TransportError):
                failed.append(number)
            elif isinstance(outcome, BaseException):
                raise outcome
        return failed
