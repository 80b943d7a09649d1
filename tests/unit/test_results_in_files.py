"""Results that are written to a file: what is refused before anything is fetched, and what ended processes left."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path

import pytest

from bridge.errors import PayloadTooLarge, UsageError
from bridge.files import write_file
from bridge.transfer.aside import beside
from bridge.transfer.spool import STALE_S
from producers import Handle, Payload
from tests.fleet import Fleet, policy
from tests.unit.test_large_jobs import COPY, DATA, fleet, working
from tests.unit.test_withdrawals import MIB


async def answered(rig: Fleet, data: bytes) -> str:
    """The token of a job whose result stands."""
    worker, _ = working()
    async with rig.producer() as relay, rig.working(worker):
        job = await relay.submit(COPY, Payload(data))
        await job.result(bytes)
        return str(job.token)


async def test_a_directory_is_refused_before_the_result_is_waited_for(tmp_path: Path) -> None:
    async with fleet().producer() as relay:
        job: Handle[Payload] = await relay.submit(COPY, Payload(DATA))  # nobody works it
        with pytest.raises(UsageError, match="a directory"):
            await job.result(to=tmp_path)
        with pytest.raises(UsageError, match="no such directory"):
            await job.result(to=tmp_path / "none" / "film")
        with pytest.raises(UsageError, match="File name too long"):
            await job.result(to=tmp_path / ("f" * 256))
        with pytest.raises(UsageError, match="File name too long"):
            await Payload(DATA).save(tmp_path / ("f" * 256))


@pytest.mark.parametrize("data", [DATA, b"short"], ids=["parts", "inline"])
@pytest.mark.parametrize("name", ["f" * 255, "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 127, "f" * 129])
async def test_a_file_may_have_as_long_a_name_as_the_disk_takes(tmp_path: Path, name: str, data: bytes) -> None:
    rig = fleet()
    token = await answered(rig, data)
    left = tmp_path / f"{beside(tmp_path / name)}0badcafe.aside"
    left.write_bytes(b"x")
    async with rig.producer() as relay:
        job = await relay.attach(token)
        assert (await job.result(to=tmp_path / name)).read_bytes() == data
    assert os.listdir(tmp_path) == [name]
    assert (await Payload(data).save(tmp_path / name)).read_bytes() == data
    write_file(tmp_path / name, data)
    assert os.listdir(tmp_path) == [name]


def test_what_lies_beside_one_file_is_not_taken_for_that_of_another(tmp_path: Path) -> None:
    names = [tmp_path / ("f" * length) for length in range(126, 132)]
    assert len({beside(name) for name in names}) == len(names)


async def test_a_result_above_the_producers_own_limit_is_not_fetched(tmp_path: Path) -> None:
    rig = fleet()
    token = await answered(rig, DATA)
    small = Fleet(policy(max_payload=len(DATA) - 1, payload_bytes=64 * MIB), rig.identities, rig.trust, rig.bridge)
    async with small.producer() as relay:
        job = await relay.attach(token)
        for type_ in (bytes, Payload):
            with pytest.raises(PayloadTooLarge, match="max_payload"):
                await job.result(type_)
        with pytest.raises(PayloadTooLarge, match="max_payload"):
            await job.result(to=tmp_path / "film")
        with pytest.raises(PayloadTooLarge, match="max_payload"):
            [chunk async for chunk in job.stream()]
        assert os.listdir(tmp_path) == []
    async with rig.producer() as relay:  # it stands
        assert await (await relay.attach(token)).result(bytes) == DATA


@pytest.mark.parametrize("data", [DATA, b"short"], ids=["parts", "inline"])
async def test_what_ended_processes_left_beside_the_file_is_removed(tmp_path: Path, data: bytes) -> None:
    rig = fleet()
    token = await answered(rig, data)
    left, held, other = (tmp_path / name for name in (".film.0badcafe.aside", ".film.deadbeef.aside", ".b.1.aside"))
    old, young = (tmp_path / f".film.{digit * 32}-{digit * 16}.parts" for digit in "ab")
    for path in (left, held, other, old, young):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - STALE_S - 60,) * 2)
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as by a process that writes it
        async with rig.producer() as relay:
            assert (await (await relay.attach(token)).result(to=tmp_path / "film")).read_bytes() == data
        assert sorted(os.listdir(tmp_path)) == sorted([other.name, held.name, young.name, "film"])


async def test_a_pipe_with_the_name_of_what_is_left_holds_nobody_up(tmp_path: Path) -> None:
    rig = fleet()
    token = await answered(rig, b"short")
    os.mkfifo(tmp_path / ".film.deadbeef.aside")
    async with rig.producer() as relay:
        job = await relay.attach(token)
        async with asyncio.timeout(30):
            assert (await job.result(to=tmp_path / "film")).read_bytes() == b"short"
