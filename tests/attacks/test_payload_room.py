"""A producer that fills the room for payloads of its queue: its own jobs wait, and hold no slot meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.transfer import outgoing
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
