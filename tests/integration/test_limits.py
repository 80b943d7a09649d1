"""Limits of a queue over several worker processes and real servers, by what their handlers wrote down in one file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from bridge.devserver import Bridge, monitor
from bridge.errors import JobCancelled
from producers import Handle, Producer
from tests.integration.limited_worker import ledger
from tests.support import POLICY, running_bridge

ROOT = Path(__file__).resolve().parents[2]
LIFE_S = 2
"""Of a slot that is to be lost: the queue's ack wait. Elsewhere it is longer than a busy machine stops a process."""
EXPIRY_S = 3.0
"""How long a server may take beyond that to remove what has expired, on a machine with other things to do."""


def limited(limits: str, life: int = 30) -> str:
    return POLICY.replace(
        "    kinds: [resize, probe]\n", f"    kinds: [resize, probe]\n    ack_wait: {life}s\n    {limits}\n"
    )


class Run(NamedTuple):
    pid: int
    key: str
    begun: float
    ended: float | None
    outcome: str | None


def runs(path: Path) -> list[Run]:
    with ledger(path) as connection:
        return [Run(*row) for row in connection.execute("SELECT * FROM runs ORDER BY begun")]


def most_at_once(found: list[Run]) -> int:
    """How many ran at once; of what was killed it is not known until when it did."""
    whole = [run for run in found if run.ended is not None]
    events = sorted([(run.begun, 1) for run in whole] + [(run.ended or 0.0, -1) for run in whole])
    most = now = 0
    for _, step in events:
        now += step
        most = max(most, now)
    return most


@contextlib.asynccontextmanager
async def workers(bridge: Bridge, path: Path, count: int, concurrency: int = 8) -> AsyncIterator[list[Process]]:
    """So many worker processes, drained at the end, or killed if they are stopped."""
    environment = {**os.environ, "BUNNY_IDENTITY": str(bridge.identity("bunny")), "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "tests.integration.limited_worker", str(path), str(concurrency))
    with ledger(path):
        pass
    started = [await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE) for _ in range(count)]
    try:
        for each in started:
            assert each.stdout is not None
            while (line := await asyncio.wait_for(each.stdout.readline(), 60)) != b"ready\n":
                assert line
        yield started
    finally:
        for each in started:
            with contextlib.suppress(ProcessLookupError):
                each.terminate()
                each.send_signal(signal.SIGCONT)
        for each in started:
            try:
                await asyncio.wait_for(each.communicate(), 30)
            except TimeoutError:
                each.kill()
                await each.communicate()


async def submit(alpha: Producer, count: int, seconds: float, key: str | None = None) -> list[Handle[int]]:
    args = [{"key": key or "", "seconds": seconds}] * count
    found = await alpha.submit_many("thumbs", "resize", args, concurrency_key=key)
    assert not [each for each in found if isinstance(each, BaseException)]
    return [each for each in found if not isinstance(each, BaseException)]


async def results(jobs: list[Handle[int]]) -> list[int]:
    return [await job.result(int, timeout=90) for job in jobs]


async def test_a_queue_runs_so_many_at_once_over_all_processes(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    async with (
        running_bridge(tmp_path, limited("concurrency: 4")) as bridge,
        Producer.open(bridge.identity("alpha")) as alpha,
        workers(bridge, path, 3),
    ):
        await results(await submit(alpha, 100, 0.02))
    found = runs(path)
    assert len(found) == 100
    assert most_at_once(found) <= 4
    assert most_at_once(found) >= 2


async def test_a_hot_key_runs_alone_and_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    async with (
        running_bridge(tmp_path, limited("concurrency_per_key: 1")) as bridge,
        Producer.open(bridge.identity("alpha")) as alpha,
        workers(bridge, path, 2, concurrency=4),
    ):
        hot = await submit(alpha, 100, 0.05, "hot")
        cold = (
            await submit(alpha, 10, 0.0, "cold-1") + await submit(alpha, 10, 0.0, "cold-2") + await submit(alpha, 10, 0)
        )
        await results(cold)
        before = len([run for run in runs(path) if run.key == "hot"])
        assert before < 100  # they did not wait for what was submitted before them
        await results(hot)
    found = runs(path)
    assert len(found) == 130
    for key in ("hot", "cold-1", "cold-2"):
        assert most_at_once([run for run in found if run.key == key]) == 1


async def test_what_was_killed_frees_its_slot_when_it_would_have_expired(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    async with (
        running_bridge(tmp_path, limited("concurrency: 1", LIFE_S)) as bridge,
        Producer.open(bridge.identity("alpha")) as alpha,
        workers(bridge, path, 2, concurrency=2) as processes,
    ):
        (first,) = await submit(alpha, 1, 60.0)

        async def begun() -> bool:
            return len(runs(path)) == 1

        await monitor.until(begun, 30, "the first to run")
        others = await submit(alpha, 4, 0.01)
        (holder,) = [each for each in processes if each.pid == runs(path)[0].pid]
        await asyncio.sleep(1.5 * LIFE_S)  # it holds what it has for longer than a slot lives
        assert len(runs(path)) == 1
        holder.kill()
        killed = time.monotonic()
        await first.cancel("its worker was killed")
        await results(others)
        again = runs(path)[1].begun
    assert again > killed  # while it stood nobody else had it, and it was renewed in time
    assert again < killed + LIFE_S + EXPIRY_S + 10
    assert most_at_once(runs(path)) == 1


async def test_a_worker_that_was_paused_stops_what_it_has_lost(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    async with (
        running_bridge(tmp_path, limited("concurrency: 1", LIFE_S)) as bridge,
        Producer.open(bridge.identity("alpha")) as alpha,
        workers(bridge, path, 2, concurrency=2) as processes,
    ):
        (job,) = await submit(alpha, 1, 300.0)

        async def begun(count: int) -> bool:
            return len(runs(path)) == count

        async def stopped() -> bool:
            return runs(path)[0].outcome == "stopped"

        await monitor.until(lambda: begun(1), 30, "the job to run")
        (holder,) = [each for each in processes if each.pid == runs(path)[0].pid]
        holder.send_signal(signal.SIGSTOP)
        await monitor.until(lambda: begun(2), 60, "another worker to have the slot and the job")
        assert runs(path)[0].outcome is None
        holder.send_signal(signal.SIGCONT)
        await monitor.until(stopped, 30, "the first to be stopped")
        assert runs(path)[1].outcome is None
        await job.cancel("enough")
        with pytest.raises(JobCancelled):
            await job.result()


async def test_a_rate_is_kept_and_used_over_all_processes(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    path, rate = tmp_path / "ledger", 10
    async with (
        running_bridge(tmp_path, limited(f"rate: {{jobs: {rate}, per: 1s}}")) as bridge,
        Producer.open(bridge.identity("alpha")) as alpha,
        workers(bridge, path, 3),
    ):
        await results(await submit(alpha, 5 * rate, 0.0))
    begun = [run.begun for run in runs(path)]
    took = begun[-1] - begun[0]
    most = max(sum(start <= each < start + 1.0 for each in begun) for start in begun)
    record_property("measured", f"{rate}/s allowed: {(len(begun) - 1) / took:.1f}/s, at most {most} in a second")
    # Each starts at its time or later: so no time is early, and what was late may be close to the next, the first too.
    assert took >= 0.8 * (len(begun) - 1) / rate
    assert most <= 1.5 * rate
    assert took <= 5 * len(begun) / rate  # 0.8 of the rate and more on a machine that has nothing else to do
