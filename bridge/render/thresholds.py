"""What the policy calls healthy, as metadata of streams and consumers: where the ``nats`` CLI looks for it. No I/O.

``nats server check stream|consumer`` and ``nats audit`` read the keys ``io.nats.monitor.*``. Every threshold follows
from the queue's own limits and from ``max_outage``, so that what pages an operator is what both teams reviewed.
``docs/inspect.md`` has the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge.policy import Queue

PREFIX: Final = "io.nats.monitor."
"""Of every key. A key with it that the plan does not name is one that a former plan had."""

SHORTEST_SILENCE_MS: Final = 5_000
LONGEST_SILENCE_MS: Final = 60_000
"""Between these, a tenth of ``max_outage``: a server says each second that its results are complete."""

WARN_SHARE: Final = 0.5
CRITICAL_SHARE: Final = 0.8
"""Of what a queue may hold: beyond it, producers are refused."""

BEHIND_SHARE: Final = 0.1
"""Of what a queue may hold: results that wait to go home, or in an inbox to be read."""

PEER_SILENCE_S: Final = 10
PEERS_BEHIND: Final = 1_000
"""Seconds and operations that a replica may be behind: it hears from its leader every second."""

DEAD_SHARE: Final = 0.01
"""Of what a queue may hold: dead letters, or refused messages, that nobody has looked at. One is a warning."""


def stored_jobs(queue: Queue) -> dict[str, str]:
    """Of the stream of jobs, in which every job has a subject of its own."""
    return _metadata(
        {
            "subjects-warn": _share(queue.max_pending, WARN_SHARE, least=1),
            "subjects-critical": _share(queue.max_pending, CRITICAL_SHARE, least=2),
        }
    )


def payloads(most: int) -> dict[str, str]:
    """Of the parts of payloads, of which so many of full length find room; there is no threshold of bytes."""
    return _metadata(
        {
            "subjects-warn": _share(most, WARN_SHARE, least=1),
            "subjects-critical": _share(most, CRITICAL_SHARE, least=2),
        }
    )


def put_aside(queue: Queue) -> dict[str, str]:
    """Of dead letters and refused messages."""
    return _metadata({"subjects-warn": 1, "subjects-critical": _share(queue.max_pending, DEAD_SHARE, least=2)})


def copy(queue: Queue, max_outage_ms: int) -> dict[str, str]:
    """Of the results that have come home: that they come, and from one place."""
    silence = min(max(max_outage_ms // 10, SHORTEST_SILENCE_MS), LONGEST_SILENCE_MS)
    return _metadata(
        {
            "min-sources": 1,
            "max-sources": 1,
            "seen-critical": f"{silence // 1000}s",
            "lag-critical": _share(queue.max_pending, BEHIND_SHARE),
        }
    )


def workers(queue: Queue, max_ack_pending: int, max_waiting: int) -> dict[str, str]:
    """Of the consumer that the pool pulls from."""
    return _metadata(
        {
            "unprocessed-critical": _share(queue.max_pending, CRITICAL_SHARE),
            "outstanding-ack-critical": _share(max_ack_pending, CRITICAL_SHARE),
            "waiting-critical": _share(max_waiting, CRITICAL_SHARE),
        }
    )


def home(queue: Queue) -> dict[str, str]:
    """Of the consumer through which results leave."""
    return _metadata({"unprocessed-critical": _share(queue.max_pending, BEHIND_SHARE)})


def inbox(queue: Queue, max_ack_pending: int) -> dict[str, str]:
    """Of the consumer through which a producer reads its results: unread ones are gone after ``result_ttl``."""
    return _metadata(
        {
            "unprocessed-critical": _share(queue.max_pending, BEHIND_SHARE),
            "outstanding-ack-critical": _share(max_ack_pending, CRITICAL_SHARE),
        }
    )


def replicated(stream: Mapping[str, Any], servers: int) -> dict[str, Any]:
    """A stream's configuration with a replica on every server; where they are several, that all of them follow."""
    if servers == 1:
        return {**stream, "num_replicas": 1}
    peers = _metadata(
        {
            # Without it, `server check` expects none of what there is.
            "peer-expect": servers,
            "peer-seen-critical": f"{PEER_SILENCE_S}s",
            "peer-lag-critical": PEERS_BEHIND,
        }
    )
    return {**stream, "num_replicas": servers, "metadata": {**stream.get("metadata", {}), **peers}}


def _metadata(values: dict[str, int | str]) -> dict[str, str]:
    # `audit` looks at what says so; `server check` at whatever it is pointed to.
    return {f"{PREFIX}{key}": str(value) for key, value in {"enabled": "true", **values}.items()}


def _share(whole: int, share: float, *, least: int = 1) -> int:
    return max(int(whole * share), least)
