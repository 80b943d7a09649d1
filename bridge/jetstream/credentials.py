"""How a connection shows who it is and whom it believes: as the files and the keyring say when it is dialled."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from bridge.errors import ConfigurationError
from bridge.jetstream.client import log, show_as
from bridge.keyring import Keyring


def tls_context(ca_file: Path) -> ssl.SSLContext:
    """TLS 1.3 alone, the server verified by name against the CA of its own cloud.

    Raises:
        ConfigurationError: The file is missing or holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError):
        raise ConfigurationError(f"{ca_file}: not a readable CA certificate in PEM; ask the bridge's owners") from None
    return context


class Credentials:
    """The NKey and the authorities of one connection.

    Args:
        keys: The NKey's seed, or the keyring that holds it.
        ca_file: The CA of the identity's own cloud.

    Raises:
        ConfigurationError: The CA file is unusable.
    """

    def __init__(self, keys: str | Keyring, ca_file: Path) -> None:
        self._keys, self._ca_file = keys, ca_file
        self._tls = tls_context(ca_file)

    @property
    def seed(self) -> str:
        """The NKey's seed, as it is now."""
        return self._keys if isinstance(self._keys, str) else self._keys.identity.nkey_seed

    def options(self) -> dict[str, Any]:
        """What nats-py is told of them."""
        # Another file may lie there than when it was last dialled; one that cannot be read leaves what was known.
        with contextlib.suppress(ConfigurationError):
            self._tls = tls_context(self._ca_file)
        return {"nkeys_seed_str": self.seed, "tls": self._tls}

    def renew(self, client: Client) -> None:
        """Have a client dial with them as they are now."""
        show_as(client, **self.options())

    def follow(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` in the loop that runs now, each time the NKey is replaced.

        Returns:
            What ends that.
        """
        if isinstance(self._keys, str):
            return lambda: None
        loop, last = asyncio.get_running_loop(), self.seed

        def told() -> None:
            nonlocal last
            if self.seed != last:
                last = self.seed
                log.info("nkey_replaced")
                with contextlib.suppress(RuntimeError):  # the loop of a thread that has ended
                    loop.call_soon_threadsafe(changed)

        return self._keys.on_change(told)
