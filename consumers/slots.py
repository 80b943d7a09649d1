"""Who gets the next free slot: by weight among those that wait; high goes first, low never starves. No I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

WEIGHTS: Final = {"high": 16, "normal": 4, "low": 1}
"""Of 21 slots that free while all three wait, how many go to each."""


class Slots:
    """A fixed number of slots, shared by lanes of different weight (smooth weighted round robin).

    Args:
        slots: How many.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._turn: dict[str, int] = {}
        self._weights: dict[str, int] = {}

    async def take(self, lane: str, weight: int) -> None:
        """Wait for a slot; within a lane, first come, first served."""
        if self._free:
            self._free -= 1
            return
        self._weights[lane] = weight
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lane, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # it had been given while it was being cancelled
            raise

    def give(self) -> None:
        """A slot is free again."""
        while lane := self._next():
            turn = self._waiting[lane].popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _next(self) -> str | None:
        waiting = [lane for lane, turns in self._waiting.items() if turns]
        if not waiting:
            self._turn.clear()
            return None
        for lane in waiting:
            self._turn[lane] = self._turn.get(lane, 0) + self._weights[lane]
        chosen = max(waiting, key=lambda lane: self._turn[lane])
        self._turn[chosen] -= sum(self._weights[lane] for lane in waiting)
        return chosen
