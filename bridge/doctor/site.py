"""What is at hand where the doctor is run: in a pod an identity folder, on an operator's machine much more. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bridge.doctor.dns import Resolver
from bridge.identity import Connection, PublicIdentity
from bridge.policy import Cloud, IdentityEntry, Policy, Queue, Rate, Role, Schedule

TIMEOUT_S: Final = 5.0
"""The longest that one probe may take."""


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that may be looked at; what is absent is said to be unseen.

    Args:
        resolver: Where names are asked for.
        timeout: Seconds for each probe.
        identities: Identity folders to connect as.
        policy: ``bridge.yaml``.
        keys: The public halves beside it.
        rendered: What `bunny render` wrote, a folder per cloud.
        pki: Certificates, a folder per cloud.
        trust: A trust bundle to compare with the policy.
        monitors: Address (``http://host:port``) of each server's monitor, by the server's name (see `cloud_of`).
        stores: Where each server keeps its streams, if on this machine.
        logs: Each server's log, if on this machine.
    """

    resolver: Resolver
    timeout: float = TIMEOUT_S
    identities: tuple[Path, ...] = ()
    policy: Policy | None = None
    keys: Mapping[str, PublicIdentity] | None = None
    rendered: Path | None = None
    pki: Path | None = None
    trust: Path | None = None
    monitors: Mapping[str, str] = field(default_factory=dict)
    stores: Mapping[str, Path] = field(default_factory=dict)
    logs: Mapping[str, Path] = field(default_factory=dict)

    @property
    def hub(self) -> str | None:
        """The hub's name, where the policy is known."""
        return self.policy.hub.name if self.policy else None

    @property
    def leaf(self) -> str | None:
        """The leaf's name, where the policy is known."""
        return self.policy.leaf.name if self.policy else None


def policy_of(connection: Connection) -> Policy:
    """As much of the policy as a connection tells: enough to know what its identity may do.

    Which cloud is the hub it does not tell, and no permission of an identity depends on it.
    """
    queues = {
        name: Queue(
            name=name,
            producers=tuple(q.producers),
            workers=q.workers,
            kinds=tuple(q.kinds),
            home=q.home,
            work=q.work,
            inbox=tuple(q.inbox),
            canary_ms=q.canary_ms,
            concurrency=q.concurrency,
            concurrency_per_key=q.concurrency_per_key,
            rate=Rate(q.rate_jobs, q.rate_per_ms, q.rate_burst) if q.rate_jobs is not None else None,
        )
        for name, q in connection.queues.items()
    }
    names = {connection.cloud, *(q.home for q in queues.values()), *(q.work for q in queues.values())}
    clouds = {name: Cloud(name, "leaf", connection.server) for name in sorted(names)}
    me = IdentityEntry(connection.identity, connection.cloud, Role(connection.role))
    schedules = {
        name: Schedule(name, me.name, s.queue, s.kind, s.deadline_ms) for name, s in connection.schedules.items()
    }
    return Policy(connection.bridge, clouds, {me.name: me}, queues, schedules=schedules)


def cloud_of(server: str) -> str:
    """The cloud of a server: its own name or, in a cluster, what stands before the dot."""
    return server.partition(".")[0]


def addresses(server: str) -> list[str]:
    """The addresses in a connection's ``server``."""
    return [url for each in server.split(",") if (url := each.strip()) and urlsplit(url).hostname]
