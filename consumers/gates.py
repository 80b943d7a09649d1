"""Gates: what a queue's workers have agreed on lets through so many jobs at once, of a key too, and so many in a time.

A job comes to its gate when nothing else keeps it from starting. Where it must wait, it gives its slot of this process
to others; where too many of keys wait here already, it goes back to its queue for a while, so that those of other keys
get through. A queue without limits has no gate.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.identity import QueueSettings
from bridge.transport import Transport
from consumers.cancels import Cancels
from consumers.case import Case
from consumers.lines import Line
from consumers.pace import Pace
from consumers.permits import Permit, Permits, life_of

KEY_WAITING: Final = 16
"""Jobs of one key that wait in one process: enough that the key is never idle for want of one."""
KEYS_WAITING: Final = 64
"""Jobs of a queue that wait in one process for their keys, beyond what it holds otherwise."""
KEYS_KNOWN: Final = 1_024
"""Keys whose slots are remembered after their last job, about 2 KiB of memory each."""
FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 30.0
"""For which a job that finds too many of its key goes back: twice as long each time."""
CLOSE_TIMEOUT_S: Final = 2.0
"""How long a worker that ends takes to give back its slots; what is left goes by itself."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Passage:
    """What a gate says.

    Args:
        delay: Seconds until the job is to come again; None lets it through.
        waited: Whether so much time has passed that whether it may start is to be asked again.
    """

    delay: float | None = None
    waited: bool = False


class Gate:
    """The limits of one queue, as one worker process keeps to them. Made by `Gates`."""

    def __init__(
        self, queue: str, settings: QueueSettings, transport: Transport, cancels: Cancels, gates: Gates
    ) -> None:
        self._cancels = cancels
        self._queue, self._per_key = queue, settings.concurrency_per_key
        stream = subjects.slots_stream(queue)
        self._line = partial(Line, gates.permits, transport, stream, life=life_of(settings), spawn=gates.spawn)
        self._all = None
        if settings.concurrency is not None:
            self._all = self._line(prefix=subjects.queue_slots(queue), slots=settings.concurrency)
        self._keys: OrderedDict[str, Line] = OrderedDict()
        self._pace = Pace(queue, settings, transport) if settings.rate_jobs is not None else None

    @contextlib.asynccontextmanager
    async def passing(self, case: Case) -> AsyncIterator[Passage]:
        """Hold for a job, until the block ends, what it needs to run."""
        held: list[tuple[Line, Permit]] = []
        try:
            left = (case.core.expires - now_ms()) / 1000
            try:
                async with asyncio.timeout(left) as clock:
                    passage = await self._pass(case, held)
            except TimeoutError:
                if not clock.expired():
                    raise
                passage = Passage(FIRST_DELAY_S, waited=True)
            yield passage
        finally:
            for line, permit in reversed(held):
                line.give(permit)

    def excuse(self, task: asyncio.Task[Any]) -> None:
        """Let a task that waits go on: what it has to do needs no gate."""
        for line in self._lines():
            line.excuse(task)
        if self._pace is not None:
            self._pace.excuse(task)

    async def _pass(self, case: Case, held: list[tuple[Line, Permit]]) -> Passage:
        place, waited = case.place, False
        stopped = partial(self._stopped, case)
        key = self._key(case)
        for line in filter(None, (key, self._all)):
            permit = await line.now()
            if permit is None:
                if line is key and self._crowded(key):
                    delay = min(FIRST_DELAY_S * 2 ** min(case.delivery.delivered - 1, 16), LONGEST_DELAY_S)
                    return Passage(delay * random.uniform(0.8, 1.2), waited)  # noqa: S311  # spreads load
                # Others of its lane come in its stead where it waits for its key alone.
                await place.leave(more=line is key)
                waited = True
                if stopped():
                    return Passage(FIRST_DELAY_S, waited)
                permit = await line.wait(place.lane, place.weight)
                if permit is None:
                    return Passage(FIRST_DELAY_S, waited)
            held.append((line, permit))
            self._use(case, permit)
        if self._pace is not None:
            through = await self._pace.take(place, stopped)
            waited = True
        else:
            through = await place.back()
        return Passage(None if through else FIRST_DELAY_S, waited)

    def _stopped(self, case: Case) -> bool:
        return self._cancels.known(case) is not None

    def _use(self, case: Case, permit: Permit) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # for the type checker: a coroutine runs in a task
        permit.wanted, permit.on_lost = case.wanted, task.cancel
        if permit.lost:  # on its way from one job to the next
            task.cancel()

    def _key(self, case: Case) -> Line | None:
        if self._per_key is None or not case.core.concurrency_key:
            return None
        prefix = subjects.key_slots(self._queue, case.core.sender, case.core.concurrency_key)
        line = self._keys.get(prefix)
        if line is None:
            line = self._keys[prefix] = self._line(prefix=prefix, slots=self._per_key)
            for each in [each for each in self._keys if len(self._keys) > KEYS_KNOWN]:
                if each != prefix and self._keys[each].idle:
                    del self._keys[each]
                    break
        self._keys.move_to_end(prefix)
        return line

    def _crowded(self, line: Line) -> bool:
        return line.waiting >= KEY_WAITING or sum(each.waiting for each in self._keys.values()) >= KEYS_WAITING

    def _lines(self) -> list[Line]:
        return [*self._keys.values(), *([self._all] if self._all is not None else [])]


class Gates:
    """The gates of one worker process.

    Args:
        queues: The queues that it serves.
        transport: The workers' local broker.
        cancels: What is not to be run, and so not to wait.
        worker: The name of this process, for people.
    """

    def __init__(self, queues: dict[str, QueueSettings], transport: Transport, cancels: Cancels, worker: str) -> None:
        limited = {name: settings for name, settings in queues.items() if settings.limited}
        self._tasks: set[asyncio.Task[None]] = set()
        self.permits = Permits(transport, worker, min(map(life_of, limited.values()), default=1))
        self._gates = {name: Gate(name, each, transport, cancels, self) for name, each in limited.items()}

    def __len__(self) -> int:
        return len(self._gates)

    def of(self, queue: str) -> Gate | None:
        """The gate of a queue; None where it has no limits."""
        return self._gates.get(queue)

    def excuse(self, queue: str, task: asyncio.Task[Any]) -> None:
        """See `Gate.excuse`."""
        if (gate := self._gates.get(queue)) is not None:
            gate.excuse(task)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done in the background."""
        task = asyncio.create_task(work, name="gate")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def close(self) -> None:
        """Give back what is held; nobody waits any more."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # a bug here must not end the worker
            _log.error("gate_failed", exc_info=error)
