"""Producers and workers over the transport in memory, with real identities, envelopes and trust."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from bridge.bundle import build_payload, build_roots, sign_payload
from bridge.clock import now_ms
from bridge.crypto import SigningKey, VerifyKey
from bridge.envelope import Opener, Sealer
from bridge.identity import Connection, Identity
from bridge.memory import MemoryBridge, MemoryTransport
from bridge.policy import Backoff, Cloud, IdentityEntry, Policy, Queue, TrustPolicy
from bridge.render.connections import connection_yaml
from bridge.render.streams import plan
from bridge.transport import Message
from bridge.trust import Trust
from consumers import Worker
from producers import Producer

FAST = Backoff(initial_ms=1, factor=1.0, max_ms=10, jitter=0.0)


def policy(**thumbs: Any) -> Policy:  # noqa: ANN401  fields of Queue
    """A queue in each direction; keyword arguments change the settings of ``thumbs``."""
    forth = Queue("thumbs", ("relay", "other"), "bunny", ("resize", "probe"), "aws", "azure", backoff=FAST)
    back = Queue("lookup", ("bunny",), "relay", ("find",), "azure", "aws", backoff=FAST)
    return Policy(
        bridge="acme",
        clouds={
            "aws": Cloud("aws", "hub", "tls://hub.test:4222", "tls://leaf.test:7422"),
            "azure": Cloud("azure", "leaf", "tls://azure.test:4222"),
        },
        identities={
            "relay": IdentityEntry("relay", "aws"),
            "other": IdentityEntry("other", "aws"),
            "bunny": IdentityEntry("bunny", "azure"),
        },
        queues={"thumbs": replace(forth, **thumbs), "lookup": back},
        trust=TrustPolicy(threshold=1, expires_ms=3_600_000),
    )


@dataclass
class Fleet:
    """Everything a test of jobs needs, in one process."""

    policy: Policy
    identities: dict[str, Identity]
    trust: Trust
    bridge: MemoryBridge

    @classmethod
    def make(cls, policy: Policy, *, trust_for_ms: int = 3_600_000) -> Self:
        """New keys and empty streams."""
        identities = {name: Identity.generate(name) for name in policy.identities}
        root = SigningKey.generate()
        issued = now_ms() - (policy.trust.expires_ms - trust_for_ms)
        payload = build_payload(policy, {n: i.public() for n, i in identities.items()}, 1, issued)
        roots = build_roots(policy.bridge, 1, [VerifyKey(root.public)])
        trust = Trust.verify(sign_payload(payload, [root]), roots, now_ms())
        plans = {cloud: plan(policy, cloud) for cloud in policy.clouds}
        return cls(policy, identities, trust, MemoryBridge(plans))

    def connection(self, name: str) -> Connection:
        """As rendered."""
        return Connection.model_validate(json.loads(connection_yaml(self.policy, self.policy.identities[name])))

    def transport(self, name: str) -> MemoryTransport:
        """To the identity's own cloud."""
        return self.bridge.transport(self.policy.identities[name].cloud)

    def producer(self, name: str = "relay", transport: MemoryTransport | None = None) -> Producer:
        """A producer, to be entered."""
        return Producer(self.identities[name], self.trust, self.connection(name), transport or self.transport(name))

    @contextlib.asynccontextmanager
    async def working(
        self, worker: Worker, name: str = "bunny", transport: MemoryTransport | None = None
    ) -> AsyncIterator[asyncio.Task[None]]:
        """Have ``worker`` serve while the block runs, then drain it."""
        serving = asyncio.create_task(
            worker.serve(self.identities[name], self.trust, self.connection(name), transport or self.transport(name))
        )
        try:
            await until(lambda: worker.serving or serving.done())
            yield serving
        finally:
            worker.stop()
            await serving

    def sealer(self, name: str) -> Sealer:
        """To forge with."""
        return Sealer(self.identities[name])

    def opener(self, name: str) -> Opener:
        """To look inside with."""
        return Opener(self.identities[name], self.trust)

    def held(self, cloud: str, stream: str) -> list[Message]:
        """What a stream holds, oldest first."""
        return [Message(m.subject, m.data, m.headers) for m in self.bridge.stream(cloud, stream).after(0)]


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Wait for something that tells nobody."""
    give_up = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up, "the condition never came true"
        await asyncio.sleep(0.002)
