"""Which process of this machine listens on a port, as far as this user may know (Linux)."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"


def holder(address: str, port: int) -> str | None:
    """``process 123 (name)``; None if it is elsewhere, or another user's."""
    if not ipaddress.ip_address(address).is_loopback:
        return None
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(Path("/proc/net", table), port)}
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = {os.readlink(fd) for fd in (process / "fd").iterdir()}
            if held & inodes:
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:  # it has ended, or is another user's
            continue
    return None


def _listening(table: Path, port: int) -> list[str]:
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [f"socket:[{row[9]}]" for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port]
