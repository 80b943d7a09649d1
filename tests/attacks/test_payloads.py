"""Payloads of a broker that lies and of an author that lies: a named error, no handler call, no partial file."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.envelope import Draft
from bridge.errors import BadPart, DeadlineExceeded, JobFailed, PartMissing, PayloadTooLarge, QueueFull, TransportError
from bridge.job import Content
from bridge.memory import MemoryTransport
from bridge.payload import PART, Manifest, PartSealer
from bridge.transfer import incoming, outgoing
from bridge.transfer import spool as spools
from bridge.transport import Message
from consumers import Worker, payloads
from producers import Handle, Payload
from tests.fleet import Fleet, policy, until

MIB = 1024 * 1024
DATA = os.urandom(3 * PART + 77)
PARTS = "PARTS_thumbs"


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BUNNY_SPOOL", str(tmp_path / "spool"))
    for module in (incoming, outgoing):
        monkeypatch.setattr(module, "PAUSE_S", 0.01)
    monkeypatch.setattr(incoming, "MISSING_S", 0.1)
    monkeypatch.setattr(payloads, "TROUBLE_DELAY_S", 0.05)
    monkeypatch.setattr(payloads, "FULL_DELAY_S", 0.05)
    return tmp_path / "spool"


def fleet(**settings: Any) -> Fleet:  # noqa: ANN401  fields of Queue
    return Fleet.make(policy(**{"max_payload": 4 * MIB, "payload_bytes": 16 * MIB, **settings}))


class Seen:
    """A worker, and what its handler was called with."""

    def __init__(self, *, stream: bool = False) -> None:
        self.worker, self.calls = Worker(), list[int]()
        self.begun = 0

        @self.worker.handler("thumbs", "resize", stream=stream)
        async def resize(payload: Payload) -> int:
            self.begun, total = self.begun + 1, 0
            async for chunk in payload:
                total += len(chunk)
            self.calls.append(total)
            return total

        @self.worker.handler("thumbs", "probe")
        async def probe(payload: Payload) -> Payload:
            return payload


def parts(rig: Fleet, cloud: str = "aws") -> list[Message]:
    return rig.held(cloud, PARTS)


Change = Callable[[list[Message]], Mapping[int, bytes]]
"""What to put in place of which messages of a transfer: four parts and the index."""


async def tamper(rig: Fleet, change: Change, cloud: str = "aws") -> None:
    """As a broker, or whoever has the author's NKey, can."""
    held = parts(rig, cloud)
    async with rig.transport({"aws": "relay", "azure": "bunny"}[cloud]) as transport:
        for at, data in change(held).items():
            await transport.publish(PARTS, held[at].subject, data)


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


CHANGES: dict[str, Change] = {
    "flipped": lambda held: {1: flipped(held[1].data)},
    "swapped": lambda held: {0: held[1].data, 1: held[0].data},
    "doubled": lambda held: {1: held[0].data},
    "truncated": lambda held: {3: held[3].data[:-1]},
    "longer": lambda held: {3: held[3].data + b"x"},
    "index-flipped": lambda held: {4: flipped(held[4].data)},
    "index-of-other-parts": lambda held: {4: held[4].data[32:] + held[4].data[:32]},
}


async def failed(job: Handle[Any]) -> str:
    with pytest.raises(JobFailed) as failure:
        await job.result()
    return failure.value.type


@pytest.mark.parametrize("name", CHANGES)
async def test_h22_arguments_that_are_not_what_was_signed(name: str, spool: Path) -> None:
    rig, seen = fleet(), Seen()
    async with rig.producer() as relay:
        job = await relay.submit("thumbs", "resize", DATA)
        await tamper(rig, CHANGES[name])
        async with rig.working(seen.worker):
            assert await failed(job) == "BadPart"
            assert seen.calls == []
            assert await (await relay.submit("thumbs", "resize", DATA)).result() == len(DATA)
    assert not os.listdir(spool)
    assert len(rig.held("azure", "DEAD_thumbs")) == 1


async def test_h22_a_part_of_another_job() -> None:
    rig, seen = fleet(), Seen()
    async with rig.producer() as relay:
        job = await relay.submit("thumbs", "resize", DATA)
        await relay.submit("thumbs", "resize", DATA)
        await tamper(rig, lambda held: {0: held[5].data})
        async with rig.working(seen.worker):
            assert await failed(job) == "BadPart"
            await until(lambda: seen.calls == [len(DATA)])


async def test_h22_a_part_that_is_gone() -> None:
    rig, seen = fleet(), Seen()
    async with rig.producer() as relay:
        job = await relay.submit("thumbs", "resize", DATA)
        await tamper(rig, lambda _: {2: b""})
        async with rig.working(seen.worker):
            assert await failed(job) == "PartMissing"
    assert seen.calls == []


@pytest.mark.parametrize("length", [len(DATA) + 1, len(DATA) - 78, len(DATA) + PART])
async def test_an_author_that_lies_about_the_length(length: int) -> None:
    rig, seen = fleet(), Seen()
    async with rig.producer() as relay, rig.working(seen.worker):
        original = PartSealer.manifest

        def lie(self: PartSealer) -> Manifest:
            return replace(original(self), length=length)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PartSealer, "manifest", lie)
            job = await relay.submit("thumbs", "resize", DATA)
        assert await failed(job) in ("BadPart", "PartMissing")
        assert seen.begun == 0
        assert await (await relay.submit("thumbs", "resize", DATA)).result() == len(DATA)


async def test_an_author_that_sends_a_body_and_a_payload() -> None:
    rig, seen = fleet(), Seen()
    original = Draft.naming

    async with rig.producer() as relay, rig.working(seen.worker):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                Draft, "naming", lambda self, *a: replace(original(self, *a), content=Content("a/b", b"and more"))
            )
            job = await relay.submit("thumbs", "resize", DATA)
        assert await failed(job) == "BadPrelude"
    assert seen.calls == []


async def test_h22_a_stream_gives_out_nothing_that_was_not_signed() -> None:
    rig, chunks = fleet(max_attempts=1), list[bytes]()
    worker = Worker()

    @worker.handler("thumbs", "resize", stream=True)
    async def resize(payload: Payload) -> None:
        async for chunk in payload:
            chunks.append(chunk)

    async with rig.producer() as relay:
        job = await relay.submit("thumbs", "resize", DATA)
        await tamper(rig, CHANGES["flipped"])
        async with rig.working(worker):
            assert await failed(job) == "BadPart"
    assert chunks == [DATA[:PART]]


@pytest.mark.parametrize("name", CHANGES)
async def test_h22_a_result_that_is_not_what_was_signed(name: str, tmp_path: Path) -> None:
    rig, seen = fleet(), Seen()
    async with rig.producer() as relay, rig.working(seen.worker):
        job = await relay.submit("thumbs", "probe", DATA)
        await until(job.done)
        await tamper(rig, CHANGES[name], "azure")
        before = os.listdir(tmp_path)
        readings: list[Callable[[], Awaitable[object]]] = [job.result, lambda: job.result(to=tmp_path / "out")]
        for read in readings:
            with pytest.raises(BadPart):
                await read()
        assert os.listdir(tmp_path) == before
        assert await (await relay.submit("thumbs", "probe", DATA)).result() == DATA


async def test_h22_a_result_of_which_a_part_is_gone(tmp_path: Path) -> None:
    rig, seen = fleet(), Seen()
    async with rig.producer() as relay, rig.working(seen.worker):
        job = await relay.submit("thumbs", "probe", DATA)
        await until(job.done)
        await tamper(rig, lambda _: {1: b""}, "azure")
        with pytest.raises(PartMissing):
            await job.result(to=tmp_path / "out")
    assert "out" not in os.listdir(tmp_path)


# --- too much, too late, no room -------------------------------------------------------------------


async def many(chunks: int) -> Any:  # noqa: ANN401  an asynchronous iterator
    for _ in range(chunks):
        yield bytes(PART)


async def test_more_than_the_queue_takes() -> None:
    rig = fleet(max_payload=MIB)
    async with rig.producer() as relay:
        for sent in (bytes(MIB + 1), Payload(bytes(MIB + 1))):
            with pytest.raises(PayloadTooLarge, match="max_payload"):
                await relay.submit("thumbs", "resize", sent)
        assert parts(rig) == []  # told before anything is stored
        with pytest.raises(PayloadTooLarge, match="max_payload"):
            await relay.submit("thumbs", "resize", many(100))
        assert sum(len(each.data) for each in parts(rig)) == 0  # what was stored is withdrawn
        assert rig.held("aws", "JOBS_thumbs") == []


async def test_an_author_that_sends_more_than_the_queue_takes(spool: Path) -> None:
    rig, seen = fleet(), Seen()
    async with rig.producer() as relay, rig.working(seen.worker):
        settings = relay._connection.queues["thumbs"]
        relay._connection.queues["thumbs"] = settings.model_copy(update={"max_payload": 8 * MIB})
        assert await failed(await relay.submit("thumbs", "resize", bytes(4 * MIB + 1))) == "PayloadTooLarge"
        assert seen.begun == 0
        assert await (await relay.submit("thumbs", "resize", bytes(4 * MIB))).result() == 4 * MIB
    assert os.listdir(spool) == []


async def test_a_result_larger_than_the_queue_takes() -> None:
    rig, worker = fleet(max_payload=MIB), Worker()

    @worker.handler("thumbs", "resize")
    async def resize(size: int) -> bytes:
        return bytes(size)

    async with rig.producer() as relay, rig.working(worker):
        assert await failed(await relay.submit("thumbs", "resize", MIB + 1)) == "PayloadTooLarge"
        assert await (await relay.submit("thumbs", "resize", MIB)).result() == bytes(MIB)


async def test_a_full_stream_of_parts_is_told_and_nothing_stays() -> None:
    rig, seen = fleet(payload_bytes=2 * MIB), Seen()
    async with rig.producer() as relay:
        first = await relay.submit("thumbs", "resize", DATA)
        with pytest.raises(QueueFull, match=PARTS):
            await relay.submit("thumbs", "resize", bytes(2 * MIB))
        async with rig.working(seen.worker):
            assert await first.result() == len(DATA)
            # Served, it makes room.
            await until(lambda: sum(len(each.data) for each in parts(rig)) == 0)


class Faulty(MemoryTransport):
    """Parts come, or do not, as a test says; counts how often each is asked for."""

    fault: Callable[[str], Awaitable[None]]

    @classmethod
    def of(cls, rig: Fleet, name: str, fault: Callable[[str], Awaitable[None]]) -> Faulty:
        made = cls(rig.bridge, rig.bridge.cloud(rig.policy.identities[name].cloud))
        made.fault = fault
        return made

    async def lookup(
        self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
    ) -> Message | None:
        if stream == PARTS:
            await self.fault(subject)
        return await super().lookup(stream, subject, cloud=cloud, timeout=timeout)


async def test_h29_a_job_that_expires_amid_its_transfer() -> None:
    rig, seen = fleet(), Seen()

    async def never(_: str) -> None:
        await asyncio.Event().wait()

    async with Faulty.of(rig, "bunny", never) as transport, rig.producer() as relay:
        serving = rig.working(seen.worker, "bunny", transport)
        async with serving:
            with pytest.raises(DeadlineExceeded):
                await (await relay.submit("thumbs", "resize", DATA, deadline=1)).result()
    assert seen.calls == []


async def test_what_was_verified_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, seen, asked = fleet(), Seen(), dict[str, int]()
    monkeypatch.setattr(incoming, "STALL_S", 0.0)

    async def breaks(subject: str) -> None:
        number = subject.rpartition(".")[2]
        asked[number] = asked.get(number, 0) + 1
        if number == "3" and asked[number] == 1:
            await until(lambda: bool(os.listdir(os.environ["BUNNY_SPOOL"])))
            raise TransportError("the link was cut")

    async with Faulty.of(rig, "bunny", breaks) as transport, rig.producer() as relay:
        serving = rig.working(seen.worker, "bunny", transport)
        async with serving:
            assert await (await relay.submit("thumbs", "resize", DATA)).result() == len(DATA)
    assert asked == {"4": 2, "0": 1, "1": 1, "2": 1, "3": 2}
    assert seen.calls == [len(DATA)]


async def test_h41_no_room_on_the_workers_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, seen, full = fleet(), Seen(), [True]
    write = os.pwrite

    def pwrite(*args: Any) -> int:  # noqa: ANN401
        if full.pop() if full else False:
            raise OSError(errno.ENOSPC, "no space")
        return write(*args)

    monkeypatch.setattr(os, "pwrite", pwrite)
    async with rig.producer() as relay, rig.working(seen.worker):
        assert await (await relay.submit("thumbs", "resize", DATA)).result() == len(DATA)
    assert (seen.calls, full) == ([len(DATA)], [])
    assert rig.held("azure", "DEAD_thumbs") == []


async def test_what_attempts_leave_behind_is_bounded(monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    rig, worker = fleet(max_attempts=1), Worker()
    monkeypatch.setattr(spools, "LEFT", 1, raising=False)

    @worker.handler("thumbs", "resize", timeout=0.2)
    async def resize(_: Payload) -> None: ...

    async def last_never(subject: str) -> None:
        if subject.endswith(".3"):
            await asyncio.Event().wait()

    async with Faulty.of(rig, "bunny", last_never) as transport, rig.producer() as relay:
        serving = rig.working(worker, "bunny", transport)
        async with serving:
            for _ in range(4):
                assert await failed(await relay.submit("thumbs", "resize", DATA)) == "HandlerTimeout"
    assert len(os.listdir(spool)) == 2  # one that was there, and the last


@pytest.mark.parametrize("call", ["mkdir", "open"])
async def test_a_folder_that_cannot_be_used(call: str, monkeypatch: pytest.MonkeyPatch, spool: Path) -> None:
    rig, seen, failures = fleet(max_attempts=1), Seen(), [True]
    work = getattr(os, call)

    def fails(path: Any, *args: Any, **named: Any) -> Any:  # noqa: ANN401
        if str(path).startswith(str(spool)) and failures and failures.pop():
            raise OSError(errno.EACCES, "permission denied")
        return work(path, *args, **named)

    monkeypatch.setattr(os, call, fails)
    async with rig.producer() as relay, rig.working(seen.worker):
        assert await (await relay.submit("thumbs", "resize", DATA)).result() == len(DATA)
    assert failures == []


async def test_no_room_on_the_producers_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rig, seen = fleet(), Seen()

    def pwrite(*_: Any) -> int:  # noqa: ANN401
        raise OSError(errno.ENOSPC, "no space")

    async with rig.producer() as relay, rig.working(seen.worker):
        job = await relay.submit("thumbs", "probe", DATA)
        await until(job.done)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", pwrite)
            with pytest.raises(Exception, match="no room") as error:
                await job.result(to=tmp_path / "out")
        assert type(error.value).__name__ == "SpoolFull"
        assert "out" not in os.listdir(tmp_path)
        assert (await job.result(to=tmp_path / "out")).read_bytes() == DATA
