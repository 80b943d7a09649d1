"""A broker that lies: it replays, moves, swaps and counts as it likes, and has everything but keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge import subjects
from bridge.errors import FencePoisoned, JobFailed
from bridge.fence import RESEND_HEADER
from bridge.memory.consumer import Consumer
from bridge.memory.store import Stored
from bridge.transport import Delivery, Message
from consumers import Worker
from producers import Handle, Producer
from tests.fleet import Fleet, policy, until

ANOTHER = "feedfacefeedfacefeedface"


def counting() -> tuple[Worker, list[int]]:
    """A worker, and what it ran."""
    worker, calls = Worker(), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> int:
        calls.append(width)
        return width + 1

    return worker, calls


async def submitted(fleet: Fleet, relay: Producer, *widths: int) -> tuple[list[Handle[int]], list[Message]]:
    """Jobs that wait, and how they are stored."""
    handles = [await relay.submit("thumbs", "resize", width) for width in widths]
    return handles, fleet.held("aws", "JOBS_thumbs")


async def done(fleet: Fleet) -> None:
    await until(lambda: not fleet.held("aws", "JOBS_thumbs"))


async def test_h31_a_thousand_replays_have_one_effect_while_the_result_stands() -> None:
    fleet = Fleet.make(policy())
    worker, calls = counting()
    async with fleet.transport("relay") as broker, fleet.producer() as relay:
        (handle,), (job,) = await submitted(fleet, relay, 1)
        async with fleet.working(worker):
            assert await handle.result(int) == 2
            for _ in range(1000):
                await done(fleet)
                await broker.publish("JOBS_thumbs", job.subject, job.data, {RESEND_HEADER: "1"})
            await done(fleet)
    assert calls == [1]
    assert len(fleet.held("azure", "RESULTS_thumbs")) == 1


async def test_h31_a_replay_that_is_passed_off_as_new_runs_again_without_a_ledger_and_changes_no_result() -> None:
    """What `docs/threats.md` does not promise of a worker without a ledger: a first delivery looks nothing up."""
    fleet = Fleet.make(policy())
    worker, calls = counting()
    async with fleet.transport("relay") as broker, fleet.producer() as relay:
        (handle,), (job,) = await submitted(fleet, relay, 1)
        async with fleet.working(worker):
            assert await handle.result(int) == 2
            before = fleet.held("azure", "RESULTS_thumbs")
            await done(fleet)
            await broker.publish("JOBS_thumbs", job.subject, job.data)
            await done(fleet)
    assert calls == [1, 1]
    assert fleet.held("azure", "RESULTS_thumbs") == before
    assert not fleet.held("azure", "DEAD_thumbs")


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
async def test_h28_a_job_on_any_other_subject_is_another_job_and_is_refused(
    at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet.make(policy())
    worker, calls = counting()
    honest = Consumer._delivery

    def moving(self: Consumer, message: Stored, delivered: int) -> Delivery:
        delivery = honest(self, message, delivered)
        tokens = delivery.message.subject.split(".")
        tokens[at] = {1: "lookup", 2: "high", 3: "other", 4: ANOTHER, 5: "2"}[at]
        return replace(delivery, message=replace(delivery.message, subject=".".join(tokens)))

    monkeypatch.setattr(Consumer, "_delivery", moving)
    async with fleet.producer() as relay, fleet.working(worker):
        await relay.submit("thumbs", "resize", 1)
        await done(fleet)
    assert calls == []
    assert [m.headers["Bunny-Cause"] for m in fleet.held("azure", "REFUSED_thumbs")] == ["WrongSubject"]
    assert not fleet.held("azure", "RESULTS_thumbs")


async def test_h33_results_swapped_between_two_jobs_are_believed_by_neither() -> None:
    fleet = Fleet.make(policy())
    worker, _ = counting()
    async with fleet.producer() as relay, fleet.transport("bunny") as broker:
        handles, _jobs = await submitted(fleet, relay, 1, 2)
        tokens = [handle.token for handle in handles]
        async with fleet.working(worker):
            assert [await handle.result(int) for handle in handles] == [2, 3]
        first, second = fleet.held("azure", "RESULTS_thumbs")
        for cloud in ("azure", "aws"):
            stream = fleet.bridge.stream(cloud, "RESULTS_thumbs")
            for stored in list(stream.after(0)):
                stream.remove(stored.sequence)
        await broker.publish("RESULTS_thumbs", first.subject, second.data)
        await broker.publish("RESULTS_thumbs", second.subject, first.data)
        await until(lambda: len(fleet.held("aws", "RESULTS_thumbs")) == 2)
    async with fleet.producer() as relay:
        for token in tokens:
            handle = await relay.attach(token)
            with pytest.raises(FencePoisoned):
                await handle.result(timeout=0)


async def test_a_broker_s_count_of_deliveries_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """With rubbish for the last start, all that is left to count by is what the broker says."""
    fleet = Fleet.make(policy(max_attempts=3))
    worker, calls = counting()
    honest = Consumer._delivery

    def lying(self: Consumer, message: Stored, delivered: int) -> Delivery:
        return honest(self, message, 1_000_000)

    monkeypatch.setattr(Consumer, "_delivery", lying)
    async with fleet.producer() as relay, fleet.transport("bunny") as broker:
        (handle,), _ = await submitted(fleet, relay, 1)
        await broker.publish("STARTS_thumbs", subjects.start(handle.key), b"rubbish")
        async with fleet.working(worker):
            assert await handle.result(int, timeout=10) == 2
    assert calls == [1]


async def test_an_old_start_of_a_job_does_not_let_it_start_for_ever() -> None:
    """Starts of one's own are what is counted: after rubbish the attempt that follows is the last."""
    fleet = Fleet.make(policy(max_attempts=3))
    worker, calls = Worker(), []

    @worker.handler("thumbs", "resize")
    async def fail(width: int) -> int:
        calls.append(width)
        raise RuntimeError

    async with fleet.producer() as relay, fleet.transport("bunny") as broker, fleet.transport("relay") as hub:
        (handle,), (job,) = await submitted(fleet, relay, 1)
        stream = fleet.bridge.stream("aws", "JOBS_thumbs")
        (stored,) = stream.after(0)
        stream.remove(stored.sequence)
        await broker.publish("STARTS_thumbs", subjects.start(handle.key), b"rubbish")
        await hub.publish("JOBS_thumbs", job.subject, job.data, {RESEND_HEADER: "1"})
        async with fleet.working(worker):
            with pytest.raises(JobFailed, match="RuntimeError"):
                await handle.result(int, timeout=10)
    assert len(calls) <= 3
