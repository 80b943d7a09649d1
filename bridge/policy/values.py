"""`bridge.yaml` as typed values. Durations are milliseconds in fields named ``*_ms``; sizes are bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Final, Literal

from bridge.job import INLINE_LIMIT, Errors
from bridge.packing import Packing

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
SECOND: Final = 1000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
YEAR: Final = 365 * DAY

STORE_LIMIT: Final = 1024 * GIB
"""What the jobs and results of all queues may reserve in one cloud, in bytes: one large volume, never a pool."""


_LATER: Final = (
    *("inbox", "canary_ms", "concurrency", "concurrency_per_key", "rate", "payload_bytes", "packing"),
    "receipts_bytes",
)
"""Of a queue, what releases before these words did not know."""


class Role(StrEnum):
    """What an identity is for. Nobody is unrestricted."""

    SERVICE = "service"
    """Produces and works what the queues name it for."""
    INSPECTOR = "inspector"
    """Reads streams and consumers of its own cloud, changes nothing."""
    OPERATOR = "operator"
    """Replays, drops and cancels."""
    AGENT = "agent"
    """Reports the backlog and health of its cloud."""
    PROVISIONER = "provisioner"
    """Creates and updates streams and consumers, reads no payload."""
    SYSTEM = "system"
    """Reads what the servers of its cloud tell of themselves: no stream, no change."""
    LINK = "link"
    """The leaf node's own credential at the hub."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """One side of the bridge; its name is its JetStream domain."""

    name: str
    role: Literal["hub", "leaf"]
    clients: str
    """``tls://host:port`` of its servers, for the services in it; more than one are parted by commas."""
    leafnodes: str | None = None
    """``tls://host:port`` where the hub takes the leaf's link, likewise; None for the leaf."""
    durability: Literal["power-loss", "process"] = "power-loss"
    """What a PubAck outlives: ``power-loss`` syncs every write, ``process`` every ten seconds."""
    servers: int = 1
    """One, or a cluster of three, in which every stream has three replicas."""
    routes: tuple[str, ...] = ()
    """``tls://host:port`` where each server of a cluster listens for the others; empty for one server."""

    @property
    def account(self) -> str:
        """The NATS account that owns the cloud's streams and users."""
        return "RELAY" if self.role == "hub" else "BUNNY"


@dataclass(frozen=True, slots=True)
class IdentityEntry:
    """A declared identity; its public keys lie in ``keys/<name>.json``."""

    name: str
    cloud: str
    role: Role = Role.SERVICE


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait before another attempt: ``initial * factor ** (attempt - 1)``, at most ``max``, ± ``jitter``."""

    initial_ms: int = SECOND
    factor: float = 2.0
    max_ms: int = 300 * SECOND
    jitter: float = 0.2
    """A share of the wait, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How many jobs may start: ``jobs`` in each ``per_ms``, evenly, and ``burst`` at once after a quiet time."""

    jobs: int
    per_ms: int
    burst: int = 1


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue: jobs from the producers of one cloud to the workers of the other."""

    name: str
    producers: tuple[str, ...]
    workers: str
    kinds: tuple[str, ...]
    home: str
    """The producers' cloud, where jobs are stored and results end up."""
    work: str
    """The workers' cloud, where results are written."""
    ack_wait_ms: int = 30 * SECOND
    max_attempts: int = 5
    backoff: Backoff = field(default_factory=Backoff)
    deadline_ms: int = HOUR
    """For a job that names none."""
    result_ttl_ms: int = DAY
    """How long a result stands, and so how long the fence holds."""
    max_payload: int = INLINE_LIMIT
    max_pending: int = 1_000_000
    """Jobs stored and not done; one more is refused with `QueueFull`."""
    max_bytes: int = 4 * GIB
    """Of the stored jobs, and of the stored results."""
    payload_bytes: int = 0
    """Of the parts of payloads, in each of the two clouds; 0 where all payloads travel inline."""
    inbox: tuple[str, ...] = ()
    """Producers whose results also wait in a durable inbox, for any of their processes to read and ack."""
    canary_ms: int = 0
    """How often agents of the producers' cloud prove that jobs are answered; 0 is never."""
    concurrency: int | None = None
    """Jobs that run at once, over all workers; None is no limit but the workers' own."""
    concurrency_per_key: int | None = None
    """Of the jobs with the same concurrency key; None is that jobs have none."""
    rate: Rate | None = None
    """Of the starts, over all workers."""
    errors: Errors = "type"
    """What producers are told of an exception that a handler raised: its class, its message, its traceback."""
    packing: Packing | None = None
    """How content is compressed or padded before it is sealed."""
    receipts_bytes: int = 0
    """Of the receipts about its jobs, in each of the two clouds; 0 where there are none."""

    @property
    def limited(self) -> bool:
        """Whether its workers must agree on what may start."""
        return any((self.concurrency, self.concurrency_per_key, self.rate))


Missed = Literal["skip", "last", "all"]
"""Which of the ticks that came while no agent could submit their jobs are made up for: none, the newest, or all."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job that agents submit at each tick: one job a tick, however many agents run."""

    name: str
    agent: str
    """The identity whose agents submit it; they share its folder, and so the key of a tick."""
    queue: str
    kind: str
    deadline_ms: int
    """From when it is submitted."""
    cron: str = ""
    """Five fields; empty where there is an interval."""
    timezone: str = "UTC"
    every_ms: int = 0
    """The interval, counted from 1970; 0 where there is an expression."""
    args: str = "null"
    """JSON, in ASCII. Not secret: it stands in the policy."""
    missed: Missed = "last"
    since_ms: int = 0
    """No tick before this time."""


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """How many root keys sign the trust bundle, and how long it is good for."""

    threshold: int = 1
    expires_ms: int = 30 * DAY


@dataclass(frozen=True, slots=True)
class Policy:
    """What both teams agreed on."""

    bridge: str
    clouds: Mapping[str, Cloud]
    identities: Mapping[str, IdentityEntry]
    queues: Mapping[str, Queue]
    trust: TrustPolicy = field(default_factory=TrustPolicy)
    max_outage_ms: int = 12 * HOUR
    """The longest cut of the link that loses nothing; retentions are computed from it."""
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    revoked: tuple[str, ...] = ()
    """Identities that are refused everywhere, whatever else names them."""

    @property
    def accepted(self) -> dict[str, IdentityEntry]:
        """The identities that are not revoked: those that servers and receivers are told of."""
        return {name: entry for name, entry in self.identities.items() if name not in self.revoked}

    @property
    def hub(self) -> Cloud:
        """The cloud whose servers take the link."""
        return next(cloud for cloud in self.clouds.values() if cloud.role == "hub")

    @property
    def leaf(self) -> Cloud:
        """The cloud whose server dials out."""
        return next(cloud for cloud in self.clouds.values() if cloud.role == "leaf")

    def canary_senders(self, queue: Queue) -> tuple[str, ...]:
        """The agents that prove the way of a queue."""
        if not queue.canary_ms:
            return ()
        agents = (each for each in self.identities.values() if each.role is Role.AGENT and each.cloud == queue.home)
        return tuple(sorted(each.name for each in agents))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the values, whatever the order, comments and spelling of the file."""
        values = asdict(self)
        # What says nothing is left out, as releases before it had it: two teams upgrade apart, and compare digests.
        if not self.schedules:
            del values["schedules"]
        if not self.revoked:
            del values["revoked"]
        for queue in values["queues"].values():
            for later in _LATER:
                if not queue[later]:
                    del queue[later]
            if queue["errors"] == "type":
                del queue["errors"]
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
