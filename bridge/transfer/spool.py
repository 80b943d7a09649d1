"""Verified parts on the local disk, **still sealed**: what a reader has so far, before anything of it is opened.

A file of sealed parts, one after the other, holds no plaintext, and needs no word of its own about how far it goes: its
parts are compared with the signed index again when a process takes it up.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bridge.errors import SpoolFull
from bridge.payload import SEALED_PART, Manifest, PartOpener
from bridge.transfer.aside import NO_ROOM

SUFFIX: Final = ".parts"
STALE_S: Final = 86_400
"""After how long a file that nobody went on with is removed: the process that wrote it died."""
LEFT: Final = 16
"""Such files that are kept at most, the newest: a producer can have attempts end amid transfers at will."""
_HEAD: Final = 4
"""Before each part, its length: how much a compressed one has its index does not say."""
_SLOT: Final = _HEAD + SEALED_PART


class Spool:
    """A place for the parts of one payload; a context manager that removes it.

    Args:
        manifest: The payload.
        folder: Where a file is kept that another process may go on with, should this one die; None makes one that is
            gone with this process.
        name: Begins the file's name.
    """

    def __init__(self, manifest: Manifest, folder: Path | None = None, name: str = "") -> None:
        self.manifest = manifest
        self.kept = False
        """Whether its file is left to whoever goes on with it."""
        self._path: Path | None = None
        self._file: int | None = None
        self._lock = threading.Lock()  # who is cancelled does not wait for the thread that writes
        if folder is not None:
            path = folder / f"{name}{manifest.transfer.hex()}-{manifest.index.hex()[:16]}{SUFFIX}"
            self._file = _taken(path, os.O_CREAT)
            if self._file is not None:
                self._path = path
                return
        self._file = _nameless(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Cancelled, as where a worker stops: another, or this one later, goes on.
        self.close(keep=self.kept or (error is not None and not isinstance(error, Exception)))

    def resume(self, opener: PartOpener) -> int:
        """How many parts it holds that are the signed ones; what follows them is forgotten."""
        number = 0
        while number < self.manifest.parts and opener.matches(number, self.read(number)):
            number += 1
        if number < self.manifest.parts:
            with self._lock:  # closed meanwhile, its number may be another file's
                os.ftruncate(self._descriptor, number * _SLOT)
        return number

    @property
    def begun(self) -> bool:
        """Whether it holds anything already."""
        return os.fstat(self._descriptor).st_size > 0

    @property
    def named(self) -> bool:
        """Whether it has a file that another process may go on with, and that nobody else has meanwhile."""
        return self._path is not None

    def write(self, number: int, sealed: bytes) -> None:
        """Keep a verified part.

        Raises:
            SpoolFull: The disk has no room for it.
            ValueError: It was closed.
        """
        at = number * _SLOT
        try:
            with self._lock:
                self._write(at + _HEAD, memoryview(sealed))
                self._write(at, memoryview(len(sealed).to_bytes(_HEAD)))
        except OSError as error:
            if error.errno in NO_ROOM:
                raise SpoolFull(
                    f"no room on this disk for a payload of {self.manifest.length} bytes; make some where it is kept"
                ) from None
            raise

    def read(self, number: int) -> bytes:
        """A part as it was written; shorter, or empty, where it was not."""
        slot = os.pread(self._descriptor, _HEAD + self.manifest.size_of(number), number * _SLOT)
        return slot[_HEAD : _HEAD + int.from_bytes(slot[:_HEAD])]

    def close(self, *, keep: bool = False) -> None:
        """Let go of it.

        Args:
            keep: Leave the file to whoever goes on with it.
        """
        with self._lock:
            descriptor, self._file = self._file, None
            if descriptor is None:
                return
            if self._path is not None and not keep:
                self._path.unlink(missing_ok=True)  # before its lock goes: whoever takes it up must not find it removed
            os.close(descriptor)

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self.close(keep=True)

    @property
    def _descriptor(self) -> int:
        if self._file is None:
            raise ValueError("the payload was read after its job ended; read it within the handler")
        return self._file

    def _write(self, at: int, view: memoryview) -> None:
        while view:
            written = os.pwrite(self._descriptor, view, at)
            at, view = at + written, view[written:]


def sweep(folder: Path, begins: str = "") -> None:
    """Remove what was left behind, and nobody went on with for a day, or is more than is kept.

    Args:
        folder: Where.
        begins: How the names of those begin that are meant.
    """
    found: list[tuple[float, Path]] = []
    for path in folder.glob(f"{glob.escape(begins)}*{SUFFIX}"):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime, path))
    left, stale = 0, time.time() - STALE_S
    for written, path in sorted(found, reverse=True):
        with contextlib.suppress(OSError):
            if (descriptor := _taken(path)) is None:
                continue  # somebody reads it
            try:
                left += 1
                if left > LEFT or written < stale:
                    path.unlink()
            finally:
                os.close(descriptor)


def _taken(path: Path, flags: int = 0) -> int | None:
    """A file that nobody else holds, locked until it is closed; None where another process does."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _nameless(folder: Path | None) -> int:
    descriptor, name = tempfile.mkstemp(suffix=SUFFIX, dir=folder)
    os.unlink(name)
    return descriptor
