"""Whole files, written aside and renamed, and private ones that nobody else can read."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from bridge.errors import ConfigurationError

MAX_FILE_BYTES: Final = 1 << 20
"""No file of an identity folder is larger."""
_TOLD: Final = 32
"""Characters of a file's name that its draft's begins with, which has to stay below the 255 bytes of a file system."""


def check_private(path: Path) -> None:
    """Refuse a private file that others can read: it must be 0600 or stricter, or 0440 under a group.

    Raises:
        ConfigurationError: It is missing or wider.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from None
    if mode & 0o077 and mode != 0o440:
        raise ConfigurationError(f"{path}: mode {mode:04o} lets others read a private key; run chmod 600 on it")


def write_file(path: Path, text: str | bytes, *, private: bool = False) -> None:
    """Write a whole file or nothing: aside, fsync, then rename. A private one is 0600 from its first byte."""
    data = text.encode() if isinstance(text, str) else text
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:_TOLD]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            # Not by name: whoever owns the folder could put a link to another file of ours in its place.
            os.fchmod(file.fileno(), 0o600 if private else 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def read_file(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """A file's bytes.

    Args:
        path: The file.
        most: Bytes that it may have, a whole number of MiB.

    Raises:
        ConfigurationError: It is missing, unreadable or larger than that.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > most:
        raise ConfigurationError(f"{path}: larger than {most >> 20} MiB")
    return data
