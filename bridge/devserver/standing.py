"""A bridge that another process runs on this machine: its files changed under it, and its servers and services told."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from bridge import follow, jetstream
from bridge.clock import now_ms
from bridge.devserver import monitor
from bridge.devserver.folder import Folder
from bridge.devserver.prepare import hand_out, publish, sign
from bridge.devserver.process import hang_up
from bridge.devserver.servers import server_names
from bridge.errors import ConfigurationError
from bridge.files import write_file
from bridge.identity import CA_FILE, LEAF_SEED_FILE, Connection, Identity
from bridge.policy import Policy, Role
from bridge.render.accounts import accounts_conf
from bridge.render.servers import POLICY_TAG
from bridge.rotation import Leftover, left
from bridge.trust import Trust

SETTLE_S: Final = 2.0
"""Beside `bridge.follow.LOOK_S`, for a service to read what it has seen."""
LOOK_TIMEOUT_S: Final = 10.0
LINK_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Made by `standing`.

    Args:
        policy: What the bridge runs.
        folder: Where it runs.
        ready: What its ``ready.json`` says.
    """

    policy: Policy
    folder: Folder
    ready: dict[str, Any]

    def deliver(self) -> int:
        """Write all public halves, sign a bundle that has them, and hand it to every identity folder; its version."""
        version = sign(self.policy, self.folder, publish(self.policy, self.folder))
        hand_out(self.policy, self.folder)
        return version

    async def taken_up(self) -> None:
        """Wait for as long as services take until they have seen what was delivered."""
        await asyncio.sleep(follow.LOOK_S + SETTLE_S)

    def trust(self, name: str) -> Trust:
        """The bundle in an identity's folder, verified as the service verifies it."""
        return Trust.load(self.folder.identity(name), now_ms())

    async def admit(self) -> None:
        """Have the servers of both clouds accept the NKeys of the public halves as they are now, and no others."""
        keys = publish(self.policy, self.folder)
        for cloud in (self.policy.hub, self.policy.leaf):  # the hub first: the leaf may dial anew
            write_file(self.folder.rendered / cloud.name / "accounts.conf", accounts_conf(self.policy, keys, cloud))
            await self.reload(cloud.name)

    async def seed(self, name: str) -> None:
        """Give the leaf's servers the seed that a link's identity has now; they dial anew with it."""
        cloud = self.policy.identities[name].cloud
        text = (self.folder.identity(name) / LEAF_SEED_FILE).read_text()
        write_file(self.folder.rendered / cloud / LEAF_SEED_FILE, text, private=True)
        await self.reload(cloud)

    async def reload(self, cloud: str) -> None:
        """Have a cloud's servers apply their configuration files, one after another.

        Raises:
            ConfigurationError: One refused them, and keeps the old ones.
            TransportError: One does not run.
        """
        for name, server in zip(server_names(self.policy.clouds[cloud]), self._servers(cloud), strict=True):
            await hang_up(name, server["pid"], _port(server), self.folder.log(name))

    async def connections(self, nkey: str) -> list[str]:
        """The names of the connections that a NKey has, over all servers."""
        ports = [_port(server) for cloud in self.policy.clouds for server in self._servers(cloud)]
        return [each for port in ports for each in (await monitor.connected(port)).get(nkey, ())]

    async def until_linked(self) -> None:
        """Wait until the leaf has its link.

        Raises:
            TransportError: Not in time.
        """
        ports = [_port(server) for server in self._servers(self.policy.hub.name)]

        async def linked() -> bool:
            return sum([await monitor.links(port) for port in ports]) > 0

        await monitor.until(linked, LINK_TIMEOUT_S, "the link to stand again")

    async def left(self, kids: set[bytes]) -> dict[bytes, Leftover]:
        """For each key that signed something that is stored, or that something stored is sealed to, one such message.

        Raises:
            ConfigurationError: A cloud has no inspector or operator who could look.
            TransportError: A stream could not be read.
        """
        found: dict[bytes, Leftover] = {}
        for cloud in self.policy.clouds if kids else ():
            async with self.inspecting(cloud) as transport:
                found |= await left(transport, self.policy, cloud, kids - found.keys())
        return found

    @contextlib.asynccontextmanager
    async def inspecting(self, cloud: str) -> AsyncIterator[jetstream.JetStreamTransport]:
        """A connection of somebody who may read a cloud's streams, until the block ends.

        Raises:
            ConfigurationError: There is nobody.
        """
        entries = self.policy.identities.values()
        names = [e.name for e in entries if e.cloud == cloud and e.role in (Role.INSPECTOR, Role.OPERATOR)]
        if not names:
            raise ConfigurationError(f"cloud {cloud} has no identity with role: inspector, to look what is stored")
        place = self.folder.identity(names[0])
        connect = partial(jetstream.connect, Connection.load(place), Identity.load(place).nkey_seed, place / CA_FILE)
        async with await connect(name=f"{names[0]}-rotate", timeout=LOOK_TIMEOUT_S) as transport:
            yield transport

    def _servers(self, cloud: str) -> list[dict[str, Any]]:
        said = self.ready["clouds"][cloud]
        return said.get("servers") or [said]


@contextlib.contextmanager
def standing(policy: Policy, folder: Folder) -> Iterator[Standing]:
    """The bridge that runs in a folder, for this process alone to change until the block ends.

    Raises:
        ConfigurationError: None runs there, it runs another policy, or another process is changing it.
    """
    ready = folder.read_ready()
    tag = f"{POLICY_TAG}{policy.digest}"
    if tag not in (folder.rendered / policy.hub.name / "cluster.conf").read_text():
        raise ConfigurationError(
            f"{folder.path}: runs another policy than bridge.yaml says by now; restart `bunny up` to take that up first"
        )
    lock = os.open(folder.path / "rotate.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"{folder.path}: another command changes its keys now; wait until it ends"
            ) from None
        yield Standing(policy, folder, ready)
    finally:
        os.close(lock)


def _port(server: dict[str, Any]) -> int:
    return int(str(server["monitor"]).rpartition(":")[2])
