"""Payloads, with real servers, that this machine has no room for, or their job no time: named, and nothing left."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import DeadlineExceeded, SpoolFull
from bridge.payload import PART
from bridge.testing import embedded_bridge
from consumers import Worker, payloads
from producers import Payload
from tests.fleet import until
from tests.integration.films import write_spooling

DATA, SHORT = os.urandom(3 * PART + 12_345), os.urandom(PART + 1_000)


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = write_spooling(tmp_path, monkeypatch)
    place.mkdir(mode=0o700)
    return place


@contextlib.contextmanager
def room(most: int) -> Iterator[None]:
    """Have the kernel refuse this process a longer file: what anybody can arrange, unlike a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def measuring() -> tuple[Worker, list[int]]:
    worker, seen = Worker(), list[int]()

    @worker.handler("films", "echo")
    async def echo(film: Payload) -> Payload:
        seen.append(film.length or 0)
        return film

    return worker, seen


async def test_h41_the_kernel_has_no_room_amid_a_transfer(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (worker, seen), out = measuring(), tmp_path / "out"
    out.mkdir()
    refused = list[str]()
    hindered = payloads._hindered

    def told(case: object, error: Exception) -> payloads.Hindered:
        refused.append(type(error).__name__)
        return hindered(case, error)  # type: ignore[arg-type]

    monkeypatch.setattr(payloads, "_hindered", told)
    monkeypatch.setattr(payloads, "FULL_DELAY_S", 0.5)
    async with (
        embedded_bridge(tmp_path / "bridge.yaml") as rig,
        rig.working(worker, "bunny"),
        rig.producer("relay") as relay,
    ):
        with room(2 * PART):
            long = await relay.submit("films", "echo", DATA)
            await until(lambda: len(refused) > 1)  # and again
            short = await relay.submit("films", "echo", SHORT)
            assert await short.result(bytes) == SHORT
            assert (set(refused), seen, long.done()) == ({"SpoolFull"}, [len(SHORT)], False)
        assert await long.result(bytes) == DATA
        with room(2 * PART):
            with pytest.raises(SpoolFull, match="make some"):
                await long.result(to=out / "film")
            assert os.listdir(out) == []
            assert (await short.result(to=out / "short")).read_bytes() == SHORT
            with pytest.raises(SpoolFull, match="film: no room on this disk"):
                await Payload(DATA).save(out / "film")
        assert os.listdir(out) == ["short"]
        assert (await long.result(to=out / "film")).read_bytes() == DATA
    assert (seen, os.listdir(spool)) == ([len(SHORT), len(DATA)], [])


async def test_h29_a_job_is_too_late_amid_its_transfer(tmp_path: Path, spool: Path) -> None:
    worker, seen = measuring()
    async with (
        embedded_bridge(tmp_path / "bridge.yaml") as rig,
        rig.working(worker, "bunny"),
        rig.producer("relay") as relay,
    ):
        assert await (await relay.submit("films", "echo", SHORT)).result(bytes) == SHORT
        assert rig.bridge.relay is not None
        rig.bridge.relay.rate = 40_000.0  # bytes a second: a part takes six
        late = await relay.submit("films", "echo", DATA, deadline=5)
        await until(lambda: os.listdir(spool) != [])
        with pytest.raises(DeadlineExceeded):
            await late.result()
        assert os.listdir(spool) == []
        rig.bridge.relay.rate = None
        assert await (await relay.submit("films", "echo", SHORT)).result(bytes) == SHORT
    assert seen == [len(SHORT)] * 2
