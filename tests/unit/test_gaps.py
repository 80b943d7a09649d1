"""What a producer does about jobs that a broker lost: noticed, sent again, done once; and what it leaves alone."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from bridge import subjects
from bridge.errors import JobFailed, OutcomeUnknown, QueueFull
from bridge.fence import RESEND_HEADER
from bridge.job import JobToken
from bridge.memory import MemoryTransport
from bridge.memory.store import Stream
from bridge.signals import Signals
from bridge.signals.bind import new_meter
from bridge.signals.meter import Meter
from bridge.transport import Message
from consumers import Worker
from producers import Producer, gaps
from producers.copies import Copies
from producers.sequences import Mark, Sequences
from tests.fleet import Fleet, policy, until
from tests.unit.test_producer import Deaf, forge
from tests.unit.test_signals import parse

JOB = '{kind="resize",queue="thumbs"}'


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is waited for is short, and what is counted stays."""
    for name in ("FIRST_LOOK_S", "LOOK_AGAIN_S", "SWEEP_S", "HURRY_S"):
        monkeypatch.setattr(gaps, name, 0.01)


@pytest.fixture
def logs() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as events:
        yield events  # type: ignore[misc]


def counting() -> tuple[Worker, list[int]]:
    worker, calls = Worker(), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        calls.append(args)
        return args

    return worker, calls


def producing(fleet: Fleet, meter: Meter, copies: Copies | None = None, name: str = "relay") -> Producer:
    """A producer whose metrics or outbox are looked at; use it as ``async with``."""
    transport, signals = fleet.transport(name), Signals(meter)
    return Producer(fleet.identities[name], fleet.trust, fleet.connection(name), transport, signals, copies)


def jobs(fleet: Fleet, stream: str = "JOBS_thumbs") -> Stream:
    return fleet.bridge.stream("aws", stream)


def purge(stream: Stream) -> None:
    for message in list(stream.after(0)):
        stream.remove(message.sequence)


def told(logs: list[dict[str, object]], event: str) -> list[dict[str, object]]:
    return [each for each in logs if each["event"] == event]


async def test_what_is_deleted_is_missed_and_sent_again_byte_for_byte(logs: list[dict[str, object]]) -> None:
    fleet, (worker, calls), meter = Fleet.make(policy()), counting(), new_meter()
    async with producing(fleet, meter) as relay:
        handle = await relay.submit("thumbs", "resize", 7)
        (before,) = fleet.held("aws", "JOBS_thumbs")
        purge(jobs(fleet))
        await until(lambda: bool(fleet.held("aws", "JOBS_thumbs")))
        (after,) = fleet.held("aws", "JOBS_thumbs")
        assert (after.subject, after.data) == (before.subject, before.data)
        assert after.headers == {**before.headers, RESEND_HEADER: "1", "Nats-Msg-Id": after.headers["Nats-Msg-Id"]}
        async with fleet.working(worker):
            assert await handle.result() == 7
        await until(lambda: bool(told(logs, "job_missing")))
        shown = parse(meter.text().decode())
    assert calls == [7]
    assert told(logs, "job_missing") == [
        {"event": "job_missing", "log_level": "error", "queue": "thumbs", "job": handle.id, "count": 1}
    ]
    assert shown[f"bunny_producer_jobs_missing_total{JOB}"] == shown[f"bunny_producer_jobs_resent_total{JOB}"] == 1
    assert shown["bunny_producer_jobs_kept"] == shown["bunny_producer_kept_bytes"] == 0


@pytest.mark.parametrize("parts", ["kept", "lost"])
async def test_a_job_in_parts_is_sent_again_and_says_by_name_that_they_are_lost(
    parts: str, logs: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.transfer.incoming.MISSING_S", 0.1)
    data = bytes(300_000)
    fleet, worker = Fleet.make(policy(max_payload=1 << 20, payload_bytes=8 << 20)), Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: bytes) -> int:
        return len(args)

    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", data)
        keyed = await relay.submit("thumbs", "resize", data, key="k")
        for stream in ["JOBS_thumbs"] + ["PARTS_thumbs"] * (parts == "lost"):
            purge(jobs(fleet, stream))
        await until(lambda: len(fleet.held("aws", "JOBS_thumbs")) == 2)
        assert len(told(logs, "job_sent_again_without_parts")) >= 2
        async with fleet.working(worker):
            if parts == "kept":
                assert await handle.result() == await keyed.result() == len(data)
                return
            for job in (handle, keyed):
                with pytest.raises(JobFailed, match="PartMissing"):
                    await job.result()
            again = await relay.submit("thumbs", "resize", data, key="k", retry_failed=True)  # with parts of its own
            assert await again.result() == len(data)


async def test_of_many_that_vanish_each_is_done_once_whether_or_not_somebody_waits(
    logs: list[dict[str, object]],
) -> None:
    fleet, (worker, calls) = Fleet.make(policy()), counting()
    async with fleet.producer() as relay:
        handles = [await relay.submit("thumbs", "resize", n) for n in range(100)]
        del handles[::2]
        gc.collect()
        purge(jobs(fleet))
        await until(lambda: len(fleet.held("aws", "JOBS_thumbs")) == 100)
        async with fleet.working(worker):
            assert [await handle.result() for handle in handles] == list(range(1, 100, 2))
            await until(lambda: len(relay._copies) == 0)
    assert sorted(calls) == list(range(100))
    assert sum(each["count"] for each in told(logs, "job_missing")) == 100  # type: ignore[misc]
    assert len(told(logs, "job_missing")) < 20, "one line for many"


async def test_what_waits_or_is_delayed_or_done_is_left_alone(logs: list[dict[str, object]]) -> None:
    fleet, (worker, calls) = Fleet.make(policy()), counting()
    looked: list[str] = []

    class Watching(MemoryTransport):
        async def lookup(
            self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
        ) -> Message | None:
            looked.append(subject)
            return await super().lookup(stream, subject, cloud=cloud, timeout=timeout)

    async with fleet.producer(transport=Watching(fleet.bridge, fleet.bridge.cloud("aws"))) as relay:
        done = await relay.submit("thumbs", "resize", 0)
        async with fleet.working(worker):
            assert await done.result() == 0
        waiting = await relay.submit("thumbs", "resize", 1, priority="low")
        later = await relay.submit("thumbs", "resize", 2, delay=60)
        keyed = await relay.submit("thumbs", "resize", 3, key="order-1")
        looked.clear()
        places = {
            subjects.job(waiting.key, "low"),
            subjects.delayed(later.key),
            subjects.job(keyed.key, "normal"),
        }
        await until(lambda: all(looked.count(place) > 5 for place in places))
        assert subjects.job(done.key, "normal") not in looked
    assert not [m for m in fleet.held("aws", "JOBS_thumbs") if RESEND_HEADER in m.headers]
    assert calls == [0]
    assert not told(logs, "job_missing")


async def test_what_is_done_while_the_link_is_away_is_sent_again_once_and_runs_no_second_time(
    monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, object]]
) -> None:
    """The ack has crossed and the result has not: to the producer it is as if the job were lost."""
    monkeypatch.setattr(gaps, "RESEND_S", 30.0)
    fleet, (worker, calls) = Fleet.make(policy()), counting()
    async with fleet.producer() as relay, fleet.working(worker):
        # The copy home is what stops; pulls and acks go on.
        monkeypatch.setattr(fleet.bridge, "_copy", lambda: None)
        handle = await relay.submit("thumbs", "resize", 1)
        await until(lambda: bool(told(logs, "job_missing")))
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
        for _ in range(20):
            await asyncio.sleep(0.01)  # nothing tells that nothing happens: several sweeps
        assert len(told(logs, "job_answered_before")) == 1
        monkeypatch.undo()  # the times too: nothing more is looked for
        fleet.bridge.link_up = True
        assert await handle.result() == 1
    assert calls == [1]


async def test_what_is_too_late_is_not_sent_again_and_nothing_is_known_of_it(
    monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, object]]
) -> None:
    monkeypatch.setattr("producers.handle.GRACE_S", 0.2)
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        monkeypatch.setattr(gaps, "LOOK_AGAIN_S", 0.5)
        handle = await relay.submit("thumbs", "resize", 1, deadline=0.2)
        purge(jobs(fleet))
        with pytest.raises(OutcomeUnknown):
            await handle.result()
        await until(lambda: len(relay._copies) == 0)
    assert not fleet.held("aws", "JOBS_thumbs")
    assert not told(logs, "job_missing")


async def test_a_result_that_vanishes_at_home_stays_unknown_and_runs_nothing_again(
    monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, object]]
) -> None:
    """What no re-send can mend: the result stands in the workers' cloud, and is copied home once."""
    monkeypatch.setattr(gaps, "RESEND_S", 0.01)
    fleet, (worker, calls) = Fleet.make(policy()), counting()
    async with fleet.producer(transport=Deaf(fleet.bridge, fleet.bridge.cloud("aws"))) as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        home = fleet.bridge.stream("aws", "RESULTS_thumbs")
        monkeypatch.setattr(home, "last_of", lambda *_: None)
        async with fleet.working(worker):
            await until(lambda: len(told(logs, "job_answered_before")) >= 2)
            with pytest.raises(OutcomeUnknown):
                await handle.result(timeout=0)
    assert calls == [1]
    assert len(told(logs, "job_missing")) == 1, "an alarm once"
    assert told(logs, "job_still_missing")


async def test_a_stream_that_goes_back_is_told_at_once_and_what_it_held_is_stored_again(
    monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, object]]
) -> None:
    monkeypatch.setattr(gaps, "FIRST_LOOK_S", 1000.0)
    fleet, (worker, calls) = Fleet.make(policy()), counting()
    async with fleet.producer() as relay:
        handles = [await relay.submit("thumbs", "resize", n) for n in range(10)]
        for sequence in range(4, 11):
            jobs(fleet).remove(sequence)
        jobs(fleet)._last = 3
        handles.append(await relay.submit("thumbs", "resize", 10))
        assert told(logs, "stream_rolled_back") == [
            {"event": "stream_rolled_back", "log_level": "error", "queue": "thumbs", "stream": "JOBS_thumbs"}
        ]
        await until(lambda: len(fleet.held("aws", "JOBS_thumbs")) == 11)
        async with fleet.working(worker):
            assert [await handle.result() for handle in handles] == list(range(11))
    assert sorted(calls) == list(range(11))
    assert len(told(logs, "stream_rolled_back")) == 1
    assert [each["count"] for each in told(logs, "job_missing")] == [7]


def test_sequences_go_back_only_where_one_that_was_sent_later_is_lower() -> None:
    seen = Sequences()
    first, second = seen.before("JOBS_a"), seen.before("JOBS_a")
    assert not seen.went_back("JOBS_a", 7, first)
    assert not seen.went_back("JOBS_a", 6, second), "PubAcks overtake each other"
    assert seen.before("JOBS_a") == Mark(7, 0)
    sent, late = seen.before("JOBS_a"), seen.before("JOBS_a")
    assert seen.went_back("JOBS_a", 7, sent)
    assert not seen.went_back("JOBS_a", 8, late), "told once"
    assert not seen.went_back("JOBS_a", 8, seen.before("JOBS_a"))
    assert not seen.went_back("JOBS_b", 1, seen.before("JOBS_b")), "each stream counts for itself"


async def test_what_does_not_fit_in_memory_is_sent_and_not_kept(logs: list[dict[str, object]]) -> None:
    fleet, meter = Fleet.make(policy()), new_meter()
    async with producing(fleet, meter, Copies(meter, most=2)) as relay:
        handles = [await relay.submit("thumbs", "resize", n) for n in range(4)]
        assert len(fleet.held("aws", "JOBS_thumbs")) == 4
        shown = parse(meter.text().decode())
        purge(jobs(fleet))
        await until(lambda: len(fleet.held("aws", "JOBS_thumbs")) == 2)
    assert shown[f"bunny_producer_jobs_not_kept_total{JOB}"] == shown["bunny_producer_jobs_kept"] == 2
    assert shown["bunny_producer_kept_bytes"] > 2 * 1168
    assert {m.subject for m in fleet.held("aws", "JOBS_thumbs")} == {
        subjects.job(handle.key, "normal") for handle in handles[:2]
    }
    assert len(told(logs, "outbox_full")) == 1


async def test_what_is_answered_holds_no_memory_while_it_would_be_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gaps, "LOOK_AGAIN_S", 1000.0)
    fleet, (worker, _) = Fleet.make(policy()), counting()
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        sent = fleet.held("aws", "JOBS_thumbs")
        purge(jobs(fleet))
        await until(lambda: len(relay._gaps._doubted) == 1)
        async with fleet.transport("relay") as broker, fleet.working(worker):
            await broker.publish("JOBS_thumbs", sent[0].subject, sent[0].data)
            assert await handle.result() == 1
        ((_, _, copy),) = relay._gaps._doubted
        assert copy.data == b""


async def test_what_a_submit_raised_is_not_sent_later() -> None:
    fleet = Fleet.make(policy(max_pending=1))
    async with fleet.producer() as relay:
        await relay.submit("thumbs", "resize", 1)
        with pytest.raises(QueueFull):
            await relay.submit("thumbs", "resize", 2)
        assert len(relay._copies) == 1


async def test_a_key_that_is_kept_is_sent_again_and_no_second_job(logs: list[dict[str, object]]) -> None:
    fleet, (worker, calls) = Fleet.make(policy()), counting()
    async with fleet.producer() as relay:
        token: JobToken = (await relay.submit("thumbs", "resize", 1, key="order-1")).token
        gc.collect()
        purge(jobs(fleet))
        handle = await relay.submit("thumbs", "resize", 1, key="order-1")
        assert handle.token == token
        assert len(fleet.held("aws", "JOBS_thumbs")) == 1
        async with fleet.working(worker):
            assert await handle.result() == 1
        assert calls == [1]


async def test_a_forged_answer_does_not_end_the_care_for_a_job_that_nobody_waits_for(
    logs: list[dict[str, object]],
) -> None:
    fleet, (worker, calls) = Fleet.make(policy()), counting()
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        token = handle.token
        del handle
        gc.collect()
        purge(jobs(fleet))
        fleet.bridge.cloud("aws").tell(Message(subjects.done(token.key), forge(fleet, token, "other")))
        await until(lambda: bool(told(logs, "result_ignored")))
        await until(lambda: len(fleet.held("aws", "JOBS_thumbs")) == 1)
        async with fleet.working(worker):
            await until(lambda: len(relay._copies) == 0)
    assert calls == [1]


async def test_what_cannot_be_sent_again_now_is_sent_when_there_is_room(logs: list[dict[str, object]]) -> None:
    fleet, (worker, calls) = Fleet.make(policy(max_pending=1)), counting()
    async with fleet.producer() as relay, fleet.producer("other") as other:
        lost = await relay.submit("thumbs", "resize", 1)
        purge(jobs(fleet))
        await other.submit("thumbs", "resize", 2)
        await until(lambda: bool(told(logs, "resend_failed")))
        async with fleet.working(worker):
            assert await lost.result() == 1
    assert sorted(calls) == [1, 2]
    assert len(told(logs, "job_missing")) == 1
