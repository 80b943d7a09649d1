"""Where the task of a delivery stands: among those that run, with a slot of the process, or among those that wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from bridge.transport import Delivery
from consumers.slots import Slots


class Laned(Protocol):
    """What has a name and a weight, by which slots go."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def weight(self) -> int:
        """Its weight."""


L = TypeVar("L", bound=Laned)


class Standing(Generic[L]):
    """See `consumers.case.Place`.

    Args:
        lane: Its lane.
        delivery: What it is about.
        slots: Those of the process.
        waiting: The tasks that wait.
        running: The tasks that run, or are settled.
        more: Asks for another delivery.
    """

    def __init__(
        self,
        lane: L,
        delivery: Delivery,
        slots: Slots,
        waiting: dict[asyncio.Task[None], tuple[L, Delivery]],
        running: dict[asyncio.Task[None], Delivery],
        more: Callable[[], None],
    ) -> None:
        self.lane, self.weight, self._held = lane.name, lane.weight, (lane, delivery)
        self._slots, self._waiting, self._running, self._more = slots, waiting, running, more
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # for the type checker: a coroutine runs in a task
        self._task: asyncio.Task[None] = task
        self.slot = contextlib.AsyncExitStack()
        """Gives the slot back when it is closed."""
        self.replaced = False
        """Whether another delivery was asked for in its stead."""

    async def leave(self, *, more: bool = False) -> None:
        """See `consumers.case.Place.leave`."""
        if self._running.pop(self._task, None) is not None:
            self._waiting[self._task] = self._held
            await self.slot.aclose()
        if more and not self.replaced:
            self.replaced = True
            self._more()

    async def back(self) -> bool:
        """See `consumers.case.Place.back`."""
        if self._task in self._running:
            return True
        got = await self._slots.take(self.lane, self.weight)
        if got:
            self.slot.callback(self._slots.give)
        self.settle()
        return got

    async def free(self) -> None:
        """See `consumers.case.Place.free`."""
        await self.slot.aclose()

    def settle(self) -> None:
        """It is not to be handed back any more, with a slot or without."""
        if self._waiting.pop(self._task, None) is not None:
            self._running[self._task] = self._held[1]
