"""The bridge that is measured: two clouds, one producer, one pool, one queue or many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bridge.policy import Policy, load_policy

POLICY: Final = """\
version: 1
bridge: bench
clouds:
  aws:   {{role: hub, clients: "tls://hub.test:4222", leafnodes: "tls://leaf.test:7422", durability: {durability}}}
  azure: {{role: leaf, clients: "tls://azure.test:4222", durability: {durability}}}
identities:
  producer:   {{cloud: aws}}
  pool:       {{cloud: azure}}
  prov-aws:   {{cloud: aws, role: provisioner}}
  prov-azure: {{cloud: azure, role: provisioner}}
  link:       {{cloud: azure, role: link}}
queues:
"""
QUEUE: Final = "  {name}: {{producers: [producer], workers: pool, kinds: [echo, model]{room}}}\n"


RECEIPTS: Final = """\
  noted: {producers: [producer], workers: noter, kinds: [echo], receipts: on}
"""
"""A queue beside it, with a pool of its own, whose jobs leave receipts."""


def bench_policy(
    folder: Path,
    durability: str = "process",
    room: str = "",
    queues: Sequence[str] = ("bench",),
    *,
    receipts: bool = False,
) -> Policy:
    """Write it, and read it as ``bunny`` does.

    Args:
        folder: Where.
        durability: Of both clouds.
        room: More of each queue, as ", max_pending: 7".
        queues: Their names.
        receipts: Whether there is a queue ``noted`` as well.
    """
    text = POLICY.format(durability=durability)
    text += "".join(QUEUE.format(name=name, room=room) for name in queues)
    if receipts:
        text = text.replace("  link:", "  noter:      {cloud: azure}\n  link:") + RECEIPTS
    path = folder / "bridge.yaml"
    path.write_text(text)
    return load_policy(path)
