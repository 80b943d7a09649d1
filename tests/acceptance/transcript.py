"""A document's ``console`` blocks, typed into one shell, and what it says compared with what the document shows.

In what is shown ``…`` stands for anything within a line, and a line of nothing else for any lines. Spaces and the
lines of tables do not count: their widths follow what stands in them.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COMMAND_TIMEOUT_S: Final = 60.0
_END: Final = "@@end@@"
_RULES: Final = re.compile(r"[─│╭╮╰╯├┤┬┴┼]+")


@dataclass(frozen=True, slots=True)
class Step:
    """One command and the lines below it."""

    line: int
    command: str
    shown: tuple[str, ...]


def steps(document: Path) -> list[Step]:
    """Every command of the document's ``console`` blocks, in order."""
    found: list[tuple[int, str, list[str]]] = []
    inside = False
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append((number, line.removeprefix("$ "), []))
        elif inside:
            found[-1][2].append(line)
    return [Step(number, command, tuple(shown)) for number, command, shown in found]


class Shell:
    """A bash that keeps its variables and background jobs, and whose commands see a wide terminal."""

    def __init__(self, cwd: Path, env: Mapping[str, str]) -> None:
        self._terminal, theirs = pty.openpty()
        attributes = termios.tcgetattr(theirs)
        attributes[1] &= ~termios.OPOST  # lines end as they were written
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 100, 300, 0, 0))
        self._place = os.ttyname(theirs)
        # Its commands come through a pipe, so that nothing that reads the terminal can eat the next one.
        self._process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=cwd,
            env={**env, "TERM": "dumb"},
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def run(self, command: str) -> str:
        """Type one line, and read what comes until it is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{{ {command}\n}} <{self._place}; echo '{_END}'\n".encode())
        self._process.stdin.flush()
        said, give_up = b"", time.monotonic() + COMMAND_TIMEOUT_S
        while not said.endswith(f"{_END}\n".encode()):
            ready, _, _ = select.select([self._terminal], [], [], max(give_up - time.monotonic(), 0))
            assert ready, f"{command}: not done after {COMMAND_TIMEOUT_S:.0f} s, it said {said.decode()!r}"
            said += os.read(self._terminal, 65_536)
        return said.decode().removesuffix(f"{_END}\n")

    def close(self) -> None:
        """End it and whatever it still runs."""
        self.run("kill $(jobs -p) 2>/dev/null; wait")
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        os.close(self._terminal)


def missing(shown: tuple[str, ...], said: str) -> str | None:
    """The first shown line that was not said in its place; None if all were."""
    lines = iter(list(_plain(said.splitlines())))
    gap = True
    for want in _plain(shown):
        if want == "…":
            gap = True
            continue
        pattern = re.compile(".*".join(map(re.escape, want.split("…"))))
        for have in lines:
            if pattern.fullmatch(have):
                break
            if not gap:
                return want
        else:
            return want
        gap = False
    return None


def _plain(lines: tuple[str, ...] | list[str]) -> Iterator[str]:
    for line in lines:
        text = " ".join(_RULES.sub(" ", line).split())
        if text:
            yield text
