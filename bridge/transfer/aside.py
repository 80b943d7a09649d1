"""A file in the making: written beside its name, which it gets once all of it is on the disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bridge.crypto import sha256
from bridge.errors import SpoolFull, UsageError

BEHIND: Final = 8 * 1024 * 1024
"""After so many bytes the system begins to write them to the disk: the end need not wait for all of them."""
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where there is no room: on a disk, for a user, in a file."""
_TOLD: Final = 128
"""Bytes of a name that what lies beside it is told by: with what is added it stays below the 255 of file systems."""


def beside(path: Path) -> str:
    """How the names begin of what lies, hidden, beside a file: a long name is told by its digest."""
    name = os.fsencode(path.name)
    return f".{path.name if len(name) <= _TOLD else sha256(name).hex()}."


@contextlib.contextmanager
def roomy(path: Path) -> Iterator[None]:
    """Name it where the disk has no room for a file.

    Raises:
        SpoolFull: It has none.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise SpoolFull(f"{path}: no room on this disk; make some, or name a file elsewhere") from None
        raise


def tidy(path: Path) -> None:
    """Remove what ended processes left beside a file that is to be written: what they held, the system let go."""
    for left in path.parent.glob(f"{glob.escape(beside(path))}*.aside"):
        with contextlib.suppress(OSError):
            # Not blocking: whoever else may write here could leave a pipe that nobody reads.
            descriptor = os.open(left, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(descriptor)


def _made(path: Path) -> int:
    """A new file, held for as long as it is open, so that nobody takes it for one that was left."""
    while True:
        path.unlink(missing_ok=True)
        # 0600: what was sealed stays private.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # some file systems know no locks: then nobody tidies up there either
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # tidied up between the two


def target(path: Path | str) -> Path:
    """A path as that of a file to be written, checked before anything is read for it.

    Raises:
        UsageError: It is a directory, or in none, or no name for a file here.
    """
    file = Path(path)
    try:
        is_directory = file.is_dir()
    except OSError as error:
        raise UsageError(f"{file}: cannot be a file ({error.strerror}); name another") from None
    if is_directory:
        raise UsageError(f"{file}: a directory; name a file in it")
    if not file.parent.is_dir():
        raise UsageError(f"{file.parent}: no such directory; make it, or name a file elsewhere")
    return file


class Aside:
    """What is to be a file; a context manager that leaves nothing unless `land` was called. Blocks, as files do.

    Args:
        path: Its name.
        mark: Tells it from others of the same name; one that an ended process left under it is replaced.
    """

    def __init__(self, path: Path, mark: str | None = None) -> None:
        self._path = path
        self._aside = path.with_name(f"{beside(path)}{mark or secrets.token_hex(4)}.aside")
        self._file: int | None = _made(self._aside)
        self._written = self._behind = 0
        self._lock = threading.Lock()  # who is cancelled does not wait for the thread that writes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            if self._file is not None:
                self._close()
                self._aside.unlink(missing_ok=True)

    def write(self, data: bytes | memoryview) -> None:
        """Add to its end.

        Raises:
            SpoolFull: The disk has no room for it.
            OSError: It cannot be written.
            ValueError: It was given up.
        """
        with self._lock, roomy(self._path):
            descriptor, view = self._descriptor, memoryview(data)
            while view:
                written = os.write(descriptor, view)
                view, self._written = view[written:], self._written + written
            if self._written - self._behind >= BEHIND and hasattr(os, "posix_fadvise"):
                # Pages that are not on the disk yet are not forgotten by this: it begins to write them.
                length = self._written - self._behind
                os.posix_fadvise(descriptor, self._behind, length, os.POSIX_FADV_DONTNEED)
                self._behind = self._written

    def land(self) -> Path:
        """Have it on the disk, and give it its name.

        Raises:
            SpoolFull: The disk has no room for it.
            OSError: It cannot be.
        """
        with self._lock, roomy(self._path):
            os.fsync(self._descriptor)
            try:
                self._aside.replace(self._path)  # while it is held: else another might take it for one that was left
            except BaseException:
                self._aside.unlink(missing_ok=True)
                raise
            finally:
                self._close()
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return self._path

    @property
    def _descriptor(self) -> int:
        if self._file is None:
            raise ValueError("the file was given up")
        return self._file

    def _close(self) -> None:
        descriptor, self._file = self._file, None
        if descriptor is not None:
            os.close(descriptor)
