"""What a worker makes of payloads that fail amid a transfer or a handler: one end, the right one, and none twice."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge import crypto
from bridge.errors import BridgeError, JobFailed, PartMissing
from bridge.memory import MemoryTransport
from bridge.payload import PART, PartSealer
from bridge.transport import Delivery, Message
from consumers import Retry, Worker, payloads
from producers import Payload
from tests.fleet import Fleet, policy, until

MIB = 1024 * 1024
DATA = os.urandom(3 * PART + 77)
PARTS = "PARTS_thumbs"


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BUNNY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(payloads, "TROUBLE_DELAY_S", 0.05)
    return tmp_path / "spool"


def fleet(**settings: Any) -> Fleet:  # noqa: ANN401  fields of Queue
    return Fleet.make(policy(**{"max_payload": 4 * MIB, "payload_bytes": 16 * MIB, **settings}))


class Held(MemoryTransport):
    """A worker's, whose last part does not come until it may, and who says in vain that it is still at work."""

    def __init__(self, rig: Fleet) -> None:
        super().__init__(rig.bridge, rig.bridge.cloud("azure"))
        self.asked, self.free = asyncio.Event(), asyncio.Event()

    async def lookup(
        self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
    ) -> Message | None:
        if stream == PARTS and subject.endswith(".3"):
            self.asked.set()
            await self.free.wait()
        return await super().lookup(stream, subject, cloud=cloud, timeout=timeout)

    async def in_progress(self, delivery: Delivery) -> None:
        pass


def summing() -> tuple[Worker, list[int]]:
    worker, calls = Worker(), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(payload: Payload) -> int:
        calls.append(sum([len(chunk) async for chunk in payload]))
        return calls[-1]

    return worker, calls


async def test_a_delivery_that_was_overtaken_amid_its_transfer_leaves_no_dead_letter() -> None:
    rig = fleet(ack_wait_ms=300)
    (slow, none), (fast, calls) = summing(), summing()
    held = Held(rig)
    async with held, rig.producer() as relay:
        async with rig.working(slow, "bunny", held):
            job = await relay.submit("thumbs", "resize", DATA)
            await held.asked.wait()
            async with rig.working(fast):
                assert await job.result() == len(DATA)
            await until(lambda: not any(message.data for message in rig.held("aws", PARTS)))
            held.free.set()
        assert await job.result() == len(DATA)
    assert (none, calls) == ([], [len(DATA)])
    assert rig.held("azure", "DEAD_thumbs") == []


def unopenable(self: PartSealer, data: bytes) -> tuple[int, bytes]:
    """As its author signed it, and sealed under another key."""
    number = len(self._digests)
    key = self._key if number != 2 else bytes(32)
    sealed = crypto.seal_body(key, b"bunny-bridge/v1/part\0" + number.to_bytes(4), data)
    self._digests.append(crypto.sha256(sealed))
    self._length += len(data)
    return number, sealed


Reads = Callable[[Payload], Any]


async def read_on(payload: Payload) -> int:
    return sum([len(chunk) async for chunk in payload])


async def swallow(payload: Payload) -> int:
    try:
        return await read_on(payload)
    except BridgeError:
        return -1


async def again(payload: Payload) -> int:
    try:
        return await read_on(payload)
    except BridgeError:
        raise Retry(after=0.0) from None


async def hand_on(payload: Payload) -> Payload:
    return Payload(aiter(payload))


async def from_a_file(payload: Payload) -> int:
    def read() -> int:
        with payload.open() as file:
            return len(file.read())

    return await asyncio.to_thread(read)


@pytest.mark.parametrize(
    ("reads", "stream"),
    [
        (read_on, False),
        (swallow, False),
        (again, False),
        (hand_on, False),
        (from_a_file, False),
        (read_on, True),
        (swallow, True),
        (again, True),
        (hand_on, True),
    ],
)
async def test_a_part_that_does_not_open_is_final_whatever_its_handler_makes_of_it(reads: Reads, stream: bool) -> None:
    rig, worker, calls = fleet(), Worker(), list[int]()

    @worker.handler("thumbs", "resize", stream=stream)
    async def resize(payload: Payload) -> object:
        calls.append(1)
        return await reads(payload)

    async with rig.producer() as relay, rig.working(worker):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PartSealer, "seal", unopenable)
            job = await relay.submit("thumbs", "resize", DATA)
        with pytest.raises(JobFailed) as failure:
            await job.result()
        assert (failure.value.type, failure.value.attempts) == ("BadSeal", 1)
        assert len(calls) == 1
        good = await relay.submit("thumbs", "resize", DATA)
        assert await good.result() == (DATA if reads is hand_on else len(DATA))
    assert len(rig.held("azure", "DEAD_thumbs")) == 1
    assert not any(message.data for message in rig.held("azure", PARTS) if job.id in message.subject)


@pytest.mark.parametrize("reads", [read_on, swallow, again])
async def test_a_stream_of_which_a_part_is_not_the_signed_one_is_final(reads: Reads) -> None:
    rig, worker, calls = fleet(), Worker(), list[int]()

    @worker.handler("thumbs", "resize", stream=True)
    async def resize(payload: Payload) -> int:
        calls.append(1)
        return int(await reads(payload))

    async with rig.producer() as relay:
        job = await relay.submit("thumbs", "resize", DATA)
        async with rig.transport("relay") as transport:
            part = next(message for message in rig.held("aws", PARTS) if message.subject.endswith(".1"))
            await transport.publish(PARTS, part.subject, part.data[:-1] + b"x")
        async with rig.working(worker):
            with pytest.raises(JobFailed) as failure:
                await job.result()
    assert (failure.value.type, failure.value.attempts, calls) == ("BadPart", 1, [1])


async def test_a_stream_of_which_a_part_is_gone_is_final() -> None:
    rig, worker, calls = fleet(), Worker(), list[int]()

    @worker.handler("thumbs", "resize", stream=True)
    async def resize(payload: Payload) -> int:
        calls.append(1)
        return await swallow(payload)

    async with rig.producer() as relay:
        job = await relay.submit("thumbs", "resize", DATA)
        async with rig.transport("relay") as transport:
            part = next(message for message in rig.held("aws", PARTS) if message.subject.endswith(".1"))
            await transport.publish(PARTS, part.subject, b"")
        async with rig.working(worker):
            with pytest.raises(JobFailed) as failure:
                await job.result()
    assert (failure.value.type, calls) == (PartMissing.__name__, [1])
