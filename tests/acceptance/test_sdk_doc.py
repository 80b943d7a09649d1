"""``docs/sdk.md``: its programs are written to files, type-checked, and run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.typed import TIMEOUT_S, bunny, environment, up

ROOT = Path(__file__).resolve().parents[2]
CHECKED = ("contract.py", "worker.py", "submit.py", "restart.py", "store.py", "films.py", "frames.py", "scenes.py")
RESUME = """\
import asyncio
from pathlib import Path

import restart

print(asyncio.run(asyncio.wait_for(restart.resume(Path(".bunny/identities/relay-api"), Path("outbox")), 30)))
"""
RUN = """\
import asyncio
import test_thumbnails

asyncio.run(asyncio.wait_for(test_thumbnails.test_thumbnails(), 30))
"""
FILMS = """\
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import films
import scenes
from bridge.testing import memory_bridge


async def sound() -> AsyncIterator[bytes]:
    yield bytes(300_000)


async def main() -> None:
    film = Path("film")
    film.write_bytes(bytes(2_000_000))
    async with (
        memory_bridge("bridge.yaml") as bridge,
        bridge.working(films.editor, "bunny"),
        bridge.producer("relay-api") as relay,
    ):
        print((await films.cut_one(relay, film, Path("out"))).stat().st_size, await films.measure_one(relay, film))
    async with (
        memory_bridge("bridge.yaml") as bridge,
        bridge.working(scenes.dubber, "bunny"),
        bridge.producer("relay-api") as relay,
    ):
        print((await scenes.dub_one(relay, film, sound(), Path("dubbed"))).stat().st_size)
        print(await scenes.dub_once(relay, film), await scenes.dub_many(relay, [film, film]))
        async with relay.inbox("films") as inbox:
            print((await scenes.store(await anext(inbox), Path("kept"))).stat().st_size)


asyncio.run(asyncio.wait_for(main(), 30))
"""

FRAMES = """\
import asyncio

import frames
from bridge.testing import memory_bridge


async def main() -> None:
    async with (
        memory_bridge("bridge.yaml") as bridge,
        bridge.working(frames.analyst, "bunny"),
        bridge.producer("relay-api") as relay,
    ):
        sharp = await frames.count_sharp(relay, 1_000)
        token, rows = str((await relay.submit(frames.FRAMES, 700)).token), {}
        place = await frames.store(relay, token, rows, None)
        print(sharp, list(rows) == list(range(700)), await frames.store(relay, token, {}, place) == place)


asyncio.run(asyncio.wait_for(main(), 60))
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A folder with the programs of the document, and the policy that `bunny init` writes, with an inbox."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "docs/sdk.md").read_text(), re.DOTALL)
    assert len(blocks) == (ROOT / "docs/sdk.md").read_text().count("```python")
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    bunny("init", tmp_path)
    policy = tmp_path / "bridge.yaml"
    text = policy.read_text()
    assert "inbox: []" in text
    text = text.replace("inbox: []", "inbox: [relay-api]")
    kinds, more = "kinds: [cut, dub, frames]", "max_payload: 8MiB, inbox: [relay-api]"
    films = f"  films: {{producers: [relay-api], workers: bunny, {kinds}, {more}}}\n"
    policy.write_text(text.replace("queues:\n", f"queues:\n{films}"))
    return tmp_path


def test_its_programs_do_what_its_test_says(application: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", RUN],
        cwd=application,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr


def test_its_films_are_cut(application: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", FILMS],
        cwd=application,
        env=environment(BUNNY_SPOOL=str(application / "spool")),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    printed = [line for line in done.stdout.splitlines() if not re.match(r"\d{4}-", line)]  # and not logged
    assert printed == ["400000 400000", "300000", "True [300000, 300000]", "300000"], done.stderr


def test_its_frames_stream(application: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", FRAMES],
        cwd=application,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert "500 True True\n" in done.stdout, done.stdout + done.stderr


def test_its_programs_are_what_the_type_checker_expects(application: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", ".mypy", *CHECKED],
        cwd=application,
        env=environment(MYPYPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT_S,
    )
    assert not [line for line in done.stdout.splitlines() if line.startswith(CHECKED)]
    assert done.returncode == 0, done.stdout


def test_its_processes_meet_over_real_servers(application: Path) -> None:
    with up("up --json", application) as running:
        running.until("version")
        working = subprocess.Popen(
            [sys.executable, "worker.py"],
            cwd=application,
            env=environment(BUNNY_IDENTITY=".bunny/identities/bunny"),
            stderr=subprocess.DEVNULL,
        )
        try:
            done = subprocess.run(
                [sys.executable, "main.py"],
                cwd=application,
                env=environment(BUNNY_IDENTITY=".bunny/identities/relay-api"),
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
            assert done.stdout == "Thumbnail(pixels=64000, attempt=1)\n", done.stderr
            done = subprocess.run(
                [sys.executable, "-c", RESUME],
                cwd=application,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
            assert done.stdout == "0\n", done.stderr
        finally:
            working.terminate()
            assert working.wait(TIMEOUT_S) == 0
