"""`bunny` as a user types it: a process of its own, in a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CHECKOUT: Final = Path(__file__).parents[2]
TIMEOUT_S: Final = 60.0
UP_S: Final = 300.0
"""How long a ``bunny up`` may run: longer than any test takes on a busy machine."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it must be."""
        return dict(json.loads(self.out))

    @property
    def error(self) -> str:
        """Standard error, which must be one line of ours."""
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("bunny: "), self.err
        return self.err.removeprefix("bunny: ").rstrip("\n")


def environment(**more: str) -> dict[str, str]:
    """This one's, without what would make a command behave otherwise."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUNNY_") and name != "COLUMNS"}
    # The checkout is on the path for whoever has not installed it.
    return {**kept, "PYTHONPATH": str(CHECKOUT), "NO_COLOR": "1", **more}


def bunny(line: str, cwd: Path, *more: str | Path, code: int | None = 0, **env: str) -> Said:
    """Run ``bunny`` with the words of ``line`` and then ``more``, and check its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge.cli", *line.split(), *map(str, more)],
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    said = Said(done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in said.err, said.err
    assert code is None or said.code == code, said
    return said


class Up:
    """A ``bunny up`` that runs in the foreground of a terminal of its own."""

    def __init__(self, line: str, cwd: Path, timeout: float = UP_S) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bridge.cli", *line.split()],
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        # A line that never comes must fail the test, not stall it.
        self._alarm = threading.Timer(timeout, self._process.kill)
        self._alarm.start()

    def until(self, words: str) -> str:
        """Read lines until one has these words, and return them all."""
        assert self._process.stdout is not None
        read = ""
        for line in self._process.stdout:
            read += line
            if words in line:
                return read
        raise AssertionError(f"{words!r} never came: {read!r}, {self.stop()}")

    def send(self, number: signal.Signals) -> None:
        """As the terminal, or a supervisor, sends it."""
        self._process.send_signal(number)

    def ended(self) -> Said:
        """Wait for the end of it."""
        out, err = self._process.communicate(timeout=TIMEOUT_S)
        self._alarm.cancel()
        assert "Traceback" not in err, err
        return Said(self._process.returncode, out, err)

    def stop(self, number: signal.Signals = signal.SIGINT) -> Said:
        """Ask it to end, and wait."""
        if self._process.poll() is None:
            self.send(number)
        return self.ended()


@contextlib.contextmanager
def up(line: str, cwd: Path, timeout: float = UP_S) -> Iterator[Up]:
    """Run ``bunny LINE`` until the block ends, or for so many seconds."""
    running = Up(line, cwd, timeout)
    try:
        yield running
    finally:
        if running._process.returncode is None:
            running.stop()
        running._alarm.cancel()
