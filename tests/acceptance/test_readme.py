"""The README's example, typed as it stands there: both clouds, a worker, a job, its result."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUNNY = (sys.executable, "-m", "bridge.cli")
PATIENCE_S = 90


@contextmanager
def running(folder: Path, *command: str, until: str, **environment: str) -> Iterator[None]:
    """Run a command until the block ends; enter once it has printed ``until``."""
    process = subprocess.Popen(
        [*BUNNY, *command],
        cwd=folder,
        env=environment_with(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    watchdog = threading.Timer(PATIENCE_S, process.kill)
    watchdog.start()
    assert process.stdout is not None
    try:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if until in line:
                break
        else:
            raise AssertionError(f"{command} ended before it said {until!r}:\n{''.join(printed)}")
        yield
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 0
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def environment_with(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


def submitted(folder: Path, identity: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "examples/submit.py"],
        cwd=folder,
        env=environment_with(BUNNY_IDENTITY=f".bunny/identities/{identity}"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def test_the_example_works_as_it_is_typed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    subprocess.run([*BUNNY, "init"], cwd=tmp_path, env=environment_with(), check=True, timeout=PATIENCE_S)
    with (
        running(tmp_path, "up", until="is up"),
        running(
            tmp_path, "work", "examples.work:worker", until="worker_started", BUNNY_IDENTITY=".bunny/identities/bunny"
        ),
    ):
        done = submitted(tmp_path, "relay-api")
        mistaken = submitted(tmp_path, "bunny")
    assert done.returncode == 0, done.stderr
    assert (mistaken.returncode, len(mistaken.stderr.splitlines())) == (1, 1), mistaken.stderr
    printed = done.stdout.splitlines()[-1]
    assert printed == "{'pixels': 64000, 'attempt': 1}"
    assert printed in (ROOT / "README.md").read_text()


def test_a_mistake_with_the_example_is_one_line(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    done = submitted(tmp_path, "relay-api")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("bunny: BUNNY_IDENTITY: .bunny/identities/relay-api is not a folder; ")
