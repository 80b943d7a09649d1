"""The demo's input: which files become jobs, which do not and why, and what is counted in one. Bytes to values."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

import bridge
from bridge.errors import UsageError
from bridge.job import INLINE_LIMIT, Kind

PACKAGES: Final = ("bridge", "producers", "consumers")
_WORD: Final = re.compile(rb"\w+")
_CACHES: Final = "__pycache__"


@dataclass(frozen=True, slots=True)
class Counts:
    """What the worker finds in the bytes of one file."""

    sha256: str
    size: int
    lines: int
    words: int
    top_word: str
    """The most frequent word, the first of them in ASCII order; empty if there is none."""
    top_count: int


COUNT: Final = Kind("files", "count", bytes, Counts)
"""The contract of the demo's jobs."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that no job is made of."""

    path: str
    reason: str


def count(data: bytes) -> Counts:
    """Count lines (``\\n``), words (letters, digits and ``_``) and the most frequent word."""
    words = Counter(_WORD.findall(data))
    top, times = min(words.items(), key=lambda item: (-item[1], item[0]), default=(b"", 0))
    return Counts(sha256(data).hexdigest(), len(data), data.count(b"\n"), words.total(), top.decode("ascii"), times)


def default_folders() -> list[Path]:
    """The folders of the installed package itself."""
    return [bridge.HOME / name for name in PACKAGES]


def find(paths: Iterable[Path]) -> tuple[list[Path], list[Skipped]]:
    """Every regular file below the paths given, each once, and what was left out. Links are not followed.

    Raises:
        UsageError: A path does not exist.
    """
    taken: list[Path] = []
    skipped: list[Skipped] = []
    seen: set[tuple[int, int]] = set()
    for root in paths:
        if not root.exists():
            raise UsageError(f"{root}: no such file or folder; name folders or files to make jobs of")
        for path in _walk(root, skipped):
            try:
                found = path.lstat()
            except OSError as error:
                skipped.append(Skipped(str(path), _unreadable(error)))
                continue
            reason = _why_not(found)
            if reason:
                skipped.append(Skipped(str(path), reason))
            elif (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                taken.append(path)
    return taken, skipped


def read(path: Path) -> bytes | Skipped:
    """A file's bytes, or why it is left out; never more than one byte above the limit is read."""
    try:
        with path.open("rb") as file:
            data = file.read(INLINE_LIMIT + 1)
    except OSError as error:
        return Skipped(str(path), _unreadable(error))
    return Skipped(str(path), TOO_LARGE) if len(data) > INLINE_LIMIT else data


TOO_LARGE: Final = f"above INLINE_LIMIT, {INLINE_LIMIT // 1024} KiB in one envelope"


def _walk(root: Path, skipped: list[Skipped]) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return

    def unreadable(error: OSError) -> None:
        skipped.append(Skipped(str(error.filename), _unreadable(error)))

    for folder, names, files in os.walk(root, onerror=unreadable):
        linked = [name for name in names if os.path.islink(os.path.join(folder, name))]
        names[:] = sorted(name for name in names if name != _CACHES and name not in linked)
        yield from (Path(folder, name) for name in sorted([*files, *linked]))


def _why_not(found: os.stat_result) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "a symbolic link"
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    return TOO_LARGE if found.st_size > INLINE_LIMIT else ""


def _unreadable(error: OSError) -> str:
    return f"unreadable: {error.strerror}"
