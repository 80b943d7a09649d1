"""The drill's producer, a process of its own: ``python -m bridge.cli.drill.producer QUEUE…``.

It submits to the first of its queues at a steady rate, and takes orders on standard input, one a line: ``pause``,
``resume``, ``die`` (while the next job is being submitted), ``submit JOB QUEUE SECONDS TIMEOUT FATAL``, ``leave`` (once
what is being submitted is stored), ``finish`` (once every result has come). It keeps an outbox on disk. One that is
started anew attaches to whatever the ledger says is owed of its queues, and to what the outbox has beside.
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
from bridge.cli.drill.ledger import DEADLINE_S, ENVIRONMENT, Ledger
from bridge.cli.drill.worker import KINDS, Step
from bridge.errors import BridgeError, JobFailed, OutcomeUnknown
from bridge.jetstream import JetStreamTransport
from producers import Handle, Producer

RATE: Final = "BUNNY_DRILL_RATE"
OUTBOX: Final = "BUNNY_DRILL_OUTBOX"
TICK_S: Final = 0.05
MOST_OPEN: Final = 10_000
"""Jobs without a result at which it waits: what an outage holds up stays bounded."""
LONG_S: Final = 7200.0
"""The deadline of every other job: beyond the hour by which a clock may be off."""
SUBMIT_S: Final = 30.0
ATTACHING: Final = 64
_PADDING: Final = "0123456789abcdef" * 256


class Load:
    """Jobs at a steady rate, each written into the ledger at every step.

    Args:
        producer: Who submits.
        ledger: Where it is written.
        queues: Where to; the load goes to the first.
        rate: Jobs per second.
    """

    def __init__(self, producer: Producer, ledger: Ledger, queues: list[str], rate: float) -> None:
        self._producer, self._ledger, self._queues, self._rate = producer, ledger, queues, rate
        self._running = asyncio.Event()
        self._running.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._submitting: set[int] = set()
        self._stored = asyncio.Event()
        self._random = random.Random()  # noqa: S311  # sizes and durations; nothing secret

    async def attach(self) -> None:
        """Attach to every job that an earlier process was owed the result of."""
        free = asyncio.Semaphore(ATTACHING)

        async def one(job: int, token: str) -> None:
            async with free:
                handle = await self._producer.attach(token)
            self._spawn(self._await(job, handle))

        async with asyncio.TaskGroup() as group:
            for job, token in self._ledger.owed(self._queues):
                group.create_task(one(job, token))
        handles = {str(handle.token): handle for handle in await self._producer.recovered()}
        for token in self._ledger.recover(self._queues[0], handles):
            self._spawn(self._await_recovered(token, handles[token]))

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
                deadlines = [self._random.choice((DEADLINE_S, LONG_S)) for _ in range(jobs)]
                for job, deadline in zip(self._ledger.intend(self._queues[0], deadlines), deadlines, strict=True):
                    padding = _PADDING[: self._random.randrange(len(_PADDING))]
                    step = Step(job, self._random.uniform(0.001, 0.05), padding=padding)
                    self._spawn(self._submit(self._queues[0], step, deadline))

    async def leave(self) -> None:
        """Wait until nothing is being submitted; results are left to the next process."""
        while self._submitting:
            self._stored.clear()
            await self._stored.wait()
        for task in self._tasks:
            task.cancel()

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
            case ["submit", job, queue, seconds, timeout, fatal]:
                step = Step(int(job), float(seconds), fatal == "fatal")
                self._spawn(self._submit(queue, step, DEADLINE_S, float(timeout)))

    async def _submit(self, queue: str, step: Step, deadline: float, timeout: float = SUBMIT_S) -> None:
        self._submitting.add(step.job)
        try:
            handle = await self._producer.submit(KINDS[queue], step, deadline=deadline, timeout=timeout)
        except BridgeError as error:
            self._ledger.refused(step.job, type(error).__name__)
            return
        else:
            self._ledger.stored(step.job, str(handle.token))
        finally:
            self._submitting.discard(step.job)
            self._stored.set()
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

    async def _await_recovered(self, token: str, handle: Handle[int]) -> None:
        """Learn from its result which job it is that the process before was killed amid."""
        while True:
            try:
                job = await handle.result(int)
            except OutcomeUnknown:
                continue
            self._ledger.found(token, job)
            self._ledger.result(job, "succeeded")
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
    async with Producer.from_env(outbox=os.environ[OUTBOX]) as producer:
        load = Load(producer, ledger, sys.argv[1:], float(os.environ[RATE]))
        await load.attach()
        pacing = asyncio.create_task(load.pace())
        ledger.say("ready")
        async for words in _orders():
            if words in (["finish"], ["leave"]):
                break
            load.order(words)
        pacing.cancel()
        await (load.finish() if words == ["finish"] else load.leave())


if __name__ == "__main__":
    asyncio.run(main())
