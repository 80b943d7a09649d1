"""The worker's ledger over real servers, whose administrator replays and rolls back, and under kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge import subjects
from bridge.devserver import Bridge
from bridge.errors import PublishTimeout
from bridge.transport import Message, Transport
from consumers import Worker
from consumers.ledgerfile import FILE
from producers import Producer
from tests.integration.test_jobs import SHORT, held, says, serving, until_empty
from tests.support import connected, running_bridge

ROOT = Path(__file__).resolve().parents[2]
JOBS, RESULTS = "JOBS_thumbs", "RESULTS_thumbs"


def counting(data: Path) -> tuple[Worker, list[int]]:
    worker, calls = Worker(data=data, concurrency=16), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> int:
        calls.append(width)
        return width + 1

    return worker, calls


async def stored(transport: Transport, stream: str, subject: str) -> Message:
    found = await transport.lookup(stream, subject)
    assert found is not None
    return found


async def published(transport: Transport, job: Message) -> None:
    with contextlib.suppress(PublishTimeout):
        await transport.publish(JOBS, job.subject, job.data, {})


def command(*arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.integration.ledger_process", *map(str, arguments))


def environment(bridge: Bridge) -> dict[str, str]:
    return {**os.environ, "BUNNY_IDENTITY": str(bridge.identity("bunny")), "PYTHONPATH": str(ROOT)}


@contextlib.asynccontextmanager
async def process(bridge: Bridge, *arguments: object) -> AsyncIterator[Process]:
    """Run `tests.integration.ledger_process`, and end it if it still runs."""
    child = await asyncio.create_subprocess_exec(*command(*arguments), env=environment(bridge), stdout=PIPE)
    try:
        assert await says(child) == "ready"
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await child.wait()


async def test_h31_a_thousand_replays_passed_off_as_new_and_a_rollback_have_one_effect(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with (
        running_bridge(tmp_path, SHORT) as bridge,
        Producer.open(bridge.identity("alpha")) as alpha,
        await connected(bridge, "alpha") as hub,
    ):
        handles = [await alpha.submit("thumbs", "resize", n) for n in range(20)]
        jobs = [await stored(hub, JOBS, subjects.job(handle.key, "normal")) for handle in handles]
        worker, calls = counting(data)
        async with serving(bridge, "bunny", worker), await connected(bridge, "bunny") as leaf:
            assert [await handle.result(int) for handle in handles] == list(range(1, 21))
            results = [await stored(leaf, RESULTS, subjects.result(handle.key)) for handle in handles]
            for _ in range(50):
                await until_empty(bridge, "ops-aws", JOBS)
                await asyncio.gather(*(published(hub, job) for job in jobs))
            await until_empty(bridge, "ops-aws", JOBS)
        assert sorted(calls) == list(range(20))

        await forget_results(bridge)
        worker, again = counting(data)
        async with serving(bridge, "bunny", worker), await connected(bridge, "bunny") as leaf:
            assert await held(bridge, "ops-azure", RESULTS) == 0
            await asyncio.gather(*(published(hub, job) for job in jobs))
            await until_empty(bridge, "ops-aws", JOBS)
            for before in results:
                assert (await stored(leaf, RESULTS, before.subject)).data == before.data
        assert again == []

        (data / FILE).write_bytes(b"no ledger any more" * 1000)
        child = await asyncio.create_subprocess_exec(*command(data, "", "never"), env=environment(bridge), stderr=PIPE)
        _, told = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode == 1
        assert told.decode().splitlines()[-1].startswith(f"bunny: {data / FILE}: damaged (file is not a database)")
        assert await held(bridge, "ops-azure", "DEAD_thumbs") == await held(bridge, "ops-azure", "REFUSED_thumbs") == 0


@pytest.mark.parametrize(("step", "runs"), [("before", 2), ("between", 1)])
async def test_h40_a_worker_killed_around_its_record_runs_again_only_what_is_not_in_it(
    step: str, runs: int, tmp_path: Path
) -> None:
    data, effects = tmp_path / "data", tmp_path / "effects"
    async with (
        running_bridge(tmp_path, SHORT) as bridge,
        Producer.open(bridge.identity("alpha")) as alpha,
        await connected(bridge, "bunny") as leaf,
    ):
        handle = await alpha.submit("thumbs", "resize", 7)
        async with process(bridge, data, effects, step) as child:
            assert await asyncio.wait_for(child.wait(), 60) == -signal.SIGKILL
        assert effects.read_text() == "7\n"
        assert await held(bridge, "ops-azure", RESULTS) == 0
        with contextlib.closing(sqlite3.connect(data / FILE)) as db:  # whose log is as the kill left it
            ((attempt, recorded),) = db.execute("SELECT attempt, result FROM jobs").fetchall()
        assert (attempt, recorded is None) == (1, step == "before")
        async with process(bridge, data, effects, "never"):
            assert await handle.result(int, timeout=60) == 8
            await until_empty(bridge, "ops-aws", JOBS)
        assert effects.read_text() == "7\n" * runs
        standing = await stored(leaf, RESULTS, subjects.result(handle.key))
        assert recorded is None or standing.data == recorded


async def forget_results(bridge: Bridge) -> None:
    """What whoever runs a server can do to it."""
    await bridge.leaf.stop()
    (place,) = bridge.folder.store(bridge.leaf.name).rglob(RESULTS)
    shutil.rmtree(place)
    await bridge.restart(bridge.leaf.name)
    await bridge.provision("azure")
    await bridge.until_flowing()
