"""Who gets the next free slot: by weight among those that wait; high goes first, low never starves. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

WEIGHTS: Final = {"high": 16, "normal": 4, "low": 1}
"""Of 21 slots that free while all three wait, how many go to each."""


class Slots:
    """A fixed number of slots, shared by lanes of different weight (smooth weighted round robin).

    Args:
        slots: How many.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: dict[str, deque[asyncio.Future[bool]]] = {}
        self._turns: dict[asyncio.Task[Any], asyncio.Future[bool]] = {}
        self._turn: dict[str, int] = {}
        self._weights: dict[str, int] = {}

    @property
    def full(self) -> bool:
        """Whether who asks now must wait."""
        return self._free == 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(not turn.done() for turns in self._waiting.values() for turn in turns)

    def withdraw(self) -> bool:
        """Take a free slot away for good; False where there is none."""
        if self.full:
            return False
        self._free -= 1
        return True

    async def take(self, lane: str, weight: int) -> bool:
        """Wait for a slot; within a lane, first come, first served. False where it was excused from having one."""
        if self._free:
            self._free -= 1
            return True
        self._weights[lane] = weight
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lane, deque()).append(turn)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # for the type checker: a coroutine runs in a task
        self._turns[task] = turn
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.give()  # it had been given while it was being cancelled
            raise
        finally:
            del self._turns[task]

    def excuse(self, task: asyncio.Task[Any]) -> None:
        """Let a task that waits go on without a slot: what it has to do takes none."""
        turn = self._turns.get(task)
        if turn is not None and not turn.done():
            turn.set_result(False)

    def give(self) -> None:
        """A slot is free again."""
        while lane := self._next():
            turn = self._waiting[lane].popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self._free += 1

    def _next(self) -> str | None:
        waiting = [lane for lane, turns in self._waiting.items() if turns]
        if not waiting:
            self._turn.clear()
            return None
        if len(waiting) == 1:  # whose turn would come out as it is
            return waiting[0]
        for lane in waiting:
            self._turn[lane] = self._turn.get(lane, 0) + self._weights[lane]
        chosen = max(waiting, key=lambda lane: self._turn[lane])
        self._turn[chosen] -= sum(self._weights[lane] for lane in waiting)
        return chosen
