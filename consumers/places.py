"""Where the task of a delivery stands: among those that run, with a slot of the process, or among those that wait."""

from __future__ import annotations

import asyncio
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
        self._has_slot = False
        self.replaced = False
        """Whether another delivery was asked for in its stead."""

    async def leave(self, *, more: bool = False) -> None:
        """See `consumers.case.Place.leave`."""
        if self._running.pop(self._task, None) is not None:
            self._waiting[self._task] = self._held
            self.give()
        if more and not self.replaced:
            self.replaced = True
            self._more()

    async def back(self) -> bool:
        """See `consumers.case.Place.back`."""
        if self._task in self._running:
            return True
        got = await self.take()
        self.settle()
        return got

    async def free(self) -> None:
        """See `consumers.case.Place.free`."""
        self.give()

    async def take(self) -> bool:
        """Wait for a slot. False where the task was excused from having one."""
        self._has_slot = await self._slots.take(self.lane, self.weight)
        return self._has_slot

    def give(self) -> None:
        """Give the slot back; nothing where it has none."""
        if self._has_slot:
            self._has_slot = False
            self._slots.give()

    def settle(self) -> None:
        """It is not to be handed back any more, with a slot or without."""
        if self._waiting.pop(self._task, None) is not None:
            self._running[self._task] = self._held[1]
