"""A bridge that another process runs on this machine: its files changed under it, and its servers and services told."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from bridge import crypto, follow, jetstream, pki
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
from bridge.render.accounts import CLOSER_NAME, accounts_conf
from bridge.render.servers import POLICY_TAG
from bridge.rotation import Leftover, ends_of, left
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

    async def admit(self, closer: str | None = None) -> None:
        """Have the servers of both clouds accept the NKeys of the public halves as they are now, and no others.

        Args:
            closer: An NKey that may close connections, for now.
        """
        keys = publish(self.policy, self.folder)
        tag = f"{POLICY_TAG}{self.policy.digest}"
        for cloud in (self.policy.hub, self.policy.leaf):  # the hub first: the leaf may dial anew
            here = self.folder.rendered / cloud.name
            write_file(here / "accounts.conf", accounts_conf(self.policy, keys, cloud, closer))
            shared = (here / "cluster.conf").read_text()
            write_file(here / "cluster.conf", re.sub(rf"{POLICY_TAG}[0-9a-f]+", tag, shared))
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
            await hang_up(name, server["pid"], _port(server), self.folder.log(name), len(self.policy.queues))

    async def connections(self, nkey: str) -> list[str]:
        """The names of the connections that a NKey has, over all servers."""
        ports = [_port(server) for cloud in self.policy.clouds for server in self._servers(cloud)]
        return [each for port in ports for each in (await monitor.connected(port)).get(nkey, ())]

    async def until_linked(self) -> None:
        """Wait until the link stands, dialled with the NKey and the certificates of both ends that lie here now.

        Raises:
            TransportError: Not in time.
        """
        nkeys = {
            Identity.load(self.folder.identity(name)).nkey
            for name, entry in self.policy.accepted.items()
            if entry.role is Role.LINK
        }
        shown = {
            self.policy.hub.name: pki.fingerprint(self.folder.pki / self.policy.leaf.name / "link.pem"),
            self.policy.leaf.name: pki.fingerprint(self.folder.pki / self.policy.hub.name / "leafnodes.pem"),
        }

        async def linked() -> bool:
            for cloud, certificate in shown.items():
                peers = [peer for server in self._servers(cloud) for peer in await monitor.link_peers(_port(server))]
                if not peers or any(nkey and nkey not in nkeys for nkey, _ in peers):
                    return False
                if any(each != certificate for _, each in peers):
                    return False
            return True

        await monitor.until(linked, LINK_TIMEOUT_S, "the link to stand with what is in use now")

    async def redial(self) -> None:
        """Have the leaf dial the link anew.

        What follows the ``#`` of an address is never sent; where it changes, a reload dials again (`link_conf`).
        """
        leaf = self.policy.leaf.name
        path = self.folder.rendered / leaf / "link.conf"
        text = re.sub(r"#([0-9a-f]{16})[0-9a-f-]*", rf"#\1-{secrets.token_hex(4)}", path.read_text())
        write_file(path, text)
        await self.reload(leaf)

    async def left(self, kids: set[bytes]) -> dict[bytes, Leftover]:
        """For each key that signed something that is stored, or that something stored is sealed to, one such message.

        Raises:
            ConfigurationError: A cloud has no inspector or operator who could look.
            TransportError: A stream could not be read.
        """
        found: dict[bytes, Leftover] = {}
        clouds = list(self.policy.clouds)
        for cloud in (*clouds, *clouds[:-1]):  # whichever of two a job dies from, it is seen in one of them
            if not kids - found.keys():
                break
            async with self.inspecting(cloud) as transport:
                found |= await left(transport, self.policy, cloud, kids - found.keys(), ends_of(transport))
        return found

    @contextlib.asynccontextmanager
    async def inspecting(self, cloud: str) -> AsyncIterator[jetstream.JetStreamTransport]:
        """A connection of somebody who may read a cloud's streams, until the block ends.

        Raises:
            ConfigurationError: There is nobody.
        """
        entries = self.policy.accepted.values()
        names = [e.name for e in entries if e.cloud == cloud and e.role in (Role.INSPECTOR, Role.OPERATOR)]
        if not names:
            raise ConfigurationError(f"cloud {cloud} has no identity with role: inspector, to look what is stored")
        place = self.folder.identity(names[0])
        connect = partial(jetstream.connect, Connection.load(place), Identity.load(place).nkey_seed, place / CA_FILE)
        async with await connect(name=f"{names[0]}-rotate", timeout=LOOK_TIMEOUT_S) as transport:
            yield transport

    async def close(self, nkey: str) -> int:
        """Close the connections of links that an NKey has at the hub; how many there were."""
        closing = [
            (server, cid)
            for server in self._servers(self.policy.hub.name)
            for cid in await monitor.link_ids(_port(server), nkey)
        ]
        if not closing:
            return 0
        seed = crypto.new_nkey()
        await self.admit(crypto.nkey_public(seed))
        try:
            for server, cid in closing:
                await self._kick(server, cid, seed)
        finally:
            await self.admit()
        return len(closing)

    async def _kick(self, server: dict[str, Any], cid: int, seed: str) -> None:
        hub = self.policy.hub.name
        connection = Connection(
            bridge=self.policy.bridge, identity=CLOSER_NAME, cloud=hub, role="system", server=server["clients"]
        )
        _, said = await monitor.get(_port(server), "/varz")
        subject, ca = f"$SYS.REQ.SERVER.{said['server_id']}.KICK", self.folder.pki / hub / "ca.pem"
        transport = await jetstream.connect(connection, seed, ca, name=CLOSER_NAME, timeout=LOOK_TIMEOUT_S)
        async with transport:
            await transport.request(subject, json.dumps({"cid": cid}).encode())

    def _servers(self, cloud: str) -> list[dict[str, Any]]:
        said = self.ready["clouds"][cloud]
        return said.get("servers") or [said]


@contextlib.contextmanager
def standing(policy: Policy, folder: Folder, before: Policy | None = None) -> Iterator[Standing]:
    """The bridge that runs in a folder, for this process alone to change until the block ends.

    Args:
        policy: What it runs.
        folder: Where it runs.
        before: What it may run instead, to be changed to ``policy``.

    Raises:
        ConfigurationError: None runs there, it runs another policy, or another process is changing it.
    """
    ready = folder.read_ready()
    tags = [f"{POLICY_TAG}{each.digest}" for each in (policy, before) if each is not None]
    shared = (folder.rendered / policy.hub.name / "cluster.conf").read_text()
    if not any(tag in shared for tag in tags):
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
