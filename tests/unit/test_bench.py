"""`bunny bench`: what it counts, over the transport in memory."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.cli import bench
from bridge.errors import JobFailed
from consumers import Reject, Worker
from producers import Producer
from tests.fleet import Fleet, policy


async def run(monkeypatch: pytest.MonkeyPatch, worker: Worker, value: object, windows: list[int]) -> list[bench._Run]:
    fleet = Fleet.make(policy())

    @contextlib.asynccontextmanager
    async def producing(_: Path) -> AsyncIterator[Producer]:
        async with fleet.producer() as relay:
            yield relay

    monkeypatch.setattr(bench, "producing", producing)
    async with fleet.working(worker):
        return await bench._bench(Path(), "thumbs", "resize", value, 20, windows)


async def test_every_job_is_timed_at_each_window(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: dict[str, int]) -> dict[str, int]:
        return args

    one, many = await run(monkeypatch, worker, {"width": 1}, [1, 7])
    assert (one.window, many.window) == (1, 7)
    for each in (one, many):
        assert len(each.times) == 20
        assert not each.failed
        assert each.report["p50_ms"] <= each.report["p99_ms"] <= each.report["longest_ms"]
        assert each.cells[:2] == [f"{each.window}", "20"]


async def test_jobs_that_fail_are_counted_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, seen = Worker(), []

    @worker.handler("thumbs", "resize")
    async def resize(args: dict[str, int]) -> dict[str, int]:
        seen.append(args)
        if len(seen) > 11:
            raise Reject("enough", type="Enough")
        return args

    (found,) = await run(monkeypatch, worker, {"width": 1}, [3])
    assert (len(found.times), found.failed) == (10, {"JobFailed": 10})


async def test_what_is_wrong_with_all_is_told_by_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: dict[str, int]) -> None:
        raise Reject("no", type="No")

    with pytest.raises(JobFailed):
        await run(monkeypatch, worker, {"width": 1}, [1])
