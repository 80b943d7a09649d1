"""``bunny open``: bytes of a message in, what may be known of it out, and never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.bundle import sign_payload
from bridge.envelope import Draft, Sealed
from bridge.job import Content
from tests.acceptance.typed import TIMEOUT_S, Said, environment
from tests.world import SESSION, World

BODY = b'{"width": 320, "name": "\\u001b[31mred"}'


@pytest.fixture
def world() -> World:
    return World()


def folder(world: World, name: str, at: Path) -> Path:
    """An identity folder; of ``nobody`` one without keys."""
    place = at / name
    place.mkdir()
    if name != "nobody":
        world.identities[name].save(place)
    (place / "trust.json").write_bytes(sign_payload(world.payload(), world.roots))
    (place / "roots.json").write_bytes(world.roots_json())
    return place


def job(world: World) -> Sealed:
    return world.sealer("relay").seal(world.job(BODY), world.now)


def opened(data: bytes, *words: str | Path, code: int = 0) -> Said:
    done = subprocess.run(
        [sys.executable, "-m", "bridge.cli", "open", *map(str, words)],
        env=environment(),
        input=data,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    said = Said(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in said.err, said.err
    assert said.code == code, said
    return said


def test_whom_it_is_for_reads_it(world: World, tmp_path: Path) -> None:
    sealed, place = job(world), folder(world, "bunny", tmp_path)
    said = opened(sealed.data, "--identity", place)
    assert said.out.startswith("OPENED")
    for line in (
        "job      " + SESSION + ".1",
        "queue    thumbs",
        "kind     resize",
        "to       bunny",
        '  "width": 320,',
    ):
        assert line in said.out
    assert f"digest   {sealed.digest.hex()}" in said.out
    assert "\x1b" not in said.out
    assert opened(sealed.data, "--identity", place, "--body").out.encode() == BODY
    values = opened(sealed.data, "--identity", place, "--json").json
    assert (values["state"], values["authentic"], values["content"]["width"]) == ("opened", True, 320)
    assert values["core"]["from"] == "relay"


def test_it_may_come_in_a_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes(job(world).data)
    said = opened(b"", tmp_path / "message", "--identity", folder(world, "bunny", tmp_path))
    assert said.out.startswith("OPENED")
    assert opened(b"", "nowhere", code=1).error == "nowhere: No such file or directory"


@pytest.mark.parametrize("name", ["relay", "stranger", "nobody"])
def test_all_others_are_told_who_wrote_what_and_that_it_is_sealed(name: str, world: World, tmp_path: Path) -> None:
    sealed, place = job(world), folder(world, name, tmp_path)
    said = opened(sealed.data, "--identity", place)
    assert said.out.startswith(f"SEALED   addressed to another principal than {name}")
    assert "from     relay (key " in said.out
    assert "width" not in said.out
    assert opened(sealed.data, "--identity", place, "--json").json["state"] == "sealed"
    assert opened(sealed.data, "--identity", place, "--body", code=4).out == ""


def test_results_and_starts(world: World, tmp_path: Path) -> None:
    sealed = job(world)
    result = world.sealer("bunny").seal(world.result(sealed), world.now)
    start = world.sealer("bunny").seal(world.start(sealed), world.now)
    place = folder(world, "relay", tmp_path)
    said = opened(result.data, "--identity", place).out
    assert "status   succeeded" in said
    assert f"answers  {sealed.digest.hex()}" in said
    assert "attempt  1 by pod-1" in said
    assert opened(start.data, "--identity", place).out.startswith("SIGNED\nstart    ")
    assert "has no content" in opened(start.data, "--identity", place, "--body", code=1).error


def test_what_a_worker_would_refuse_is_refused_with_what_it_claims(world: World, tmp_path: Path) -> None:
    data, place = job(world).data, folder(world, "bunny", tmp_path)
    bent = opened(data[:-1] + bytes([data[-1] ^ 1]), "--identity", place, code=4)
    assert bent.out.startswith("REFUSED  BadSignature: ")
    assert "What it claims, NOT believed:\njob " in bent.out
    assert "width" not in bent.out
    values = opened(data[:-1] + bytes([data[-1] ^ 1]), "--identity", place, "--json", code=4).json
    assert (values["authentic"], values["error"]) == (False, "BadSignature")
    mine = world.sealer("stranger").seal(world.job(sender="stranger"), world.now)
    assert opened(mine.data, "--identity", place, code=4).out.startswith("REFUSED  NotAuthorised: ")


@pytest.mark.parametrize("data", [b"", b"RB1\0", b"\xff" * 900_000, b"{}"], ids=["empty", "magic", "huge", "json"])
def test_rubbish_is_refused_in_one_line(data: bytes, world: World, tmp_path: Path) -> None:
    said = opened(data, "--identity", folder(world, "bunny", tmp_path), code=4)
    assert said.out.startswith("REFUSED  BadFrame: ")
    assert said.out.count("\n") == said.err.count("\n") == 1


@pytest.mark.parametrize("body", [b"not json", b"[" * 100_000, b'"\\ud800"', b"9" * 10_000], ids=lambda b: str(b[:9]))
def test_what_an_author_sealed_may_be_anything(body: bytes, world: World, tmp_path: Path) -> None:
    draft = world.job()
    sealed = world.sealer("relay").seal(
        Draft(draft.core, draft.recipients, Content("application/json", body)), world.now
    )
    place = folder(world, "bunny", tmp_path)
    assert opened(sealed.data, "--identity", place).out.startswith("OPENED")
    json.loads(opened(sealed.data, "--identity", place, "--json").out)


def test_without_a_bundle_nothing_is_believed(world: World, tmp_path: Path) -> None:
    place = tmp_path / "empty"
    place.mkdir()
    assert "cannot be read" in opened(job(world).data, "--identity", place, code=1).error
    assert "not a folder" in opened(job(world).data, "--identity", place / "no", code=1).error
