"""Ending a handler from outside, for a reason: what `asyncio.timeout` is to the clock. No I/O."""

from __future__ import annotations

import asyncio
from types import TracebackType

from consumers.verdict import Cancelled


class Stop:
    """A block that can be stopped once, by `ask`; then it raises `Cancelled`, whatever it returned or raised itself.

    A coroutine in it is cancelled. A plain function in a thread cannot be: it sees `reason`, and is not waited for.
    """

    __slots__ = ("_before", "_task", "reason")

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why it is to stop; None while it is not."""
        self._task: asyncio.Task[object] | None = None
        self._before = 0

    def ask(self, reason: str) -> None:
        """Stop the block, if it has not ended; in the event loop."""
        if self.reason is None:
            self.reason = reason
            if self._task is not None:
                self._task.cancel()

    async def __aenter__(self) -> None:
        if self.reason is not None:
            raise Cancelled(self.reason)
        self._task = asyncio.current_task()
        self._before = self._task.cancelling() if self._task is not None else 0

    async def __aexit__(
        self, type_: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self.reason is None or task is None:
            return
        # Asked for by us alone, or has the worker been stopped as well? Then that comes first.
        if task.uncancel() <= self._before or type_ is not asyncio.CancelledError:
            raise Cancelled(self.reason) from error
