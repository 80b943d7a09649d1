"""What a test may do with both clouds, whatever they are made of."""

from __future__ import annotations

import abc
import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, NamedTuple

from bridge.errors import ConfigurationError
from bridge.identity import Connection, Identity
from bridge.policy import Policy, load_policy
from bridge.transport import Transport
from bridge.trust import Trust
from consumers import Worker
from consumers.leasethread import Connect
from producers import Producer

_POLL_S: Final = 0.002


class Party(NamedTuple):
    """Who takes part: what a producer or a worker is made of, but for its transport."""

    identity: Identity
    trust: Trust
    connection: Connection


class Rig(abc.ABC):
    """Both clouds, ready for jobs, as one of the context managers of this package made them.

    Args:
        policy: What they were made from.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @abc.abstractmethod
    def party(self, name: str) -> Party:
        """The keys, trust and settings of an identity.

        Raises:
            ConfigurationError: The policy has none of that name.
        """

    @abc.abstractmethod
    def transport(self, name: str) -> contextlib.AbstractAsyncContextManager[Transport]:
        """A new connection of an identity to its own cloud, until the block ends."""

    def leases(self, name: str) -> Connect | None:
        """What makes the connection by which a worker renews its leases; None where it has none of its own."""
        return None

    @abc.abstractmethod
    async def cut_link(self) -> None:
        """Part the clouds, at once and until `heal_link`."""

    @abc.abstractmethod
    async def heal_link(self) -> None:
        """Join the clouds again. What waited flows some moments later."""

    @contextlib.asynccontextmanager
    async def producer(self, name: str, transport: Transport | None = None) -> AsyncIterator[Producer]:
        """A producer, until the block ends.

        Args:
            name: Its identity.
            transport: What it sends through, in place of a new connection: one of yours, that fails when you say.
        """
        async with self._over(name, transport) as through, Producer(*self.party(name), through) as producer:
            yield producer

    @contextlib.asynccontextmanager
    async def working(
        self, worker: Worker, name: str, transport: Transport | None = None
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Let a worker serve until the block ends, then drain it.

        Args:
            worker: The worker.
            name: Its identity.
            transport: As for `producer`.

        Yields:
            The task that it serves in.

        Raises:
            BridgeError: What ended the worker, if the block did not.
        """
        leases = self.leases(name) if transport is None else None  # one of yours fails when you say, leases and all
        async with self._over(name, transport) as through, self._serving(worker, name, through, leases) as serving:
            yield serving

    def _over(self, name: str, transport: Transport | None) -> contextlib.AbstractAsyncContextManager[Transport]:
        return self.transport(name) if transport is None else contextlib.nullcontext(transport)

    @contextlib.asynccontextmanager
    async def _serving(
        self, worker: Worker, name: str, through: Transport, leases: Connect | None
    ) -> AsyncIterator[asyncio.Task[None]]:
        serving = asyncio.create_task(worker.serve(*self.party(name), through, leases=leases), name=f"worker {name}")
        try:
            while not (worker.serving or serving.done()):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(_POLL_S)
            if serving.done():
                await serving
            yield serving
        finally:
            worker.stop()
            await serving


def known(policy: Policy, name: str) -> str:
    """The name of an identity of the policy.

    Raises:
        ConfigurationError: It has none of that name.
    """
    if name not in policy.identities:
        raise ConfigurationError(f"{name}: no identity of the policy; it has {', '.join(sorted(policy.identities))}")
    return name


def read_policy(policy: Policy | Path | str) -> Policy:
    """The policy given, or the one in the file named."""
    return policy if isinstance(policy, Policy) else load_policy(Path(policy))
