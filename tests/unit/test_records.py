"""Records that a handler yields: what comes out is what was yielded, in order and once, whatever happens between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from bridge import segments
from bridge.clock import now_ms
from bridge.errors import (
    BadFrame,
    ConfigurationError,
    InvalidArguments,
    JobCancelled,
    JobFailed,
    OutcomeUnknown,
    StreamRestarted,
    UsageError,
)
from bridge.job import INLINE_LIMIT, Content, Kind
from bridge.rotation.leftover import left
from bridge.segments import MAX_RECORD, MAX_RECORDS, Chain, Position
from consumers import Job, Reject, Retry, Snooze, Worker, streaming
from producers import Producer, Records
from tests.fleet import Fleet, policy, until
from tests.segments import forged, place

MIB = 1024 * 1024
PARTS = "PARTS_thumbs"


@dataclass
class Row:
    n: int


ROWS = Kind("thumbs", "resize", args=int, result=Row)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "TROUBLE_DELAY_S", 0.01)
    monkeypatch.setattr(streaming, "FLUSH_S", 0.01)


def fleet(**settings: Any) -> Fleet:  # noqa: ANN401  fields of Queue
    return Fleet.make(policy(**{"max_payload": 4 * MIB, "payload_bytes": 16 * MIB, **settings}))


async def take(records: Records[Any], into: list[Any]) -> None:
    async for record in records:
        into.append(record)


async def numbers(relay: Producer, args: int = 10) -> list[int]:
    job = await relay.submit(ROWS, args)
    return [row.n async for row in job.records()]


def stored(rig: Fleet) -> list[str]:
    return [message.subject.partition(".segments.")[2] for message in rig.held("azure", PARTS)]


async def test_in_order_each_once() -> None:
    rig, worker = fleet(), Worker()

    @worker.handler(ROWS)
    async def count(args: int) -> AsyncIterator[Row]:
        for n in range(args):
            yield Row(n)

    async with rig.producer() as relay, rig.working(worker):
        for args in (0, 1, 10, 2 * MAX_RECORDS + 1):
            assert await numbers(relay, args) == list(range(args))


async def test_as_they_are_made() -> None:
    rig, worker, seen = fleet(), Worker(), asyncio.Event()

    @worker.handler(ROWS)
    async def count(args: int) -> AsyncIterator[Row]:
        for n in range(args):
            yield Row(n)
            await seen.wait()
            seen.clear()

    async with rig.producer() as relay, rig.working(worker):
        job, got = await relay.submit(ROWS, 5), []
        async for row in job.records():
            assert not job.done()
            got.append(row.n)
            seen.set()
        assert got == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "values",
    [
        [b"bytes", b"", bytes(MAX_RECORD)],
        [{"a": 1}, [1, 2], None, "text", 1.5],
        [Content("text/csv", b"1,2"), Content("text/csv", b""), b"other", {"a": 1}, Content("text/csv", b"3,4")],
        [bytes(100_000)] * 7,
    ],
    ids=["bytes", "json", "mixed", "large"],
)
async def test_whatever_they_are(values: list[object]) -> None:
    rig, worker = fleet(), Worker()

    @worker.handler("thumbs", "resize")
    async def give(_: int) -> AsyncIterator[object]:
        for value in values:
            yield value

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit("thumbs", "resize", 1)
        assert [record async for record in job.records()] == values


async def test_a_segment_holds_no_more_than_it_may() -> None:
    rig, worker = fleet(), Worker()

    @worker.handler("thumbs", "resize")
    async def give(_: int) -> AsyncIterator[bytes]:
        for _ in range(MAX_RECORDS + 1):
            yield b"x"
        for _ in range(3):
            yield bytes(INLINE_LIMIT // 2)

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit("thumbs", "resize", 1)
        assert len([record async for record in job.records(bytes)]) == MAX_RECORDS + 4
    sealed, opener = rig.held("azure", PARTS), rig.opener("relay")
    for message in sealed:
        opened = opener.open(opener.authenticate(message.data, now_ms()))
        assert len(segments.unpack(opened.content.body)) <= MAX_RECORDS
        assert len(opened.content.body) <= INLINE_LIMIT


async def test_a_record_waits_for_others_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, worker, end = fleet(), Worker(), asyncio.Event()
    monkeypatch.setattr(streaming, "FLUSH_S", 60.0)

    @worker.handler(ROWS)
    async def count(args: int) -> AsyncIterator[Row]:
        for n in range(args):
            yield Row(n)
        await end.wait()

    async with rig.producer() as relay, rig.working(worker):
        await relay.submit(ROWS, 5)
        job = await relay.submit(ROWS, MAX_RECORDS + 5)
        records = job.records()
        assert [(await anext(records)).n for _ in range(MAX_RECORDS)] == list(range(MAX_RECORDS))
        assert len(stored(rig)) == 1
        end.set()
        assert [row.n async for row in records] == list(range(MAX_RECORDS, MAX_RECORDS + 5))


# --- attempts --------------------------------------------------------------------------------------


def failing(rig_worker: Worker, *, resume: bool, end: Exception) -> list[tuple[int, int]]:
    """A handler of ten rows that fails once, after four of them; what each attempt found."""
    attempts: list[tuple[int, int]] = []

    @rig_worker.handler(ROWS)
    async def count(args: int, job: Job) -> AsyncIterator[Row]:
        attempts.append((job.attempt, job.written))
        for n in range(job.resume() if resume else 0, args):
            if n == 4 and len(attempts) == 1:
                raise end
            yield Row(n)

    return attempts


@pytest.mark.parametrize("end", [OSError("gone"), Retry(after=0), Snooze(after=0)], ids=["error", "retry", "snooze"])
async def test_a_later_attempt_goes_on(end: Exception) -> None:
    rig, worker = fleet(), Worker()
    attempts = failing(worker, resume=True, end=end)
    async with rig.producer() as relay, rig.working(worker):
        assert await numbers(relay) == list(range(10))
    assert attempts == [(1, 0), (1 if isinstance(end, Snooze) else 2, 4)]
    assert {each.rpartition("-")[0] for each in stored(rig)} == {"0-1"}


async def test_a_later_attempt_starts_over_and_the_reader_is_told() -> None:
    rig, worker = fleet(), Worker()
    attempts = failing(worker, resume=False, end=OSError("gone"))
    async with rig.producer() as relay, rig.working(worker):
        job, got = await relay.submit(ROWS, 10), list[Row]()
        with pytest.raises(StreamRestarted, match=job.id):
            await take(job.records(), got)
        assert got == [Row(n) for n in range(4)]
        assert [row.n async for row in job.records()] == list(range(10))
        with pytest.raises(StreamRestarted):  # of what was read before, nothing is gone on after
            await anext(job.records(after=str(Position(1, 1, 4, 28, 4, "00" * 32))))
    assert attempts == [(1, 0), (2, 4)]


async def test_who_reads_after_it_started_over_sees_the_last_run_alone() -> None:
    rig, worker = fleet(), Worker()
    failing(worker, resume=False, end=OSError("gone"))
    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit(ROWS, 10)
        await until(job.done)
        assert [row.n async for row in job.records()] == list(range(10))


async def test_starting_over_without_a_record_is_told_too() -> None:
    rig, worker = fleet(), Worker()

    @worker.handler(ROWS)
    async def count(_: int, job: Job) -> AsyncIterator[Row]:
        if job.attempt == 1:
            yield Row(1)
            raise OSError("gone")

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit(ROWS, 10)
        records = job.records()
        assert (await anext(records)).n == 1
        with pytest.raises(StreamRestarted):
            await anext(records)
        assert [row async for row in job.records()] == []


async def test_starting_over_is_told_of_a_job_that_fails_then_too() -> None:
    rig, worker, given = fleet(max_attempts=2), Worker(), list[Row]()

    @worker.handler(ROWS)
    async def count(_: int, job: Job) -> AsyncIterator[Row]:
        yield Row(job.attempt)
        raise OSError("gone")

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit(ROWS, 10)
        records = job.records()
        assert await anext(records) == Row(1)
        await until(job.done)
        with pytest.raises(StreamRestarted):
            await take(records, given)
        with pytest.raises(JobFailed, match="OSError"):
            await take(job.records(), given)
    assert given == [Row(2)]


async def test_resuming_comes_before_the_first_record() -> None:
    rig, worker = fleet(max_attempts=1), Worker()

    @worker.handler(ROWS)
    async def count(_: int, job: Job) -> AsyncIterator[Row]:
        yield Row(1)
        job.resume()

    async with rig.producer() as relay, rig.working(worker):
        with pytest.raises(JobFailed, match="UsageError"):
            await numbers(relay)


async def test_an_attempt_that_lost_its_job_neither_replaces_nor_doubles_what_another_wrote() -> None:
    rig, worker, go_on = fleet(), Worker(), asyncio.Event()
    found = list[int]()

    @worker.handler(ROWS)
    async def count(args: int, job: Job) -> AsyncIterator[Row]:
        found.append(job.resume())
        for n in range(job.written, args):
            yield Row(n)
            if n == 0:
                await go_on.wait()

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit(ROWS, 10)
        await until(lambda: len(stored(rig)) == 1)
        standing = rig.opener("relay").authenticate(rig.held("azure", PARTS)[0].data, now_ms())
        other = forged(rig, job, Chain.at(standing.core, standing.digest), [b'{"n":1}', b'{"n":2}'], attempt=2)
        await place(rig, job, 1, 1, other.data)
        go_on.set()
        assert [row.n async for row in job.records()] == list(range(10))
    assert found == [0, 3]


async def test_rubbish_in_a_segments_place_is_told_and_no_end_of_the_job() -> None:
    rig, worker, go_on = fleet(), Worker(), asyncio.Event()

    @worker.handler(ROWS)
    async def count(args: int, job: Job) -> AsyncIterator[Row]:
        for n in range(job.resume(), args):
            yield Row(n)
            if n == 0:
                await go_on.wait()

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit(ROWS, 10)
        await until(lambda: len(stored(rig)) == 1)
        await place(rig, job, 1, 1, b"rubbish")
        go_on.set()
        with pytest.raises(BadFrame):
            [row async for row in job.records()]
        await until(job.done)
        assert [row.n async for row in job.records()] == list(range(10))  # of another run


# --- readers ---------------------------------------------------------------------------------------


async def test_a_reader_goes_on_behind_any_record() -> None:
    rig, worker = fleet(), Worker()

    @worker.handler(ROWS)
    async def count(args: int) -> AsyncIterator[Row]:
        for n in range(args):
            yield Row(n)
            if n % 7 == 0:
                await asyncio.sleep(0.02)  # so that there are several segments

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit(ROWS, 30)
        records, places = job.records(), []
        assert records.position == ""
        async for row in records:
            places.append((row.n, records.position))
        assert len(stored(rig)) > 2
        token = str(job.token)
        for n, place in places:
            attached = await relay.attach(token)
            assert [row.n async for row in attached.records(Row, after=place)] == list(range(n + 1, 30))


async def test_several_read_the_same() -> None:
    rig, worker = fleet(), Worker()

    @worker.handler(ROWS)
    async def count(args: int) -> AsyncIterator[Row]:
        for n in range(args):
            yield Row(n)
            await asyncio.sleep(0)

    async def all_of(job: Any) -> list[int]:  # noqa: ANN401  a handle
        return [row.n async for row in job.records()]

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit(ROWS, 3_000)
        assert await asyncio.gather(*(all_of(job) for _ in range(3))) == [list(range(3_000))] * 3


async def test_how_a_stream_ends_when_its_job_does_not_succeed() -> None:
    rig, worker, given = fleet(max_attempts=1), Worker(), list[Row]()

    @worker.handler(ROWS)
    async def count(args: int) -> AsyncIterator[Row]:
        yield Row(args)
        if args == 1:
            raise Reject("no more", type="Enough")
        await asyncio.Event().wait()

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit(ROWS, 1)
        with pytest.raises(JobFailed, match="Enough: no more"):
            await take(job.records(), given)
        job = await relay.submit(ROWS, 2)
        given.append(await anext(records := job.records()))
        await job.cancel()
        with pytest.raises(JobCancelled):
            await take(records, given)
        job = await relay.submit(ROWS, 3)
        given.append(await anext(records := job.records()))
        with pytest.raises(OutcomeUnknown):
            await take(job.records(after=records.position, timeout=0.05), given)
        await job.cancel()
    assert given == [Row(1), Row(2), Row(3)]


async def test_a_stream_is_no_value_and_a_value_no_stream() -> None:
    rig, worker = fleet(), Worker()

    @worker.handler(ROWS)
    async def count(args: int) -> AsyncIterator[Row]:
        yield Row(args)

    @worker.handler("thumbs", "probe")
    async def probe(args: int) -> int:
        return args

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit(ROWS, 1)
        reads: list[Callable[[], Awaitable[object]]] = [
            job.result,
            lambda: job.result(bytes),
            lambda: anext(job.stream()),
        ]
        for read in reads:
            with pytest.raises(UsageError, match="records"):
                await read()
        job = await relay.submit("thumbs", "probe", 1)
        with pytest.raises(UsageError, match="take its result"):
            [row async for row in job.records()]
        assert await job.result(int) == 1
        with pytest.raises(UsageError, match="not a position"):
            job.records(after="1.2.3")


async def test_a_record_that_does_not_fit_its_type() -> None:
    rig, worker = fleet(), Worker()

    @worker.handler("thumbs", "resize")
    async def give(_: int) -> AsyncIterator[object]:
        yield {"n": "not a number"}

    async with rig.producer() as relay, rig.working(worker):
        with pytest.raises(InvalidArguments, match="Row"):
            await anext((await relay.submit(ROWS, 1)).records())


async def test_records_of_a_keyed_job_that_another_process_submitted() -> None:
    rig, worker, begun = fleet(), Worker(), asyncio.Event()

    @worker.handler(ROWS)
    async def count(args: int) -> AsyncIterator[Row]:
        yield Row(0)
        await begun.wait()
        yield Row(args)

    async with rig.producer() as relay, rig.producer() as other:
        first = await relay.submit(ROWS, 7, key="order-7")
        again = await other.submit(ROWS, 7, key="order-7")
        async with rig.working(worker):
            records = again.records()
            assert (await anext(records)).n == 0
            begun.set()
            assert [row.n async for row in records] == [7]
            assert [row.n async for row in first.records()] == [0, 7]


async def test_keys_that_segments_need_are_seen_to_be_needed() -> None:
    rig, worker = fleet(), Worker()

    @worker.handler(ROWS)
    async def count(args: int) -> AsyncIterator[Row]:
        yield Row(args)
        await asyncio.Event().wait()

    async with rig.producer() as relay, rig.working(worker):
        await anext((await relay.submit(ROWS, 1)).records())
        signed, sealed = rig.identities["bunny"].sign[-1].kid, rig.identities["relay"].kem[-1].kid
        async with rig.transport("ops") as inspector:
            found = await left(inspector, rig.policy, "azure", [signed, sealed, rig.identities["other"].kem[-1].kid])
    assert {kid: each.stream for kid, each in found.items()} == {signed: PARTS, sealed: PARTS}


# --- bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ([bytes(MAX_RECORD + 1)], "PayloadTooLarge"),
        ([bytes(200_000)] * 22, "PayloadTooLarge"),
        ([1, float("nan")], "InvalidResult"),
    ],
    ids=["one", "all", "no-json"],
)
async def test_what_cannot_be_a_record(values: list[object], type_: str) -> None:
    rig, worker, closed = fleet(), Worker(), list[bool]()

    @worker.handler("thumbs", "resize")
    async def give(_: int) -> AsyncIterator[object]:
        try:
            for value in values:
                yield value
        finally:
            closed.append(True)

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit("thumbs", "resize", 1)
        with pytest.raises(JobFailed) as failure:
            await take(job.records(), [])
    assert (failure.value.type, closed) == (type_, [True])


async def test_a_reader_that_is_away_holds_nothing_up_and_a_full_queue_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "FULL_PAUSE_S", 0.01)
    rig, worker, yielded = fleet(payload_bytes=4_300_000 + MIB), Worker(concurrency=1), dict[int, int]()

    @worker.handler("thumbs", "resize")
    async def give(args: int) -> AsyncIterator[bytes]:
        for _ in range(15):
            yield bytes(MAX_RECORD)
            yielded[args] = yielded.get(args, 0) + 1

    @worker.handler("thumbs", "probe")
    async def probe(args: int) -> int:
        return args

    async with rig.producer() as relay, rig.working(worker):
        await (first := await relay.submit("thumbs", "resize", 1))._wait(None)  # nobody reads
        assert (first.succeeded(), yielded) == (True, {1: 15})
        second = await relay.submit("thumbs", "resize", 2)
        await until(lambda: yielded.get(2, 0) > 2)
        assert await (await relay.submit("thumbs", "probe", 5)).result() == 5  # its slot goes to others meanwhile
        assert yielded[2] < 8  # and the handler waits
        async with rig.transport("bunny") as broker:  # room is made, as by age
            for message in rig.held("azure", PARTS):
                if first.key.job_id in message.subject:
                    await broker.publish(PARTS, message.subject, b"", {"Nats-TTL": "1s"})
        assert len([record async for record in second.records(bytes)]) == 15


async def test_a_queue_without_parts_has_no_room_for_records() -> None:
    rig, worker = fleet(max_payload=INLINE_LIMIT, payload_bytes=0), Worker()

    @worker.handler(ROWS)
    async def count(args: int) -> AsyncIterator[Row]:
        yield Row(args)

    with pytest.raises(ConfigurationError, match="max_payload above 256KiB"):
        async with rig.working(worker):
            pass
    async with rig.producer() as relay:
        with pytest.raises(ConfigurationError, match="max_payload"):
            await anext((await relay.submit(ROWS, 1)).records())


async def at_the_top(args: int) -> AsyncIterator[int]:
    yield args


def test_no_process_of_its_own_yields() -> None:
    with pytest.raises(ConfigurationError, match="yields no records"):
        Worker().handler("thumbs", "resize", isolation="process")(at_the_top)


@pytest.mark.parametrize("length", range(20))
async def test_the_last_that_is_there_in_few_looks(length: int) -> None:
    looks = list[int]()

    async def there(number: int) -> bool:
        looks.append(number)
        return number <= length

    assert await segments.last(there, 1, 12) == min(length, 12)
    assert len(looks) <= 8
    assert all(1 <= each <= 12 for each in looks)
