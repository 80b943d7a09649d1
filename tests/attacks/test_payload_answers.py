"""Parts that a server has not yet, and files that an ended process left: what a reader makes of them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from bridge.memory import MemoryTransport
from bridge.payload import PART
from bridge.transfer import Aside, incoming
from bridge.transport import Message
from tests.attacks.test_payloads import DATA, Seen, fleet


class Lagging(MemoryTransport):
    """A server that does not have a part yet when it is first asked for it."""

    asked: Counter[str]

    async def lookup(
        self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
    ) -> Message | None:
        found = await super().lookup(stream, subject, cloud=cloud, timeout=timeout)
        if stream.startswith("PARTS_"):
            self.asked[subject] += 1
            return found if self.asked[subject] > 20 else None
        return found


async def test_a_part_that_a_server_has_later_than_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rig, seen = fleet(), Seen()
    monkeypatch.setenv("BUNNY_SPOOL", str(tmp_path))
    monkeypatch.setattr(incoming, "PAUSE_S", 0.001)
    transport = Lagging(rig.bridge, rig.bridge.cloud("azure"))
    transport.asked = Counter()
    async with rig.producer() as relay, rig.working(seen.worker, "bunny", transport):
        assert await (await relay.submit("thumbs", "resize", DATA)).result() == len(DATA)
    assert min(transport.asked.values()) == 21


async def test_what_an_ended_process_left_of_a_file_is_replaced(tmp_path: Path) -> None:
    rig, seen = fleet(), Seen()
    async with rig.producer() as relay, rig.working(seen.worker):
        job = await relay.submit("thumbs", "probe", DATA)
        opened = await job.result(to=tmp_path / "out")
        assert opened.read_bytes() == DATA
    left = Aside(tmp_path / "film", "mark")
    left.write(bytes(PART))
    with Aside(tmp_path / "film", "mark") as aside:
        aside.write(b"whole")
        assert not (tmp_path / "film").exists()
        aside.land()
    assert (tmp_path / "film").read_bytes() == b"whole"
    assert sorted(os.listdir(tmp_path)) == ["film", "out"]
