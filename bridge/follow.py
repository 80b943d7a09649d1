"""The trust bundle of a service that runs: taken up when a newer one is delivered, without a restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import structlog

from bridge.clock import now_ms
from bridge.envelope import Opener
from bridge.errors import BadBundle, ConfigurationError, TrustError
from bridge.identity import ROOTS_FILE, TRUST_FILE
from bridge.trust import Trust

LOOK_S: Final = 5.0
"""Between two looks at the files; what has not changed is not read."""

_Seen = tuple[tuple[int, int, int] | None, ...]
_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def following(folder: Path | None, opener: Opener) -> AsyncIterator[None]:
    """Give ``opener`` each newer bundle that is delivered to an identity folder, until the block ends.

    What cannot be relied on is logged, once, and tried again; the bundle that there was stays until it expires.

    Args:
        folder: The identity folder; None follows nothing.
        opener: Holds the bundle, for all who ask it.
    """
    if folder is None:
        yield
        return
    task = asyncio.create_task(_follow(folder, opener), name="trust-follow")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()  # raises what ended it


async def _follow(folder: Path, opener: Opener) -> None:
    taken: _Seen | None = None  # so that what was delivered while this service connected is taken up at once
    said = ""
    while True:
        # In a thread: the folder may be on a disk of the network, and a bundle has a key to check for everyone.
        seen = await asyncio.to_thread(_look, folder)
        if seen != taken:
            try:
                trust = await asyncio.to_thread(_read, folder, opener.trust)
            except (TrustError, ConfigurationError, OSError) as error:
                if str(error) != said:
                    said = str(error)
                    _log.error("trust_not_reloaded", error=type(error).__name__, reason=said)
            else:
                taken, said = seen, ""  # as seen before it was read: what came meanwhile is read next time
                if trust.version > opener.trust.version:
                    opener.trust = trust
                    _log.info("trust_reloaded", version=trust.version)
        await asyncio.sleep(LOOK_S)


def _read(folder: Path, current: Trust) -> Trust:
    trust = Trust.load(folder, now_ms(), current.version)
    if trust.bridge != current.bridge:
        raise BadBundle(f"{folder / TRUST_FILE}: of another bridge than the one that this service joined")
    return trust


def _look(folder: Path) -> _Seen:
    """What tells that a file was delivered: replaced, or written in place."""
    found: list[tuple[int, int, int] | None] = []
    for name in (TRUST_FILE, ROOTS_FILE):
        try:
            status = (folder / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
