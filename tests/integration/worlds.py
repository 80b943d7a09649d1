"""Two worlds that look alike to a service: both clouds as real servers, and both in memory."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from bridge.devserver.up import Bridge, running
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import JetStreamTransport, connect
from bridge.memory import MemoryBridge
from bridge.policy import Policy, load_policy
from bridge.render.streams import plan
from bridge.transport import Transport

POLICY: Final = """\
version: 1
bridge: acme
clouds:
  aws: {role: hub, clients: "tls://hub.test:4222", leafnodes: "tls://leaf.test:7422", durability: process}
  azure: {role: leaf, clients: "tls://azure.test:4222", durability: process}
identities:
  alpha: {cloud: aws}
  beta: {cloud: aws}
  bunny: {cloud: azure}
  prov-aws: {cloud: aws, role: provisioner}
  prov-azure: {cloud: azure, role: provisioner}
  boss-azure: {cloud: azure, role: operator}
  link-azure: {cloud: azure, role: link}
queues:
  thumbs: {producers: [alpha, beta], workers: bunny, kinds: [resize], ack_wait: 1s, inbox: [alpha]}
  tiny: {producers: [alpha], workers: bunny, kinds: [resize], max_pending: 2}
  held: {producers: [alpha], workers: bunny, kinds: [resize], concurrency: 2}
  small: {producers: [alpha], workers: bunny, kinds: [resize], max_bytes: 1MiB}
"""
"""`alpha` in AWS (and `beta`, once) produces for `bunny` in Azure: an ack wait short enough to wait for, an inbox, and
queues that fill at once."""


class World(Protocol):
    """What a test may do to it."""

    async def transport(self, identity: str) -> Transport:
        """A new connection of a service; closed with the world."""

    async def cut(self) -> None:
        """Part the clouds."""

    async def heal(self) -> None:
        """Join them again."""


@dataclass
class MemoryWorld:
    """Both clouds in memory."""

    policy: Policy
    bridge: MemoryBridge
    stack: contextlib.AsyncExitStack

    async def transport(self, identity: str) -> Transport:
        transport = self.bridge.transport(self.policy.identities[identity].cloud)
        return await self.stack.enter_async_context(transport)

    async def cut(self) -> None:
        self.bridge.link_up = False

    async def heal(self) -> None:
        self.bridge.link_up = True


@dataclass
class ServerWorld:
    """Both clouds as real servers, with a relay in the link."""

    bridge: Bridge
    stack: contextlib.AsyncExitStack
    connections: list[JetStreamTransport] = field(default_factory=list)

    async def transport(self, identity: str) -> JetStreamTransport:
        folder = self.bridge.identity(identity)
        return await self.connect(identity, Connection.load(folder), folder / CA_FILE)

    async def connect(self, identity: str, connection: Connection, ca_file: Path) -> JetStreamTransport:
        """Connect with something that differs from what the identity's folder says."""
        seed = Identity.load(self.bridge.identity(identity)).nkey_seed
        transport = await connect(connection, seed, ca_file, name=identity, timeout=20.0)
        return await self.stack.enter_async_context(transport)

    async def cut(self) -> None:
        assert self.bridge.relay is not None
        await self.bridge.relay.cut()

    async def heal(self) -> None:
        assert self.bridge.relay is not None
        self.bridge.relay.heal()


@contextlib.asynccontextmanager
async def memory_world(folder: Path) -> AsyncIterator[MemoryWorld]:
    """Both clouds in memory."""
    policy = _policy(folder)
    async with contextlib.AsyncExitStack() as stack:
        yield MemoryWorld(policy, MemoryBridge({cloud: plan(policy, cloud) for cloud in policy.clouds}), stack)


@contextlib.asynccontextmanager
async def server_world(folder: Path, *, provisioned: bool = True) -> AsyncIterator[ServerWorld]:
    """Both clouds as real servers, with or without streams."""
    async with (
        running(_policy(folder), folder / "bunny", relay=True, provisioned=provisioned) as bridge,
        contextlib.AsyncExitStack() as stack,
    ):
        yield ServerWorld(bridge, stack)


Opens = Callable[[Path], contextlib.AbstractAsyncContextManager[World]]


def _policy(folder: Path) -> Policy:
    path = folder / "bridge.yaml"
    path.write_text(POLICY)
    return load_policy(path)
