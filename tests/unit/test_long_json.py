"""JSON that is too long to be made a value of: refused where it would be decoded, and carried as bytes all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import JobFailed, PayloadTooLarge
from bridge.job import JSON, Content
from bridge.transfer import fields
from consumers import Worker
from producers import Kind, Payload
from tests.unit.test_large_jobs import MEASURE, Cut, fleet
from tests.unit.test_withdrawals import kept

LIMIT = 300_000
LONG = "x" * LIMIT
TEXT = Kind("thumbs", "resize", args=str, result=str)
BYTES = Kind("thumbs", "probe", args=bytes, result=str)


@pytest.fixture(autouse=True)
def lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "JSON_IN_MEMORY", LIMIT)


def repeating() -> tuple[Worker, list[int]]:
    worker, ran = Worker(), list[int]()

    @worker.handler(TEXT)
    async def repeat(text: str) -> str:
        ran.append(len(text))
        return LONG

    @worker.handler(BYTES)
    async def take(text: bytes) -> str:
        ran.append(len(text))
        return LONG

    return worker, ran


async def test_it_is_refused_before_it_is_sent_where_its_type_is_known() -> None:
    rig = fleet()
    async with rig.producer() as relay:
        for key in (None, "order-1"):
            with pytest.raises(PayloadTooLarge, match="JSON_IN_MEMORY"):
                await relay.submit(TEXT, LONG, key=key)
        with pytest.raises(PayloadTooLarge, match="JSON_IN_MEMORY"):
            await relay.submit(MEASURE, Cut(LONG, Payload(b"film")))
        assert kept(rig) == 0


async def test_a_handler_that_would_have_it_decoded_is_not_called() -> None:
    rig, (worker, ran) = fleet(), repeating()
    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit("thumbs", "resize", LONG)
        with pytest.raises(JobFailed, match=r"^PayloadTooLarge: 300002 bytes of JSON, .*bytes or as a Payload"):
            await job.result()
    assert ran == []


async def test_as_bytes_it_is_taken_and_a_result_is_read_as_bytes_or_into_a_file(tmp_path: Path) -> None:
    rig, (worker, ran) = fleet(), repeating()
    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit("thumbs", "probe", Content(JSON, f'"{LONG}"'.encode()))
        for type_ in (None, str, object):
            with pytest.raises(PayloadTooLarge, match="JSON_IN_MEMORY"):
                await job.result(type_)
        assert await job.result(bytes) == (await job.result(Content)).body == f'"{LONG}"'.encode()
        assert (await job.result(to=tmp_path / "out")).read_bytes() == f'"{LONG}"'.encode()
    assert ran == [LIMIT + 2]
