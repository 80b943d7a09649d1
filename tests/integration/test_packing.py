"""Compressed one way and padded the other, on real servers: what comes out is what went in."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.payload import PART
from bridge.testing import embedded_bridge
from consumers import Worker
from producers import Payload
from tests.integration.films import write_policy

TEXT = (b"the same words again and again, " * 30_000)[: 3 * PART + 12_345]


async def test_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUNNY_SPOOL", str(tmp_path / "spool"))
    policy = write_policy(tmp_path, more=", compression: zstd", back_more=", padding: padme")
    there, back = Worker(), Worker()

    async def echo(payload: Payload) -> Payload:
        return payload

    there.handler("films", "echo")(echo)
    back.handler("backwards", "echo")(echo)
    async with (
        embedded_bridge(policy) as rig,
        rig.working(there, "bunny"),
        rig.working(back, "relay"),
        rig.producer("other") as other,
        rig.producer("gamma") as gamma,
    ):
        for producer, queue in ((other, "films"), (gamma, "backwards")):
            for data in (TEXT, TEXT[:5_000], b"x"):
                job = await producer.submit(queue, "echo", Payload(data))
                assert await job.result(bytes) == data
                assert (await job.result(to=tmp_path / "out")).read_bytes() == data
