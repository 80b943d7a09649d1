"""The trust bundle and the keys of a service that runs: taken up when others are delivered, without a restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import structlog

from bridge.clock import now_ms
from bridge.envelope import Opener
from bridge.errors import BadBundle, BridgeError, ConfigurationError, TrustError
from bridge.identity import IDENTITY_FILE, ROOTS_FILE, TRUST_FILE, Identity
from bridge.keyring import Keyring
from bridge.trust import Trust

LOOK_S: Final = 5.0
"""Between two looks at the files; what has not changed is not read."""

Seen = tuple[tuple[int, int, int] | None, ...]
_log = structlog.get_logger(__name__)


@contextlib.asynccontextmanager
async def following(folder: Path | None, opener: Opener) -> AsyncIterator[None]:
    """Give ``opener`` each newer bundle that is delivered to an identity folder, and other keys, until the block ends.

    What cannot be relied on is logged, once, and tried again; what there was stays, a bundle until it expires.

    Args:
        folder: The identity folder; None follows nothing.
        opener: Holds bundle and keyring, for all who ask it.
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
    taken: Seen | None = None  # so that what was delivered while this service connected is taken up at once
    said: dict[str, str] = {}
    while True:
        # In a thread: the folder may be on a disk of the network, and a bundle has a key to check for everyone.
        seen = await asyncio.to_thread(look, folder)
        if seen != taken:
            # Of both files as seen before they were read: what came meanwhile is read next time.
            taken = seen
            try:
                trust = await asyncio.to_thread(_read, folder, opener.trust)
            except (TrustError, ConfigurationError, OSError) as error:
                taken = None
                if is_news(said, "trust", error):
                    _log.error("trust_not_reloaded", error=type(error).__name__, reason=str(error))
            else:
                said.pop("trust", None)
                if trust.version > opener.trust.version:
                    opener.trust = trust
                    _log.info("trust_reloaded", version=trust.version)
            try:
                identity = await asyncio.to_thread(Identity.load, folder)
                # After the bundle: one that does not know the new key may have come with it.
                take_keys(identity, opener.ring, opener.trust)
            except (TrustError, ConfigurationError, OSError) as error:
                taken = None
                if is_news(said, "keys", error):
                    _log.error("keys_not_reloaded", error=type(error).__name__, reason=str(error))
            else:
                said.pop("keys", None)
        await asyncio.sleep(LOOK_S)


def take_keys(identity: Identity, ring: Keyring, trust: Trust) -> None:
    """Put the keys of an identity folder into use, if they are others than those in use.

    Args:
        identity: As it was read.
        ring: The keys in use.
        trust: The bundle in use: nobody takes what is signed with a key that it has not.

    Raises:
        ConfigurationError: They are of another identity.
        TrustError: The bundle has not the key that they sign with; those in use stay.
    """
    if identity.public().to_json() == ring.identity.public().to_json():
        return
    if identity.sign and identity.sign[-1].kid != ring.identity.sign[-1].kid:
        trust.check_mine(identity.name, identity.sign[-1].kid, now_ms())
    ring.take_up(identity)
    _log.info("keys_reloaded", identity=identity.name)


def look(folder: Path) -> Seen:
    """What tells that a file was delivered: replaced, or written in place."""
    found: list[tuple[int, int, int] | None] = []
    for name in (TRUST_FILE, ROOTS_FILE, IDENTITY_FILE):
        try:
            status = (folder / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _read(folder: Path, current: Trust) -> Trust:
    trust = Trust.load(folder, now_ms(), current.version)
    if trust.bridge != current.bridge:
        raise BadBundle(f"{folder / TRUST_FILE}: of another bridge than the one that this service joined")
    return trust


def is_news(said: dict[str, str], about: str, error: BridgeError | OSError) -> bool:
    """Whether this is not what was last said about something; it is from now on."""
    before, said[about] = said.get(about), str(error)
    return before != str(error)
