"""The private keys of one identity, for all who use them in a process: replaced for all of them at once. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from bridge.errors import ConfigurationError
from bridge.identity import Identity


class Keyring:
    """An identity whose keys may be replaced while it is in use.

    Read it anew for each use: what is kept is what was.

    Args:
        identity: The keys to begin with.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._told: list[Callable[[], None]] = []

    @classmethod
    def of(cls, keys: Identity | Self) -> Self:
        """The keyring given, or one that holds the identity given."""
        return cls(keys) if isinstance(keys, Identity) else keys

    @property
    def identity(self) -> Identity:
        """The keys as they are now."""
        return self._identity

    def take_up(self, identity: Identity) -> None:
        """Use other keys of the same identity from now on.

        Raises:
            ConfigurationError: They are of another identity, or would make every keyed job another one.
        """
        if identity.name != self._identity.name:
            raise ConfigurationError(f"the keys of {identity.name} cannot take the place of {self._identity.name}'s")
        if identity.dedup_secret != self._identity.dedup_secret:
            raise ConfigurationError(
                f"{identity.name}: another dedup_secret makes every keyed job a new one; restart the service to take it"
            )
        self._identity = identity
        for told in tuple(self._told):
            told()

    def on_change(self, told: Callable[[], None]) -> Callable[[], None]:
        """Call ``told`` after each change, in the thread that made it.

        Returns:
            What ends that.
        """
        self._told.append(told)
        return lambda: self._told.remove(told)
