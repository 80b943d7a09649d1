"""What an agent knows now, and what it no longer does: everything has an age, and what is too old is unknown."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bridge.agent import link
from bridge.agent.canaries import Proof
from bridge.agent.look import Look, Room, Unread
from bridge.agent.losses import Losses
from bridge.agent.report import Report
from bridge.agent.schedules import Progress
from bridge.errors import WrongSubject
from bridge.identity import Connection

STALE_S: Final = 10.0
"""After this long what was seen or told is unknown: five reports missed."""
MAX_SESSIONS: Final = 16
"""Agents of the other cloud whose last report is remembered, so that it is not taken twice."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The backlog of a queue: known, and from where."""

    jobs: int
    oldest_ms: int
    via: str


@dataclass(slots=True)
class Peer:
    """The other cloud, as its agents tell."""

    report: Report
    at: float
    """The loop's time when it came."""
    ahead_ms: int
    """How far its clock seemed ahead; the way through the link is in it."""


@dataclass(slots=True)
class State:
    """All of it.

    Args:
        connection: Which cloud this is, and its queues.
        clock: The loop's.
    """

    connection: Connection
    clock: Callable[[], float]
    queues: dict[str, dict[str, int]] = field(default_factory=dict)
    inboxes: dict[tuple[str, str], Unread] = field(default_factory=dict)
    """By queue and producer, as this agent saw them."""
    payloads: dict[str, Room] = field(default_factory=dict)
    """By queue, likewise."""
    looked_at: float = float("-inf")
    servers: OrderedDict[str, link.Server] = field(default_factory=OrderedDict)
    peers: dict[str, Peer] = field(default_factory=dict)
    """By cloud."""
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Reports not believed, by cloud and reason."""
    failures: int = 0
    trust_version: int = 0
    trust_expires: int = 0
    certificates: dict[str, int] = field(default_factory=dict)
    """Expiry, in milliseconds UTC, by what it is."""
    connected: bool = False
    schedules: Mapping[str, Progress] = field(default_factory=dict)
    """How far each schedule is that this agent submits."""
    losses: Losses = field(init=False)
    proofs: Mapping[str, Proof] = field(default_factory=dict)
    """Of the queues that this agent sends canaries on."""
    _sessions: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.losses = Losses(self.clock)

    @property
    def cloud(self) -> str:
        """This cloud."""
        return self.connection.cloud

    @property
    def others(self) -> list[str]:
        """The clouds at the other end of any queue."""
        clouds = {cloud for q in self.connection.queues.values() for cloud in (q.home, q.work)}
        return sorted(clouds - {self.cloud})

    @property
    def fresh(self) -> bool:
        """Whether the last look at this cloud is recent."""
        return self.clock() - self.looked_at < STALE_S

    def saw_server(self, name: str, server: link.Server) -> None:
        """Keep what a server said."""
        self.servers[name] = server
        self.servers.move_to_end(name)
        while len(self.servers) > link.MAX_SERVERS:
            self.servers.popitem(last=False)

    def heard(self, report: Report, now_ms: int) -> None:
        """Keep what another cloud's agent told.

        Raises:
            WrongSubject: It tells of this cloud, or of none that there is.
            Repeated: It, or a later one of the same agent, has come before.
        """
        if report.cloud not in self.others:
            raise WrongSubject("a report of a cloud that no queue leads to")
        session = (report.cloud, report.session)
        if report.n <= self._sessions.get(session, 0):
            raise Repeated
        self._sessions[session] = report.n
        self._sessions.move_to_end(session)
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        known = self.peers.get(report.cloud)
        if known is not None and report.issued < known.report.issued:
            raise Repeated  # of a replica that is behind, or held back on its way
        self.peers[report.cloud] = Peer(report, self.clock(), report.issued - now_ms)

    def peer(self, cloud: str) -> Peer | None:
        """The other cloud, if it was heard lately."""
        peer = self.peers.get(cloud)
        return peer if peer is not None and self.clock() - peer.at < STALE_S else None

    def link(self) -> list[link.Server] | None:
        """What this cloud's servers say of the link; None if none of them said anything lately."""
        now = self.clock()
        return [server for server in self.servers.values() if now - server.at < STALE_S] or None

    @property
    def policy(self) -> str:
        """The digest of the policy that this cloud's servers run; empty if unknown, or while they differ."""
        digests = {server.policy for server in self.link() or ()}
        return digests.pop() if len(digests) == 1 else ""

    def known(self, via: str, cloud: str) -> Mapping[str, Mapping[str, int]]:
        """The counts of each queue, as this agent saw them (``own``) or was told (``peer``); none if that is old."""
        if via == "own":
            return self.queues if self.fresh else {}
        peer = self.peer(cloud)
        return peer.report.queues if peer is not None else {}

    def saw(self, seen: Look) -> None:
        """Keep what was seen of this cloud."""
        self.failures += seen.failed
        for (queue, stream), each in seen.streams.items():
            self.losses.saw(queue, stream, each)
        if seen.asked and seen.failed == seen.asked:
            return
        self.queues, self.inboxes, self.payloads = seen.queues, seen.inboxes, seen.payloads
        self.looked_at = self.clock()
        for queue, counts in seen.queues.items():
            if self.connection.queues[queue].home == self.cloud and {"results", "lag"} <= counts.keys():
                self.losses.saw_copy(queue, counts["results"] + counts["lag"])

    def lost_at_home(self, queue: str) -> int | None:
        """How many results of a queue of this cloud's producers its copy has lost; None if that is not known."""
        settings = self.connection.queues[queue]
        written = self.known("peer", settings.work).get(queue, {}).get("results")
        if settings.home != self.cloud or written is None:
            return None
        return self.losses.lost_at_home(queue, written)

    def backlog(self, queue: str) -> Backlog | None:
        """How many jobs of a queue wait or run; None is unknown, which is not zero."""
        home = self.connection.queues[queue].home
        via = "own" if home == self.cloud else "peer"
        counts = self.known(via, home).get(queue, {})
        if "jobs" not in counts:
            return None
        return Backlog(counts["jobs"], counts.get("oldest_ms", 0), via)


class Repeated(Exception):
    """A report that was told before."""
