"""Large payloads leave turns of the event loop, and of the ways that messages take, to whatever else goes on."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import AsyncIterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from bridge.memory import MemoryTransport
from bridge.payload import PART
from bridge.transfer import outgoing, window
from bridge.transport import PARTS, Message, PubAck
from consumers import Worker
from producers import Payload
from tests.fleet import Fleet, policy

MIB = 1024 * 1024
DATA = os.urandom(7 * PART + 77)


async def test_no_two_parts_are_stored_in_one_turn_of_the_event_loop() -> None:
    rig = Fleet.make(policy(max_payload=4 * MIB, payload_bytes=16 * MIB))
    async with rig.producer() as relay:
        submit = asyncio.create_task(relay.submit("thumbs", "resize", DATA))
        stored = [0]
        while not submit.done():
            await asyncio.sleep(0)
            stored.append(len(rig.held("aws", "PARTS_thumbs")))
        await submit
    assert stored[-1] == 8 + 1, "parts, and their index"
    turns = [turn for turn, (before, after) in enumerate(pairwise(stored)) if after > before]
    assert max(after - before for before, after in pairwise(stored)) == 1
    assert min(after - before for before, after in pairwise(turns)) >= outgoing.TURNS


class Counting(MemoryTransport):
    """Keeps each part under way until the loop has nothing else to do, and counts them."""

    under_way = most = 0

    @classmethod
    def of(cls, rig: Fleet, cloud: str) -> Counting:
        return cls(rig.bridge, rig.bridge.cloud(cloud))

    @contextlib.asynccontextmanager
    async def counted(self, counts: bool) -> AsyncIterator[None]:
        if not counts:
            yield
            return
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range(100):
                await asyncio.sleep(0)
            yield
        finally:
            self.under_way -= 1

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
        async with self.counted(stream.startswith(PARTS) and data != b""):  # what is withdrawn is no part
            return await super().publish(stream, subject, data, headers, expected=expected, timeout=timeout)

    async def lookup(
        self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
    ) -> Message | None:
        async with self.counted(stream.startswith(PARTS)):
            return await super().lookup(stream, subject, cloud=cloud, timeout=timeout)


@pytest.mark.parametrize(("beside", "stored", "read"), [(False, 8, 4 + 1), (True, 1, 1 + 1)])
async def test_beside_other_messages_one_part_is_under_way(
    beside: bool, stored: int, read: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BUNNY_SPOOL", str(tmp_path))
    monkeypatch.setattr(window.Others, "there", lambda _: beside)
    monkeypatch.setattr(window, "LEAST_SAMPLE_S", math.inf)  # nor does the machine's pace make it grow
    rig, worker = Fleet.make(policy(max_payload=4 * MIB, payload_bytes=16 * MIB)), Worker()

    @worker.handler("thumbs", "resize")
    async def resize(payload: Payload) -> Payload:
        return payload

    here, there = Counting.of(rig, "aws"), Counting.of(rig, "azure")
    async with rig.producer(transport=here) as relay, rig.working(worker, "bunny", there):
        job = await relay.submit("thumbs", "resize", DATA)
        assert here.most == stored
        here.most = 0
        assert await job.result(bytes) == DATA
    assert (there.most, here.most) == (max(stored, read), read), "the index is read together with the first ones"
