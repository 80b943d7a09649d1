"""A look at one cloud: what its streams and consumers hold, asked by name. It reads no message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from bridge import subjects
from bridge.agent.losses import Seen
from bridge.clock import now_ms
from bridge.errors import TransportError
from bridge.identity import Connection, QueueSettings
from bridge.jetstream import JetStreamTransport
from bridge.job import CANARY_PRIORITY, INLINE_LIMIT

ANSWER_TIMEOUT_S: Final = 2.0
AT_ONCE: Final = 8
"""Questions that are open at once: enough for a hundred queues in a second, and no load for a server."""
MAX_ANSWER: Final = 256 * 1024
"""Bytes of one answer."""


class Unread(NamedTuple):
    """How much of a producer's inbox is unread."""

    unread: int
    """Results that are not acked."""
    given: int
    """Of these, given out before: held by a process, or about to come again."""
    oldest_ms: int
    """At most how old the oldest of them is; 0 where there is none."""


class Room(NamedTuple):
    """How much of the room for payloads is taken."""

    taken: int
    """Bytes."""
    limit: int
    """What there may be."""


@dataclass(slots=True)
class Look:
    """What was seen."""

    queues: dict[str, dict[str, int]] = field(default_factory=dict)
    """By queue, the counts of `bridge.agent.report.COUNTS`; what got no answer is left out."""
    inboxes: dict[tuple[str, str], Unread] = field(default_factory=dict)
    """By queue and producer. No agent of the other cloud is told of them."""
    payloads: dict[str, Room] = field(default_factory=dict)
    """By queue, of the parts in this cloud; the other one's agent sees its own."""
    streams: dict[tuple[str, str], Seen | None] = field(default_factory=dict)
    """By queue and stream, what losses are seen by; None for what got no answer."""
    asked: int = 0
    failed: int = 0


async def look(transport: JetStreamTransport, connection: Connection) -> Look:
    """Ask about every queue that has something in this cloud."""
    seen = Look()
    free = asyncio.Semaphore(AT_ONCE)

    async def ask(call: str, *tokens: str, request: bytes = b"") -> dict[str, Any] | None:
        seen.asked += 1
        async with free:
            try:
                data = await transport.request(subjects.api_call(call, *tokens), request, ANSWER_TIMEOUT_S)
                answer = json.loads(data) if len(data) <= MAX_ANSWER else {"error": {}}
            except (TransportError, ValueError):
                answer = {"error": {}}
        if not isinstance(answer, dict) or "error" in answer:
            seen.failed += 1
            return None
        return answer

    async def at_home(queue: str, settings: QueueSettings) -> None:
        jobs, results = subjects.jobs_stream(queue), subjects.results_stream(queue)
        delayed = subjects.delayed_stream(queue)
        consumers = [subjects.jobs_consumer(settings.workers, priority) for priority in subjects.PRIORITIES]
        inboxes = [subjects.inbox_consumer(producer) for producer in settings.inbox]
        stored, later, copy, *found = await asyncio.gather(
            ask("STREAM.INFO", jobs, request=_canaries(queue, settings, connection)),
            ask("STREAM.INFO", delayed),
            ask("STREAM.INFO", results),
            *(ask("CONSUMER.INFO", jobs, consumer) for consumer in consumers),
            *(ask("CONSUMER.INFO", results, inbox) for inbox in inboxes),
        )
        pulls, boxes = found[: len(consumers)], found[len(consumers) :]
        seen.streams[queue, jobs] = of_stream(stored, pulls)
        seen.streams[queue, delayed] = of_stream(later)
        seen.streams[queue, results] = of_stream(copy)
        counts = seen.queues.setdefault(queue, {})
        if stored:
            counts.update(of_jobs(stored))
        if later:
            counts["delayed"] = _whole(later, "state", "messages")
        if copy:
            counts.update(of_copy(copy))
        if all(pulls):
            counts.update(of_consumers([pull for pull in pulls if pull]))
        for producer, box in zip(settings.inbox, boxes, strict=True):
            if copy and box:
                seen.inboxes[queue, producer] = of_inbox(copy, box)

    async def at_work(queue: str) -> None:
        streams = (subjects.dead_stream(queue), subjects.refused_stream(queue), subjects.results_stream(queue))
        dead, refused, results = await asyncio.gather(*(ask("STREAM.INFO", stream) for stream in streams))
        seen.streams[queue, streams[0]], seen.streams[queue, streams[2]] = of_stream(dead), of_stream(results)
        counts = seen.queues.setdefault(queue, {})
        for name, answer in (("dead", dead), ("refused", refused), ("results", results)):
            if answer:
                counts[name] = _whole(answer, "state", "messages")

    async def of_payloads(queue: str) -> None:
        if parts := await ask("STREAM.INFO", subjects.parts_stream(queue)):
            seen.payloads[queue] = Room(_whole(parts, "state", "bytes"), _whole(parts, "config", "max_bytes"))

    async with asyncio.TaskGroup() as group:
        for queue, settings in connection.queues.items():
            if settings.max_payload > INLINE_LIMIT and connection.cloud in (settings.home, settings.work):
                group.create_task(of_payloads(queue), name=f"look {queue}")
            if settings.home == connection.cloud:
                group.create_task(at_home(queue, settings), name=f"look {queue}")
            if settings.work == connection.cloud:
                group.create_task(at_work(queue), name=f"look {queue}")
    return seen


def _canaries(queue: str, settings: QueueSettings, connection: Connection) -> bytes:
    """What has a stream of jobs name this agent's canaries in it: one, and after a long outage one for each 10 min."""
    if not settings.canary_ms:
        return b""
    mine = subjects.any_job(queue, CANARY_PRIORITY, connection.identity)
    return json.dumps({"subjects_filter": mine}).encode()


def of_jobs(info: Mapping[str, Any]) -> dict[str, int]:
    """Counts of the stream of jobs: a work queue, so it holds what is not done, and its first message is the oldest.

    Canaries that were asked for by name are not among them.
    """
    canaries = info.get("state", {}).get("subjects") or {}
    stored, last = _whole(info, "state", "messages"), _whole(info, "state", "last_seq")
    messages = max(stored - len(canaries), 0)
    counts = {
        "jobs": messages,
        "bytes": _whole(info, "state", "bytes"),
        "stored": last,
        "done": max(last - stored, 0),
        "oldest_ms": _age_ms(info) if messages else 0,
    }
    limits = (("jobs_limit", "max_msgs"), ("bytes_limit", "max_bytes"))
    return counts | {name: limit for name, key in limits if (limit := _whole(info, "config", key)) > 0}


def of_copy(info: Mapping[str, Any]) -> dict[str, int]:
    """Counts of the copy of the results, which tells how far behind it is."""
    sources = [source for source in info.get("sources") or () if isinstance(source, dict)]
    counts = {"lag": sum(_whole(source, "lag") for source in sources), "results": _whole(info, "state", "messages")}
    # Nanoseconds; -1 until it has heard anything, which is no duration.
    heard = [active for source in sources if type(active := source.get("active")) is int and active >= 0]
    return counts | ({"silence_ms": max(heard) // 1_000_000} if heard else {})


def of_consumers(infos: list[dict[str, Any]]) -> dict[str, int]:
    """Counts of the consumers that workers pull from, together."""
    fields = (("in_flight", "num_ack_pending"), ("redelivered", "num_redelivered"), ("waiting", "num_waiting"))
    return {name: sum(_whole(info, key) for info in infos) for name, key in fields}


def of_inbox(stream: Mapping[str, Any], consumer: Mapping[str, Any]) -> Unread:
    """How much of an inbox is unread, and for how long.

    A server does not say how old the oldest of it is, and whoever looks on reads no message. It is not older than what
    follows the last result up to which all are acked; and how old that is follows from where it lies between the first
    and the last message stored: exactly where it is one of them, and so where it is about to be lost.
    """
    given = _whole(consumer, "num_ack_pending")
    unread = given + _whole(consumer, "num_pending")
    if not unread:
        return Unread(0, 0, 0)
    first, last = _whole(stream, "state", "first_seq"), _whole(stream, "state", "last_seq")
    oldest, newest = _age_ms(stream), _age_ms(stream, "last_ts")
    passed = max(_whole(consumer, "ack_floor", "stream_seq") + 1 - first, 0) / max(last - first, 1)
    return Unread(unread, given, oldest - round((oldest - newest) * min(passed, 1.0)))


def of_stream(info: Mapping[str, Any] | None, consumers: Sequence[Mapping[str, Any] | None] = ()) -> Seen | None:
    """What losses of a stream are seen by, with its consumers where it is a work queue."""
    told = [consumer for consumer in consumers if consumer]
    if not info or len(told) < len(consumers):
        return None
    last, messages = _whole(info, "state", "last_seq"), _whole(info, "state", "messages")
    if not consumers:
        return Seen(last, messages)
    handed_out = sum(_whole(consumer, "delivered", "consumer_seq") for consumer in told)
    return Seen(last, messages, handed_out, sum(_whole(consumer, "num_ack_pending") for consumer in told))


def _age_ms(info: Mapping[str, Any], which: str = "first_ts") -> int:
    try:
        stored = datetime.fromisoformat(str(info.get("state", {}).get(which))).timestamp() * 1000
    except ValueError:
        return 0
    return max(now_ms() - int(stored), 0)


def _whole(value: Mapping[str, Any], *path: str) -> int:
    """A count at a path; 0 where a server leaves it out, and never below."""
    found: Any = value
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return min(max(found, 0), 2**53 - 1) if type(found) is int else 0
