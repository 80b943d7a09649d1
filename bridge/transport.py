"""The transport protocol and its values: what producers and workers need of a message broker. No I/O.

Two transports implement it, `bridge.jetstream` and `bridge.memory`, and one conformance suite
(``tests/integration/test_transport_conformance.py``) holds for both. Streams are named as in
`bridge.subjects`; ``cloud=None`` is the local one.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Final, Protocol, TypeAlias

from bridge import subjects
from bridge.errors import NotConnected
from bridge.values import value

MAX_MESSAGE: Final = 768 * 1024
"""Bytes of one message's data, far below every server's ``max_payload``: what is too large for the other side of a
link cuts that link for ever."""

PARTS: Final = subjects.parts_stream("")
"""Begins the names of the streams that hold parts of payloads."""

Unsubscribe: TypeAlias = Callable[[], Awaitable[None]]
"""Ends a subscription. It never raises."""


@value(frozen=True, slots=True)
class Message:
    """A message as the broker has it. Headers are hints for people and tools, never trusted."""

    subject: str
    data: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@value(frozen=True, slots=True)
class Delivery:
    """A message that a consumer delivered; it must be settled (acked, nak'd, or left to its ack wait)."""

    message: Message
    ack_subject: str
    delivered: int
    """How many times the broker says it delivered it, from 1. Untrusted: it only forces look-ups."""
    doubtful: bool = False
    """Whether the broker may have forgotten that it delivered it before. It forces look-ups as well."""
    sent: float = math.inf
    """By `time.monotonic`, when it was sent at the earliest, if it comes so late that it had been given up for lost."""


@value(frozen=True, slots=True)
class PubAck:
    """The server stored the message. It says nothing about the other cloud."""

    stream: str
    sequence: int
    duplicate: bool


class Pull(Protocol):
    """A standing request for the messages of one durable pull consumer, bounded by credit.

    It survives disconnects, restarts of brokers and cuts of the link: pulls are issued again, with backoff,
    for ever, and each failure is logged. At most the credit granted and not yet used is ever in flight.
    """

    @property
    def answered(self) -> int:
        """How many of its requests were answered: with messages, or with word that there are none yet."""

    @property
    def silent(self) -> float:
        """For how many seconds what it asks has had no answer, not even that there is nothing; 0 where it asks not."""

    @property
    def interrupted(self) -> int:
        """How often its requests had to be issued anew, after silence or a refusal."""

    def grant(self, n: int) -> None:
        """Allow ``n`` more messages to be delivered."""

    async def get(self) -> Delivery:
        """Wait for the next message."""

    async def close(self) -> list[Delivery]:
        """Stop pulling; the messages that had arrived and were not taken, for the caller to hand back."""

    async def closed(self) -> None:
        """Wait, after `close`, until nothing more can be delivered. What is until then, the pull hands back.

        Whoever disconnects before leaves such a message to its ack wait, since a request cannot be taken back.
        """


class Transport(Protocol):
    """One identity's connection to its local broker."""

    async def publish(
        self,
        stream: str,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        expected: int | None = None,
        timeout: float = 10.0,
    ) -> PubAck:
        """Store a message in a local stream.

        A random ``Nats-Msg-Id`` is added, so that a broker answers our own retry with ``duplicate``.

        Args:
            stream: The stream that must hold it (sent as ``Nats-Expected-Stream``).
            subject: The subject to publish on.
            data: The bytes, at most 768 KiB.
            headers: Hints for people and tools.
            expected: The sequence that the last message of the subject must have, 0 for none; None takes any.
            timeout: Seconds to wait for the PubAck, and for a connection.

        Raises:
            SubjectTaken: The subject holds a message already.
            SubjectChanged: Its last message is another than ``expected``; it may be this one, if its PubAck got lost.
            QueueFull: The stream is at its limit.
            PublishTimeout: No PubAck in time: it may be stored or not.
            Denied: The permissions refuse the subject.
            NotConnected: The transport is closed.
        """

    async def lookup(
        self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
    ) -> Message | None:
        """The last message of a subject by direct get, or None; its headers are as those of `read`.

        Raises:
            TransportError: No answer in time (the link may be down), or denied.
        """

    async def remove(self, stream: str, sequence: int, *, timeout: float = 5.0) -> bool:
        """Remove one message from a local stream; False where there is none.

        Raises:
            TransportError: No answer in time, or denied.
        """

    async def subscribe(self, subject: str, callback: Callable[[Message], Awaitable[None]]) -> Unsubscribe:
        """Call ``callback`` for each message on a core subject until closed; returns once it is known.

        Returns:
            What ends it sooner.
        """

    async def read(
        self, stream: str, pattern: str, *, first: int, most: int, cloud: str | None = None, timeout: float = 5.0
    ) -> list[Message]:
        """Messages of a stream whose subject a pattern covers, in order, by one batched direct get.

        Their headers have ``Nats-Sequence`` and ``Nats-Time-Stamp``.

        Args:
            stream: The stream.
            pattern: The subject, with wildcards.
            first: The least sequence.
            most: How many messages at most; there may be fewer though more are stored, but not none.
            cloud: The stream's cloud.
            timeout: Seconds until all of them have come.

        Raises:
            TransportError: No answer in time (the link may be down), or denied.
        """

    async def tell(self, subject: str, data: bytes) -> None:
        """Publish on a core subject: to whoever listens now, stored nowhere, perhaps lost.

        Raises:
            TransportError: Not connected.
        """

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` each time the connection stands again: what was told meanwhile was missed."""

    def on_refused(self, callback: Callable[[NotConnected], None]) -> None:
        """Call ``callback`` when the server refuses to connect this identity, or is not to be trusted, for so long that
        waiting is no use. Until a connection stands again, whatever needs one raises the same at once."""

    async def redial(self) -> None:
        """Make the connection anew, as after its loss; nothing where there is none now."""

    def pull(self, stream: str, consumer: str, *, cloud: str | None = None) -> Pull:
        """Start pulling from a durable consumer, with no credit yet."""

    async def ack(self, delivery: Delivery) -> None:
        """Done: the broker removes it (flushed together with others)."""

    async def nak(self, delivery: Delivery, delay: float = 0.0) -> None:
        """Later: the broker delivers it again after ``delay`` seconds."""

    async def in_progress(self, delivery: Delivery) -> None:
        """Still working: the ack wait starts anew."""

    async def flush(self, timeout: float = 5.0) -> None:
        """Wait until the local server has everything sent so far."""

    @property
    def connected(self) -> bool:
        """Whether the local server can be reached now."""

    @property
    def moved(self) -> float:
        """By `time.monotonic`, when a message last was stored by it or came, but parts of payloads; at first -inf.

        Where that was just now, somebody may be waiting for an answer.
        """

    async def close(self) -> None:
        """Flush what can be flushed within 2 seconds, then disconnect. Never raises."""
