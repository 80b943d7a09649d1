"""The faults: what each does, what it puts right again, and by what sign the bridge notices it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Final

from bridge import subjects
from bridge.cli.drill import inspect
from bridge.cli.drill.stage import POISON_ATTEMPTS, Child, Stage
from bridge.cli.drill.worker import DRAIN_S, JUNK, POISON, SLOWNESS, WORK
from bridge.devserver import Relay
from bridge.member import Member
from bridge.subjects import JobKey

FLAPS: Final = 10
JUNK_AT_ONCE: Final = 256
SLOW_S: Final = 4.0
LONG_JOB_S: Final = 2.0

_GONE: Final = frozenset({"disconnected", "connect_failed", "pull_interrupted", "store_failed"})
_LINK: Final = frozenset({"pull_interrupted", "link_closed", "link_stale"})
_TAKEN_OVER: Final = frozenset({"job_answered_before"})


@dataclass(slots=True)
class Strike:
    """One fault as it was injected. Times are of `time.monotonic`."""

    fault: str
    opened: float
    """From then on jobs are counted as this strike's."""
    struck: float = 0.0
    mended: float = 0.0
    killed: list[tuple[int, float]] = field(default_factory=list)
    """Workers, and when."""
    severed: bool = False
    """Whether whatever ran between ``struck`` and ``mended`` may have been interrupted, in any process."""
    forgets: bool = False
    """Whether the server that hands out jobs was killed, and so forgets to whom it gave some a moment ago."""
    noticed: float | None = None
    sign: str = ""
    first: float | None = None
    """The first result after ``mended``."""
    drained: float | None = None
    """When every job stored by ``mended`` had its result."""
    closed: float = 0.0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that can be injected."""

    name: str
    about: str
    inject: Callable[[Stage, Strike], Awaitable[None]]
    signs: frozenset[str] = frozenset()
    again: bool = False
    """Whether a job that is started again is a sign as well."""


def faults(cuts: list[float]) -> list[Fault]:
    """All of them, in the order in which they are listed.

    Args:
        cuts: Seconds of each cut of the link.
    """
    return [
        Fault("worker-idle", "kill -9 of a worker that has nothing to do", _worker_idle),
        Fault("worker-running", "kill -9 of a worker amid a handler", _worker_running, _TAKEN_OVER, True),
        Fault("worker-before-ack", "kill -9 between result and ack", _worker_before_ack, _TAKEN_OVER, True),
        Fault("producer", "kill -9 of the producer amid a submit", _producer),
        Fault("leaf", "kill -9 of the leaf's server", partial(_servers, leaf=True), _GONE),
        Fault("hub", "kill -9 of the hub's server", partial(_servers, hub=True), _GONE),
        Fault("both", "kill -9 of both servers", partial(_servers, leaf=True, hub=True), _GONE),
        *(Fault(f"cut-{cut:g}s", f"the link is cut for {cut:g} s", partial(_cut, seconds=cut), _LINK) for cut in cuts),
        Fault("black-hole", "the link swallows everything", _black_hole, _LINK),
        Fault("flaps", f"the link is cut {FLAPS} times in a row", _flaps, _LINK),
        Fault("slow-link", "the link is delayed and choked", _slow_link, _LINK),
        Fault("reset", "the link is reset amid a message", _reset, _LINK),
        Fault("rolling", "every worker is replaced, one after the other", _rolling),
        Fault("slow-worker", "a worker that takes its time joins", _slow_worker),
        Fault("poison", "a job that kills its worker each time", _poison, _TAKEN_OVER, True),
        Fault("junk", "junk written straight into the stream of jobs", _junk, frozenset({"message_refused"})),
    ]


# --- workers ----------------------------------------------------------------------------------------


async def _worker_idle(stage: Stage, strike: Strike) -> None:
    producer = _producing(stage)
    now = monotonic()
    producer.tell("pause")
    await stage.until(lambda: stage.ledger.said(producer.pid, "paused", now), "the producer to pause")
    await stage.until(lambda: stage.ledger.under_way() == 0, "every job to be answered")
    await _kill(stage, strike, stage.random.choice(stage.workers))
    await stage.start_worker()
    producer.tell("resume")


async def _worker_running(stage: Stage, strike: Strike) -> None:
    job = _submit(stage, WORK.queue, LONG_JOB_S)
    await stage.until(lambda: bool(stage.ledger.runs(job)), "the job to begin")
    pid = stage.ledger.runs(job)[0][0]
    await _kill(stage, strike, next(each for each in stage.workers if each.pid == pid))
    await stage.start_worker()
    await stage.until(lambda: stage.ledger.status(job) is not None, "the result of the job that was interrupted")
    if len(stage.ledger.runs(job)) != 2:
        strike.problems.append(f"a job interrupted once ran {len(stage.ledger.runs(job))} times")


async def _worker_before_ack(stage: Stage, strike: Strike) -> None:
    child = stage.random.choice(stage.workers)
    child.signal(signal.SIGUSR1)
    await child.ended()
    strike.struck = monotonic()
    _gone(stage, strike, child)
    await stage.start_worker()


async def _rolling(stage: Stage, strike: Strike) -> None:
    strike.struck = monotonic()
    for old in list(stage.workers):
        await stage.start_worker()
        old.signal(signal.SIGTERM)
        code = await old.ended()
        stage.workers.remove(old)
        if code != 0:
            strike.problems.append(f"a worker that was to drain ended with code {code}")
    await stage.until_loaded()
    _must_not_wait(stage, strike)
    if (attempt := stage.ledger.highest_attempt(strike.struck)) > 2:  # 2 is "delivered before, and not started"
        strike.problems.append(f"attempt {attempt} was counted")


async def _slow_worker(stage: Stage, strike: Strike) -> None:
    strike.struck = monotonic()
    slow = await stage.start_worker({SLOWNESS: "1"})
    await stage.until(lambda: stage.ledger.done_by(slow.pid) >= 3, "three jobs of the slow worker")
    slow.signal(signal.SIGTERM)
    if (code := await slow.ended(DRAIN_S + STOP_MARGIN_S)) != 0:
        strike.problems.append(f"the slow worker ended with code {code}")
    stage.workers.remove(slow)


async def _poison(stage: Stage, strike: Strike) -> None:
    strike.struck = monotonic()
    dead = await inspect.count(stage.bridge, "ops-azure", subjects.dead_stream(POISON.queue))
    job = _submit(stage, POISON.queue, 0, "fatal")
    while stage.ledger.status(job) is None:
        await stage.until(
            lambda: stage.ledger.status(job) is not None or not all(child.alive for child in stage.workers),
            "the poison to kill a worker, or to be given up",
        )
        for child in [each for each in stage.workers if not each.alive]:
            _gone(stage, strike, child)
            await stage.start_worker()
    runs, status = len(stage.ledger.runs(job)), stage.ledger.status(job)
    if runs > POISON_ATTEMPTS or status != "AttemptsExhausted":
        strike.problems.append(f"the poison ran {runs} times and ended with {status}")
    if await inspect.count(stage.bridge, "ops-azure", subjects.dead_stream(POISON.queue)) != dead + 1:
        strike.problems.append("the poison is no dead letter")


# --- the producer and the servers ------------------------------------------------------------------


async def _producer(stage: Stage, strike: Strike) -> None:
    producer = _producing(stage)
    producer.tell("die")
    await producer.ended()
    strike.struck = monotonic()
    stage.ledger.disowned()
    await stage.start_producer()


async def _servers(stage: Stage, strike: Strike, *, leaf: bool = False, hub: bool = False) -> None:
    bridge = stage.bridge
    chosen = [server for server, wanted in ((bridge.hub, hub), (bridge.leaf, leaf)) if wanted]
    strike.struck, strike.severed, strike.forgets = monotonic(), True, hub
    await asyncio.gather(*(server.kill() for server in chosen))
    await asyncio.sleep(stage.random.uniform(0.1, 1.5))  # how long it is away is part of the fault
    await asyncio.gather(*(bridge.restart(server.name) for server in chosen))


# --- the link --------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _severed(stage: Stage, strike: Strike) -> AsyncIterator[Relay]:
    relay = stage.bridge.relay
    assert relay is not None  # noqa: S101  # for the type checker: the drill's bridge has one
    strike.struck, strike.severed = monotonic(), True
    try:
        yield relay
    finally:
        relay.heal()
        relay.delay, relay.rate = 0.0, None


async def _cut(stage: Stage, strike: Strike, seconds: float) -> None:
    async with _severed(stage, strike) as relay:
        await relay.cut()
        await asyncio.sleep(seconds)


async def _black_hole(stage: Stage, strike: Strike) -> None:
    async with _severed(stage, strike) as relay:
        relay.black_hole()
        await asyncio.sleep(stage.black_hole)


async def _flaps(stage: Stage, strike: Strike) -> None:
    async with _severed(stage, strike) as relay:
        for _ in range(FLAPS):
            await relay.cut()
            await asyncio.sleep(stage.random.uniform(0.02, 0.3))
            relay.heal()
            await asyncio.sleep(stage.random.uniform(0.02, 0.6))


async def _slow_link(stage: Stage, strike: Strike) -> None:
    async with _severed(stage, strike) as relay:
        relay.delay, relay.rate = stage.random.uniform(0.1, 0.4), 40_000.0
        await asyncio.sleep(SLOW_S)


async def _reset(stage: Stage, strike: Strike) -> None:
    async with _severed(stage, strike) as relay:
        before = relay.resets
        relay.reset()
        await stage.until(lambda: relay.resets > before, "a message to be reset amid")


# --- junk ------------------------------------------------------------------------------------------


async def _junk(stage: Stage, strike: Strike) -> None:
    stream = subjects.refused_stream(JUNK.queue)
    before = await inspect.last(stage.bridge, "ops-azure", stream)
    transport = await Member.load(stage.bridge.identity("relay")).connect("junk")
    session, free = secrets.token_hex(12), asyncio.Semaphore(JUNK_AT_ONCE)

    async def write(n: int) -> None:
        subject = subjects.job(JobKey(JUNK.queue, "relay", session, n), "normal")
        try:
            await transport.publish(subjects.jobs_stream(JUNK.queue), subject, secrets.token_bytes(64 + n % 1024))
        finally:
            free.release()

    strike.struck = monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            for n in range(1, stage.junk + 1):
                await free.acquire()
                group.create_task(write(n))
    finally:
        await transport.close()
    await inspect.until_last(stage.bridge, "ops-azure", stream, before + stage.junk)
    await inspect.until_empty(stage.bridge, "ops-aws", subjects.jobs_stream(JUNK.queue))
    _must_not_wait(stage, strike)


# --- parts -----------------------------------------------------------------------------------------

STOP_MARGIN_S: Final = 10.0


def _producing(stage: Stage) -> Child:
    assert stage.producer is not None  # noqa: S101  # for the type checker: the stage has started it
    return stage.producer


def _must_not_wait(stage: Stage, strike: Strike) -> None:
    """Note it if a job of the queue that is under load waited for longer than a drain may take."""
    if (waited := stage.ledger.longest(WORK.queue, strike.struck)) > DRAIN_S:
        strike.problems.append(f"a job waited for {waited:.1f} s")


def _submit(stage: Stage, queue: str, seconds: float, fatal: str = "harmless") -> int:
    """Have the producer submit one job more: its number."""
    (job,) = stage.ledger.intend(queue)
    _producing(stage).tell("submit", job, queue, seconds, fatal)
    return job


async def _kill(stage: Stage, strike: Strike, child: Child) -> None:
    strike.struck = monotonic()
    await child.kill()
    _gone(stage, strike, child)


def _gone(stage: Stage, strike: Strike, child: Child) -> None:
    strike.killed.append((child.pid, monotonic()))
    stage.workers.remove(child)
