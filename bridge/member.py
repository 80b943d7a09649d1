"""A member of the bridge: an identity folder that was read, checked, and can connect."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from bridge import jetstream
from bridge.clock import now_ms
from bridge.errors import ConfigurationError
from bridge.identity import (
    CA_FILE,
    CONNECTION_FILE,
    ENVIRONMENT,
    IDENTITY_FILE,
    ROOTS_FILE,
    TRUST_FILE,
    Connection,
    Identity,
)
from bridge.keyring import Keyring
from bridge.transport import Transport
from bridge.trust import Trust

_SOURCES: Final = {
    IDENTITY_FILE: "`bunny keys new` makes it",
    CONNECTION_FILE: "copy connections/NAME.yaml of what `bunny render` writes",
    CA_FILE: "copy the ca.pem of its own cloud",
    TRUST_FILE: "copy what `bunny trust sign` writes",
    ROOTS_FILE: "copy what `bunny trust init` writes",
}


def folder_from_env() -> Path:
    """The identity folder that ``BUNNY_IDENTITY`` names.

    Raises:
        ConfigurationError: The variable is not set, or names no folder.
    """
    text = os.environ.get(ENVIRONMENT, "")
    if not text:
        raise ConfigurationError(f"{ENVIRONMENT} is not set; let it name the identity folder of this service")
    folder = Path(text)
    if not folder.is_dir():
        raise ConfigurationError(f"{ENVIRONMENT}: {folder} is not a folder; let it name an identity folder")
    return folder


@dataclass(frozen=True, slots=True)
class Member:
    """Who a service is, whom it trusts, and where it connects."""

    folder: Path
    keys: Keyring
    trust: Trust
    connection: Connection

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read an identity folder.

        Raises:
            ConfigurationError: A file is missing, malformed, or of another identity or bridge.
            TrustError: The trust bundle cannot be relied on.
        """
        folder = Path(folder)
        for name, source in _SOURCES.items():
            if not (folder / name).exists():
                raise ConfigurationError(f"{folder / name}: missing; {source}")
        identity, connection = Identity.load(folder), Connection.load(folder)
        trust = Trust.load(folder, now_ms())
        if connection.identity != identity.name:
            raise ConfigurationError(
                f"{folder}: the connection is that of {connection.identity}, the keys are {identity.name}'s; "
                "render the policy again, or take the right folder"
            )
        if connection.bridge != trust.bridge:
            raise ConfigurationError(f"{folder}: connection and trust bundle are of two bridges; take both from one")
        return cls(folder, Keyring(identity), trust, connection)

    @property
    def identity(self) -> Identity:
        """Its private keys, as they are now."""
        return self.keys.identity

    async def connect(self, name: str, timeout: float | None = None) -> Transport:
        """Connect to the local NATS server.

        Args:
            name: What the server's monitoring shows for this connection.
            timeout: Seconds to try; None tries for ever.
        """
        return await jetstream.connect(
            self.connection,
            self.keys,
            self.folder / CA_FILE,
            name=f"{self.identity.name}-{name}",
            timeout=timeout,
        )
