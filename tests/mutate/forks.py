"""Forks: something is done in a process of its own each time, a few at once, and what it leaves behind goes with it."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

MEMORY: Final = 8 << 30
"""Bytes of address space: a mutant without its bound must not take the machine's."""
_SURVIVED: Final = 0
_KILLED: Final = 1
_BROKEN: Final = 70

_T = TypeVar("_T")


class Outcome(NamedTuple):
    """What came of a mutant."""

    killed: bool
    by: str
    """The test that failed; where the process ended otherwise, how; empty where it survived."""


def apart(trials: Iterable[tuple[_T, Callable[[], str | None]]], at_once: int) -> Iterator[tuple[_T, Outcome]]:
    """Do each in a fork, which says what killed its mutant; yields them as they end.

    What raises in it kills nothing, and is told.

    Args:
        trials: What each is called, and what is done: asked for the next when there is room for it.
        at_once: How many at a time.
    """
    running: dict[int, tuple[_T, Path]] = {}
    left = iter(trials)
    try:
        while True:
            while len(running) < at_once and (trial := next(left, None)) is not None:
                folder = Path(tempfile.mkdtemp(prefix="mutant-"))
                running[_fork(trial[1], folder)] = trial[0], folder
            if not running:
                return
            child, status = os.wait()
            if child in running:
                name, folder = running.pop(child)
                yield name, _outcome(child, status, folder)
    finally:
        for child, (_, folder) in running.items():
            os.kill(child, signal.SIGKILL)
            _outcome(child, os.waitpid(child, 0)[1], folder)


def _outcome(child: int, status: int, folder: Path) -> Outcome:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it started
    said = (folder / "by").read_text() if (folder / "by").is_file() else ""
    shutil.rmtree(folder, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    if code == _BROKEN:
        sys.stderr.write(said)
    ended = "it never ends" if code == -signal.SIGALRM else f"its process ended with code {code}"
    return Outcome(code not in (_SURVIVED, _BROKEN), said or ("" if code == _SURVIVED else ended))


def _fork(do: Callable[[], str | None], folder: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.environ["TMPDIR"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.tempdir = str(folder)
        by = do()
        if by is not None:
            (folder / "by").write_text(by)
        os._exit(_SURVIVED if by is None else _KILLED)
    except BaseException:
        (folder / "by").write_text(traceback.format_exc(limit=-3))
        os._exit(_BROKEN)
