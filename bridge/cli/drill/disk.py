"""Disks that can be full: a small file system of its own under each server's store, in memory.

nats-server then meets the kernel's own ENOSPC. To mount takes no root where Linux lets anyone have a user namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from bridge.errors import TransportError

ROOM: Final = 8 << 30
"""Bytes of one that is not full. Only what is used of it takes memory."""
FILL_S: Final = 5.0

_NEW_NAMESPACE: Final = 0x00020000
_NEW_USER: Final = 0x10000000
_NOSUID, _NODEV, _REMOUNT, _REC, _PRIVATE = 2, 4, 32, 16384, 1 << 18
_DETACH: Final = 2


class Disk:
    """The file system under one server's store.

    Args:
        path: Where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self) -> None:
        """Leave it no block more than it uses.

        Raises:
            TransportError: It is written to faster than it can be made small.
        """
        until = monotonic() + FILL_S
        while True:
            found = os.statvfs(self.path)
            try:
                return _mount(self.path, _REMOUNT, (found.f_blocks - found.f_bfree) * found.f_frsize)
            except OSError as error:  # smaller than what is used by now
                if error.errno != errno.EINVAL or monotonic() > until:
                    raise TransportError(f"{self.path}: cannot be filled: {error.strerror}") from None
            sleep(0.001)

    def make_room(self) -> None:
        """Give it its size again."""
        _mount(self.path, _REMOUNT, ROOM)


@contextlib.contextmanager
def disks(stores: Mapping[str, Path]) -> Iterator[dict[str, Disk]]:
    """A disk for each store, seen by this process and its children alone; gone when the block ends.

    Raises:
        OSError: This process may not mount.
    """
    made: dict[str, Disk] = {}
    _leave()
    try:
        for name, path in stores.items():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _mount(path, 0, ROOM)
            made[name] = Disk(path)
        yield made
    finally:
        for disk in made.values():
            _check(_libc().umount2(os.fsencode(disk.path), _DETACH))


def _leave() -> None:
    """Have a mount namespace of our own and, if that takes it, a user namespace in which we may mount."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "only Linux has namespaces")
    user, group = os.geteuid(), os.getegid()
    if _libc().unshare(_NEW_NAMESPACE) != 0:
        _check(_libc().unshare(_NEW_NAMESPACE | _NEW_USER))
        Path("/proc/self/setgroups").write_text("deny")  # or no group may be mapped
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _check(_libc().mount(b"none", b"/", None, _REC | _PRIVATE, None))  # nothing of it is seen outside


def _mount(path: Path, how: int, size: int) -> None:
    options = f"size={size},mode=700".encode()
    _check(_libc().mount(b"tmpfs", os.fsencode(path), b"tmpfs", how | _NOSUID | _NODEV, options))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
