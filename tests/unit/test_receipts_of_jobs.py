"""What receipts say of jobs that do not go the usual way: each is whole, or named for what it lacks."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import journal, subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.crypto import KemPublicKey
from bridge.envelope import Draft
from bridge.errors import (
    DeadlineExceeded,
    FencePoisoned,
    JobCancelled,
    JobFailed,
    KeyConflict,
    PublishTimeout,
    UnknownKey,
)
from bridge.fence import RESEND_HEADER
from bridge.job import CANARY, Kind, Status, encode
from bridge.keyring import Keyring
from bridge.receipt import Event
from bridge.signals.meter import NO_METER
from bridge.trust import Peer
from consumers import Job, Reject, settle
from producers.terms import Terms
from tests.fleet import Fleet, policy, until
from tests.unit.test_ledger import counting, wipe
from tests.unit.test_receipts import MIB, account, events, fleet, working
from tests.unit.test_replays import letters, operating, worker_of
from tests.world import SESSION


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here waits for a page to fill."""
    monkeypatch.setattr(journal, "LINGER_S", 0.01)


def finished(of: Fleet) -> list[list[str]]:
    """Of each run, what its deliveries came to."""
    return [[outcome for event, outcome in run if event == "finished"] for run in events(account(of))]


def told(of: Fleet) -> list[str]:
    """What is missing or wrong, without whose it is."""
    found = account(of)
    return [line.rpartition(": ")[2] for line in (*found.problems, *found.unended)]


async def empty(of: Fleet) -> None:
    await until(lambda: not of.held("aws", "JOBS_thumbs"))


async def test_what_expires_or_is_cancelled_ends_without_having_been_accepted() -> None:
    bridge = fleet()
    async with bridge.producer() as relay:
        late = await relay.submit("thumbs", "resize", "late", deadline=0.001)
        unwanted = await relay.submit("thumbs", "resize", "no")
        await unwanted.cancel("changed my mind")
        async with bridge.working(working()):
            with pytest.raises(DeadlineExceeded):
                await late.result()
            with pytest.raises(JobCancelled):
                await unwanted.result()
            await empty(bridge)
    assert told(bridge) == []
    assert [[event for event, _ in run] for run in events(account(bridge))] == [
        ["submitted", "finished", "received"]
    ] * 2
    assert finished(bridge) == [["expired"], ["cancelled"]]


async def test_a_replay_is_a_run_of_its_own_that_was_submitted_once() -> None:
    bridge, calls = fleet(), list[int]()

    async def second_time(args: Any, job: Job) -> str:  # noqa: ANN401
        calls.append(job.generation)
        if not job.generation:
            raise Reject("not yet")
        return "done"

    async with bridge.producer() as relay, bridge.working(worker_of(second_time)):
        job = await relay.submit("thumbs", "resize", "a")
        with pytest.raises(JobFailed):
            await job.result()
        async with operating(bridge) as boss:
            (letter,) = await letters(boss)
            token = await boss.replay(letter)
        again = await relay.attach(token)
        assert await again.result() == "done"
    assert calls == [0, 1]
    assert told(bridge) == []
    assert sorted(finished(bridge)) == [["failed"], ["succeeded"]]
    assert {run.id.generation for run in account(bridge).runs.values()} == {0, 1}


async def test_a_keyed_job_that_is_submitted_again_is_whole_each_time() -> None:
    bridge = fleet()
    async with bridge.working(working()), bridge.producer() as relay:
        first = await relay.submit("thumbs", "resize", "a", key="order-1")
        assert await first.result() == "a"
        await empty(bridge)
        async with bridge.producer() as other:
            again = await other.submit("thumbs", "resize", "a", key="order-1")
            assert await again.result() == "a"
            with pytest.raises(KeyConflict):
                await other.submit("thumbs", "resize", "b", key="order-1")
    assert told(bridge) == []
    assert finished(bridge) == [["succeeded"]]
    (run,) = account(bridge).runs.values()
    assert len(run.of(Event.RECEIVED)) == 2  # both had it


async def test_an_inbox_receives_what_a_process_submitted_that_has_ended() -> None:
    bridge = Fleet.make(policy(receipts_bytes=MIB, inbox=("relay",)))
    async with bridge.producer() as relay:
        await relay.submit("thumbs", "resize", "a")
    async with bridge.working(working()):
        await empty(bridge)
    assert told(bridge) == ["finished, and not received"]
    async with bridge.producer() as daemon, daemon.inbox("thumbs") as inbox:
        result = await anext(inbox)
        assert result.value() == "a"
        await result.ack()
    assert told(bridge) == []


async def test_a_handle_that_was_dropped_receives_all_the_same() -> None:
    bridge = fleet()
    async with bridge.producer() as relay:
        await relay.submit("thumbs", "resize", "a")  # and nobody asks for its result
        async with bridge.working(working()):
            await until(lambda: not len(relay._copies))
    assert told(bridge) == []


async def test_what_a_ledger_publishes_again_names_the_same_result(tmp_path: Path) -> None:
    bridge = fleet()
    worker, calls = counting(tmp_path)
    async with bridge.transport("relay") as broker, bridge.producer() as relay, bridge.working(worker):
        job = await relay.submit("thumbs", "resize", 1)
        (message,) = bridge.held("aws", "JOBS_thumbs")
        assert await job.result() == 2
        await empty(bridge)
        await broker.publish("JOBS_thumbs", message.subject, message.data)  # a broker's replay: it stands
        await empty(bridge)
        wipe(bridge, "RESULTS_thumbs")
        await broker.publish("JOBS_thumbs", message.subject, message.data)  # and here it does not any more
        await empty(bridge)
    assert calls == [1]
    assert told(bridge) == []
    assert finished(bridge) == [["succeeded", "answered", "repeated"]]


async def test_a_forgery_that_stands_is_never_whole() -> None:
    bridge = fleet()
    async with bridge.transport("bunny") as pool, bridge.producer() as relay:
        job = await relay.submit("thumbs", "resize", "a")
        (message,) = bridge.held("aws", "JOBS_thumbs")
        forged = message.subject.replace("jobs.thumbs.normal", "results.thumbs") + ".0"
        await pool.publish("RESULTS_thumbs", forged, b"rubbish")
        async with bridge.working(working()):
            with pytest.raises(FencePoisoned):
                await job.result()
            await empty(bridge)
    assert finished(bridge) == [["poisoned"]]
    assert told(bridge) == ["a result stands that nobody may have signed"]


async def test_what_is_refused_leaves_no_receipt() -> None:
    bridge = fleet()
    async with bridge.transport("relay") as broker, bridge.producer() as relay:
        job = await relay.submit("thumbs", "resize", "a")
        (message,) = bridge.held("aws", "JOBS_thumbs")
        await broker.publish("JOBS_thumbs", f"jobs.thumbs.high.relay.{job.key.session}.7", message.data)
        async with bridge.working(working()):
            assert await job.result() == "a"
            await until(lambda: bool(bridge.held("azure", "REFUSED_thumbs")))
    assert told(bridge) == []
    assert len(account(bridge).runs) == 1


async def test_a_job_that_runs_again_after_a_lost_ack_is_answered_by_what_stands() -> None:
    bridge = fleet()
    async with bridge.transport("relay") as broker, bridge.producer() as relay:
        job = await relay.submit("thumbs", "resize", "a")
        (message,) = bridge.held("aws", "JOBS_thumbs")
        async with bridge.working(working()):
            assert await job.result() == "a"
            await empty(bridge)
        await broker.publish("JOBS_thumbs", message.subject, message.data, {RESEND_HEADER: "1"})
        async with bridge.working(working()):
            await empty(bridge)
    assert told(bridge) == []
    assert finished(bridge) == [["succeeded", "answered"]]


@pytest.mark.parametrize("how", ["answered", "conflict"])
async def test_a_worker_whose_result_came_second_says_what_stands(how: str) -> None:
    bridge = fleet()
    async with bridge.transport("bunny") as pool, bridge.producer() as relay:

        async def beaten(args: str, job: Job) -> str:
            about: dict[str, Any] = {"attempt": 1, "worker": "other", "job_digest": opened.digest, "priority": ""}
            tag = bytes(32) if how == "conflict" else opened.core.args_tag  # the other one had other arguments
            core = replace(opened.core, type="result", sender="bunny", recipient="relay", args_tag=tag, **about)
            draft = Draft(core, (bridge.trust.peer("relay").kem_key(now_ms()),), encode("first"), Status.SUCCEEDED)
            sealed = bridge.sealer("bunny").seal(draft, now_ms())
            await pool.publish("RESULTS_thumbs", subjects.result(core.key), sealed.data)
            return "second"

        job = await relay.submit("thumbs", "resize", "a", key="order-1")
        opened = bridge.opener("bunny").authenticate(bridge.held("aws", "JOBS_thumbs")[0].data, now_ms())
        async with bridge.working(worker_of(beaten)):
            with pytest.raises(KeyConflict) if how == "conflict" else contextlib.nullcontext():
                assert await job.result() == "first"
            await empty(bridge)
    assert finished(bridge) == [[how]]
    # Of the one that was first there is no receipt; a key that was used for something else ends without a result.
    assert told(bridge) == (["answered, and nobody says that it finished it so"] if how == "answered" else [])


async def test_a_keyed_job_whose_puback_got_lost_was_submitted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge, lost = fleet(), list[str]()
    async with bridge.transport("relay") as inner:
        publish = inner.publish

        async def once_unheard(stream: str, subject: str, *more: Any, **named: Any) -> Any:  # noqa: ANN401
            answer = await publish(stream, subject, *more, **named)
            if stream == "JOBS_thumbs" and not lost:
                lost.append(subject)
                raise PublishTimeout(subject)
            return answer

        monkeypatch.setattr(inner, "publish", once_unheard)
        async with bridge.producer("relay", inner) as relay, bridge.working(working()):
            job = await relay.submit("thumbs", "resize", "a", key="order-1")
            assert await job.result() == "a"
            await empty(bridge)
    assert lost
    assert told(bridge) == []


async def test_what_a_process_before_did_not_get_to_send_is_submitted_by_the_one_that_does() -> None:
    bridge, kind = fleet(), Kind("thumbs", "resize", object, object)
    async with bridge.producer() as relay, bridge.working(working()):
        await relay._arrivals.listen("thumbs", relay._outbox.session)
        parcel = await relay._outbox.seal_one(kind, encode("a"), Terms())
        await relay._copies.keep(parcel.sealed)  # as an outbox on disk does, before anything is sent
        copy = relay._copies.get(parcel.sealed.core.key)
        assert copy is not None
        await relay._outbox.send_again(copy)
        await until(lambda: not len(relay._copies))
    assert told(bridge) == []


async def test_what_may_not_start_yet_leaves_no_receipt_until_it_does() -> None:
    bridge = fleet()
    async with bridge.working(working()), bridge.producer() as relay:
        assert await (await relay.submit("thumbs", "resize", "a", delay=0.2)).result() == "a"
    assert finished(bridge) == [["succeeded"]]
    assert told(bridge) == []


async def test_a_job_that_cannot_be_answered_for_now_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "LONGEST_PAUSE_S", 0.01)
    bridge, tries = fleet(), list[int]()
    key = Peer.kem_key

    def none_at_first(self: Peer, now: int) -> KemPublicKey:
        if self.name == "relay" and len(tries) < 1:
            tries.append(1)
            raise UnknownKey("not yet")
        return key(self, now)

    monkeypatch.setattr(Peer, "kem_key", none_at_first)
    async with bridge.working(working()), bridge.producer() as relay:
        assert await (await relay.submit("thumbs", "resize", "a")).result() == "a"
    assert finished(bridge) == [["parked", "succeeded"]]
    assert told(bridge) == []


async def test_canaries_leave_none() -> None:
    bridge = fleet()
    about = Core("job", "thumbs", CANARY, f"{SESSION}.1", 0, "relay", b"", "bunny", 1, 2)
    async with bridge.transport("relay") as transport:
        kept = journal.Journal(Keyring(bridge.identities["relay"]), bridge.connection("relay"), transport, NO_METER)
        kept.submitted(about, bytes(32))
        kept.accepted(about, bytes(32), 1)
        kept.finished(about, bytes(32), 1, "succeeded", bytes(32))
        await kept.close()
    assert not bridge.held("aws", "RECEIPTS_thumbs")


async def test_an_end_does_not_wait_for_a_broker_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "CLOSE_S", 0.05)
    bridge = fleet()
    async with bridge.transport("relay") as inner:
        publish = inner.publish

        async def away(stream: str, *more: Any, **named: Any) -> Any:  # noqa: ANN401
            if stream.startswith("RECEIPTS"):
                await asyncio.sleep(0)
                raise PublishTimeout(stream)
            return await publish(stream, *more, **named)

        monkeypatch.setattr(inner, "publish", away)
        async with asyncio.timeout(30), bridge.producer("relay", inner) as relay:
            await relay.submit("thumbs", "resize", "a")
    assert not bridge.held("aws", "RECEIPTS_thumbs")


async def test_a_process_that_has_done_nothing_opens_no_chain() -> None:
    bridge = fleet()
    async with bridge.producer(), bridge.working(working()):
        pass
    assert account(bridge).chains == {}
