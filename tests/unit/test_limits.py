"""Limits of a queue over all its workers, in memory: at once, of a key, in a time; what waits is in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from bridge import keyed, subjects
from bridge.errors import DeadlineExceeded, JobCancelled, TransportError, UsageError
from bridge.frame import parse
from bridge.memory import MemoryTransport
from bridge.policy import Rate
from bridge.transport import Message, PubAck
from consumers import Job, Worker
from consumers.gates import KEY_WAITING
from tests.fleet import Fleet, policy, until


class Together:
    """A handler that counts how many of its jobs run at once, in all and of each key (the argument)."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_in_all = 0
        self.starts: list[float] = []
        self.attempts: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, args: str, job: Job) -> str:
        self.starts.append(time.monotonic())
        self.attempts.append(job.attempt)
        self.running[args] += 1
        self.most[args] = max(self.most[args], self.running[args])
        self.most_in_all = max(self.most_in_all, self.running.total())
        try:
            await self.gate.wait()
            await asyncio.sleep(self.seconds)
        finally:
            self.running[args] -= 1
        return args

    def worker(self, **options: Any) -> Worker:  # noqa: ANN401  arguments of Worker
        worker = Worker(**options)
        worker.handler("thumbs", "resize")(self)
        return worker


@contextlib.asynccontextmanager
async def working(fleet: Fleet, *workers: Worker) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(fleet.working(worker))
        yield


def held(fleet: Fleet) -> list[str]:
    """The slots that anybody has."""
    stream = fleet.bridge.stream("azure", "SLOTS_thumbs")
    slots = (".all.", ".key.")
    return [each.subject for each in stream.after(0) if each.data and any(slot in each.subject for slot in slots)]


async def test_no_more_run_at_once_than_the_queue_allows_over_all_workers() -> None:
    fleet, together = Fleet.make(policy(concurrency=3)), Together()
    async with fleet.producer() as relay, working(fleet, *(together.worker() for _ in range(3))):
        jobs = [await relay.submit("thumbs", "resize", "x") for _ in range(60)]
        assert [await job.result() for job in jobs] == ["x"] * 60
        await until(lambda: not held(fleet))
    assert together.most_in_all == 3
    assert set(together.attempts) == {1}


async def test_no_more_of_a_key_run_at_once_and_other_keys_go_on() -> None:
    fleet, together = Fleet.make(policy(concurrency_per_key=1)), Together()
    hot = 2 * KEY_WAITING + 40
    roomy = [together.worker(concurrency=16) for _ in range(2)]  # whoever got all others has room for them
    async with fleet.producer() as relay, working(fleet, *roomy):
        together.gate.clear()
        late = [await relay.submit("thumbs", "resize", "hot", concurrency_key="hot") for _ in range(hot)]
        await until(lambda: together.running["hot"] == 1)
        cold = [await relay.submit("thumbs", "resize", "cold", concurrency_key=f"cold-{n}") for n in range(5)]
        free = [await relay.submit("thumbs", "resize", "free") for _ in range(5)]
        await until(lambda: together.running["cold"] + together.running["free"] == 10)
        assert together.running["hot"] == 1
        together.gate.set()
        assert [await job.result() for job in [*cold, *free, *late]] == ["cold"] * 5 + ["free"] * 5 + ["hot"] * hot
        await until(lambda: not held(fleet))
    assert together.most["hot"] == 1
    assert together.most["cold"] > 1
    assert set(together.attempts) == {1}


async def test_a_job_that_was_put_off_for_its_key_has_all_its_attempts() -> None:
    fleet, together = Fleet.make(policy(concurrency_per_key=1, max_attempts=1)), Together()
    async with fleet.producer() as relay:
        jobs = [await relay.submit("thumbs", "resize", "hot", concurrency_key="hot") for _ in range(KEY_WAITING + 9)]
        async with fleet.working(together.worker(concurrency=2)):
            assert [await job.result() for job in jobs] == ["hot"] * (KEY_WAITING + 9)
        starts = list(fleet.bridge.stream("azure", "STARTS_thumbs").after(0))
        assert starts
        assert max(parse(each.data).core.attempt for each in starts) <= 1


async def test_the_rate_holds_over_all_workers() -> None:
    fleet, together = Fleet.make(policy(rate=Rate(50, 1000))), Together(0.0)
    async with fleet.producer() as relay, working(fleet, *(together.worker() for _ in range(3))):
        jobs = [await relay.submit("thumbs", "resize", "x") for _ in range(100)]
        for job in jobs:
            await job.result()
    starts = sorted(together.starts)
    # Evenly in 2 s, but that the first may have been late. Had each worker a rate of its own, it were 0.7 s.
    assert starts[-1] - starts[0] >= 1.0
    assert set(together.attempts) == {1}


async def test_a_burst_starts_at_once_after_a_quiet_time_and_no_more() -> None:
    fleet, together = Fleet.make(policy(rate=Rate(5, 3_600_000, burst=5))), Together(0.0)
    async with fleet.producer() as relay, fleet.working(together.worker()):
        jobs = [await relay.submit("thumbs", "resize", "x") for _ in range(7)]
        await until(lambda: len(together.starts) == 5)
        await asyncio.sleep(0.3)
        assert len(together.starts) == 5
        for job in jobs:
            await job.cancel("enough")


async def test_what_waits_for_its_time_takes_no_slot_of_its_worker() -> None:
    fleet, together = Fleet.make(policy(rate=Rate(1, 3_600_000))), Together()
    both = together.worker(concurrency=1)
    async with fleet.producer() as relay, fleet.working(both):
        first = [await relay.submit("thumbs", "resize", "x") for _ in range(10)]
        await first[0].result()
        await until(lambda: both.busy == 0)
        assert len(together.starts) == 1
        for job in first[1:]:
            await job.cancel("enough")
        for job in first[1:]:
            with pytest.raises(JobCancelled):
                await job.result()
        await until(lambda: both.busy == 0)


@pytest.mark.parametrize("limit", [{"concurrency": 1}, {"concurrency_per_key": 1}, {"rate": Rate(1, 3_600_000)}])
async def test_what_waits_for_a_limit_can_be_cancelled_and_expires(limit: dict[str, Any]) -> None:
    fleet, together = Fleet.make(policy(**limit)), Together()
    key = "k" if "concurrency_per_key" in limit else None
    async with fleet.producer() as relay, fleet.working(together.worker()):
        together.gate.clear()
        first = await relay.submit("thumbs", "resize", "x", concurrency_key=key)
        await until(lambda: together.running["x"] == 1)
        second = await relay.submit("thumbs", "resize", "x", concurrency_key=key)
        third = await relay.submit("thumbs", "resize", "x", deadline=0.3, concurrency_key=key)
        await second.cancel("no longer")
        with pytest.raises(JobCancelled):
            await second.result()
        with pytest.raises(DeadlineExceeded):
            await third.result()
        together.gate.set()
        assert await first.result() == "x"
    assert len(together.starts) == 1


async def test_a_worker_that_drains_hands_back_what_waits_and_gives_back_its_slots() -> None:
    fleet, together = Fleet.make(policy(concurrency=1)), Together()
    first, second = together.worker(), together.worker()
    async with fleet.producer() as relay:
        together.gate.clear()
        async with fleet.working(first):
            jobs = [await relay.submit("thumbs", "resize", "x") for _ in range(6)]
            await until(lambda: together.running["x"] == 1)
            asyncio.get_running_loop().call_later(0.05, together.gate.set)
        assert not held(fleet)
        async with fleet.working(second):
            for job in jobs:
                await job.result()
    assert together.most_in_all == 1


async def test_keys_of_two_producers_are_two_keys() -> None:
    fleet, together = Fleet.make(policy(concurrency_per_key=1)), Together()
    async with fleet.producer("relay") as relay, fleet.producer("other") as other, fleet.working(together.worker()):
        together.gate.clear()
        jobs = [await each.submit("thumbs", "resize", "x", concurrency_key="customer-7") for each in (relay, other)]
        await until(lambda: together.running["x"] == 2)
        together.gate.set()
        for job in jobs:
            await job.result()


async def test_many_are_submitted_with_a_key_and_keyed_jobs_have_one_too() -> None:
    fleet, together = Fleet.make(policy(concurrency_per_key=1)), Together()
    async with fleet.producer() as relay, fleet.working(together.worker()):
        many = await relay.submit_many("thumbs", "resize", ["x"] * 6, concurrency_key="k")
        one = await relay.submit("thumbs", "resize", "x", key="order-1", concurrency_key="k")
        for job in [*many, one]:
            assert not isinstance(job, BaseException)
            assert await job.result() == "x"
    assert together.most["x"] == 1


async def test_a_concurrency_key_where_it_would_limit_nothing_is_refused() -> None:
    fleet = Fleet.make(policy(concurrency=3))
    async with fleet.producer() as relay:
        with pytest.raises(UsageError, match="concurrency_per_key"):
            await relay.submit("thumbs", "resize", "x", concurrency_key="customer-7")
    fleet = Fleet.make(policy(concurrency_per_key=3))
    async with fleet.producer() as relay:
        for wrong in ("", "x" * 2000, 7):
            with pytest.raises(UsageError):
                await relay.submit("thumbs", "resize", "x", concurrency_key=wrong)  # type: ignore[arg-type]


def test_a_concurrency_key_names_nothing_and_is_no_session() -> None:
    secret = bytes(32)
    key = keyed.concurrency_key(secret, "relay", "thumbs", "customer-7")
    assert len(key) == 32
    assert key[:12].hex() != keyed.session(secret, "relay", "thumbs", "customer-7")
    others = [("other", "thumbs", "customer-7"), ("relay", "lookup", "customer-7"), ("relay", "thumbs", "customer-8")]
    assert key not in [keyed.concurrency_key(secret, *each) for each in others]
    assert key != keyed.concurrency_key(bytes(31) + b"1", "relay", "thumbs", "customer-7")


# --- slots that cannot be had, or kept -------------------------------------------------------------


class Sealed(MemoryTransport):
    """Stores nothing in SLOTS while it is ``shut``."""

    shut = False

    async def publish(
        self,
        stream: str,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        expected: int | None = None,
        timeout: float = 10.0,
    ) -> PubAck:
        self._refuse(stream)
        return await super().publish(stream, subject, data, headers, expected=expected, timeout=timeout)

    async def lookup(
        self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
    ) -> Message | None:
        self._refuse(stream)
        return await super().lookup(stream, subject, cloud=cloud, timeout=timeout)

    def _refuse(self, stream: str) -> None:
        if self.shut and stream == subjects.slots_stream("thumbs"):
            raise TransportError("no quorum")


@pytest.mark.parametrize("limit", [{"concurrency": 1}, {"rate": Rate(100, 1000)}])
async def test_where_slots_cannot_be_stored_nothing_starts(limit: dict[str, Any]) -> None:
    fleet, together = Fleet.make(policy(**limit)), Together()
    transport = Sealed(fleet.bridge, fleet.bridge.cloud("azure"))
    transport.shut = True
    async with fleet.producer() as relay, fleet.working(together.worker(), transport=transport):
        jobs = [await relay.submit("thumbs", "resize", "x") for _ in range(3)]
        await asyncio.sleep(0.3)
        assert not together.starts
        transport.shut = False
        for job in jobs:
            assert await job.result() == "x"
    assert set(together.attempts) == {1}


async def test_a_handler_whose_slot_is_lost_is_cancelled_and_its_job_comes_again() -> None:
    fleet, together = Fleet.make(policy(concurrency=1, ack_wait_ms=1000)), Together()
    transport = Sealed(fleet.bridge, fleet.bridge.cloud("azure"))
    async with fleet.producer() as relay, fleet.working(together.worker(), transport=transport):
        together.gate.clear()
        job = await relay.submit("thumbs", "resize", "x")
        await until(lambda: together.running["x"] == 1)
        transport.shut = True  # and the lease is renewed all the same
        await until(lambda: together.running["x"] == 0)
        transport.shut = False
        together.gate.set()
        assert await job.result() == "x"
    assert together.attempts == [1, 2]
    assert together.most_in_all == 1


async def test_a_slot_is_renewed_for_as_long_as_its_job_runs() -> None:
    fleet, together = Fleet.make(policy(concurrency=1, ack_wait_ms=2000)), Together(2.5)
    async with fleet.producer() as relay, working(fleet, together.worker(), together.worker()):
        jobs = [await relay.submit("thumbs", "resize", "x") for _ in range(2)]
        for job in jobs:
            await job.result()
    assert together.most_in_all == 1
    assert together.attempts == [1, 1]


async def test_a_queue_without_limits_writes_and_reads_nothing_for_them() -> None:
    fleet, together = Fleet.make(policy()), Together()
    assert "SLOTS_thumbs" not in fleet.bridge.cloud("azure").streams
    async with fleet.producer() as relay, fleet.working(together.worker()):
        assert await (await relay.submit("thumbs", "resize", "x")).result() == "x"
