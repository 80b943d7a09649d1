"""Records through both clouds while their job runs, over cuts, crashes and restarts: each once, and in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.devserver import Bridge
from bridge.errors import Denied, StreamRestarted
from bridge.segments import subject
from bridge.subjects import JobKey, direct_get, parts_stream
from bridge.testing import embedded_bridge
from consumers import Worker
from producers import Handle
from tests.integration.films import Opens, both, write_policy
from tests.integration.records_process import ROWS
from tests.integration.test_jobs import says
from tests.support import connected

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path, "gated, resume, restart", "gated", ", ack_wait: 2s")


class Gate:
    """A worker whose handlers yield up to ten rows, each once the test lets it."""

    def __init__(self, queue: str) -> None:
        self.worker, self.open = Worker(), 0
        self._news = asyncio.Event()

        @self.worker.handler(queue, "gated")
        async def gated(_: None) -> AsyncIterator[int]:
            for n in range(ROWS):
                while n >= self.open:
                    self._news.clear()
                    await self._news.wait()
                yield n

    def let(self, rows: int) -> None:
        self.open = rows
        self._news.set()


@both
async def test_while_the_job_runs_and_over_a_cut_link(opens: Opens, policy: Path) -> None:
    gate, back = Gate("films"), Gate("backwards")
    async with (
        opens(policy) as rig,
        rig.working(gate.worker, "bunny"),
        rig.producer("relay") as relay,
    ):
        job = await relay.submit("films", "gated", None)
        records = job.records(int)
        gate.let(3)
        assert [await anext(records) for _ in range(3)] == [0, 1, 2]
        assert not job.done()
        await rig.cut_link()
        gate.let(7)  # stored in the workers' own cloud
        waiting = asyncio.create_task(anext(records))
        await asyncio.wait([waiting], timeout=0.5)
        assert not waiting.done()
        await rig.heal_link()
        assert await asyncio.wait_for(waiting, 60) == 3
        gate.let(ROWS)
        assert [row async for row in records] == [4, 5, 6, 7, 8, 9]
        assert [row async for row in (await relay.attach(job.token)).records(int)] == list(range(ROWS))
        back.let(ROWS)
        async with rig.working(back.worker, "relay"), rig.producer("gamma") as gamma:
            job = await gamma.submit("backwards", "gated", None)  # a queue in the other direction
            assert [row async for row in job.records(int)] == list(range(ROWS))


@contextlib.asynccontextmanager
async def process(bridge: Bridge, who: str, *arguments: str) -> AsyncIterator[Process]:
    """Run `records_process`, and end it if it still runs."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.records_process", *arguments),
        env={**os.environ, "BUNNY_IDENTITY": str(bridge.identity(who)), "PYTHONPATH": str(ROOT)},
        stdout=PIPE,
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def let(folder: Path, rows: range) -> None:
    folder.mkdir(exist_ok=True)
    for row in rows:
        (folder / str(row)).touch()


async def rows_of(records: AsyncIterator[int], count: int) -> list[int]:
    return [await asyncio.wait_for(anext(records), 60) for _ in range(count)]


async def test_a_worker_that_is_killed_and_one_that_goes_on_or_starts_over(policy: Path, tmp_path: Path) -> None:
    async with embedded_bridge(policy) as rig, rig.producer("relay") as relay:
        jobs: dict[str, Handle[int]] = {}
        streams = {}
        async with process(rig.bridge, "bunny", "work") as first:
            assert await says(first) == "ready"
            for kind in ("resume", "restart"):
                let(tmp_path / kind, range(4))
                jobs[kind] = await relay.submit("films", kind, str(tmp_path / kind))
                assert await says(first) == "started 1 0"
                streams[kind] = jobs[kind].records(int)
                assert await rows_of(streams[kind], 4) == [0, 1, 2, 3]
            first.send_signal(signal.SIGKILL)
            await first.wait()
        async with process(rig.bridge, "bunny", "work") as second:
            assert await says(second) == "ready"
            assert {await says(second), await says(second)} == {"started 2 4"}
            for kind in jobs:
                let(tmp_path / kind, range(ROWS))
            assert [row async for row in streams["resume"]] == [4, 5, 6, 7, 8, 9]
            with pytest.raises(StreamRestarted):
                await anext(streams["restart"])
            assert [row async for row in jobs["restart"].records(int)] == list(range(ROWS))


async def test_servers_that_are_killed_and_come_back(policy: Path) -> None:
    gate = Gate("films")
    async with (
        embedded_bridge(policy) as rig,
        rig.working(gate.worker, "bunny"),
        rig.producer("relay") as relay,
    ):
        job = await relay.submit("films", "gated", None)
        records = job.records(int)
        for number, cloud in enumerate(rig.bridge.servers, 1):
            gate.let(3 * number)
            assert await rows_of(records, 1) == [3 * number - 3]
            await rig.bridge.servers[cloud].kill()
            await rig.bridge.restart(cloud)
            assert await rows_of(records, 2) == [3 * number - 2, 3 * number - 1]
        gate.let(ROWS)
        assert [row async for row in records] == [6, 7, 8, 9]


async def test_a_reader_that_is_killed_and_one_that_goes_on_from_the_token(policy: Path) -> None:
    gate = Gate("films")
    async with embedded_bridge(policy) as rig, rig.working(gate.worker, "bunny"):
        async with rig.producer("relay") as relay:
            token = str((await relay.submit("films", "gated", None)).token)
        gate.let(5)
        seen: list[int] = []
        async with process(rig.bridge, "relay", "read", token) as first:
            for _ in range(3):  # what it had of the other two, nobody has kept
                row, position = (await says(first)).split()
                seen.append(int(row))
            first.send_signal(signal.SIGKILL)
            await first.wait()
        async with process(rig.bridge, "relay", "read", token, position) as second:
            gate.let(ROWS)
            while (line := await says(second)) != "end":
                seen.append(int(line.split()[0]))
        assert seen == list(range(ROWS))


async def test_who_may_read_and_write_segments(policy: Path) -> None:
    """A worker reads back what its pool wrote; nobody but the job's producer reads it beside."""
    async with embedded_bridge(policy) as rig:
        key, stream = JobKey("films", "relay", "0" * 24, 1), parts_stream("films")
        place = subject(key, 1, 0)
        async with await connected(rig.bridge, "bunny") as bunny:
            await bunny.publish(stream, place, b"sealed", expected=0)
            found = await bunny.lookup(stream, place)
            assert found is not None
            assert found.data == b"sealed"
        async with await connected(rig.bridge, "relay") as relay:
            found = await relay.lookup(stream, place, cloud="azure")
            assert found is not None
            assert found.data == b"sealed"
        async with await connected(rig.bridge, "other") as other:
            with pytest.raises(Denied):
                await other.lookup(stream, place, cloud="azure")
            with pytest.raises(Denied):
                await other.publish(stream, place, b"forged")
        async with await connected(rig.bridge, "gamma") as gamma:
            with pytest.raises(Denied):
                await gamma.request(direct_get(stream, place), b"")
