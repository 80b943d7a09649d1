"""What rigs of real servers have in common: everyone's keys lie in identity folders."""

from __future__ import annotations

import abc
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from bridge.identity import CA_FILE
from bridge.jetstream import JetStreamTransport, connect
from bridge.member import Member
from bridge.testing.rig import Party, Rig
from consumers.leasethread import Connect

CONNECT_TIMEOUT_S: Final = 20.0
FLOWING_TIMEOUT_S: Final = 60.0
"""A link that was cut without a word is noticed within 40 s, and is up again some seconds later."""


class FolderRig(Rig):
    """Both clouds as real servers."""

    @abc.abstractmethod
    def identity(self, name: str) -> Path:
        """An identity folder, for a process of your own: let ``BUNNY_IDENTITY`` name it.

        Raises:
            ConfigurationError: The policy has none of that name.
        """

    @abc.abstractmethod
    async def until_flowing(self, timeout: float = FLOWING_TIMEOUT_S) -> None:
        """Wait until the link is up and results flow home.

        Raises:
            TransportError: Not within ``timeout`` seconds.
        """

    def party(self, name: str) -> Party:
        """See `Rig.party`."""
        member = Member.load(self.identity(name))
        return Party(member.identity, member.trust, member.connection)

    @contextlib.asynccontextmanager
    async def transport(self, name: str) -> AsyncIterator[JetStreamTransport]:
        """See `Rig.transport`."""
        async with await self._connect(name, "test") as through:
            yield through

    def leases(self, name: str) -> Connect:
        """See `Rig.leases`."""
        return partial(self._connect, name, "leases")

    async def _connect(self, name: str, purpose: str) -> JetStreamTransport:
        identity, _, connection = self.party(name)
        seed, ca_file = identity.nkey_seed, self.identity(name) / CA_FILE
        return await connect(connection, seed, ca_file, name=f"{name}-{purpose}", timeout=CONNECT_TIMEOUT_S)


@contextlib.contextmanager
def given_or_temporary(folder: Path | None) -> Iterator[Path]:
    """A folder to keep, or one that is removed when the block ends."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="bunny-bridge-") as made:
        yield Path(made)
