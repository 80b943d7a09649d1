"""The inbox, over the transport in memory: what it gives out, what comes again, and what it keeps out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from bridge import subjects
from bridge.errors import (
    BundleExpired,
    ConfigurationError,
    DeadlineExceeded,
    InvalidArguments,
    JobCancelled,
    JobFailed,
    NotConnected,
    UsageError,
)
from bridge.job import JobToken
from bridge.memory import MemoryTransport
from bridge.transport import Delivery
from consumers import Reject
from producers import Inbox, Result, Status, inbox
from tests.fleet import Fleet, policy, until
from tests.unit.test_producer import echoing, forge
from tests.unit.test_replays import died, letters, operating, worker_of

RESULTS = "RESULTS_thumbs"
ACK_WAIT_MS = 1000
"""What a test waits for, and longer than one loop on a busy machine stands still."""
SOON_S = 60.0


def fleet_with(**thumbs: Any) -> Fleet:  # noqa: ANN401  fields of Queue
    return Fleet.make(policy(inbox=("relay",), **thumbs))


async def submitted(fleet: Fleet, count: int = 3) -> list[str]:
    """Tokens of jobs whose producer is gone."""
    async with fleet.producer() as relay:
        return [str((await relay.submit("thumbs", "resize", n)).token) for n in range(count)]


async def answered(fleet: Fleet, count: int = 3) -> list[str]:
    """Tokens of jobs that were answered after their producer was gone."""
    before = len(fleet.held("aws", RESULTS))
    tokens = await submitted(fleet, count)
    async with fleet.working(echoing()):
        await until(lambda: len(fleet.held("aws", RESULTS)) == before + count)
    return tokens


async def taken(box: Inbox, count: int) -> list[Result]:
    async with asyncio.timeout(SOON_S):
        return [await anext(box) for _ in range(count)]


async def nothing_comes(box: Inbox, seconds: float = 0.05) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await anext(box)


# --- what comes -------------------------------------------------------------------------------------


async def test_a_process_that_submitted_nothing_reads_every_result_once() -> None:
    fleet = fleet_with()
    tokens = await answered(fleet)
    async with fleet.producer() as daemon, daemon.inbox("thumbs") as box:
        results = await taken(box, 3)
        assert [str(result.token) for result in results] == tokens
        assert [result.value(int) for result in results] == [0, 1, 2]
        assert {(each.kind, each.status, each.attempt, each.delivered) for each in results} == {
            ("resize", Status.SUCCEEDED, 1, 1)
        }
        assert [each.id for each in results] == [JobToken.parse(token).key.job_id for token in tokens]
        assert all(each.worker for each in results)
        for each in results:
            await each.ack()
            await each.ack()
        more = await answered(fleet, 1)  # and what comes later
        (last,) = await taken(box, 1)
        assert str(last.token) == more[0]
        await last.ack()
    async with fleet.producer() as daemon, daemon.inbox("thumbs") as box:
        await nothing_comes(box)


async def test_it_is_one_producer_s_own() -> None:
    fleet = fleet_with()
    async with fleet.producer("other") as other, fleet.working(echoing()):
        await (await other.submit("thumbs", "resize", 1)).result()
        with pytest.raises(ConfigurationError, match=r"other has no inbox on queue 'thumbs'.*inbox: \[other\]"):
            other.inbox("thumbs")
    async with fleet.producer() as relay, relay.inbox("thumbs") as box:
        await nothing_comes(box)
        with pytest.raises(ConfigurationError, match="'thumbnails'; it has one on thumbs"):
            relay.inbox("thumbnails")
        for prefetch in (0, 1001, True):
            with pytest.raises(UsageError, match="prefetch"):
                relay.inbox("thumbs", prefetch=prefetch)


async def test_how_a_job_ended_is_what_its_handle_would_say() -> None:
    fleet = fleet_with()

    async def fails(args: str) -> None:
        raise Reject("no such photo", type="NoPhoto")

    async with fleet.producer() as relay:
        late = await relay.submit("thumbs", "resize", "x", deadline=0.001)
        cancelled = await relay.submit("thumbs", "resize", "y")
        await cancelled.cancel("no longer wanted")
        await asyncio.sleep(0.01)
        failed = await relay.submit("thumbs", "resize", "z")
        async with fleet.working(worker_of(fails)), relay.inbox("thumbs") as box:
            by_id = {result.id: result for result in await taken(box, 3)}
    with pytest.raises(DeadlineExceeded):
        by_id[late.id].value()
    with pytest.raises(JobCancelled, match="no longer wanted"):
        by_id[cancelled.id].value(int)
    with pytest.raises(JobFailed, match="NoPhoto") as error:
        by_id[failed.id].value(int)
    assert error.value.attempts == 1
    assert by_id[failed.id].status is Status.FAILED


async def test_a_result_of_another_type_is_told_and_is_still_there() -> None:
    fleet = fleet_with()
    await answered(fleet, 1)
    async with fleet.producer() as relay, relay.inbox("thumbs") as box:
        (result,) = await taken(box, 1)
        with pytest.raises(InvalidArguments):
            result.value(str)
        assert result.value(int) == 0
        assert "0" not in repr(result).replace(result.id, "")


async def test_it_answers_the_job_that_was_sent_in_whatever_run() -> None:
    fleet = fleet_with()
    (handle,) = await died(fleet)
    async with operating(fleet) as boss, fleet.producer() as relay, relay.inbox("thumbs") as box:
        (letter,) = await letters(boss)
        await boss.replay(letter)
        async with fleet.working(echoing()):
            first, again = await taken(box, 2)
        assert [(each.token.generation, each.status) for each in (first, again)] == [
            (0, Status.FAILED),
            (1, Status.SUCCEEDED),
        ]
        other = handle.token._replace(digest="0" * 64)
        for each in (first, again):
            assert each.id == handle.id
            assert each.answers(handle.token)
            assert each.answers(str(handle.token))
            assert not each.answers(other)
            assert not each.answers(handle.token._replace(n=2))
        with pytest.raises(UsageError):
            first.answers("thumbs.relay.1")


async def test_what_another_process_waits_for_comes_here_too() -> None:
    fleet = fleet_with()
    async with fleet.producer() as web, fleet.producer() as daemon, fleet.working(echoing()):
        async with daemon.inbox("thumbs") as box:
            handle = await web.submit("thumbs", "resize", 1, key="order-42")
            assert await handle.result() == 1
            (result,) = await taken(box, 1)
            assert result.answers(handle.token)
            await result.ack()
        assert await (await web.submit("thumbs", "resize", 1, key="order-42")).result() == 1


# --- what comes again -------------------------------------------------------------------------------


async def test_what_is_held_is_renewed_and_what_is_dropped_comes_again() -> None:
    fleet = fleet_with(ack_wait_ms=ACK_WAIT_MS)
    await answered(fleet, 2)
    async with fleet.producer() as relay, relay.inbox("thumbs") as box:
        kept, dropped = await taken(box, 2)
        async with relay.inbox("thumbs") as other:
            await nothing_comes(other, 1.5 * ACK_WAIT_MS / 1000)
        token = dropped.token
        del dropped
        gc.collect()
        (again,) = await taken(box, 1)
        assert (again.token, again.delivered) == (token, 2)
        await again.ack()
        await kept.ack()
        await nothing_comes(box, 1.2 * ACK_WAIT_MS / 1000)


async def test_a_nak_brings_it_back_after_its_delay() -> None:
    fleet = fleet_with()
    await answered(fleet, 1)
    async with fleet.producer() as relay, relay.inbox("thumbs") as box:
        (first,) = await taken(box, 1)
        await first.nak(0)
        (second,) = await taken(box, 1)
        begun = asyncio.get_running_loop().time()
        await second.nak(0.2)
        (third,) = await taken(box, 1)
        assert asyncio.get_running_loop().time() - begun >= 0.2
        assert (second.delivered, third.delivered) == (2, 3)
        await third.ack()


async def test_a_nak_that_names_no_delay_brings_it_back_later_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = fleet_with()
    await answered(fleet, 1)
    monkeypatch.setattr(inbox, "NAK_S", 0.001)
    monkeypatch.setattr(inbox, "MOST_NAK_S", 0.005)
    delays: list[float] = []
    async with fleet.producer() as relay, relay.inbox("thumbs") as box:
        nak = box._transport.nak

        async def told(delivery: Delivery, delay: float = 0.0) -> None:
            delays.append(delay)
            await nak(delivery, delay)

        monkeypatch.setattr(box._transport, "nak", told)
        for _ in range(5):
            (result,) = await taken(box, 1)
            await result.nak()
        (result,) = await taken(box, 1)
        await result.ack()
    assert delays == [0.001, 0.002, 0.004, 0.005, 0.005]


async def test_a_loop_that_never_acks_goes_on() -> None:
    fleet = fleet_with()
    await answered(fleet, 10)
    seen: list[int] = []
    async with fleet.producer() as relay, relay.inbox("thumbs", prefetch=2) as box:
        async for result in box:
            seen.append(result.value(int))
            if len(seen) == 10:
                break
    assert seen == list(range(10))


async def test_no_more_is_held_than_was_asked_for() -> None:
    fleet = fleet_with()
    await answered(fleet, 5)
    async with fleet.producer() as relay, relay.inbox("thumbs", prefetch=2) as box:
        held = await taken(box, 2)
        await nothing_comes(box)
        async with relay.inbox("thumbs") as other:
            assert [each.value() for each in await taken(other, 3)] == [2, 3, 4]
        await held[0].ack()


async def test_closing_hands_back_what_was_not_given_out() -> None:
    fleet = fleet_with()
    await answered(fleet, 3)
    async with fleet.producer() as one, fleet.producer() as two:
        async with one.inbox("thumbs") as box:
            (first,) = await taken(box, 1)
        with pytest.raises(NotConnected, match="closed"):
            await anext(box)
        await first.ack()  # what it had is still its own to ack
        await box.close()
        async with two.inbox("thumbs") as other:
            assert [each.delivered for each in await taken(other, 2)] == [2, 2]
            await nothing_comes(other)


@pytest.mark.parametrize("what", ["inbox", "producer"])
async def test_who_waits_is_told_that_it_is_closed(what: str) -> None:
    fleet = fleet_with()
    async with fleet.producer() as relay, relay.inbox("thumbs") as box:
        waiting = asyncio.create_task(taken(box, 1))
        await asyncio.sleep(0)
        await (box if what == "inbox" else relay).close()
        with pytest.raises(NotConnected, match="closed"):
            await waiting


class Again(MemoryTransport):
    """Loses renewals, as a link that is cut does."""

    async def in_progress(self, delivery: Delivery) -> None:
        """Never gets there."""


async def test_what_is_delivered_again_while_it_is_held_is_not_given_out_twice() -> None:
    fleet = fleet_with(ack_wait_ms=50)
    await answered(fleet, 1)
    transport = Again(fleet.bridge, fleet.bridge.cloud("aws"))
    async with fleet.producer(transport=transport) as relay, relay.inbox("thumbs") as box:
        (result,) = await taken(box, 1)
        await nothing_comes(box, 0.2)
        await result.ack()  # by the first delivery, which counts for the later ones
    async with fleet.producer() as relay, relay.inbox("thumbs") as box:
        await nothing_comes(box, 0.1)


# --- what is kept out -------------------------------------------------------------------------------

POISON: dict[str, Callable[[Fleet, JobToken], bytes]] = {
    "rubbish": lambda fleet, token: b"rubbish",
    "another job": lambda fleet, token: forge(fleet, token, job=f"{token.session}.{token.n + 1}"),
    "another generation": lambda fleet, token: forge(fleet, token, generation=1),
    "another author": lambda fleet, token: forge(fleet, token, "other", sender="bunny"),
}
DOUBTFUL: dict[str, Callable[[Fleet, JobToken], bytes]] = {
    "another producer": lambda fleet, token: forge(fleet, token, "other"),
    "itself": lambda fleet, token: forge(fleet, token, "relay"),
}


async def standing(fleet: Fleet, make: Callable[[Fleet, JobToken], bytes]) -> None:
    """Something stands where a result should, and a true one after it."""
    (token,) = await submitted(fleet, 1)
    job = JobToken.parse(token)
    async with fleet.transport("bunny") as there:
        await there.publish(RESULTS, subjects.result(job.key), make(fleet, job))
    async with fleet.producer() as relay:
        await relay.submit("thumbs", "resize", 7)
    async with fleet.working(echoing()):
        await until(lambda: len(fleet.held("aws", RESULTS)) == 2)


@pytest.mark.parametrize("name", POISON)
async def test_what_can_never_verify_is_put_out_and_holds_nobody_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "PARK_S", 0.001)
    fleet = fleet_with()
    await standing(fleet, POISON[name])
    async with fleet.producer() as relay:
        async with relay.inbox("thumbs", prefetch=1) as box:
            (result,) = await taken(box, 1)
            assert (result.value(), box.refused) == (7, 1)
            await result.ack()
        async with relay.inbox("thumbs") as box:
            await nothing_comes(box)
            assert box.refused == 0
    assert len(fleet.held("aws", RESULTS)) == 2  # it stands for whoever looks into it


@pytest.mark.parametrize("name", DOUBTFUL)
async def test_what_a_newer_bundle_may_take_comes_again_for_a_while(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "PARK_S", 0.05)
    monkeypatch.setattr(inbox, "PARKED_DELIVERIES", 4)
    fleet = fleet_with()
    await standing(fleet, DOUBTFUL[name])
    async with fleet.producer() as relay, relay.inbox("thumbs", prefetch=1) as box:
        (result,) = await taken(box, 1)
        assert result.value() == 7
        await result.ack()
        waiting = asyncio.create_task(anext(box))
        await until(lambda: box.refused == 4)
        await asyncio.wait([waiting], timeout=0.2)  # in which a fifth would have come
        assert (box.refused, waiting.done()) == (4, False)
        waiting.cancel()


async def test_a_bundle_that_expires_is_told_and_what_is_held_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = fleet_with()
    await answered(fleet, 1)
    async with fleet.producer() as relay, relay.inbox("thumbs") as box:
        with monkeypatch.context() as later:
            later.setattr(inbox, "now_ms", lambda: fleet.trust.expires_ms + 1)
            for _ in range(2):
                with pytest.raises(BundleExpired):
                    await taken(box, 1)
        (result,) = await taken(box, 1)
        assert (result.value(), result.delivered) == (0, 1)
