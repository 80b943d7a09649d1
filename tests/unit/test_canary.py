"""Canaries in memory: what a worker makes of them, and what an agent remembers of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bridge.agent.canaries import Canaries, queues_of
from bridge.errors import DeadlineExceeded, JobFailed
from bridge.job import CANARY, CANARY_PRIORITY, Kind
from bridge.policy import IdentityEntry, Role
from bridge.signals import metrics
from bridge.signals.bind import new_meter
from consumers import Worker
from tests.fleet import Fleet, policy


def fleet(**thumbs: Any) -> Fleet:  # noqa: ANN401  fields of Queue
    """`policy` with a canary, and an agent that sends it."""
    quiet = policy(canary_ms=30_000, **thumbs)
    watch = IdentityEntry("watch", "aws", Role.AGENT)
    return Fleet.make(replace(quiet, identities={**quiet.identities, "watch": watch}))


async def test_a_canary_is_answered_while_every_slot_is_taken() -> None:
    bridge, go_on = fleet(), asyncio.Event()
    worker = Worker(concurrency=1)

    @worker.handler("thumbs", "resize")
    async def resize(args: None) -> None:
        await go_on.wait()

    async with bridge.producer() as relay, bridge.producer("watch") as agent, bridge.working(worker):
        job = await relay.submit("thumbs", "resize", None)
        canary = await agent.submit("thumbs", CANARY, "cheep", priority=CANARY_PRIORITY)
        assert await canary.result(str, timeout=60) == "cheep"
        assert not job.done()
        go_on.set()
        await job.result(timeout=60)


async def test_a_canary_that_is_too_late_is_answered_and_leaves_no_dead_letter() -> None:
    bridge, worker = fleet(), Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: None) -> None:
        raise AssertionError

    async with bridge.producer() as relay, bridge.producer("watch") as agent:
        late = [
            await agent.submit("thumbs", CANARY, "cheep", priority=CANARY_PRIORITY, deadline=0.001),
            await relay.submit("thumbs", "resize", None, deadline=0.001),
        ]
        await asyncio.sleep(0.01)  # past both
        async with bridge.working(worker):
            for each in late:
                with pytest.raises(DeadlineExceeded):
                    await each.result(timeout=60)
        dead = await bridge.transport("bunny").read("DEAD_thumbs", "dead.thumbs.*.*.*.*", first=1, most=9)
    assert [each.subject.split(".")[2] for each in dead] == ["relay"]


async def test_an_agent_remembers_the_last_good_one_and_counts_the_others() -> None:
    connection, now = fleet().connection("watch"), [100.0]
    assert queues_of(connection) == {"thumbs": 30.0}
    canaries, errors = Canaries(connection, lambda: now[0]), [JobFailed("WrongAnswer", "another", 1), None]

    async def ask(queue: str, text: str, deadline: float) -> None:
        assert deadline == 600
        now[0] += 2.0
        if (error := errors.pop(0)) is not None:
            raise error

    await canaries.once("thumbs", ask)
    proof = canaries.proofs["thumbs"]
    assert (proof.good, proof.took, dict(proof.failures)) == (100.0, None, {"JobFailed": 1})
    await canaries.once("thumbs", ask)
    assert (proof.good, proof.took) == (104.0, 2.0)
    assert not queues_of(fleet().connection("bunny")), "that is no agent's"


async def test_a_queue_whose_results_are_kept_for_less_has_canaries_too() -> None:
    bridge = fleet(deadline_ms=60_000, result_ttl_ms=180_000)
    canaries, worker = Canaries(bridge.connection("watch"), lambda: 100.0), Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: None) -> None:
        raise AssertionError

    async with bridge.producer("watch") as agent, bridge.working(worker):

        async def ask(queue: str, text: str, deadline: float) -> None:
            kind = Kind(queue, CANARY, str, str)
            canary = await agent.submit(kind, text, priority=CANARY_PRIORITY, deadline=deadline)
            assert await canary.result(timeout=60) == text

        await canaries.once("thumbs", ask)
    assert not canaries.proofs["thumbs"].failures


def test_a_canary_has_metrics_of_its_own() -> None:
    meter = new_meter()
    meter.watch(lambda: [(metrics.CANARY_AGE, ("thumbs", "aws"), 1.0)])
    assert b'bunny_canary_age_seconds{cloud="aws",queue="thumbs"} 1.0' in meter.text()
