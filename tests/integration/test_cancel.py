"""Cancels and progress over both clouds, in memory and over real servers, in both directions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import JobCancelled
from bridge.testing import Rig, embedded_bridge, memory_bridge
from consumers import Job, Worker, cancels
from producers import Handle
from tests.support import POLICY, write_policy

QUICK = POLICY.replace("    kinds: [resize, probe]\n", "    kinds: [resize, probe]\n    ack_wait: 1s\n")
SOON_S = 30.0

Opens = Callable[[Path], contextlib.AbstractAsyncContextManager[Rig]]


@contextlib.asynccontextmanager
async def in_memory(folder: Path) -> AsyncIterator[Rig]:
    async with memory_bridge(write_policy(folder, QUICK)) as rig:
        yield rig


@contextlib.asynccontextmanager
async def over_servers(folder: Path) -> AsyncIterator[Rig]:
    async with embedded_bridge(write_policy(folder, QUICK), folder=folder / "b") as rig:
        yield rig


pytestmark = pytest.mark.parametrize("opens", [in_memory, over_servers], ids=["memory", "servers"])


async def cancelled(handle: Handle[Any]) -> str:
    """The reason of a job that must have been cancelled."""
    with pytest.raises(JobCancelled) as told:
        await handle.result(timeout=SOON_S)
    return told.value.reason


class Waiting:
    """Handlers that wait for ever, and what became of them."""

    def __init__(self, worker: Worker, queue: str, kind: str) -> None:
        self.begun: asyncio.Queue[object] = asyncio.Queue()
        self.stopped: list[object] = []

        @worker.handler(queue, kind)
        async def wait(args: object, job: Job) -> None:
            self.begun.put_nowait(args)
            try:
                while True:
                    await job.progress(0.5, "under way")
                    await asyncio.sleep(0.05)
            finally:
                self.stopped.append(args)


@pytest.mark.parametrize(
    ("queue", "kind", "producer", "pool"),
    [("thumbs", "resize", "alpha", "bunny"), ("lookup", "find", "gamma", "relay")],
)
async def test_what_waits_never_starts_and_what_runs_is_stopped(
    queue: str, kind: str, producer: str, pool: str, opens: Opens, tmp_path: Path
) -> None:
    worker = Worker(concurrency=2)
    wait = Waiting(worker, queue, kind)
    async with opens(tmp_path) as rig, asyncio.timeout(3 * SOON_S):
        async with rig.producer(producer) as client:
            queued = await client.submit(queue, kind, "queued")
            await queued.cancel("before there was a worker")
            token = str((await client.submit(queue, kind, "of another process", delay=1)).token)
        async with rig.producer(producer) as client:
            other = await client.attach(token)
            await other.cancel("by another process")
            async with rig.working(worker, pool):
                running = [await client.submit(queue, kind, n) for n in range(2)]
                assert {await wait.begun.get(), await wait.begun.get()} == {0, 1}
                held = await client.submit(queue, kind, "held")
                await held.cancel("before a slot was free")
                assert await cancelled(held) == "before a slot was free"
                async for progress in running[0].events():
                    assert (progress.fraction, progress.text, progress.attempt) == (0.5, "under way", 1)
                    await running[0].cancel("enough was heard")
                assert await cancelled(running[0]) == "enough was heard"
                await running[1].cancel()
                assert await cancelled(running[1]) == ""
                again = await client.attach(queued.token)
                assert await cancelled(again) == "before there was a worker"
                assert await cancelled(other) == "by another process"
        assert wait.begun.empty()
        assert set(wait.stopped) == {0, 1}


async def test_a_cancel_in_a_cut_is_honoured_when_the_link_is_back(
    opens: Opens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancels, "LOOK_S", 1.0)
    worker = Worker()
    wait = Waiting(worker, "thumbs", "resize")
    async with opens(tmp_path) as rig, asyncio.timeout(3 * SOON_S):
        async with rig.producer("alpha") as alpha, rig.working(worker, "bunny"):
            handle = await alpha.submit("thumbs", "resize", 1)
            await wait.begun.get()
            await rig.cut_link()
            await handle.cancel("while the link is cut")
            queued = await alpha.submit("thumbs", "resize", 2)
            await queued.cancel("this one too")
            await rig.heal_link()
            assert await cancelled(handle) == "while the link is cut"
            assert await cancelled(queued) == "this one too"
        assert wait.stopped[0] == 1
