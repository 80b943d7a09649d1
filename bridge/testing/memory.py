"""Both clouds in the memory of the test, with real keys, envelopes and trust: milliseconds, and nothing to install."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from bridge.bundle import build_payload, build_roots, sign_payload
from bridge.clock import now_ms
from bridge.crypto import SigningKey, VerifyKey
from bridge.identity import Connection, Identity
from bridge.memory import MemoryBridge, MemoryTransport
from bridge.policy import Policy, Role
from bridge.render.connections import connection_yaml
from bridge.render.streams import plan
from bridge.testing.rig import Party, Rig, known, read_policy
from bridge.transport import Message
from bridge.trust import Trust


class MemoryRig(Rig):
    """Both clouds in memory.

    What is sealed, signed, granted and refused is as with servers. What servers do is imitated by one implementation
    that passes the same tests; what they take (time, space, permissions of accounts) is not.

    Args:
        policy: What they were made from.
        identities: The private keys of everyone.
        trust: The verified trust bundle.
        bridge: The streams.
    """

    def __init__(self, policy: Policy, identities: dict[str, Identity], trust: Trust, bridge: MemoryBridge) -> None:
        super().__init__(policy)
        self.identities, self.trust, self.bridge = identities, trust, bridge

    @classmethod
    def make(cls, policy: Policy) -> Self:
        """New keys and empty streams.

        Args:
            policy: The policy.
        """
        identities = {name: Identity.generate(name, link=e.role is Role.LINK) for name, e in policy.identities.items()}
        root = SigningKey.generate()
        payload = build_payload(policy, {name: i.public() for name, i in identities.items()}, 1, now_ms())
        roots = build_roots(policy.bridge, 1, [VerifyKey(root.public)])
        trust = Trust.verify(sign_payload(payload, [root]), roots, now_ms())
        return cls(policy, identities, trust, MemoryBridge({cloud: plan(policy, cloud) for cloud in policy.clouds}))

    def party(self, name: str) -> Party:
        """See `Rig.party`."""
        rendered = json.loads(connection_yaml(self.policy, self.policy.identities[known(self.policy, name)]))
        return Party(self.identities[name], self.trust, Connection.model_validate(rendered))

    def transport(self, name: str) -> MemoryTransport:
        """See `Rig.transport`."""
        return self.bridge.transport(self.policy.identities[known(self.policy, name)].cloud)

    async def cut_link(self) -> None:
        """See `Rig.cut_link`."""
        self.bridge.link_up = False

    async def heal_link(self) -> None:
        """See `Rig.heal_link`."""
        self.bridge.link_up = True

    def held(self, cloud: str, stream: str) -> list[Message]:
        """What a stream holds, oldest first."""
        return [Message(m.subject, m.data, m.headers) for m in self.bridge.stream(cloud, stream).after(0)]


@contextlib.asynccontextmanager
async def memory_bridge(policy: Policy | Path | str = "bridge.yaml") -> AsyncIterator[MemoryRig]:
    """Both clouds in memory, until the block ends.

    Args:
        policy: The policy, or its file.

    Raises:
        PolicyError: The policy is wrong.
    """
    yield MemoryRig.make(read_policy(policy))
