"""Which identity a command acts as: the one named, the environment's, or the right one of the bridge that runs here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge.cli.where import find_bridge
from bridge.errors import ConfigurationError, UsageError
from bridge.identity import CA_FILE, ENVIRONMENT, Connection
from bridge.jetstream import JetStreamTransport, connect
from bridge.member import Member, folder_from_env
from bridge.policy.quantities import BadQuantity, parse_duration, parse_size, spell_size
from producers.client import Producer

CONNECT_TIMEOUT_S: Final = 10.0
"""A service would try for ever; whoever typed a command would rather know."""

IdentityFolder = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        metavar="FOLDER",
        help="Act as this identity.",
        show_default=f"{ENVIRONMENT}, or the one of the bridge that runs here",
    ),
]


def choose(
    given: Path | None,
    bridge: Path | None,
    fits: Callable[[Connection], bool],
    what: str,
    who: str | None = None,
    have: Callable[[Connection], Iterable[str]] = lambda _: (),
) -> Path:
    """The identity folder to act as.

    Args:
        given: What ``--identity`` says: a folder.
        bridge: What ``--dir`` says.
        fits: Whether an identity of the bridge that runs here could do it.
        what: What is to be done, for errors: ``submit to thumbnails``.
        who: The name of the one identity that can, where it is known.
        have: What an identity could do instead, by name, for errors.

    Raises:
        ConfigurationError: There is none, or more than one.
    """
    if given is not None:
        if not given.is_dir():
            raise ConfigurationError(f"{given}: not a folder; let --identity name an identity folder")
        return given
    if bridge is None and os.environ.get(ENVIRONMENT):
        return folder_from_env()
    running = find_bridge(bridge)
    if who is not None:
        return running.identity(who)
    there = [(folder, Connection.load(folder)) for _, folder in sorted(running.identities.items())]
    able = [folder for folder, connection in there if fits(connection)]
    if not able:
        others = sorted({name for _, connection in there for name in have(connection)})
        instead = f"there is {', '.join(others)}" if others else "see its bridge.yaml"
        raise ConfigurationError(f"no identity of the bridge in {running.folder} may {what}; {instead}")
    if len(able) > 1:
        names = ", ".join(folder.name for folder in able)
        raise ConfigurationError(
            f"{names} may all {what}: say which, --identity {running.folder / 'identities' / able[0].name}"
        )
    return able[0]


@asynccontextmanager
async def producing(folder: Path) -> AsyncIterator[Producer]:
    """A producer that gives up where a service would keep trying."""
    member = Member.load(folder)
    transport = await connect_soon(member.connection, member.identity.nkey_seed, folder, "bunny")
    async with Producer(member.identity, member.trust, member.connection, transport) as producer:
        yield producer


async def connect_soon(
    connection: Connection, nkey_seed: str, folder: Path, name: str, timeout: float = CONNECT_TIMEOUT_S
) -> JetStreamTransport:
    """Connect as an identity, or say why not."""
    return await connect(connection, nkey_seed, folder / CA_FILE, name=f"{connection.identity}-{name}", timeout=timeout)


def seconds(option: str, text: str | None) -> float | None:
    """A duration of the command line, such as ``90s``, in seconds.

    Raises:
        UsageError: It is none.
    """
    if text is None:
        return None
    try:
        return parse_duration(text) / 1000
    except BadQuantity as error:
        raise UsageError(f"{option}: {text[:40]!r} {error.problem}; {error.remedy}") from None


def size(option: str, text: str | None, least: int) -> int | None:
    """A size of the command line, such as ``4GiB``, in bytes.

    Raises:
        UsageError: It is none, or below ``least``.
    """
    if text is None:
        return None
    try:
        found = parse_size(text)
    except BadQuantity as error:
        raise UsageError(f"{option}: {text[:40]!r} {error.problem}; {error.remedy}") from None
    if found < least:
        raise UsageError(f"{option}: {text[:40]} is too little; say {spell_size(least)} or more")
    return found
