"""Handlers in processes of their own: what comes back, what ends with them, and what they do not get."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigurationError, JobCancelled, JobFailed
from bridge.job import Content
from consumers import Job, Worker
from consumers.children import GRACE_S
from tests import isolated
from tests.fleet import Fleet, policy, until


def worker_of(function: Callable[..., Any], *, concurrency: int = 2, **choices: Any) -> Worker:  # noqa: ANN401
    """A worker of one handler in a process."""
    worker = Worker(concurrency=concurrency)
    worker.handler("thumbs", "resize", isolation="process", **choices)(function)
    return worker


async def one(function: Callable[..., Any], args: Any, terms: dict[str, Any] | None = None, **choices: Any) -> Any:  # noqa: ANN401
    """What one job of a handler ends in."""
    fleet = Fleet.make(policy(**(terms or {})))
    async with fleet.working(worker_of(function, **choices)), fleet.producer() as relay:
        return await (await relay.submit("thumbs", "resize", args)).result(timeout=60)


# --- what comes back -------------------------------------------------------------------------------


async def test_arguments_go_in_and_results_come_out() -> None:
    assert await one(isolated.size, {"width": 4}) == {"width": 8, "attempt": 1}
    assert await one(isolated.size_async, {"width": 4}) == {"width": 8, "attempt": 0}
    assert await one(isolated.twice, Content("application/xml", b"<a/>")) == Content("application/xml", b"<a/><a/>")
    large = await one(isolated.twice, bytes(120_000))
    assert large == bytes(240_000)


@pytest.mark.parametrize(
    ("args", "ending"),
    [
        ("reject", "NotFound: no such picture"),
        ("final", "Quite: no use"),
        ("exit", "SystemExit"),
        ("canary", "LookupError"),
        (7, "InvalidArguments"),
    ],
)
async def test_what_a_handler_raises_is_what_it_would_be_in_the_worker(args: Any, ending: str) -> None:  # noqa: ANN401
    with pytest.raises(JobFailed, match=ending) as failure:
        await one(isolated.raises, args, {"max_attempts": 2, "errors": "message"}, final=(isolated.Hopeless,))
    assert failure.value.attempts == (2 if args in ("exit", "canary") else 1)


async def test_a_retry_and_a_snooze_of_its_own() -> None:
    assert await one(isolated.raises, "retry") is None
    fleet = Fleet.make(policy())
    async with fleet.working(worker_of(isolated.raises)), fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", "snooze")
        await until(lambda: bool(fleet.held("azure", "STARTS_thumbs")), 20)
        assert not handle.done()


async def test_the_last_word_of_how_far_it_is_comes_through(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    fleet = Fleet.make(policy())
    async with fleet.working(worker_of(isolated.tells)), fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", str(heard))
        seen = []
        async for progress in handle.events():
            seen.append(progress.text)
            if progress.fraction == 1:
                heard.touch()
        assert await handle.result() is None
    assert "page 100" in seen
    assert len(seen) < 50  # not each of a hundred in every round


async def test_what_cannot_be_a_result_is_a_failure() -> None:
    with pytest.raises(JobFailed, match="InvalidResult"):
        await one(isolated.odd, 0)
    with pytest.raises(JobFailed, match="PayloadTooLarge: a result of 1001 bytes"):
        await one(isolated.odd, 1001, {"max_payload": 1000})


# --- what ends with them ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", [isolated.segfault, isolated.leaves])
async def test_a_process_that_dies_costs_one_attempt_and_not_the_worker(
    how: Callable[..., Any], tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    assert await one(how, str(notes)) == 2
    assert notes.read_text().split() == ["1", "2"]


async def test_a_process_that_always_dies_ends_in_a_failure_by_name(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="WorkerProcessDied: it ended with SIGSEGV") as failure:
        await one(isolated.segfault, str(tmp_path / "notes"), {"max_attempts": 1})
    assert failure.value.attempts == 1


async def test_memory_has_a_ceiling() -> None:
    ceiling: dict[str, Any] = {"memory": 1 << 30}
    assert await one(isolated.eats, 1 << 20, **ceiling) == 1 << 20
    with pytest.raises(JobFailed, match="MemoryError"):
        await one(isolated.eats, 1 << 31, {"max_attempts": 1}, **ceiling)
    with pytest.raises(JobFailed, match="WorkerProcessDied: it cannot start: MemoryError: memory=67108864 leaves"):
        await one(isolated.eats, 1, {"max_attempts": 1, "errors": "message"}, memory=64 << 20)


async def test_a_process_is_used_again_and_replaced_after_its_jobs() -> None:
    fleet = Fleet.make(policy())
    async with fleet.working(worker_of(isolated.which, concurrency=1, recycle=2)), fleet.producer() as relay:
        pids = [await (await relay.submit("thumbs", "resize", "")).result(int) for _ in range(5)]
        assert pids[0] == pids[1]
        assert pids[2] == pids[3]
        assert len(set(pids)) == 3
        await until(lambda: all(isolated.gone(pid) for pid in pids[:4]))
        assert not isolated.gone(pids[4])
    assert isolated.gone(pids[4])


async def test_past_its_time_it_may_clean_up_and_is_killed_if_it_will_not_end(tmp_path: Path) -> None:
    polite, stubborn = tmp_path / "polite", tmp_path / "stubborn"
    with pytest.raises(JobFailed, match=r"HandlerTimeout: not done after 0\.5 s"):
        await one(isolated.cleans_up, str(polite), {"max_attempts": 1}, timeout=0.5)
    assert polite.read_text().split("\n")[:2] == ["begun", "cleaned up"]
    begun = asyncio.get_running_loop().time()
    with pytest.raises(JobFailed, match="HandlerTimeout"):
        await one(isolated.will_not_stop, str(stubborn), {"max_attempts": 1}, timeout=0.5)
    assert asyncio.get_running_loop().time() - begun < GRACE_S + 10
    assert isolated.gone(int(stubborn.read_text()))


async def test_a_cancelled_job_ends_its_process(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    fleet = Fleet.make(policy())
    async with fleet.working(worker_of(isolated.cleans_up)), fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", str(notes))
        await until(notes.exists, 30)
        await handle.cancel("no longer wanted")
        with pytest.raises(JobCancelled, match="no longer wanted"):
            await handle.result(timeout=30)
    assert notes.read_text().split("\n")[:2] == ["begun", "cleaned up"]


async def test_a_drain_that_takes_too_long_ends_it(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    fleet, worker = Fleet.make(policy()), worker_of(isolated.cleans_up)
    worker.drain_timeout = 0.05
    async with fleet.producer() as relay:
        async with fleet.working(worker):
            await relay.submit("thumbs", "resize", str(notes))
            await until(notes.exists, 30)
        assert notes.read_text().split("\n")[:2] == ["begun", "cleaned up"]


# --- what they do not get --------------------------------------------------------------------------


async def test_it_gets_no_variable_of_ours_and_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNNY_IDENTITY", "/nowhere")
    monkeypatch.setenv("DATABASE", "theirs")
    seen = await one(isolated.surroundings, None)
    assert "DATABASE" in seen["variables"]
    assert not [name for name in seen["variables"] if name.startswith("BUNNY")]
    assert sum(each.startswith("socket:") for each in seen["files"]) == 1
    assert seen["parent"] == os.getpid()


async def test_what_it_writes_passes_through(capfd: pytest.CaptureFixture[str]) -> None:
    await one(isolated.talks, "hello")
    written = capfd.readouterr()
    assert "hello to stdout" in written.out
    assert "hello to stderr" in written.err


# --- what is refused before anything runs ----------------------------------------------------------


def nested() -> Callable[[int], int]:
    def inner(args: int) -> int:
        return args

    return inner


def test_a_function_that_another_process_cannot_import_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(function: Any, **choices: Any) -> str:  # noqa: ANN401
        with pytest.raises(ConfigurationError) as error:
            worker_of(function, **choices)
        return str(error.value)

    assert "top level of a module" in refused(nested())
    assert "top level of a module" in refused(lambda args: args)
    monkeypatch.setattr(isolated.which, "__module__", "__main__")
    assert "cannot" in refused(isolated.which)
    monkeypatch.setattr(isolated.which, "__module__", "no.such.module")
    assert "no.such.module cannot" in refused(isolated.which)
    monkeypatch.undo()
    assert "memory=1000" in refused(isolated.which, memory=1000)
    assert "recycle=0" in refused(isolated.which, recycle=0)
    with pytest.raises(ConfigurationError, match="for a process"):
        Worker().handler("thumbs", "resize", memory=1 << 30)
    with pytest.raises(ConfigurationError, match="'process' or None"):
        Worker().handler("thumbs", "resize", isolation="thread")  # type: ignore[call-overload]  # what is refused


async def test_a_name_that_leads_elsewhere_is_refused_when_it_starts() -> None:
    def size(args: int, job: Job) -> int:
        return args

    size.__qualname__, size.__module__ = "size", isolated.__name__
    fleet = Fleet.make(policy())
    with pytest.raises(ConfigurationError, match=r"tests\.isolated\.size, which is something else"):
        async with fleet.working(worker_of(size)):
            pass
