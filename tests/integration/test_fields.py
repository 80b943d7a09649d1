"""Payloads among the fields of arguments and results, through both clouds, in memory and with real servers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from bridge.composite import MAX_FIELDS
from bridge.errors import ConfigurationError, InvalidArguments, JobFailed, KeyConflict, PayloadTooLarge, UsageError
from bridge.payload import PART
from bridge.testing import embedded_bridge, memory_bridge
from consumers import Worker
from producers import Handle, Kind, Payload
from tests.integration.films import Opens, both, once, write_policy, write_spooling

BIG = os.urandom(2 * PART + 12_345)
SMALL = os.urandom(999)


@dataclass
class Cut:
    title: str
    film: Payload
    sound: Payload | None = None
    stills: list[Payload] = field(default_factory=list)


class Made(BaseModel):
    title: str
    film: Payload
    lengths: list[int]


CUT = Kind("films", "echo", args=Cut, result=Made)
MEASURE = Kind("films", "count", args=Cut, result=dict[str, str])
worker = Worker()


@worker.handler(CUT)
async def cut(args: Cut) -> Made:
    found = [args.film, *([args.sound] if args.sound else []), *args.stills]
    return Made(title=args.title, film=args.film, lengths=[each.length or 0 for each in found])


@worker.handler(MEASURE)
def measure(args: Cut) -> dict[str, str]:
    found = {"film": args.film, **({"sound": args.sound} if args.sound else {})}
    return {name: hashlib.sha256(each.read()).hexdigest() for name, each in found.items()}


@worker.handler("films", "tell")
async def tell(data: bytes) -> Made:
    async def twice() -> AsyncIterator[bytes]:
        yield data
        yield data

    return Made(title="twice", film=Payload(twice(), "video/mp4"), lengths=[])


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_spooling(tmp_path, monkeypatch)


@both
async def test_fields_there_and_back(opens: Opens, tmp_path: Path, spool: Path) -> None:
    path = tmp_path / "film"
    path.write_bytes(BIG)
    async with (
        opens(tmp_path / "bridge.yaml") as rig,
        rig.working(worker, "bunny"),
        rig.producer("relay") as relay,
    ):
        small = Cut("small", Payload(SMALL, "video/mp4"), Payload(b""), [Payload(once(SMALL))])
        made = await (await relay.submit(CUT, small)).result()
        assert (made.title, made.film.content_type, made.film.read()) == ("small", "video/mp4", SMALL)
        assert made.lengths == [999, 0, 999]
        stills = [Payload(once(BIG)), Payload(SMALL)]
        large = Cut("large", Payload(path, "video/mp4"), Payload(once(SMALL)), stills)
        told: list[int] = []
        job = await relay.submit(CUT, large, progress=told.append)
        made = await job.result()
        assert (made.film.content_type, made.film.length) == ("video/mp4", len(BIG))
        assert made.lengths == [len(BIG), 999, len(BIG), 999]
        assert told[-1] > 2 * len(BIG)
        assert b"".join([chunk async for chunk in made.film]) == BIG
        with made.film.open() as file:
            file.seek(PART - 3)
            assert file.read(7) == BIG[PART - 3 : PART + 4]
        assert (await made.film.save(tmp_path / "out")).read_bytes() == BIG
        measured = await (await relay.submit(MEASURE, Cut("sums", Payload(BIG), Payload(SMALL)))).result()
        assert measured == {name: hashlib.sha256(data).hexdigest() for name, data in (("film", BIG), ("sound", SMALL))}
        twice = await (await relay.submit("films", "tell", BIG)).result(Made)
        assert (twice.film.content_type, twice.film.read()) == ("video/mp4", BIG + BIG)
        with path.open("rb") as file:  # what a payload is made of does as well
            sent = Cut("made", path, file, [SMALL, once(SMALL)])  # type: ignore[arg-type,list-item]
            assert (await (await relay.submit(CUT, sent)).result()).lengths == [len(BIG), len(BIG), 999, 999]
    assert os.listdir(spool) == []


async def test_keys_many_and_an_inbox_with_real_servers(tmp_path: Path) -> None:
    path, policy = tmp_path / "film", write_policy(tmp_path, more=", inbox: [relay]")
    path.write_bytes(BIG)
    async with (
        embedded_bridge(policy) as rig,
        rig.working(worker, "bunny"),
        rig.producer("relay") as relay,
        rig.producer("relay") as replica,
        relay.inbox("films") as inbox,
    ):
        first = await relay.submit(CUT, Cut("keyed", Payload(path)), key="cut-1")
        for same in (Payload(path), Payload(once(BIG))):
            again = await replica.submit(CUT, Cut("keyed", same), key="cut-1")
            assert (await again.result()).film.read() == BIG
        assert again.id == first.id
        with pytest.raises(KeyConflict):
            await replica.submit(CUT, Cut("keyed", Payload(BIG[:-1])), key="cut-1")
        result = await anext(inbox)
        assert (await result.read(Made)).film.read() == BIG
        await result.ack()
        films = [BIG, SMALL, BIG[1:], b""]
        jobs = await relay.submit_many(CUT, (Cut("many", Payload(film)) for film in films))
        made = [await job.result() for job in jobs if isinstance(job, Handle)]
        assert [each.film.length for each in made] == [len(film) for film in films]


async def test_what_is_said_before_it_is_sent(tmp_path: Path) -> None:
    async with memory_bridge(tmp_path / "bridge.yaml") as rig, rig.producer("relay") as relay:
        nine = tmp_path / "nine"
        with nine.open("wb") as file:
            file.truncate(9 * 1024 * 1024)
        for args, error, words in (
            (Cut("a", Payload(nine), Payload(b"")), PayloadTooLarge, "max_payload"),
            (Cut("a", Payload(b""), stills=[Payload(b"") for _ in range(MAX_FIELDS)]), InvalidArguments, "MAX_FIELDS"),
            (Cut("a", Payload(b"", "Video")), InvalidArguments, "media type"),
            (Cut("a", tmp_path / "none"), UsageError, "no such file"),  # type: ignore[arg-type]
            (Cut("a", "text"), InvalidArguments, "Payload"),  # type: ignore[arg-type]
        ):
            with pytest.raises(error, match=words):
                await relay.submit(CUT, args)
        with pytest.raises(InvalidArguments, match="declared as Payload"):
            await relay.submit("films", "echo", {"film": Payload(b"")})
        whole = sum([nine.stat().st_size, 1])
        with pytest.raises(PayloadTooLarge, match="max_payload"):  # that it is too much is seen on the way
            await relay.submit(CUT, Cut("a", Payload(once(bytes(whole)))))
        held = [message for message in rig.held("aws", "PARTS_films") if message.data] if hasattr(rig, "held") else []
        assert held == []


def apart(args: Payload) -> None:
    """Never called."""


def apart_with_fields(args: dict[str, list[Cut]]) -> None:
    """Never called."""


@pytest.mark.parametrize("function", [apart, apart_with_fields])
def test_a_process_of_its_own_takes_no_payload_at_any_depth(function: Callable[[Any], None]) -> None:
    with pytest.raises(ConfigurationError, match="takes no Payload"):
        Worker().handler("films", "echo", isolation="process")(function)


async def test_who_names_no_type_is_told_to(tmp_path: Path) -> None:
    async with (
        memory_bridge(tmp_path / "bridge.yaml") as rig,
        rig.working(worker, "bunny"),
        rig.producer("relay") as relay,
    ):
        for size in (9, len(BIG)):
            job = await relay.submit("films", "tell", BIG[:size])
            for type_ in (None, bytes, Payload, object, Any):
                with pytest.raises(InvalidArguments, match="name its type"):
                    await job.result(type_)
            with pytest.raises(InvalidArguments, match="among its fields"):
                await job.result(to=tmp_path / "out")
            with pytest.raises(InvalidArguments, match="among its fields"):
                [chunk async for chunk in job.stream()]
            with pytest.raises(JobFailed, match="InvalidArguments"):
                await (await relay.submit("films", "tell", Cut("a", Payload(BIG[:size])))).result()
