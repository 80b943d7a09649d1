"""The drill's producer, a process of its own: ``python -m bridge.cli.drill.producer``.

It submits at a steady rate, and takes orders on standard input, one a line: ``pause``, ``resume``, ``die`` (while the
next job is being submitted), ``submit JOB QUEUE SECONDS FATAL``, ``finish``. One that is started anew attaches to
whatever the ledger says is owed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

from bridge import observe
from bridge.cli.drill.ledger import ENVIRONMENT, Ledger
from bridge.cli.drill.worker import KINDS, WORK, Step
from bridge.errors import BridgeError, JobFailed, OutcomeUnknown
from bridge.jetstream import JetStreamTransport
from producers import Handle, Producer

RATE: Final = "BUNNY_DRILL_RATE"
TICK_S: Final = 0.05
MOST_OPEN: Final = 10_000
"""Jobs without a result at which it waits: what an outage holds up stays bounded."""
DEADLINE_S: Final = 1800.0
ATTACHING: Final = 64
_PADDING: Final = "0123456789abcdef" * 256


class Load:
    """Jobs at a steady rate, each written into the ledger at every step.

    Args:
        producer: Who submits.
        ledger: Where it is written.
        rate: Jobs per second.
    """

    def __init__(self, producer: Producer, ledger: Ledger, rate: float) -> None:
        self._producer, self._ledger, self._rate = producer, ledger, rate
        self._running = asyncio.Event()
        self._running.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._random = random.Random()  # noqa: S311  # sizes and durations; nothing secret

    async def attach(self) -> None:
        """Attach to every job that an earlier process was owed the result of."""
        free = asyncio.Semaphore(ATTACHING)

        async def one(job: int, token: str) -> None:
            async with free:
                handle = await self._producer.attach(token)
            self._spawn(self._await(job, handle))

        async with asyncio.TaskGroup() as group:
            for job, token in self._ledger.owed():
                group.create_task(one(job, token))

    async def pace(self) -> None:
        """Submit for ever, but for pauses."""
        loop = asyncio.get_running_loop()
        due, owing = loop.time(), 0.0
        while True:
            if not self._running.is_set():
                await self._running.wait()
                due = loop.time()
            due += TICK_S
            await asyncio.sleep(due - loop.time())
            owing += self._rate * TICK_S
            jobs, owing = int(owing), owing % 1
            if len(self._tasks) < MOST_OPEN and jobs:
                for job in self._ledger.intend(WORK.queue, jobs):
                    padding = _PADDING[: self._random.randrange(len(_PADDING))]
                    step = Step(job, self._random.uniform(0.001, 0.05), padding=padding)
                    self._spawn(self._submit(WORK.queue, step))

    async def finish(self) -> None:
        """Wait for every result that is owed."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def order(self, words: list[str]) -> None:
        """Do what a line of standard input says."""
        match words:
            case ["pause"]:
                self._running.clear()
                self._ledger.say("paused")
            case ["resume"]:
                self._running.set()
            case ["die"]:
                JetStreamTransport.publish = _dying(JetStreamTransport.publish)  # type: ignore[method-assign]
            case ["submit", job, queue, seconds, fatal]:
                self._spawn(self._submit(queue, Step(int(job), float(seconds), fatal == "fatal")))

    async def _submit(self, queue: str, step: Step) -> None:
        try:
            handle = await self._producer.submit(KINDS[queue], step, deadline=DEADLINE_S)
        except BridgeError as error:
            self._ledger.refused(step.job, type(error).__name__)
            return
        self._ledger.stored(step.job, str(handle.token))
        await self._await(step.job, handle)

    async def _await(self, job: int, handle: Handle[int]) -> None:
        while True:
            try:
                answer = await handle.result(int)
            except OutcomeUnknown:
                continue
            except JobFailed as error:
                status = error.type
            except BridgeError as error:
                status = type(error).__name__
            else:
                status = "succeeded" if answer == job else "another's result"
            self._ledger.result(job, status)
            return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _dying(publish: Any) -> Any:  # noqa: ANN401  # a method, whatever its signature
    """A publish that ends its process somewhere between its first byte and what follows the PubAck."""

    async def dying(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        delay = random.uniform(0, 0.004)  # noqa: S311  # where it dies; nothing secret
        asyncio.get_running_loop().call_later(delay, os.kill, os.getpid(), signal.SIGKILL)
        return await publish(*args, **options)

    return dying


async def _orders() -> AsyncIterator[list[str]]:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().split()


async def main() -> None:
    """Submit until told to finish."""
    observe.configure(json=True)
    ledger = Ledger(os.environ[ENVIRONMENT])
    async with Producer.from_env() as producer:
        load = Load(producer, ledger, float(os.environ[RATE]))
        await load.attach()
        pacing = asyncio.create_task(load.pace())
        ledger.say("ready")
        async for words in _orders():
            if words == ["finish"]:
                break
            load.order(words)
        pacing.cancel()
        await load.finish()


if __name__ == "__main__":
    asyncio.run(main())
