"""Payloads of any size through both clouds, in memory and with real servers: what comes out is what went in."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.payload import PART
from consumers import Job, Worker
from producers import Payload
from tests.integration.films import Opens, both, once, write_spooling

DATA = os.urandom(3 * PART + 12_345)

worker = Worker()
seen: list[int | None] = []


@worker.handler("films", "echo")
async def echo(payload: Payload, job: Job) -> Payload:
    seen.append(payload.length)
    return payload


@worker.handler("films", "count")
def count(payload: Payload) -> dict[str, object]:
    seen.append(payload.length)
    with payload.open() as file:
        file.seek(-5, io.SEEK_END)
        end = file.read()
        file.seek(0)
        return {"sha256": hashlib.sha256(file.read()).hexdigest(), "end": end.hex()}


back = Worker()


@back.handler("backwards", "echo")
async def echo_back(payload: Payload) -> Payload:
    return payload


@worker.handler("films", "tell")
async def tell(data: bytes) -> AsyncIterator[bytes]:
    async def twice() -> AsyncIterator[bytes]:
        yield data
        yield data

    return twice()


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    seen.clear()
    return write_spooling(tmp_path, monkeypatch)


@both
async def test_whatever_it_is_sent_as(opens: Opens, tmp_path: Path, spool: Path) -> None:
    path = tmp_path / "film"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        async with (
            opens(tmp_path / "bridge.yaml") as rig,
            rig.working(worker, "bunny"),
            rig.producer("relay") as relay,
        ):
            for sent in (DATA, path, file, once(DATA), Payload(path, "video/mp4")):
                job = await relay.submit("films", "count", sent)
                assert await job.result() == {"sha256": hashlib.sha256(DATA).hexdigest(), "end": DATA[-5:].hex()}
    assert os.listdir(spool) == []


@both
async def test_whatever_it_is_taken_as(opens: Opens, tmp_path: Path) -> None:
    async with (
        opens(tmp_path / "bridge.yaml") as rig,
        rig.working(worker, "bunny"),
        rig.producer("relay") as relay,
    ):
        job = await relay.submit("films", "echo", Payload(DATA, "video/mp4"))
        content = await job.result()
        assert (content.content_type, content.body) == ("video/mp4", DATA)
        assert await job.result(bytes) == DATA
        assert (await job.result(Payload)).read() == DATA
        assert b"".join([chunk async for chunk in job.stream()]) == DATA
        told: list[int] = []
        assert await job.result(to=tmp_path / "out", progress=told.append) == tmp_path / "out"
        assert (tmp_path / "out").read_bytes() == DATA
        assert told == [PART, 2 * PART, 3 * PART, len(DATA)]
        assert [each for each in os.listdir(tmp_path) if each.startswith(".out")] == []
        assert await (await relay.submit("films", "tell", DATA)).result() == DATA + DATA
        assert await (await relay.submit("films", "tell", b"short")).result() == b"shortshort"
        attached = await relay.attach(job.token)
        assert await attached.result(bytes) == DATA
        async with rig.working(back, "relay"), rig.producer("gamma") as gamma:  # a queue in the other direction
            assert await (await gamma.submit("backwards", "echo", DATA)).result() == DATA
