"""Both clouds as nats-server processes of this machine, with real TLS between them: seconds, and no engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from bridge.devserver import Bridge, Ports, running
from bridge.policy import Policy
from bridge.testing.folders import FLOWING_TIMEOUT_S, FolderRig, given_or_temporary
from bridge.testing.rig import read_policy


class EmbeddedRig(FolderRig):
    """Both clouds as processes, with a relay in the link.

    Args:
        bridge: The processes, to be killed, restarted and looked at.
    """

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(bridge.policy)
        self.bridge = bridge

    def identity(self, name: str) -> Path:
        """See `FolderRig.identity`."""
        return self.bridge.identity(name)

    async def until_flowing(self, timeout: float = FLOWING_TIMEOUT_S) -> None:
        """See `FolderRig.until_flowing`."""
        await self.bridge.until_flowing(timeout)

    async def cut_link(self) -> None:
        """See `Rig.cut_link`."""
        for relay in self.bridge.relays:
            await relay.cut()

    async def heal_link(self) -> None:
        """See `Rig.heal_link`."""
        for relay in self.bridge.relays:
            relay.heal()


@contextlib.asynccontextmanager
async def embedded_bridge(
    policy: Policy | Path | str = "bridge.yaml",
    *,
    folder: Path | None = None,
    ports: Mapping[str, Ports] | None = None,
    provisioned: bool = True,
) -> AsyncIterator[EmbeddedRig]:
    """Both clouds as processes of this machine, until the block ends. It needs ``bunny-bridge[embedded]``.

    Args:
        policy: The policy, or its file.
        folder: Where keys, streams and logs are kept; a temporary folder if it is not given.
        ports: Ports to use, by server; any free ones where none are given.
        provisioned: Make the streams, and wait until jobs can flow. Without it, neither.

    Raises:
        PolicyError: The policy is wrong.
        ConfigurationError: nats-server is missing, or the folder or a port is in use.
        TransportError: A server or the link did not come up in time.
    """
    values = read_policy(policy)
    with given_or_temporary(folder) as place:
        async with running(values, place, relay=True, ports=ports, provisioned=provisioned) as bridge:
            yield EmbeddedRig(bridge)
