"""The programs in `bench/`: nothing else runs them, so that they begin at all is seen here."""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import sys
from pathlib import Path

import pytest

import bench
from bench import report, waiting
from bench.pace import paced, timed
from bench.policy import bench_policy


@pytest.mark.parametrize("name", sorted(each.name for each in pkgutil.iter_modules(bench.__path__)))
def test_a_program_finds_what_it_imports(name: str) -> None:
    importlib.import_module(f"bench.{name}")


def test_the_queue_has_room_for_as_many_jobs_as_are_to_wait(tmp_path: Path) -> None:
    assert bench_policy(tmp_path).queues["bench"].max_pending < 10_000_000
    assert bench_policy(tmp_path, room=waiting.ROOM).queues["bench"].max_pending == 10_000_000


def test_as_many_queues_as_are_asked_for(tmp_path: Path) -> None:
    assert sorted(bench_policy(tmp_path, queues=["a", "b", "c"]).queues) == ["a", "b", "c"]


async def test_so_many_are_in_flight_and_no_more() -> None:
    running = most = 0

    async def job(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    result = await paced(100, 7, job)
    assert (most, result.jobs, len(result.times)) == (7, 100, 100)


async def test_at_a_rate_no_job_waits_for_another_and_what_begins_late_is_counted_from_its_time() -> None:
    begun, go = list[int](), asyncio.Event()

    async def job(n: int) -> None:
        begun.append(n)
        if n == 10:
            go.set()
        await go.wait()

    result = await timed(10, 200.0, job)
    assert begun == list(range(1, 11))
    assert len(result.times) == 10
    assert max(result.times) >= 0.04  # the first has waited for the last, which was due 45 ms after it


async def test_a_rate_that_is_more_than_can_be_done_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.pace.MOST_LATE", 5)

    async def job(_: int) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await timed(100, 1e6, job)
    assert caught.group_contains(RuntimeError, match="more than this machine does")


@pytest.mark.parametrize("what", ["half", "backlog", "queues", "startup", "idle", "wire"])
def test_a_table_has_its_place_in_the_document(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "performance.md").write_text((report.DOCS / "performance.md").read_text())
    (tmp_path / "found.json").write_text(json.dumps({"what": what, "rows": [{"": "one", "jobs/s": 1234.5}]}))
    monkeypatch.setattr(report, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench.report", str(tmp_path / "found.json")])
    report.main()
    assert "|  | jobs/s |\n|---|---|\n| one | 1,234 |" in (tmp_path / "performance.md").read_text()
    assert not (tmp_path / "performance.svg").exists()
