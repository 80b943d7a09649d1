"""Ending a handler from outside: for a reason, or when its time is up. No I/O."""

from __future__ import annotations

import asyncio
from types import TracebackType

from consumers.verdict import Cancelled


class Stop:
    """A block that can be stopped once, by `ask`; then it raises `Cancelled`, whatever it returned or raised itself.

    Once its time is up it raises `TimeoutError`, as `asyncio.timeout` does, which would be a second block and twice the
    price. A coroutine in it is cancelled. A plain function in a thread cannot be: it sees `reason`, and is not waited
    for.
    """

    __slots__ = ("_before", "_cancels", "_task", "_timer", "late", "limit", "reason")

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why it is to stop; None while it is not."""
        self.limit: float | None = None
        """Seconds that the block has from its beginning; None is any time."""
        self.late = False
        """Whether these are over, and the block was not."""
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._before = self._cancels = 0

    def ask(self, reason: str) -> None:
        """Stop the block, if it has not ended; in the event loop."""
        if self.reason is None:
            self.reason = reason
            self._cancel()

    async def __aenter__(self) -> None:
        if self.reason is not None:
            raise Cancelled(self.reason)
        self._task = asyncio.current_task()
        self._before = self._task.cancelling() if self._task is not None else 0
        if self.limit is not None:
            self._timer = asyncio.get_running_loop().call_later(max(self.limit, 0), self._expire)

    async def __aexit__(
        self, type_: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._cancels or task is None:
            return
        left = min([task.uncancel() for _ in range(self._cancels)])
        # Asked for by us alone, or has the worker been stopped as well? Then that comes first.
        cancelled = type_ is asyncio.CancelledError
        if self.reason is not None:
            if left <= self._before or not cancelled:
                raise Cancelled(self.reason) from error
        elif left <= self._before and cancelled:
            raise TimeoutError from error

    def _expire(self) -> None:
        self.late = True
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._cancels += 1
            self._task.cancel()
