"""An agent's knowledge as metrics. What is unknown is left out: a gap is seen on a chart, and a zero believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from bridge.agent.state import State
from bridge.signals import metrics
from bridge.signals.meter import Sample
from bridge.signals.metrics import Metric

_COUNTS: Final[Mapping[str, Metric]] = {
    "jobs": metrics.DEPTH,
    "jobs_limit": metrics.DEPTH_LIMIT,
    "delayed": metrics.DELAYED,
    "in_flight": metrics.AT_WORK,
    "redelivered": metrics.REDELIVERED,
    "waiting": metrics.WAITING_PULLS,
    "bytes": metrics.QUEUE_BYTES,
    "bytes_limit": metrics.QUEUE_BYTES_LIMIT,
    "stored": metrics.STORED,
    "done": metrics.DONE,
    "lag": metrics.LAG,
    "results": metrics.RESULTS_KEPT,
    "dead": metrics.DEAD,
    "refused": metrics.PUT_ASIDE,
}
_TIMES: Final[Mapping[str, Metric]] = {"oldest_ms": metrics.OLDEST, "silence_ms": metrics.SILENCE}


def samples(state: State) -> Iterator[Sample]:
    """Everything that is known now."""
    here = state.cloud
    yield from _queues(state, "own", here)
    yield from _inboxes(state)
    yield from _payloads(state)
    yield metrics.AGENT_CONNECTED, (here,), float(state.connected)
    yield metrics.AGENT_FAILURES, (here,), state.failures
    yield metrics.TRUST_VERSION, (here, "own"), state.trust_version
    yield metrics.TRUST_EXPIRY, (here, "own"), state.trust_expires / 1000
    for name, expires in state.certificates.items():
        yield metrics.CERTIFICATE_EXPIRY, (here, name), expires / 1000
    if state.policy:
        yield metrics.POLICY, (here, "own", state.policy[:16]), 1
    yield from _schedules(state)
    for cloud in state.others:
        yield from _queues(state, "peer", cloud)
        yield from _peer(state, cloud)
    for (queue, stream), count in state.losses.rolled_back.items():
        yield metrics.WENT_BACK, (queue, stream, here), count
    for queue, count in state.losses.vanished.items():
        yield metrics.VANISHED, (queue, here), count
    for queue in state.connection.queues:
        if (lost := state.lost_at_home(queue)) is not None:
            yield metrics.LOST_AT_HOME, (queue, here), lost
    for queue, proof in state.proofs.items():
        yield metrics.CANARY_AGE, (queue, here), state.clock() - proof.good
        if proof.took is not None:
            yield metrics.CANARY_TRIP, (queue, here), proof.took
        for error, count in proof.failures.items():
            yield metrics.CANARY_FAILURES, (queue, here, error), count
    for (cloud, reason), count in state.refused.items():
        yield metrics.PEER_REFUSED, (here, cloud, reason), count


def _schedules(state: State) -> Iterator[Sample]:
    for name, progress in state.schedules.items():
        labels = (name, state.cloud)
        if progress.last is not None:
            yield metrics.LAST_TICK, labels, progress.last / 1000
        if progress.next is not None:
            yield metrics.NEXT_TICK, labels, progress.next / 1000
        outcomes = (("submitted", progress.submitted), ("missed", progress.missed), ("conflict", progress.conflicts))
        for outcome, count in outcomes:
            yield metrics.TICKS, (*labels, outcome), count
        for error, count in progress.failures.items():
            yield metrics.TICK_FAILURES, (*labels, error), count


def _queues(state: State, via: str, cloud: str) -> Iterator[Sample]:
    for queue, counts in state.known(via, cloud).items():
        labels = (queue, cloud, via)
        for name, count in counts.items():
            if name in _TIMES:
                yield _TIMES[name], labels, count / 1000
            else:
                yield _COUNTS[name], labels, count


def _inboxes(state: State) -> Iterator[Sample]:
    for (queue, producer), inbox in state.inboxes.items() if state.fresh else ():
        labels = (queue, state.cloud, producer)
        yield metrics.INBOX_UNREAD, labels, inbox.unread
        yield metrics.INBOX_OLDEST, labels, inbox.oldest_ms / 1000
        yield metrics.INBOX_OLDEST_LIMIT, labels, state.connection.queues[queue].result_ttl_ms / 1000


def _payloads(state: State) -> Iterator[Sample]:
    for queue, room in state.payloads.items() if state.fresh else ():
        yield metrics.PAYLOAD_BYTES, (queue, state.cloud), room.taken
        if room.limit > 0:
            yield metrics.PAYLOAD_BYTES_LIMIT, (queue, state.cloud), room.limit


def _peer(state: State, cloud: str) -> Iterator[Sample]:
    ends = (state.cloud, cloud)
    servers, peer = state.link(), state.peer(cloud)
    if servers is not None:
        # A server that has not yet noticed a dead link believes in it; the other agent's silence tells sooner.
        yield metrics.LINK_UP, ends, float(any(server.links for server in servers))
        trips = [server.round_trip for server in servers if server.round_trip is not None]
        if trips:
            yield metrics.LINK_ROUND_TRIP, ends, max(trips)
    yield metrics.PEER_UP, ends, float(peer is not None)
    if (last := state.peers.get(cloud)) is not None:
        yield metrics.PEER_AGE, ends, state.clock() - last.at
    if peer is None:
        return
    yield metrics.PEER_CLOCK, ends, peer.ahead_ms / 1000
    yield metrics.TRUST_VERSION, (cloud, "peer"), peer.report.trust_version
    yield metrics.TRUST_EXPIRY, (cloud, "peer"), peer.report.trust_expires / 1000
    if peer.report.policy:
        yield metrics.POLICY, (cloud, "peer", peer.report.policy[:16]), 1
        if state.policy:
            yield metrics.POLICY_MATCH, ends, float(peer.report.policy == state.policy)
