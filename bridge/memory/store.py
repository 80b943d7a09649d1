"""One stream: messages in order, its limits, and who was there first. No I/O, no clock of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.errors import PayloadTooLarge, QueueFull, SubjectChanged, SubjectTaken, TransportError
from bridge.matching import matches
from bridge.transport import PubAck

RECORD_OVERHEAD = 30
"""Bytes that the server counts for a message besides subject, headers and data; about what its file store adds."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in a stream."""

    sequence: int
    subject: str
    data: bytes = field(repr=False)
    headers: Mapping[str, str]
    stored: float
    """Of the clock that the stream is told the time of."""
    until: float = math.inf
    """When it goes, where it says so itself."""

    @property
    def size(self) -> int:
        """What it counts against ``max_bytes``."""
        headers = sum(len(key) + len(value) + 4 for key, value in self.headers.items())
        return len(self.subject) + headers + len(self.data) + RECORD_OVERHEAD


class Stream:
    """A stream as a plan describes it.

    Args:
        config: The configuration, as in the JetStream API; what concerns disks and replicas is ignored.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.name: str = config["name"]
        self.subjects: tuple[str, ...] = tuple(config.get("subjects") or ())
        self.work_queue = config.get("retention") == "workqueue"
        self._discard_new = config.get("discard") == "new"
        self._fenced = bool(config.get("discard_new_per_subject"))
        self._max_messages: int = config.get("max_msgs", -1)
        self._max_bytes: int = config.get("max_bytes", -1)
        self._max_per_subject: int = config.get("max_msgs_per_subject", -1)
        self._max_size: int = config.get("max_msg_size", -1)
        self._max_age: float = config.get("max_age", 0) / 1e9
        self._window: float = config.get("duplicate_window", 0) / 1e9
        self._messages: dict[int, Stored] = {}
        self._by_subject: dict[str, dict[int, None]] = {}
        self._ids: dict[str, tuple[int, float]] = {}
        self._passing: dict[int, float] = {}
        """When messages go that say so themselves."""
        self._bytes = 0
        self._last = 0

    def takes(self, subject: str) -> bool:
        """Whether the stream listens on ``subject``."""
        return any(matches(pattern, subject) for pattern in self.subjects)

    def store(self, subject: str, data: bytes, headers: Mapping[str, str], now: float) -> PubAck:
        """Store a message, in the order of checks of the server: what was there, duplicate, size, subject, fullness.

        Raises:
            SubjectChanged, PayloadTooLarge, SubjectTaken, QueueFull: As their names say; nothing was stored.
        """
        self.expire(now)
        expected = headers.get("Nats-Expected-Last-Subject-Sequence")
        if expected is not None and int(expected) != next(reversed(self._by_subject.get(subject, {})), 0):
            raise SubjectChanged(f"{subject}: its last message in {self.name} is another than expected")
        message_id = headers.get("Nats-Msg-Id")
        if message_id is not None and message_id in self._ids:
            return PubAck(self.name, self._ids[message_id][0], duplicate=True)
        message = Stored(self._last + 1, subject, data, dict(headers), now, now + self._life(subject, headers))
        if 0 <= self._max_size < message.size - len(subject) - RECORD_OVERHEAD:
            raise PayloadTooLarge(f"{subject}: more bytes than {self.name} takes")
        same = self._by_subject.get(subject, {})
        at_limit = 0 < self._max_per_subject <= len(same)
        if at_limit and self._discard_new and self._fenced:
            raise SubjectTaken(f"{subject}: {self.name} holds a message of this subject already")
        if at_limit:
            self.remove(next(iter(same)))
        while limit := self._full(message.size):
            if self._discard_new or not self._messages:
                raise QueueFull(f"{self.name} is full: {limit}; wait until some of it is worked, or raise its limits")
            self.remove(next(iter(self._messages)))
        self._last = message.sequence
        self._messages[message.sequence] = message
        self._by_subject.setdefault(subject, {})[message.sequence] = None
        self._bytes += message.size
        if message.until < math.inf:
            self._passing[message.sequence] = message.until
        if message_id is not None and self._window > 0:
            self._ids[message_id] = (message.sequence, now)
        return PubAck(self.name, message.sequence, duplicate=False)

    def last_of(self, subject: str, now: float) -> Stored | None:
        """The last message of a subject."""
        self.expire(now)
        same = self._by_subject.get(subject)
        return self._messages[next(reversed(same))] if same else None

    def get(self, sequence: int) -> Stored | None:
        """The message of a sequence, if it is still there."""
        return self._messages.get(sequence)

    def after(self, sequence: int) -> Iterator[Stored]:
        """The messages after a sequence, in order."""
        for number in range(sequence + 1, self._last + 1):
            if (message := self._messages.get(number)) is not None:
                yield message

    def remove(self, sequence: int) -> None:
        """Remove a message, if it is there."""
        message = self._messages.pop(sequence, None)
        if message is None:
            return
        self._bytes -= message.size
        same = self._by_subject[message.subject]
        del same[sequence]
        if not same:
            del self._by_subject[message.subject]

    def expire(self, now: float) -> None:
        """Remove what is too old, and forget message ids out of their window."""
        if self._max_age > 0:
            while self._messages and next(iter(self._messages.values())).stored + self._max_age <= now:
                self.remove(next(iter(self._messages)))
        for sequence in [each for each, until in self._passing.items() if until <= now]:
            del self._passing[sequence]
            self.remove(sequence)
        while self._ids and next(iter(self._ids.values()))[1] + self._window <= now:
            del self._ids[next(iter(self._ids))]

    def _life(self, subject: str, headers: Mapping[str, str]) -> float:
        """Seconds that a message lives by its own word; a number of them is all that is understood here."""
        told = headers.get("Nats-TTL")
        if told is None:
            return math.inf
        if not self.config.get("allow_msg_ttl"):
            raise TransportError(f"{subject}: {self.name} refused it: per-message TTL is disabled (10166)")
        try:
            return float(told.removesuffix("s"))
        except ValueError:
            raise TransportError(f"{subject}: {self.name} refused it: invalid per-message TTL (10165)") from None

    def _full(self, more: int) -> str:
        if 0 < self._max_messages <= len(self._messages):
            return "maximum messages exceeded"
        if 0 < self._max_bytes < self._bytes + more:
            return "maximum bytes exceeded"
        return ""


def rewrite(source: str, destination: str, subject: str) -> str | None:
    """Where a republished subject goes: ``{{wildcard(n)}}`` is the n-th token that a ``*`` of ``source`` stands for."""
    if not matches(source, subject):
        return None
    caught = [given for wanted, given in zip(source.split("."), subject.split("."), strict=False) if wanted == "*"]
    for number, token in enumerate(caught, 1):
        destination = destination.replace(f"{{{{wildcard({number})}}}}", token)
    return destination
