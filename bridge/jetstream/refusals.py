"""How long a connection that is refused, and not merely down, is tried again."""

from __future__ import annotations

import ssl
import time
from typing import Final

from bridge.errors import IdentityRefused, NotConnected
from bridge.jetstream.client import is_unauthorized

LEAST: Final = 10
LEAST_S: Final = 30.0
"""So many refusals in a row, over so many seconds, and no connection in between: then trying again is no help. A
server that takes up a new configuration, or one of three that has not yet, refuses for less."""


class Refusals:
    """The refusals since there was last a connection.

    An outage in between neither counts nor ends the row: of several servers some may be down, and the others refuse.
    """

    def __init__(self) -> None:
        self._count = 0
        self._since = 0.0

    def reset(self) -> None:
        """There is a connection."""
        self._count = 0

    def took(self, error: Exception, where: str, reason: str) -> NotConnected | None:
        """Count an attempt that failed.

        Args:
            error: Why.
            where: The servers' addresses.
            reason: Why, in our words.

        Returns:
            What to give up with; None to go on, which an outage is reason for, however long.
        """
        unauthorized = is_unauthorized(error)
        if not (unauthorized or isinstance(error, ssl.SSLCertVerificationError)):
            return None
        now = time.monotonic()
        if self._count == 0:
            self._since = now
        self._count += 1
        if self._count < LEAST or now - self._since < LEAST_S:
            return None
        tries = f"{self._count} refusals in {now - self._since:.0f} s"
        if unauthorized:
            return IdentityRefused(
                f"{where}: the server does not accept this identity, {tries}: it is revoked, or not in the server's "
                "accounts.conf; ask the bridge's owners"
            )
        return NotConnected(f"{where}: {reason} ({tries}); compare ca.pem with the one of this identity's cloud")
