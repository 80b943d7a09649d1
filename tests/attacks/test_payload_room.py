"""The room for payloads of a queue: who waits for it holds no slot, and it is made at a pace."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge.memory import MemoryTransport
from bridge.subjects import JobKey
from bridge.transfer import Withdrawals, outgoing, withdrawals
from bridge.transport import PubAck
from consumers import Worker
from tests.fleet import Fleet, policy, until

MIB = 1024 * 1024


async def test_results_that_find_no_room_hold_no_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNNY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(outgoing, "FULL_PAUSE_S", 0.01)
    rig = Fleet.make(policy(max_payload=MIB, payload_bytes=2 * MIB))
    worker, made = Worker(concurrency=1), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(size: int) -> bytes:
        made.append(size)
        return bytes(size)

    async with rig.producer() as relay, rig.working(worker):
        first = await relay.submit("thumbs", "resize", MIB)
        assert len(await first.result()) == MIB
        waits = await relay.submit("thumbs", "resize", MIB - 1)
        await until(lambda: MIB - 1 in made)
        assert len(await (await relay.submit("thumbs", "resize", MIB // 8)).result(timeout=30)) == MIB // 8
        assert not waits.done()
        async with rig.transport("bunny") as transport:
            for part in rig.held("azure", "PARTS_thumbs"):
                if f".{first.id}." in part.subject:
                    await transport.publish("PARTS_thumbs", part.subject, b"")
        assert len(await waits.result()) == MIB - 1
    assert made.count(MIB - 1) == 1


class Counting(MemoryTransport):
    """Counts how many messages are on their way at once."""

    now = most = 0

    async def publish(
        self,
        stream: str,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        expected: int | None = None,
        timeout: float = 5.0,
    ) -> PubAck:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            return await super().publish(stream, subject, data, headers, expected=expected, timeout=timeout)
        finally:
            self.now -= 1


async def test_answers_that_come_all_together_do_not_flood_the_server() -> None:
    rig = Fleet.make(policy(max_payload=MIB, payload_bytes=2 * MIB))
    transport = Counting(rig.bridge, rig.bridge.cloud("aws"))
    async with transport:
        withdrawn = Withdrawals(transport)
        await asyncio.gather(*(withdrawn.start(JobKey("thumbs", "relay", "s", n), bytes(16), 5) for n in range(99)))
    assert transport.most <= 5 * withdrawals.PAYLOADS
