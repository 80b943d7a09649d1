"""Which job runs when, and what a handler may ask for: priorities, times, attempts, timeouts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge.errors import ConfigurationError, DeadlineExceeded, JobFailed, UsageError
from consumers import Backoff, Job, Reject, Snooze, Worker
from consumers.slots import WEIGHTS, Slots
from tests.fleet import Fleet, policy


def worker_of(function: Any, *, concurrency: int = 8, **limits: Any) -> Worker:  # noqa: ANN401
    """A worker of one handler."""
    worker = Worker(concurrency=concurrency)
    worker.handler("thumbs", "resize", **limits)(function)
    return worker


async def test_slots_go_by_weight_and_low_never_starves() -> None:
    slots = Slots(1)
    await slots.take("normal", 4)
    order: list[str] = []

    async def job(lane: str) -> None:
        await slots.take(lane, WEIGHTS[lane])
        order.append(lane)
        slots.give()

    async with asyncio.TaskGroup() as group:
        for lane in ("low", "normal", "high"):
            for _ in range(42):
                group.create_task(job(lane))
        await asyncio.sleep(0)
        slots.give()
    assert Counter(order[:21]) == {"high": 16, "normal": 4, "low": 1}
    assert Counter(order) == {"high": 42, "normal": 42, "low": 42}


async def test_a_slot_given_to_one_who_was_cancelled_goes_to_the_next() -> None:
    slots = Slots(1)
    await slots.take("normal", 4)
    first = asyncio.create_task(slots.take("normal", 4))
    second = asyncio.create_task(slots.take("normal", 4))
    await asyncio.sleep(0)
    slots.give()
    first.cancel()
    await asyncio.wait({first, second}, timeout=1)
    assert first.cancelled()
    assert second.done()
    assert not second.cancelled()


async def test_high_goes_before_normal_before_low() -> None:
    fleet = Fleet.make(policy())
    order: list[str] = []

    async def resize(args: str) -> None:
        order.append(args)

    async with fleet.producer() as relay:
        handles = []
        for priority in ("low", "normal", "high"):
            for _ in range(5):
                handles.append(await relay.submit("thumbs", "resize", priority, priority=priority))
        async with fleet.working(worker_of(resize, concurrency=1)):
            for handle in handles:
                await handle.result()
    turns = {priority: [at for at, each in enumerate(order) if each == priority] for priority in WEIGHTS}
    assert sum(turns["high"]) < sum(turns["normal"]) < sum(turns["low"])
    assert all(len(each) == 5 for each in turns.values())


@pytest.mark.parametrize("said", ["delay", "timedelta", "at"])
async def test_a_job_with_a_time_does_not_start_before_it(said: str) -> None:
    fleet = Fleet.make(policy())
    begun: list[tuple[float, int]] = []

    async def resize(args: None, job: Job) -> None:
        begun.append((time.time(), job.attempt))

    async with fleet.producer() as relay, fleet.working(worker_of(resize)):
        now = time.time()
        choices: dict[str, dict[str, Any]] = {
            "delay": {"delay": 0.5},
            "timedelta": {"delay": timedelta(seconds=0.5)},
            "at": {"at": datetime.fromtimestamp(now + 0.5, UTC)},
        }
        handle = await relay.submit("thumbs", "resize", None, **choices[said])
        await handle.result()
    ((started, attempt),) = begun
    assert started - now >= 0.49
    assert attempt == 1


async def test_a_deadline_counts_from_when_a_job_may_start() -> None:
    fleet = Fleet.make(policy())

    async def resize(args: None) -> str:
        return "in time"

    async with fleet.producer() as relay, fleet.working(worker_of(resize)):
        handle = await relay.submit("thumbs", "resize", None, delay=1.1, deadline=1)
        assert await handle.result() == "in time"


async def test_a_failed_job_with_a_time_counts_every_attempt() -> None:
    fleet = Fleet.make(policy(max_attempts=3))
    attempts: list[int] = []

    async def resize(args: None, job: Job) -> None:
        attempts.append(job.attempt)
        raise OSError("busy")

    async with fleet.producer() as relay, fleet.working(worker_of(resize)):
        handle = await relay.submit("thumbs", "resize", None, delay=0.05)
        with pytest.raises(JobFailed, match="OSError"):
            await handle.result()
    assert attempts == [1, 2, 3]


@pytest.mark.parametrize(
    ("terms", "word"),
    [
        ({"delay": 1, "at": datetime(2027, 1, 1, tzinfo=UTC)}, "both delay and at"),
        ({"at": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001  wrong on purpose
        ({"delay": -1}, "below 0"),
        ({"delay": timedelta(days=40)}, "31 days"),
        ({"priority": "urgent"}, "high, normal, low"),
        ({"priority": "high", "delay": 1}, "leave the priority out"),
    ],
    ids=str,
)
async def test_terms_that_do_not_go_together_are_refused(terms: dict[str, Any], word: str) -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        with pytest.raises(UsageError, match=word):
            await relay.submit("thumbs", "resize", None, **terms)
    assert not fleet.held("aws", "JOBS_thumbs")
    assert not fleet.held("aws", "DELAYED_thumbs")


async def test_a_snooze_comes_back_and_does_not_count() -> None:
    fleet = Fleet.make(policy(max_attempts=2))
    attempts: list[int] = []

    async def resize(args: None, job: Job) -> int:
        attempts.append(job.attempt)
        if len(attempts) < 6:
            raise Snooze(0.01)
        return len(attempts)

    async with fleet.producer() as relay, fleet.working(worker_of(resize)):
        handle = await relay.submit("thumbs", "resize", None)
        assert await handle.result() == 6
    assert attempts == [1] * 6


async def test_a_handler_has_attempts_and_a_backoff_of_its_own() -> None:
    fleet = Fleet.make(policy(max_attempts=5))
    begun: list[float] = []

    async def resize(args: None, job: Job) -> None:
        assert job.max_attempts == 2
        begun.append(time.monotonic())
        raise OSError

    limits: dict[str, Any] = {"max_attempts": 2, "backoff": Backoff(initial=0.3, jitter=0)}
    async with fleet.producer() as relay, fleet.working(worker_of(resize, **limits)):
        handle = await relay.submit("thumbs", "resize", None)
        with pytest.raises(JobFailed):
            await handle.result()
    first, second = begun
    assert second - first >= 0.29


async def test_a_final_exception_is_not_tried_again() -> None:
    fleet = Fleet.make(policy(max_attempts=5))
    calls = []

    async def resize(args: None) -> None:
        calls.append(1)
        raise KeyError("no such album")

    async with fleet.producer() as relay, fleet.working(worker_of(resize, final=(LookupError,))):
        handle = await relay.submit("thumbs", "resize", None)
        with pytest.raises(JobFailed, match="KeyError"):
            await handle.result()
    assert len(calls) == 1


@pytest.mark.parametrize("plain", [False, True])
async def test_an_attempt_that_takes_too_long_fails_by_name(plain: bool) -> None:
    fleet = Fleet.make(policy(max_attempts=2))
    stopped: list[str] = []
    go_on = asyncio.Event()

    async def waiting(args: None) -> None:
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            stopped.append("cancelled")
            raise

    def blocking(args: None) -> None:
        time.sleep(0.3)
        stopped.append("went on")

    handler = blocking if plain else waiting
    async with fleet.producer() as relay, fleet.working(worker_of(handler, timeout=0.1)):
        handle = await relay.submit("thumbs", "resize", None)
        with pytest.raises(JobFailed, match=r"HandlerTimeout: not done after 0\.1 s"):
            await handle.result()
    assert stopped in (["cancelled"] * 2, ["went on"] * len(stopped))


async def test_a_deadline_that_passes_while_it_runs_ends_it() -> None:
    fleet = Fleet.make(policy())
    never = asyncio.Event()

    async def resize(args: None) -> None:
        await never.wait()

    async with fleet.producer() as relay, fleet.working(worker_of(resize)):
        handle = await relay.submit("thumbs", "resize", None, deadline=0.2)
        with pytest.raises(DeadlineExceeded):
            await handle.result()


async def test_a_timeout_error_of_the_handlers_own_is_just_an_exception() -> None:
    fleet = Fleet.make(policy(max_attempts=1, errors="message"))

    async def resize(args: None) -> None:
        raise TimeoutError("the database")

    async with fleet.producer() as relay, fleet.working(worker_of(resize, timeout=5)):
        handle = await relay.submit("thumbs", "resize", None)
        with pytest.raises(JobFailed, match="TimeoutError: the database"):
            await handle.result()


@pytest.mark.parametrize(
    ("limits", "word"),
    [
        ({"max_attempts": 0}, "1 to 1000"),
        ({"timeout": 0}, "timeout"),
        ({"backoff": Backoff(initial=2, longest=1)}, "backoff"),
        ({"backoff": Backoff(jitter=2)}, "backoff"),
    ],
    ids=str,
)
def test_limits_that_cannot_be_are_refused_where_they_are_written(limits: dict[str, Any], word: str) -> None:
    def resize(args: None) -> None:
        raise Reject("never called")

    with pytest.raises(ConfigurationError, match=word):
        worker_of(resize, **limits)
