"""H41: a producer that floods its queue, or fills its streams, takes nothing from the other queues of its workers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge import envelope
from bridge.policy import Policy, Queue
from consumers import Reject, Worker
from tests.fleet import FAST, Fleet, policy, until
from tests.world import World

JUNK = 3_000
SESSION = "feedfacefeedfacefeedface"


def two_queues() -> Policy:
    """Queue ``thumbs``, whose dead letters have room for about twenty of 200 kB, and ``calm``: of one pool."""
    plain = policy(max_bytes=16 * 1024 * 1024)
    calm = Queue("calm", ("relay",), "bunny", ("resize",), "aws", "azure", backoff=FAST)
    return replace(plain, queues={**plain.queues, "calm": calm})


def worker_of_both() -> Worker:
    worker = Worker(concurrency=4, drain_timeout=0.1)

    @worker.handler("thumbs", "resize")
    async def refuse(args: str) -> int:
        raise Reject("of no use")

    @worker.handler("calm", "resize")
    async def resize(width: int) -> int:
        return width + 1

    return worker


async def test_h41_a_queue_whose_dead_letters_are_full_does_not_take_the_slots_of_another() -> None:
    fleet, worker = Fleet.make(two_queues()), worker_of_both()
    async with fleet.working(worker), fleet.producer("other") as hostile, fleet.producer("relay") as relay:
        failing = await hostile.submit_many("thumbs", "resize", ["x" * 200_000] * 40)
        # More settle than there are slots, and none of them can.
        await until(lambda: len(fleet.held("azure", "DEAD_thumbs")) == 20 and worker.busy > worker.concurrency)
        job = await relay.submit("calm", "resize", 1)
        assert await job.result(int, timeout=60) == 2
        assert len(failing) == 40


async def test_h41_junk_ahead_of_it_does_not_hold_up_another_queue() -> None:
    fleet, worker = Fleet.make(two_queues()), worker_of_both()
    async with fleet.transport("other") as hostile, fleet.producer("relay") as relay:
        for n in range(1, JUNK + 1):
            await hostile.publish("JOBS_thumbs", f"jobs.thumbs.normal.other.{SESSION}.{n}", b"junk")
        async with fleet.working(worker):
            job = await relay.submit("calm", "resize", 1)
            assert await job.result(int, timeout=60) == 2
            assert len(fleet.held("aws", "JOBS_thumbs")) > JUNK // 2  # it overtook them
            await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
        assert len(fleet.held("azure", "REFUSED_thumbs")) == JUNK


def test_what_is_remembered_of_messages_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer makes a new wrap and a new signature for each message, and a receiver would remember them all."""
    monkeypatch.setattr(envelope, "CACHE_ENTRIES", 8)
    world = World()
    opener = world.opener("bunny")
    for n in range(1, 33):
        sealer = world.sealer("relay")  # a new one wraps anew
        job = sealer.seal(world.job(n=n), world.now)
        assert opener.open(opener.authenticate(job.data, world.now)).content.body
        assert len(opener._secrets) <= 8
        assert len(opener._roots) <= 8
    assert len(opener._secrets) == len(opener._roots) == 8


def test_a_wrap_is_used_so_often_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "WRAP_MAX_USES", 3)
    world = World()
    sealer = world.sealer("relay")
    used = [sealer.seal(world.job(n=n), world.now).core.wrap_id for n in range(1, 8)]
    assert [used.count(wrap) for wrap in dict.fromkeys(used)] == [3, 3, 1]
