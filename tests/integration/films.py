"""A queue of films in each direction, in memory and with real servers: what tests of payloads and records share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bridge.testing import embedded_bridge, memory_bridge
from bridge.testing.rig import Rig

Opens = Callable[..., contextlib.AbstractAsyncContextManager[Rig]]
both = pytest.mark.parametrize("opens", [memory_bridge, embedded_bridge], ids=["memory", "servers"])

_POLICY = """\
version: 1
bridge: acme
clouds:
  aws: {{role: hub, clients: "tls://hub.test:4222", leafnodes: "tls://leaf.test:7422", durability: process}}
  azure: {{role: leaf, clients: "tls://azure.test:4222", durability: process}}
identities:
  relay: {{cloud: aws}}
  other: {{cloud: aws}}
  bunny: {{cloud: azure}}
  gamma: {{cloud: azure}}
  prov-aws: {{cloud: aws, role: provisioner}}
  prov-azure: {{cloud: azure, role: provisioner}}
  link-azure: {{cloud: azure, role: link}}
queues:
  films: {{producers: [relay, other], workers: bunny, kinds: [{there}], max_payload: 8MiB{more}}}
  backwards: {{producers: [gamma], workers: relay, kinds: [{back}], max_payload: 8MiB{back_more}}}
"""


def write_policy(
    folder: Path, there: str = "echo, count, tell", back: str = "echo", more: str = "", back_more: str = ""
) -> Path:
    """Write ``bridge.yaml``.

    Args:
        folder: Where.
        there: The kinds that Bunny works for Relay.
        back: Those that Relay works for Bunny.
        more: Other settings of the queue ``films``, after a comma.
        back_more: Those of the queue ``backwards``.
    """
    path = folder / "bridge.yaml"
    path.write_text(_POLICY.format(there=there, back=back, more=more, back_more=back_more))
    return path


def write_spooling(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write ``bridge.yaml``, and name the place of workers' spools, which is returned."""
    write_policy(folder)
    monkeypatch.setenv("BUNNY_SPOOL", str(folder / "spool"))
    return folder / "spool"


async def once(data: bytes) -> AsyncIterator[bytes]:
    """Bytes that can be gone through but once."""
    for at in range(0, len(data), 99_999):
        yield data[at : at + 99_999]
