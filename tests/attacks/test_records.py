"""Records of a broker, a pool or a stranger that lies: a named error, and nothing given out that was not signed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bridge.clock import now_ms
from bridge.envelope import Draft
from bridge.errors import (
    BadFrame,
    BadPrelude,
    BadSegment,
    BadSignature,
    BridgeError,
    NotAuthorised,
    PartMissing,
    StreamRestarted,
    WrongSubject,
)
from bridge.fence import OtherBytes
from bridge.job import Content
from bridge.segments import HINT, MAX_RECORDS, Chain, Position, pack, subject, unpack
from bridge.subjects import event
from consumers import Job, Worker, streaming
from producers import Handle, Producer, records
from tests.fleet import Fleet, policy, until
from tests.segments import forged, place

PARTS = "PARTS_thumbs"
ROWS = 6
"""One to a segment."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "FLUSH_S", 0.0)
    monkeypatch.setattr(records, "MISSING_PAUSE_S", 0.01)
    monkeypatch.setattr(records, "FIRST_PAUSE_S", 0.01)


@dataclass
class Streamed:
    """A job whose six rows stand, and its reader."""

    rig: Fleet
    relay: Producer
    job: Handle[Any]
    other: Handle[Any]
    """Another one, of the same kind and with the same rows."""

    def held(self, job: Handle[Any] | None = None) -> list[bytes]:
        found = {message.subject: message.data for message in self.rig.held("azure", PARTS)}
        return [found[subject((job or self.job).key, 1, number)] for number in range(ROWS)]

    def chain(self, segments: int) -> Chain:
        """What a segment of that number follows."""
        if not segments:
            return Chain(1)
        last = self.rig.opener("relay").authenticate(self.held()[segments - 1], now_ms())
        return Chain.at(last.core, last.digest)

    async def put(self, number: int, data: bytes) -> None:
        await place(self.rig, self.job, 1, number, data)

    async def read(self) -> tuple[list[int], type[BridgeError] | None]:
        """What is given out, and how it ends."""
        given: list[int] = []
        try:
            async for row in self.job.records(int):
                given.append(row)
        except BridgeError as error:
            return given, type(error)
        return given, None


@contextlib.asynccontextmanager
async def streamed() -> AsyncIterator[Streamed]:
    rig = Fleet.make(policy(max_payload=1 << 20, payload_bytes=1 << 24))
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def count(args: int, job: Job) -> AsyncIterator[int]:
        def stands() -> bool:
            return any(each.subject.endswith(f"{job.id}.segments.0-1-{n}") for each in rig.held("azure", PARTS))

        for n in range(args):
            yield n
            await until(stands)

    async with rig.producer() as relay, rig.working(worker):
        job, other = [await relay.submit("thumbs", "resize", ROWS) for _ in range(2)]
        await until(lambda: job.done() and other.done())
        yield Streamed(rig, relay, job, other)


async def test_what_was_streamed_is_read() -> None:
    async with streamed() as it:
        assert await it.read() == (list(range(ROWS)), None)


Change = Callable[[Streamed], Awaitable[object]]


async def each_of(*changes: Awaitable[object]) -> None:
    for change in changes:
        await change


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def answer(it: Streamed, after: int, bodies: list[bytes], **more: Any) -> bytes:  # noqa: ANN401
    return forged(it.rig, it.job, it.chain(after), bodies, **more).data


OUTSIDE: dict[str, tuple[Change, int, type[BridgeError]]] = {
    "flipped": (lambda it: it.put(2, flipped(it.held()[2])), 2, BadSignature),
    "cut-short": (lambda it: it.put(2, it.held()[2][:-1]), 2, BadFrame),
    "rubbish": (lambda it: it.put(0, b"rubbish"), 0, BadFrame),
    "swapped": (lambda it: each_of(it.put(1, it.held()[2]), it.put(2, it.held()[1])), 1, BadSegment),
    "doubled": (lambda it: it.put(2, it.held()[1]), 2, BadSegment),
    "dropped-and-closed-up": (
        lambda it: each_of(*(it.put(n, data) for n, data in enumerate(it.held()[3:], 2))), 2, BadSegment,
    ),
    "the-last-instead-of-the-first": (lambda it: it.put(0, it.held()[5]), 0, BadSegment),
    "of-another-job": (lambda it: it.put(2, it.held(it.other)[2]), 2, WrongSubject),
    "dropped": (lambda it: it.put(3, b""), 3, PartMissing),
    "truncated": (lambda it: each_of(it.put(4, b""), it.put(5, b"")), 4, PartMissing),
    "all-of-it": (lambda it: each_of(*(it.put(n, b"") for n in range(ROWS))), 0, PartMissing),
    "the-result-in-its-place": (lambda it: it.put(2, it.rig.held("azure", "RESULTS_thumbs")[0].data), 2, WrongSubject),
    "the-job-in-its-place": (lambda it: it.put(2, it.rig.held("azure", PARTS)[0].data[:40]), 2, BadFrame),
}  # fmt: skip
"""What a broker can do, how many rows are given out before, and what is said then."""


@pytest.mark.parametrize("name", OUTSIDE)
async def test_a_broker(name: str) -> None:
    change, before, error = OUTSIDE[name]
    async with streamed() as it:
        await change(it)
        assert await it.read() == (list(range(before)), error)


FORGED: dict[str, tuple[Callable[[Streamed], bytes], type[BridgeError]]] = {
    "by-a-stranger": (lambda it: answer(it, 2, [b"2"], signer="other", sender="other"), NotAuthorised),
    "by-the-producer": (lambda it: answer(it, 2, [b"2"], signer="relay", sender="relay"), NotAuthorised),
    "in-the-pools-name": (lambda it: answer(it, 2, [b"2"], signer="other"), BadSignature),
    "to-another-producer": (lambda it: answer(it, 2, [b"2"], to="other"), WrongSubject),
    "of-another-digest": (lambda it: answer(it, 2, [b"2"], job_digest=bytes(32)), OtherBytes),
    "of-another-generation": (lambda it: answer(it, 2, [b"2"], generation=1), WrongSubject),
    "an-event": (lambda it: it.rig.sealer("bunny").seal(_event(it), now_ms()).data, WrongSubject),
    "of-an-attempt-that-lost": (lambda it: answer(it, 1, [b"1", b"2"]), BadSegment),
    "of-the-run-before": (lambda it: _with(it, run=2), BadSegment),
    "that-follows-another-one": (lambda it: _with(it, previous=bytes(32)), BadSegment),
    "with-fewer-records-than-before": (lambda it: _with(it, records=1), BadSegment),
    "with-more-records-than-it-holds": (lambda it: _with(it, records=9), BadPrelude),
    "with-other-bytes-than-it-holds": (lambda it: _with(it, size=900), BadPrelude),
}


def _event(it: Streamed) -> Any:  # noqa: ANN401
    core = it.rig.opener("relay").authenticate(it.held()[2], now_ms()).core
    core = replace(core, type="event", run=0, segment=0, previous=b"", records=0, size=0)
    return Draft(core, (it.rig.opener("bunny").trust.peer("relay").kem_key(now_ms()),), Content("a/b", b""))


def _with(it: Streamed, **fields: Any) -> bytes:  # noqa: ANN401
    """The third segment, of a pool that counts otherwise."""

    class Lying(Chain):
        def core(self, answer: Any, lengths: Any) -> Any:  # noqa: ANN401
            return replace(Chain.core(self, answer, lengths), **fields)

    chain = it.chain(2)
    return forged(it.rig, it.job, Lying(chain.run, chain.segments, chain.records, chain.size, chain.last), [b"2"]).data


@pytest.mark.parametrize("name", FORGED)
async def test_forged(name: str) -> None:
    make, error = FORGED[name]
    async with streamed() as it:
        await it.put(2, make(it))
        assert await it.read() == ([0, 1], error)


async def test_what_an_attempt_that_lost_wrote_in_the_place_of_what_counts() -> None:
    async with streamed() as it:
        await it.put(1, answer(it, 1, [b"99"]))  # well made, and what follows it was made to follow the other
        assert await it.read() == ([0, 99], BadSegment)


async def test_what_follows_another_end_than_the_signed_one() -> None:
    async with streamed() as it:
        end = answer(it, 5, [b"99"])  # of the pool, and well made: but it is not what its result names
        await it.put(5, end)
        assert await it.read() == ([0, 1, 2, 3, 4, 99], BadSegment)


async def test_what_comes_after_the_signed_end() -> None:
    async with streamed() as it:
        await it.put(ROWS, answer(it, ROWS, [b"6"]))
        assert await it.read() == (list(range(ROWS)), None)


async def test_a_run_that_a_stranger_begins() -> None:
    """It has nobody start over: what was read stands."""
    rig, worker, go_on = Fleet.make(policy(max_payload=1 << 20, payload_bytes=1 << 24)), Worker(), asyncio.Event()

    @worker.handler("thumbs", "resize")
    async def count(args: int) -> AsyncIterator[int]:
        yield args
        await go_on.wait()
        yield args + 1

    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit("thumbs", "resize", 1)
        stream = job.records(int)
        assert await anext(stream) == 1
        await place(rig, job, 2, 0, forged(rig, job, Chain(2), [b"5"], signer="other", sender="other").data)
        with pytest.raises(NotAuthorised):
            await anext(stream)
        go_on.set()
        await until(job.done)
        assert [row async for row in job.records(int)] == [1, 2]


async def test_a_result_of_another_run_than_was_read() -> None:
    async with streamed() as it:
        stream = it.job.records(int, after=str(_position(it)))
        with pytest.raises(StreamRestarted):
            await anext(stream)


def _position(it: Streamed) -> Any:  # noqa: ANN401
    return Position.of(Chain(2, 1, 1, 1, bytes(32)), 1)


async def test_hints_are_believed_in_nothing() -> None:
    async with streamed() as it, it.rig.transport("bunny") as broker:
        stream = it.job.records(int)
        assert await anext(stream) == 0
        for _ in range(1_000):
            await broker.tell(event(it.job.key), HINT)
        assert [row async for row in stream] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "body", [b"\0", b"\0\0\0", b"\0\0\0\2x", b"\xff\xff\xff\xffx", b"\0\0\0\0" * (MAX_RECORDS + 1)],
    ids=["one-byte", "three", "cut-short", "huge", "too-many"],
)  # fmt: skip
def test_a_body_that_is_none(body: bytes) -> None:
    with pytest.raises(BadPrelude):
        unpack(body)
    assert unpack(pack([b"", b"x"])) == [b"", b"x"]
