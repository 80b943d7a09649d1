"""What several tests need: a policy with a queue in each direction, and both clouds running."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Final

from bridge.devserver import Bridge, Ports, running
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import JetStreamTransport, connect
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


@contextlib.asynccontextmanager
async def running_bridge(
    tmp_path: Path,
    policy_text: str | None = None,
    *,
    relay: bool = False,
    ports: Mapping[str, Ports] | None = None,
    provisioned: bool = True,
) -> AsyncIterator[Bridge]:
    """Both clouds running in ``tmp_path/.bunny``, from `POLICY` unless another is given; jobs can flow."""
    policy = write_policy(tmp_path, POLICY if policy_text is None else policy_text)
    async with running(policy, tmp_path / ".bunny", relay=relay, ports=ports, provisioned=provisioned) as bridge:
        yield bridge


async def connected(bridge: Bridge, name: str) -> JetStreamTransport:
    """A connection of one of the bridge's identities to its own cloud: use it with ``async with``."""
    place = bridge.identity(name)
    seed = Identity.load(place).nkey_seed
    return await connect(Connection.load(place), seed, place / CA_FILE, name=name, timeout=10.0)


@contextlib.contextmanager
def frozen(pid: int, timeout: float = 10.0) -> Iterator[None]:
    """Stop a process for the block, every thread of it.

    The signal reaches one thread, which stops the others when it runs next: on a busy machine they go on for a while.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        ends = time.monotonic() + timeout
        while not all(_state(stat) == "T" for stat in Path(f"/proc/{pid}/task").glob("*/stat")):
            assert time.monotonic() < ends, f"process {pid} did not stop in {timeout:g} s"
            os.sched_yield()
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _state(stat: Path) -> str:
    return stat.read_text().rpartition(")")[2].split()[0]  # proc(5): the name, in parentheses, may hold spaces
