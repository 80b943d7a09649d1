"""`bunny top` in a terminal of 80 columns, as an emulator shows it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte

from tests.acceptance.typed import TIMEOUT_S, bunny, environment, up
from tests.support import write_policy

COLUMNS, LINES = 80, 24


class Terminal:
    """A program in a terminal, and what stands on its screen."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process, self._master = process, master
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._stream = pyte.ByteStream(self._screen)

    def until(self, condition: Callable[[list[str]], bool]) -> list[str]:
        """Let it draw until the screen is as wanted."""
        give_up = time.monotonic() + TIMEOUT_S
        while time.monotonic() < give_up:
            shown = [line.rstrip() for line in self._screen.display]
            if condition(shown):
                return shown
            if select.select([self._master], [], [], 1.0)[0]:
                self._stream.feed(os.read(self._master, 65_536))
        raise AssertionError("\n".join(self._screen.display))


@contextlib.contextmanager
def terminal(line: str, cwd: Path) -> Iterator[Terminal]:
    """Run ``bunny LINE`` in a terminal, end it with Ctrl-C, and check that it ends as it should."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", *line.split()],
        cwd=cwd,
        env={**environment(), "TERM": "xterm-256color"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 130
    finally:
        process.kill()
        process.wait()
        os.close(master)


def row(shown: list[str], queue: str) -> list[str]:
    """The cells of a queue's row."""
    return next((line.split() for line in shown if line.startswith(queue)), [])


def test_a_screen_shows_both_clouds_the_link_and_what_moves(tmp_path: Path) -> None:
    write_policy(tmp_path)
    with up("up --json", tmp_path) as running:
        running.until("clouds")
        with terminal("top --interval 0.2", tmp_path) as screen:
            for words in ("aws: up", "azure: up", "results azure -> aws: heard"):
                screen.until(lambda shown, words=words: any(line.startswith(words) for line in shown))  # type: ignore[misc]
            screen.until(lambda shown: any(line.split()[:3] == ["queue", "waiting", "oldest"] for line in shown))
            for queue in ("lookup", "thumbs"):
                screen.until(lambda shown, queue=queue: row(shown, queue)[1:2] == ["0"])  # type: ignore[misc]
            for _ in range(3):
                bunny("submit thumbs resize 1 --identity .bunny/identities/alpha", tmp_path)
            screen.until(lambda shown: row(shown, "thumbs")[1:2] == ["3"])


def test_a_cloud_that_does_not_answer_is_unknown_and_never_0(tmp_path: Path) -> None:
    write_policy(tmp_path)
    with up("up --json", tmp_path) as running:
        running.until("clouds")
        seen = bunny("top --once --json --interval 0.2 --identity .bunny/identities/ops-azure", tmp_path).json
        (thumbs,) = [queue for queue in seen["queues"] if queue["queue"] == "thumbs"]
        assert (thumbs["waiting"], thumbs["lag"], thumbs["oldest_s"], thumbs["dead"]) == (None, None, None, 0)
        assert (seen["clouds"]["aws"]["up"], seen["clouds"]["azure"]["up"]) == (False, True)
        assert [link["silent_s"] is None for link in seen["links"]] == [False, True]
        people = bunny("top --once --interval 0.2 --identity .bunny/identities/ops-azure", tmp_path)
        assert row(people.out.splitlines(), "thumbs")[1] == "?"


def test_only_an_inspector_can_look(tmp_path: Path) -> None:
    write_policy(tmp_path)
    with up("up --json", tmp_path) as running:
        running.until("clouds")
        said = bunny("top --once --identity .bunny/identities/alpha", tmp_path, code=1)
        assert "alpha is no inspector" in said.error
