"""Every identity at hand tries everything, and whoever has no key knocks at the link's port."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bridge.doctor import dial
from bridge.doctor.session import Session
from bridge.doctor.site import addresses
from bridge.errors import BridgeError, TransportError
from bridge.explain import Ground
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream.credentials import tls_context
from bridge.policy import IdentityEntry, Policy, Role
from bridge.prove.leaf import Port
from bridge.prove.link import Papers, papers, try_anyone, try_holder
from bridge.prove.trial import Found, Outcome, trial

TIMEOUT_S: Final = 5.0
"""The longest that one exchange with a server may take."""

ANYONE: Final = "(anyone)"
"""Whoever has no key: no identity can have this name."""

NOT_AT_HAND: Final = "its private half is not at hand"


@dataclass(frozen=True, slots=True)
class Trial:
    """What one identity found, or why it was not run."""

    name: str
    outcomes: tuple[Outcome, ...] = ()
    not_run: str = ""
    """Empty if it was."""
    seconds: float = 0.0

    @property
    def differing(self) -> tuple[Outcome, ...]:
        """What is not as the policy says."""
        return tuple(each for each in self.outcomes if not each.equal and each.found is not Found.NOT_RUN)

    @property
    def whole(self) -> bool:
        """Whether all of it was run."""
        return not self.not_run and all(each.found is not Found.NOT_RUN for each in self.outcomes)


@dataclass(frozen=True, slots=True)
class Stand:
    """Where it is run from, and what is at hand there.

    Args:
        policy: What is to hold.
        folders: Identity folders with private halves, by name.
        pki: Certificates, a folder per cloud; None where there are none.
        urls: Where the hub takes the link.
        timeout: Seconds for each exchange.
    """

    policy: Policy
    folders: Mapping[str, Path]
    pki: Path | None
    urls: Sequence[str]
    timeout: float = TIMEOUT_S


async def prove(stand: Stand) -> list[Trial]:
    """Try everything that is at hand: all identities of the policy by name, then whoever has no key."""
    ground, found = Ground(stand.policy), []
    for name, me in sorted(stand.policy.identities.items()):
        found.append(await _timed(name, _one(stand, ground, me)))
    found.append(await _timed(ANYONE, _at_the_port(stand, None)))
    return found


async def _one(stand: Stand, ground: Ground, me: IdentityEntry) -> list[Outcome]:
    folder = stand.folders.get(me.name)
    if folder is None:
        raise TransportError(NOT_AT_HAND)
    identity = Identity.load(folder)
    if me.role is Role.LINK:
        return await _at_the_port(stand, (ground, me, identity))
    return _worst([await _user(url, folder, identity, ground, me, stand.timeout) for url in _servers(folder)])


async def _timed(name: str, trying: Coroutine[Any, Any, list[Outcome]]) -> Trial:
    start = time.monotonic()
    try:
        outcomes = await trying
    except BridgeError as error:
        return Trial(name, not_run=str(error))
    return Trial(name, tuple(outcomes), seconds=time.monotonic() - start)


def _servers(folder: Path) -> list[str]:
    return addresses(Connection.load(folder).server)


async def _user(
    url: str, folder: Path, identity: Identity, ground: Ground, me: IdentityEntry, timeout: float
) -> list[Outcome]:
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 0
    try:
        async with asyncio.timeout(timeout):
            dialled = dial.dialled(host, port, tls_context(folder / CA_FILE), host.rstrip("."))
            tls = await dialled.__aenter__()
    except OSError as error:
        raise TransportError(f"{host}:{port}: {error.strerror or 'no answer'}") from None
    try:
        async with asyncio.timeout(timeout):
            await tls.handshake()
            info = await tls.read_info()
        session = Session(tls, info, identity, timeout, "prove")
        await session.log_in()
        return await trial(session, ground, me)
    except OSError as error:  # a timeout, or what TLS raises
        raise TransportError(f"{host}:{port}: {str(error) or 'no answer in time'}") from None
    finally:
        await dialled.__aexit__(None, None, None)


def _worst(servers: Sequence[list[Outcome]]) -> list[Outcome]:
    """Of a cluster whose servers are tried one by one: what differs at one of them."""
    return [next((each for each in same if not each.equal), same[0]) for same in zip(*servers, strict=True)]


async def _at_the_port(stand: Stand, holder: tuple[Ground, IdentityEntry, Identity] | None) -> list[Outcome]:
    if not stand.urls:
        raise TransportError("where the hub takes the link is not known: give clouds.….leafnodes in the policy")
    found = []
    with tempfile.TemporaryDirectory(prefix="bunny-prove-") as throwaway:
        shown = papers(stand.policy, stand.pki, Path(throwaway))
        for url in stand.urls:
            found.append(await _knock(_port(url, stand.timeout), shown, stand.policy, holder))
    return _worst(found)


async def _knock(
    port: Port, shown: Papers, policy: Policy, holder: tuple[Ground, IdentityEntry, Identity] | None
) -> list[Outcome]:
    if holder is None:
        return await try_anyone(policy, port, shown)
    ground, me, identity = holder
    return await try_holder(ground, me, identity, port, shown)


def _port(url: str, timeout: float) -> Port:
    host = urlsplit(url).hostname or ""
    return Port(host, urlsplit(url).port or 0, host.rstrip("."), timeout)
