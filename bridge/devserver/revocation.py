"""Identities of a bridge on this machine revoked while it runs, as one act, with the proof that they are refused."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bridge import jetstream
from bridge.clock import now_ms
from bridge.devserver import monitor
from bridge.devserver.rotations import Told
from bridge.devserver.standing import Standing
from bridge.errors import ConfigurationError, TransportError, UnknownKey
from bridge.identity import CA_FILE, CONNECTION_FILE, Connection, Identity, PublicIdentity
from bridge.policy import Role
from bridge.rotation import published

CLOSED_TIMEOUT_S: Final = 30.0
REFUSED_TIMEOUT_S: Final = 3.0
"""How long a connection is tried that must not be made."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation came to; seconds from when it began."""

    delivered_s: float
    """Until every identity folder had the bundle that has none of it."""
    cut_s: float
    """Until no connection of it was left."""
    connections: int
    """That were closed."""
    refused_s: float
    """Until every service that follows its folder had taken the bundle up: what it signed is refused, queued or not."""
    stored: dict[str, str]
    """Of each signing key that something stored was signed with: the stream of one such message, now refused."""


async def revoke(at: Standing, names: Sequence[str], told: Told) -> Revoked:
    """Have identities refused everywhere, and see that they are.

    Args:
        at: The bridge, with the policy that revokes them.
        names: The identities.
        told: Is given one line for each thing that was done.

    Raises:
        ConfigurationError: One of them is still accepted somewhere.
        TransportError: A server did not answer.
    """
    began = time.monotonic()
    gone = {name: published(at.folder.identity(name)) for name in names}
    nkeys = [nkey for half in gone.values() for nkey in half.nkeys]
    version = at.deliver()
    delivered = time.monotonic() - began
    told(
        f"trust bundle {version} has none of {', '.join(names)}, and lies in every identity folder ({delivered:.1f} s)"
    )
    open_ = sum([len(await at.connections(nkey)) for nkey in nkeys])
    await at.admit()
    for nkey in nkeys:
        await at.close(nkey)
    for name, half in gone.items():
        for nkey in half.nkeys:
            await monitor.until(partial(_closed, at, nkey), CLOSED_TIMEOUT_S, f"{name}: its connections to be closed")
    cut = time.monotonic() - began
    told(f"servers do not accept it any more, and closed {open_} of its connections ({cut:.1f} s)")
    for name in names:
        if await _check_refused(at, name):
            told(f"{name}: a new connection with its NKey was tried, and refused")
    _check_unknown(at, gone)
    told("every identity folder's bundle refuses what it signs")
    await at.taken_up()
    refused = time.monotonic() - began
    for nkey in nkeys:  # whatever dials again by itself has tried by now
        if again := await at.connections(nkey):
            raise ConfigurationError(f"{', '.join(again)}: connected again; see the servers' logs")
    told(f"every service that follows its folder has taken that up ({refused:.1f} s)")
    found = await at.left({key.kid for half in gone.values() for key in half.sign})
    for kid, left in found.items():
        told(f"{left.stream} holds what {kid.hex()[:16]} signed, such as {left.subject}: nobody takes it")
    return Revoked(delivered, cut, open_, refused, {kid.hex(): left.stream for kid, left in found.items()})


async def _closed(at: Standing, nkey: str) -> bool:
    return not await at.connections(nkey)


async def _check_refused(at: Standing, name: str) -> bool:
    """Try to connect as it; False where that cannot be tried, as of a link.

    Raises:
        ConfigurationError: It is accepted.
    """
    place, link = at.folder.identity(name), at.policy.identities[name].role is Role.LINK
    if link or not (place / CONNECTION_FILE).exists():
        return False
    connection, seed = Connection.load(place), Identity.load(place).nkey_seed
    try:
        transport = await jetstream.connect(
            connection, seed, place / CA_FILE, name=f"{name}-revoked", timeout=REFUSED_TIMEOUT_S
        )
    except TransportError:
        return True
    await transport.close()
    raise ConfigurationError(f"{name}: a server of {connection.cloud} still accepts it; see its log")


def _check_unknown(at: Standing, gone: dict[str, PublicIdentity]) -> None:
    """See that no folder's bundle knows a key of it.

    Raises:
        ConfigurationError: One does.
    """
    for other, entry in at.policy.accepted.items():
        if entry.role is Role.LINK:
            continue
        trust = at.trust(other)
        for name, half in gone.items():
            for key in half.sign:
                try:
                    trust.signer(key.kid, now_ms())
                except UnknownKey:
                    continue
                raise ConfigurationError(f"{at.folder.identity(other)}: its bundle still knows a key of {name}")
