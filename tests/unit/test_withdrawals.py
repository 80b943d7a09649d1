"""What becomes of parts that a job needs no more, or that no job will ever name."""

from __future__ import annotations

import asyncio
import gc
import os
import weakref
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from bridge import subjects
from bridge.errors import Denied, OutboxFull, PublishTimeout, QueueFull, TransportError
from bridge.memory import MemoryTransport
from bridge.payload import PART
from bridge.subjects import JobKey
from bridge.transfer import Withdrawals
from bridge.transfer.outgoing import STALL_S
from bridge.transport import Message, PubAck
from consumers import Worker
from producers.copies import Copies
from tests.fleet import Fleet, policy, until
from tests.unit.test_producer import forge

MIB = 1024 * 1024
DATA = os.urandom(3 * PART + 77)
PARTS = "PARTS_thumbs"


class Refusing(MemoryTransport):
    """Stores as ever, but for what a test says of a publish to a stream."""

    meets: Callable[[str, str], Awaitable[None]]

    @classmethod
    def of(cls, rig: Fleet, meets: Callable[[str, str], Awaitable[None]]) -> Refusing:
        made = cls(rig.bridge, rig.bridge.cloud("aws"))
        made.meets = meets
        return made

    async def publish(
        self,
        stream: str,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        expected: int | None = None,
        timeout: float = 10.0,
    ) -> PubAck:
        if data:
            await self.meets(stream, subject)
        return await super().publish(stream, subject, data, headers, expected=expected, timeout=timeout)


def fleet() -> Fleet:
    return Fleet.make(policy(max_payload=4 * MIB, payload_bytes=16 * MIB))


def parts(rig: Fleet) -> list[Message]:
    return rig.held("aws", PARTS)


def kept(rig: Fleet) -> int:
    return sum(len(each.data) for each in parts(rig))


async def test_a_submit_that_is_cancelled_amid_its_upload_leaves_no_part() -> None:
    rig, hangs = fleet(), asyncio.Event()

    async def meets(stream: str, subject: str) -> None:
        if stream == PARTS and subject.endswith(".3"):
            hangs.set()
            await asyncio.Event().wait()

    async with rig.producer(transport=Refusing.of(rig, meets)) as relay:
        submit = asyncio.create_task(relay.submit("thumbs", "resize", DATA))
        await hangs.wait()
        await until(lambda: len(parts(rig)) == 4)  # the others, and the index
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit
        await until(lambda: kept(rig) == 0)
    assert rig.held("aws", "JOBS_thumbs") == []


async def test_what_is_being_withdrawn_when_the_producer_ends_is_waited_for() -> None:
    rig, hangs = fleet(), asyncio.Event()

    async def meets(stream: str, subject: str) -> None:
        if stream == PARTS and subject.endswith(".3"):
            hangs.set()
            await asyncio.Event().wait()

    async with rig.producer(transport=Refusing.of(rig, meets)) as relay:
        submit = asyncio.create_task(relay.submit("thumbs", "resize", DATA))
        await hangs.wait()
        submit.cancel()
        await asyncio.wait([submit])
    assert kept(rig) == 0


@pytest.mark.parametrize("error", [QueueFull, Denied])
async def test_a_job_that_is_refused_leaves_no_part(error: type[TransportError]) -> None:
    rig, stored = fleet(), list[int]()

    async def meets(stream: str, _: str) -> None:
        if stream != PARTS:
            stored.append(kept(rig))
            raise error("the job")

    async with rig.producer(transport=Refusing.of(rig, meets)) as relay:
        with pytest.raises(error, match="the job"):
            await relay.submit("thumbs", "resize", DATA)
        await until(lambda: kept(rig) == 0)
    assert stored[0] > len(DATA)


async def test_a_job_that_does_not_fit_into_the_outbox_leaves_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = fleet()

    async def keep(*_: object) -> None:
        assert kept(rig) > len(DATA)
        raise OutboxFull("no room")

    monkeypatch.setattr(Copies, "keep", keep)
    async with rig.producer() as relay:
        with pytest.raises(OutboxFull):
            await relay.submit("thumbs", "resize", DATA)
        await until(lambda: kept(rig) == 0)


@pytest.mark.parametrize("then", [PublishTimeout, QueueFull])
async def test_a_job_that_may_be_stored_keeps_its_parts(then: type[TransportError]) -> None:
    rig, tries = fleet(), list[str]()

    async def meets(stream: str, subject: str) -> None:
        if stream != PARTS:
            tries.append(subject)
            await asyncio.sleep(0.05)
            raise PublishTimeout("no PubAck") if len(tries) == 1 or then is PublishTimeout else then("the job")

    async with rig.producer(transport=Refusing.of(rig, meets)) as relay:
        with pytest.raises(then):
            await relay.submit("thumbs", "resize", DATA, timeout=2 if then is PublishTimeout else 60)
    assert len(tries) > 1
    assert kept(rig) > len(DATA)  # its end waits for what is being withdrawn


async def test_a_handle_that_is_dropped_is_let_go_and_its_parts_pass_once_the_job_is_done() -> None:
    rig, worker = fleet(), Worker()

    @worker.handler("thumbs", "resize")
    async def resize(data: bytes) -> int:
        return len(data)

    async with rig.producer() as relay:
        job = weakref.ref(await relay.submit("thumbs", "resize", DATA))
        gc.collect()
        assert job() is None
        assert kept(rig) > len(DATA)
        async with rig.working(worker):
            await until(lambda: kept(rig) == 0)


async def test_parts_that_a_server_does_not_let_pass_at_once_are_withdrawn_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridge.transfer.withdrawals.FIRST_PAUSE_S", 0.01)
    rig, failures = fleet(), [3]

    class Away(MemoryTransport):
        async def publish(
            self,
            stream: str,
            subject: str,
            data: bytes,
            headers: Mapping[str, str] | None = None,
            *,
            expected: int | None = None,
            timeout: float = 10.0,
        ) -> PubAck:
            if stream == PARTS and not data and subject.endswith(".1") and failures[0]:
                failures[0] -= 1
                raise PublishTimeout("away")
            return await super().publish(stream, subject, data, headers, expected=expected, timeout=timeout)

    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(data: bytes) -> int:
        return len(data)

    away = Away(rig.bridge, rig.bridge.cloud("aws"))
    async with rig.working(worker), rig.producer(transport=away) as relay:
        assert await (await relay.submit("thumbs", "resize", DATA)).result() == len(DATA)
        await until(lambda: kept(rig) == 0)
    assert failures == [0]


async def test_a_withdrawal_gives_up_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.transfer.withdrawals.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("bridge.transfer.withdrawals.WITHDRAW_S", 0.05)
    rig = fleet()

    class Away(MemoryTransport):
        async def publish(self, *_: object, **__: object) -> PubAck:
            raise PublishTimeout("away")

    withdrawals = Withdrawals(Away(rig.bridge, rig.bridge.cloud("aws")))
    await asyncio.wait_for(withdrawals.start(JobKey("thumbs", "relay", "a" * 24, 1), bytes(16), 99), 30)
    await withdrawals.close()


async def test_a_payload_that_takes_longer_than_its_parts_may_wait_is_withdrawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridge.transfer.outgoing.SENDING_S", STALL_S)
    rig = fleet()
    async with rig.producer() as relay:
        with pytest.raises(PublishTimeout, match="SENDING_S"):
            await relay.submit("thumbs", "resize", DATA)
        await until(lambda: kept(rig) == 0)
    assert rig.held("aws", "JOBS_thumbs") == []


@pytest.mark.parametrize("ledger", [False, True], ids=["no-ledger", "ledger"])
async def test_parts_of_a_result_that_is_not_the_one_that_stands_are_withdrawn(ledger: bool, tmp_path: Path) -> None:
    rig = fleet()
    worker = Worker(data=tmp_path) if ledger else Worker()
    begun, go = asyncio.Event(), asyncio.Event()

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> bytes:
        begun.set()
        await go.wait()
        return DATA

    def results() -> int:
        return sum(len(each.data) for each in rig.held("azure", PARTS))

    async with rig.working(worker), rig.producer() as relay:
        job = await relay.submit("thumbs", "resize", 1)
        await begun.wait()
        answer = forge(rig, job.token)  # by another attempt, at another worker
        await rig.transport("bunny").publish("RESULTS_thumbs", subjects.result(job.key), answer)
        go.set()
        assert await job.result() == 666
        await until(lambda: rig.held("aws", "JOBS_thumbs") == [])
        if ledger:  # whose result it is to publish again should the one that stands be lost
            assert results() > len(DATA)
        else:
            await until(lambda: results() == 0)
