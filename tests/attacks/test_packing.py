"""Content that is compressed or padded, end to end: what brokers see of it, and authors who lie about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bridge import packing
from bridge.errors import BadPacking, JobFailed
from bridge.packing import Packing
from bridge.payload import PART
from consumers import Reject, Worker
from producers import Payload
from tests.fleet import Fleet, policy, until
from tests.vectors.packed import framed

MIB = 1024 * 1024
TEXT = (b"the same words again and again, " * 30_000)[: 3 * PART + 100_000]
NOISE = os.urandom(PART)
PARTS = "PARTS_thumbs"


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BUNNY_SPOOL", str(tmp_path / "spool"))
    return tmp_path / "spool"


def fleet(how: Packing | None) -> Fleet:
    return Fleet.make(policy(max_payload=4 * MIB, payload_bytes=20 * MIB, packing=how))


class Echo:
    """A worker that gives back what it gets."""

    def __init__(self, *, stream: bool = False) -> None:
        self.worker, self.calls = Worker(), 0

        @self.worker.handler("thumbs", "resize", stream=stream)
        async def resize(payload: Payload) -> bytes:
            self.calls += 1
            data = b"".join([chunk async for chunk in payload])
            assert payload.length == len(data)
            return data

        @self.worker.handler("thumbs", "probe")
        def probe(payload: Payload) -> bytes:
            if payload.length == 4:
                raise Reject("no")
            with payload.open() as file:
                file.seek(-min(payload.length or 0, 100), os.SEEK_END)
                return file.read()


def sizes(rig: Fleet, cloud: str, stream: str = PARTS) -> list[int]:
    return [len(message.data) for message in rig.held(cloud, stream)]


@pytest.mark.parametrize("how", Packing)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_payloads_there_and_back(how: Packing, stream: bool, tmp_path: Path) -> None:
    rig, echo = fleet(how), Echo(stream=stream)
    async with rig.producer() as relay, rig.working(echo.worker):
        for data in (TEXT, NOISE + TEXT, b"short", TEXT[:5_000]):
            job = await relay.submit("thumbs", "resize", data)
            assert await job.result() == data
            assert job.length == len(data)
            assert (await job.result(to=tmp_path / "out")).read_bytes() == data
            assert b"".join([chunk async for chunk in job.stream()]) == data
            assert await (await relay.submit("thumbs", "probe", data)).result() == data[-100:]


async def test_what_is_compressed_takes_less_and_what_does_not_shrink_no_more() -> None:
    rig = fleet(Packing.ZSTD)
    async with rig.producer() as relay:
        await relay.submit("thumbs", "resize", TEXT)
        assert sum(sizes(rig, "aws")) < len(TEXT) // 100
        await relay.submit("thumbs", "resize", bytes(10_000))
        await relay.submit("thumbs", "resize", NOISE * 2)
    *_, first, second, _ = sizes(rig, "aws")
    assert first == second == PART + 328
    assert sizes(rig, "aws", "JOBS_thumbs")[1] < 2_500


async def test_what_is_padded_looks_alike() -> None:
    rig, seen = fleet(Packing.PADME), set[tuple[int, ...]]()
    async with rig.producer() as relay:
        for length in (590_000, 606_208):
            held = len(sizes(rig, "aws")), len(sizes(rig, "azure"))
            job = await relay.submit("thumbs", "resize", bytes(length))
            sent = sizes(rig, "aws")[held[0] :]  # before a worker is there, which acks
            async with rig.working(Echo().worker):
                await until(job.done)
            seen.add((*sent, *sizes(rig, "azure")[held[1] :]))
    assert len(seen) == 1


async def test_short_results_look_alike_however_a_job_ended() -> None:
    rig = fleet(Packing.PADME)
    async with rig.producer() as relay, rig.working(Echo().worker):
        for data in (b"", b"no", b"yes, indeed"):
            await (await relay.submit("thumbs", "probe", data)).result()
        with pytest.raises(JobFailed):
            await (await relay.submit("thumbs", "probe", b"fail")).result()
    assert len(set(sizes(rig, "azure", "RESULTS_thumbs"))) == 1


@pytest.mark.parametrize(
    "instead",
    [
        lambda data: framed(bytes(64 * MIB)),
        lambda data: framed(data[:-1]),
        lambda data: framed(data) + b"x",
        lambda data: bytes(100),
    ],
    ids=["bomb", "short", "and-more", "no-frame"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_h26_bombs_in_arguments(instead: Any, stream: bool, spool: Path) -> None:  # noqa: ANN401
    rig, echo = fleet(Packing.ZSTD), Echo(stream=stream)
    async with rig.producer() as relay, rig.working(echo.worker):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packing, "compressed", instead)
            jobs = [await relay.submit("thumbs", "resize", data) for data in (TEXT, TEXT[:2_000])]
        for job in jobs:
            with pytest.raises(JobFailed) as failure:
                await job.result()
            assert (failure.value.type, failure.value.attempts) == ("BadPacking", 1)
        assert await (await relay.submit("thumbs", "resize", TEXT)).result() == TEXT
    assert stream or os.listdir(spool) == []


async def test_h26_bombs_in_results(tmp_path: Path) -> None:
    rig, echo = fleet(Packing.ZSTD), Echo()
    async with rig.producer() as relay, rig.working(echo.worker):
        job = await relay.submit("thumbs", "resize", TEXT)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packing, "compressed", lambda _: framed(bytes(8 * MIB)))
            await until(job.done)
        before = os.listdir(tmp_path)
        with pytest.raises(BadPacking):
            await job.result()
        with pytest.raises(BadPacking):
            await job.result(to=tmp_path / "out")
        assert os.listdir(tmp_path) == before
