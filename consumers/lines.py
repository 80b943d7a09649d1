"""Lines: the jobs of one worker process that wait for a slot of the same queue or key, served by weight.

Nobody polls for itself: one task for each line does, with pauses, while somebody waits. A slot that this process has
goes from job to job without a word to the server, for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias

import structlog

from bridge import subjects
from bridge.errors import SubjectChanged, TransportError
from bridge.transport import Transport
from consumers.permits import Permit, Permits, sequence_of
from consumers.slots import Slots

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0
"""Between two tries to get what others hold, give or take a half; each reads one stream of this cloud."""
TENURE_S: Final = 5.0
"""How long a slot goes from job to job within a process that has more of them, before others have their chance."""
FRESH_S: Final = 0.8
"""How long what says that a slot is free is certain to be there: the server keeps it for a second."""
TRIES: Final = 3
"""Slots that are tried in one go after they were seen to be free: others see them too."""
PAGE: Final = 256
"""Slots read at once."""

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]
"""Has something done in the background, until the worker ends."""

_log = structlog.get_logger(__name__)


class Line:
    """Those who wait for one of so many slots, which all workers of a queue share.

    Args:
        permits: What this process holds.
        transport: The workers' local broker.
        stream: Where the slots are.
        prefix: What their subjects begin with.
        slots: How many there are.
        life: Seconds for which one is held without being renewed.
        spawn: Has the line served while somebody waits, and slots given back.
    """

    def __init__(
        self, permits: Permits, transport: Transport, stream: str, prefix: str, slots: int, life: int, spawn: Spawn
    ) -> None:
        self._permits, self._transport, self._spawn = permits, transport, spawn
        self._stream, self._prefix, self._slots, self._life = stream, prefix, slots, life
        self._turns = Slots(0)
        self._ready: deque[Permit] = deque()
        self._served = False
        self._mine: set[int] = set()
        """Slots that this process has, or is about to have or to give back."""
        self._freed: dict[int, tuple[int, float]] = {}
        """Slots given back a moment ago: the sequence that says so, and when."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._turns.waiting

    @property
    def idle(self) -> bool:
        """Whether no job of this process has or wants a slot of it."""
        return not self._mine and not self.waiting

    async def now(self) -> Permit | None:
        """A slot, if one is free and nobody was first; else one is to `wait`."""
        if not self.waiting:
            with contextlib.suppress(TransportError):  # whoever waits tries again
                return await self._get()
        return None

    async def wait(self, lane: str, weight: int) -> Permit | None:
        """Wait for a slot; None where the task was excused."""
        if not self._served:
            self._served = True
            self._spawn(self._serve())
        try:
            return self._ready.popleft() if await self._turns.take(lane, weight) else None
        finally:
            self._drop_unwanted()

    def excuse(self, task: asyncio.Task[Any]) -> None:
        """Let a task that waits go on without a slot."""
        self._turns.excuse(task)

    def give(self, permit: Permit) -> None:
        """A job is done with it: the next one here has it, for a while, or any."""
        permit.wanted, permit.on_lost = _always, None
        if self.waiting and not permit.lost and time.monotonic() - permit.since < TENURE_S:
            self._hand(permit)
        else:
            self._spawn(self._release(permit))

    def _hand(self, permit: Permit) -> None:
        self._ready.append(permit)
        self._turns.give()
        self._drop_unwanted()

    def _drop_unwanted(self) -> None:
        while self._turns.withdraw():  # what was given to one that is gone, and nobody else waits
            self._spawn(self._release(self._ready.popleft()))

    async def _serve(self) -> None:
        pause, longest = FIRST_PAUSE_S, FIRST_PAUSE_S
        try:
            while True:
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads load; nothing secret
                if not self.waiting:
                    return
                got = None
                try:
                    got = await self._get()
                except TransportError as error:
                    _log.warning("limit_unknown", stream=self._stream, error=type(error).__name__, reason=str(error))
                if got is not None:
                    self._hand(got)
                    pause, longest = 0.0, FIRST_PAUSE_S
                else:
                    pause, longest = longest, min(longest * 2, LONGEST_PAUSE_S)
        finally:
            self._served = False

    async def _release(self, permit: Permit) -> None:
        index = self._index(permit.subject)
        try:
            sequence = await self._permits.release(permit)
            if sequence:
                self._freed[index] = (sequence, time.monotonic())
        finally:
            self._mine.discard(index)

    async def _get(self) -> Permit | None:
        """A slot that is free: first by what is known here, which takes one write, and then by what is stored."""
        if len(self._mine) >= self._slots:
            return None
        word, sent = secrets.token_hex(12).encode(), time.monotonic()
        with contextlib.suppress(SubjectChanged):
            return await self._take(*self._guess(sent), word)
        held: dict[int, int] = {}
        for number, (sequence, data) in (await self._read()).items():
            if data == word:  # the write got through, and its PubAck did not
                self._mine.add(number)
                return self._permits.adopt(self._stream, self._subject(number), self._life, sequence, sent)
            held[number] = -1 if data else sequence
        free = [number for number in range(self._slots) if number not in self._mine and held.get(number, 0) >= 0]
        for number in random.sample(free, min(TRIES, len(free))):
            if number not in self._mine:
                with contextlib.suppress(SubjectChanged):
                    return await self._take(number, held.get(number, 0), word)
        return None

    def _guess(self, now: float) -> tuple[int, int]:
        """A slot that may be free, and the sequence of what says so."""
        while self._freed:
            index, (sequence, when) = self._freed.popitem()
            if index not in self._mine and now < when + FRESH_S:
                return index, sequence
        left = [index for index in range(self._slots) if index not in self._mine]
        return random.choice(left), 0  # noqa: S311  # spreads load; nothing secret

    async def _take(self, index: int, expected: int, word: bytes) -> Permit:
        self._mine.add(index)
        try:
            return await self._permits.write(self._stream, self._subject(index), self._life, expected, word)
        except BaseException:
            self._mine.discard(index)
            raise

    async def _read(self) -> dict[int, tuple[int, bytes]]:
        """By number of the slot, the sequence and what stands there."""
        found: dict[int, tuple[int, bytes]] = {}
        first = 1
        # What else may stand there does not count: a slot that was not seen is only tried in vain.
        for _ in range(self._slots // PAGE + 2):
            page = await self._transport.read(self._stream, f"{self._prefix}.*", first=first, most=PAGE)
            for message in page:
                if 0 <= (index := self._index(message.subject)) < self._slots:
                    found[index] = (sequence_of(message), message.data)
            if len(found) == self._slots or len(page) < PAGE:
                break
            first = max(first, sequence_of(page[-1])) + 1
        return found

    def _subject(self, index: int) -> str:
        return f"{self._prefix}.{index}"

    def _index(self, subject: str) -> int:
        number = subjects.parse_decimal(subject.rpartition(".")[2])
        return -1 if number is None else number


def _always() -> bool:
    return True
