"""What several tests need: a policy with a queue in each direction, and both clouds running."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bridge.policy import Policy, load_policy

POLICY: Final = """\
version: 1
bridge: acme
clouds:
  aws:
    role: hub
    clients: "tls://relay-nats.relay.svc:4222"
    leafnodes: "tls://relay-leaf.bridge.internal:7422"
    durability: process
  azure:
    role: leaf
    clients: "tls://bunny-nats.bunny.svc:4222"
    durability: process
identities:
  alpha: {cloud: aws}
  beta: {cloud: aws}
  relay: {cloud: aws}
  bunny: {cloud: azure}
  gamma: {cloud: azure}
  ops-aws: {cloud: aws, role: inspector}
  ops-azure: {cloud: azure, role: inspector}
  prov-aws: {cloud: aws, role: provisioner}
  prov-azure: {cloud: azure, role: provisioner}
  link-azure: {cloud: azure, role: link}
queues:
  thumbs:
    producers: [alpha, beta]
    workers: bunny
    kinds: [resize, probe]
  lookup:
    producers: [gamma]
    workers: relay
    kinds: [find]
"""
"""Queue `thumbs` is worked in Azure for two producers in AWS, queue `lookup` in AWS for one in Azure."""


def write_policy(folder: Path, text: str = POLICY) -> Policy:
    """Write ``bridge.yaml`` into a folder and load it."""
    path = folder / "bridge.yaml"
    path.write_text(text)
    return load_policy(path)
