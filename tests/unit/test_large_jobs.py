"""Keyed jobs, many at once, and an inbox, where arguments and results are in parts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.errors import BridgeError, InvalidArguments, KeyConflict, PayloadTooLarge, UsageError
from bridge.payload import PART
from consumers import Reject, Worker
from producers import Handle, Kind, Payload
from tests.fleet import Fleet, policy, until
from tests.unit.test_withdrawals import MIB, kept, parts

DATA = os.urandom(2 * PART + 77)


@dataclass
class Cut:
    title: str
    film: Payload


MEASURE = Kind("thumbs", "resize", args=Cut, result=int)
COPY = Kind("thumbs", "probe", args=Payload, result=Payload)


def working() -> tuple[Worker, list[int]]:
    worker, ran = Worker(), list[int]()

    @worker.handler(MEASURE)
    async def measure(args: Cut) -> int:
        ran.append(args.film.length or 0)
        if args.title == "bad":
            raise Reject("bad")
        return args.film.length or 0

    @worker.handler(COPY)
    async def copy(film: Payload) -> Payload:
        ran.append(film.length or 0)
        return film

    return worker, ran


def fleet(**more: object) -> Fleet:
    return Fleet.make(policy(max_payload=4 * MIB, payload_bytes=64 * MIB, **more))


async def once(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 99_999):
        yield data[at : at + 99_999]


async def test_the_same_key_and_bytes_are_the_same_job_however_they_are_read(tmp_path: Path) -> None:
    rig, path = fleet(), tmp_path / "film"
    path.write_bytes(DATA)
    worker, ran = working()
    async with rig.producer() as relay, rig.producer() as replica:
        first = await relay.submit(COPY, Payload(path), key="order-1")
        stored = kept(rig)
        for each in (relay, replica):  # found before any of it is stored, and after it is where it can be read but once
            assert (await each.submit(COPY, Payload(DATA), key="order-1")).token == first.token
            assert kept(rig) == stored
            assert (await each.submit(COPY, Payload(once(DATA)), key="order-1")).token == first.token
            await until(lambda: kept(rig) == stored)
            with pytest.raises(KeyConflict):
                await each.submit(COPY, Payload(DATA + b"x"), key="order-1")
            with pytest.raises(KeyConflict):
                await each.submit(COPY, Payload(once(DATA + b"x")), key="order-1")
            with pytest.raises(KeyConflict):
                await each.submit(COPY, Payload(DATA, "video/mp4"), key="order-1")
            await until(lambda: kept(rig) == stored)
        async with rig.working(worker):
            assert (await first.result()).read() == DATA
            await until(lambda: kept(rig) == 0)
            for data in (DATA, once(DATA)):
                again = await replica.submit(COPY, Payload(data), key="order-1")
                assert (await again.result()).read() == DATA
        assert ran == [len(DATA)]
        await until(lambda: kept(rig) == 0)


async def test_two_that_submit_a_key_at_once_have_one_job_and_its_parts_alone() -> None:
    rig = fleet()
    worker, ran = working()
    async with rig.producer() as relay, rig.producer() as replica:
        handles = await asyncio.gather(
            *(each.submit(COPY, Payload(once(DATA)), key="order-2") for each in (relay, replica, relay, replica))
        )
        assert len({handle.token for handle in handles}) == 1
        assert len(rig.held("aws", "JOBS_thumbs")) == 1
        await until(lambda: len([each for each in parts(rig) if each.data]) == 4)
        async with rig.working(worker):
            for handle in handles:
                assert (await handle.result()).read() == DATA
    assert ran == [len(DATA)]


async def test_fields_of_keyed_jobs(tmp_path: Path) -> None:
    rig = fleet()
    worker, ran = working()
    async with rig.producer() as relay, rig.producer() as replica, rig.working(worker):
        for size in (9, len(DATA)):
            key = f"cut-{size}"
            cut = [Cut("a", Payload(DATA[:size])), Cut("a", Payload(once(DATA[:size])))]
            job = await relay.submit(MEASURE, cut[0], key=key)
            assert await job.result() == size
            for again in cut:
                assert await (await replica.submit(MEASURE, again, key=key)).result() == size
            for other in (Cut("b", Payload(DATA[:size])), Cut("a", Payload(DATA[1:size]))):
                with pytest.raises(KeyConflict):
                    await replica.submit(MEASURE, other, key=key)
        assert ran == [9, len(DATA)]
        await until(lambda: kept(rig) == 0)


async def test_a_failed_key_runs_again_with_parts_of_its_own() -> None:
    rig = fleet()
    worker, ran = working()
    async with rig.producer() as relay, rig.working(worker):
        bad = await relay.submit(MEASURE, Cut("bad", Payload(DATA)), key="k")
        with pytest.raises(BridgeError):
            await bad.result()
        stored = kept(rig)  # what a replay of it may need
        assert stored > len(DATA)
        assert (await relay.submit(MEASURE, Cut("bad", Payload(DATA)), key="k")).done()
        again = await relay.submit(MEASURE, Cut("bad", Payload(DATA)), key="k", retry_failed=True)
        assert again.token.generation == 1
        with pytest.raises(BridgeError):
            await again.result()
    assert len(ran) == 2


async def test_bytes_that_change_while_they_are_read(tmp_path: Path) -> None:
    rig, path = fleet(), tmp_path / "film"
    path.write_bytes(DATA * 4)  # more than is read at once

    def changed(stored: int) -> None:
        path.write_bytes(DATA[::-1] * 4)

    async with rig.producer() as relay:
        with pytest.raises(UsageError, match="changed while they were read"):
            await relay.submit(COPY, Payload(path), key="k", progress=changed)
        await until(lambda: kept(rig) == 0)
    assert rig.held("aws", "JOBS_thumbs") == []


async def test_json_that_can_be_read_once_has_no_key(tmp_path: Path) -> None:
    rig, text = fleet(), b"[" + b"1," * 200_000 + b"1]"
    path = tmp_path / "list"
    path.write_bytes(text)
    async with rig.producer() as relay:
        first = await relay.submit("thumbs", "probe", Payload(path, "application/json"), key="k")
        spread = Payload(text.replace(b",", b", "), "application/json")
        assert (await relay.submit("thumbs", "probe", spread, key="k")).token == first.token
        stored = kept(rig)
        with path.open("rb") as file:
            for source in (once(text), file):
                with pytest.raises(InvalidArguments, match="read once"):
                    await relay.submit("thumbs", "probe", Payload(source, "application/json"), key="k")
        await until(lambda: kept(rig) == stored)


async def test_many_at_once_of_any_length() -> None:
    rig = fleet()
    worker, _ = working()
    films: list[bytes | AsyncIterator[bytes]] = [
        DATA,
        b"short",
        DATA[1:],
        DATA * 8,
        b"",
        DATA[2:],
        once(DATA),
        DATA[3:],
        DATA[4:],
        DATA[5:],
    ]
    async with rig.producer() as relay, rig.working(worker):
        jobs = await relay.submit_many(COPY, [Payload(film) for film in films])
        assert [type(job) for job in jobs] == [PayloadTooLarge if i == 3 else Handle for i in range(len(films))]
        lengths = [len(film) if isinstance(film, bytes) else len(DATA) for film in films]
        for job, length in zip(jobs, lengths, strict=True):
            if isinstance(job, Handle):
                assert (await job.result()).length == length
        cuts = await relay.submit_many(MEASURE, (Cut("a", Payload(film)) for film in (DATA, b"short")))
        assert [await job.result() for job in cuts if isinstance(job, Handle)] == [len(DATA), 5]
        await until(lambda: kept(rig) == 0)


async def test_many_that_are_cancelled_leave_no_part() -> None:
    rig, begun = fleet(), asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield DATA
        begun.set()
        await asyncio.Event().wait()

    async with rig.producer() as relay:
        films = [Payload(stuck()) for _ in range(9)]
        submit = asyncio.create_task(relay.submit_many(COPY, films))
        await begun.wait()
        await until(lambda: kept(rig) > 0)
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit
        await until(lambda: kept(rig) == 0)
    assert rig.held("aws", "JOBS_thumbs") == []


async def test_an_inbox_reads_results_in_parts(tmp_path: Path) -> None:
    rig = fleet(inbox=("relay",))
    worker, _ = working()
    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit(COPY, Payload(DATA, "video/mp4"))
        async with relay.inbox("thumbs") as inbox:
            result = await anext(inbox)
            assert result.id == job.id
            with pytest.raises(PayloadTooLarge, match="read"):
                result.value()
            told: list[int] = []
            film = await result.read(Payload, progress=told.append)
            assert (film.content_type, film.read(), told[-1]) == ("video/mp4", DATA, len(DATA))
            assert await result.read(bytes) == DATA
            assert (await result.read(to=tmp_path / "film")).read_bytes() == DATA
            with pytest.raises(UsageError, match="a directory"):
                await result.read(to=tmp_path)
            await result.ack()
            await relay.submit(MEASURE, Cut("bad", Payload(b"")))
            failed = await anext(inbox)
            with pytest.raises(BridgeError, match="bad"):
                await failed.read()
            await failed.ack()
