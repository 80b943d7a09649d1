"""The faults: what each does, what it puts right again, and by what sign the bridge notices it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator
from functools import partial
from time import monotonic
from typing import Final

from bridge import subjects
from bridge.cli.drill import inspect
from bridge.cli.drill.clocks import ALARMS, clock
from bridge.cli.drill.full import FULL, disk_full
from bridge.cli.drill.stage import POISON_ATTEMPTS, STEP_S, THERE, WAYS, Stage
from bridge.cli.drill.strike import DISKS, SKEW, STOP_MARGIN_S, Fault, Strike, gone, kill, must_not_wait, submit
from bridge.cli.drill.worker import DRAIN_S, JUNK, POISON, SLOWNESS
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
        *(
            Fault(f"cut-{cut:g}s", f"the link is cut for {cut:g} s", partial(_cut, seconds=cut), _LINK, cuts=True)
            for cut in cuts
        ),
        Fault("backlog", "the link is cut until so many jobs wait", _backlog, _LINK, rare=True, cuts=True),
        Fault("black-hole", "the link swallows everything", _black_hole, _LINK),
        Fault("flaps", f"the link is cut {FLAPS} times in a row", _flaps, _LINK),
        Fault("slow-link", "the link is delayed and choked", _slow_link, _LINK),
        Fault("reset", "the link is reset amid a message", _reset, _LINK),
        Fault("rolling", "every worker is replaced, one after the other", _rolling, rare=True),
        Fault("slow-worker", "a worker that takes its time joins", _slow_worker, rare=True),
        Fault("poison", "a job that kills its worker each time", _poison, _TAKEN_OVER, True, rare=True),
        Fault(
            "junk", "junk written straight into the stream of jobs", _junk, frozenset({"message_refused"}), rare=True
        ),
        Fault("disk-leaf", "the disk of the leaf's server is full", partial(disk_full, hub=False), FULL, needs=DISKS),
        Fault("disk-hub", "the disk of the hub's server is full", partial(disk_full, hub=True), FULL, needs=DISKS),
        *(
            Fault(
                f"clock-{cloud}-{'ahead' if ahead else 'behind'}",
                f"every clock in {cloud} is an hour {'ahead' if ahead else 'behind'}",
                partial(clock, cloud=cloud, ahead=ahead),
                ALARMS,
                needs=SKEW,
                rare=True,
            )
            for cloud in ("aws", "azure")
            for ahead in (True, False)
        ),
    ]


# --- workers ----------------------------------------------------------------------------------------


async def _worker_idle(stage: Stage, strike: Strike) -> None:
    child = stage.random.choice(stage.workers)
    await stage.pause(child.way)
    await kill(stage, strike, child)
    await stage.start_worker(child.way)
    stage.producers[child.way].tell("resume")


async def _worker_running(stage: Stage, strike: Strike) -> None:
    way = stage.random.choice(WAYS)
    job = submit(stage, way.queue, LONG_JOB_S)
    await stage.until(lambda: bool(stage.ledger.runs(job)), "the job to begin")
    pid = stage.ledger.runs(job)[0][0]
    await kill(stage, strike, next(each for each in stage.workers if each.pid == pid))
    await stage.start_worker(way)
    await stage.until(lambda: stage.ledger.status(job) is not None, "the result of the job that was interrupted")
    if len(stage.ledger.runs(job)) != 2:
        strike.problems.append(f"a job interrupted once ran {len(stage.ledger.runs(job))} times")


async def _worker_before_ack(stage: Stage, strike: Strike) -> None:
    child = stage.random.choice(stage.workers)
    child.signal(signal.SIGUSR1)
    await child.ended()
    strike.struck = monotonic()
    gone(stage, strike, child)
    await stage.start_worker(child.way)


async def _rolling(stage: Stage, strike: Strike) -> None:
    strike.struck = monotonic()
    for old in list(stage.workers):
        if (code := await stage.replace(old)) != 0:
            strike.problems.append(f"a worker that was to drain ended with code {code}")
    await stage.until_loaded()
    must_not_wait(stage, strike)
    if (attempt := stage.ledger.highest_attempt(strike.struck)) > 2:  # 2 is "delivered before, and not started"
        strike.problems.append(f"attempt {attempt} was counted")


async def _slow_worker(stage: Stage, strike: Strike) -> None:
    strike.struck = monotonic()
    slow = await stage.start_worker(THERE, {SLOWNESS: "1"})
    await stage.until(lambda: stage.ledger.done_by(slow.pid) >= 3, "three jobs of the slow worker")
    slow.signal(signal.SIGTERM)
    if (code := await slow.ended(DRAIN_S + STOP_MARGIN_S)) != 0:
        strike.problems.append(f"the slow worker ended with code {code}")
    stage.workers.remove(slow)


async def _poison(stage: Stage, strike: Strike) -> None:
    strike.struck = monotonic()
    dead = await inspect.count(stage.bridge, "ops-azure", subjects.dead_stream(POISON.queue))
    job = submit(stage, POISON.queue, fatal=True)
    while stage.ledger.status(job) is None:
        await stage.until(
            lambda: stage.ledger.status(job) is not None or not all(child.alive for child in stage.workers),
            "the poison to kill a worker, or to be given up",
        )
        for child in [each for each in stage.workers if not each.alive]:
            gone(stage, strike, child)
            await stage.start_worker(child.way)
    runs, status = len(stage.ledger.runs(job)), stage.ledger.status(job)
    if runs > POISON_ATTEMPTS or status != "AttemptsExhausted":
        strike.problems.append(f"the poison ran {runs} times and ended with {status}")
    if await inspect.count(stage.bridge, "ops-azure", subjects.dead_stream(POISON.queue)) != dead + 1:
        strike.problems.append("the poison is no dead letter")


# --- the producer and the servers ------------------------------------------------------------------


async def _producer(stage: Stage, strike: Strike) -> None:
    way = stage.random.choice(WAYS)
    producer = stage.producers[way]
    producer.tell("die")
    await producer.ended()
    strike.struck = monotonic()
    stage.ledger.disowned(way.queues)
    await stage.start_producer(way)


async def _servers(stage: Stage, strike: Strike, *, leaf: bool = False, hub: bool = False) -> None:
    bridge = stage.bridge
    chosen = [server for server, wanted in ((bridge.hub, hub), (bridge.leaf, leaf)) if wanted]
    strike.struck, strike.severed = monotonic(), True
    strike.forgets = frozenset(q for way in WAYS if bridge.servers[way.home] in chosen for q in way.queues)
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


async def _backlog(stage: Stage, strike: Strike) -> None:
    async with _severed(stage, strike) as relay:
        await relay.cut()
        patience = STEP_S + 2 * stage.sizes.backlog / stage.rate
        await stage.until(lambda: stage.ledger.open() >= stage.sizes.backlog, "jobs to wait for the link", patience)


async def _black_hole(stage: Stage, strike: Strike) -> None:
    async with _severed(stage, strike) as relay:
        relay.black_hole()
        await asyncio.sleep(stage.sizes.black_hole)


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
            for n in range(1, stage.sizes.junk + 1):
                await free.acquire()
                group.create_task(write(n))
    finally:
        await transport.close()
    await inspect.until_last(stage.bridge, "ops-azure", stream, before + stage.sizes.junk)
    await inspect.until_empty(stage.bridge, "ops-aws", subjects.jobs_stream(JUNK.queue))
    must_not_wait(stage, strike)
