"""Both clouds and the link between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bridge.errors import PublishTimeout, QueueFull, TransportError
from bridge.matching import matches
from bridge.memory.consumer import Consumer
from bridge.memory.store import Stored, Stream, rewrite
from bridge.transport import Delivery, Message, PubAck

Listener = Callable[[Message], None]
_CROSSING: Final = ("control", "events")
"""First tokens of subjects on which what is said in one cloud is heard in the other (`bridge.render.crossings`)."""


class Cloud:
    """One cloud's streams, consumers and core subscriptions."""

    def __init__(self, name: str, plan: Mapping[str, Any], clock: Callable[[], float]) -> None:
        self.name = name
        self.streams = {config["name"]: Stream(config) for config in plan["streams"]}
        self.consumers = {
            (entry["stream"], entry["config"]["durable_name"]): Consumer(
                self.streams[entry["stream"]], entry["config"], clock
            )
            for entry in plan["consumers"]
            if not entry["config"].get("deliver_subject")  # through those, results flow home: see `_Source`
        }
        self._listeners: list[tuple[str, Listener]] = []

    def listen(self, subject: str, listener: Listener) -> Callable[[], None]:
        """Subscribe to a core subject; call what is returned to end it."""
        entry = (subject, listener)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry)

    def tell(self, message: Message) -> None:
        """Bring a message to those who listen on its subject."""
        for subject, listener in tuple(self._listeners):
            if matches(subject, message.subject):
                listener(message)

    def stored(self, stream: Stream, message: Stored) -> None:
        """Republish a message that was stored, and let the stream's consumers deliver it."""
        republish = stream.config.get("republish")
        target = republish and rewrite(republish["src"], republish["dest"], message.subject)
        if target:
            self.tell(Message(target, message.data, found(stream, message)))
        for (name, _), consumer in self.consumers.items():
            if name == stream.name:
                consumer.pump()


class _Source:
    """A stream that is copied from another cloud's, in order, each message once, while the link is up."""

    def __init__(self, origin: Stream, target: Stream, cloud: Cloud) -> None:
        self.origin, self._target, self._cloud = origin, target, cloud
        self._copied = 0

    def copy(self, now: float) -> None:
        for message in self.origin.after(self._copied):
            headers = {**message.headers, "Nats-Stream-Source": f"{self.origin.name} {message.sequence}"}
            try:
                ack = self._target.store(message.subject, message.data, headers, now)
            except QueueFull:
                return  # the origin keeps the rest until there is room
            self._copied = message.sequence
            copied = self._target.get(ack.sequence)
            if copied is not None:
                self._cloud.stored(self._target, copied)


class Clouds:
    """All clouds, what is copied from one to another, and the link.

    Args:
        plans: For each cloud, what its ``plan.json`` holds.
    """

    def __init__(self, plans: Mapping[str, Mapping[str, Any]]) -> None:
        self._clouds = {name: Cloud(name, plan, now) for name, plan in plans.items()}
        self._sources = [
            _Source(self._clouds[source["external"]["api"].split(".")[1]].streams[source["name"]], stream, cloud)
            for cloud in self._clouds.values()
            for stream in cloud.streams.values()
            for source in stream.config.get("sources") or ()
        ]
        self._link_up = True
        self._healed = asyncio.Event()
        self._healed.set()

    def cloud(self, name: str) -> Cloud:
        """A cloud by name.

        Raises:
            TransportError: There is none of that name.
        """
        if name not in self._clouds:
            raise TransportError(f"{name}: no such cloud; there are {', '.join(sorted(self._clouds))}")
        return self._clouds[name]

    @property
    def link_up(self) -> bool:
        """Whether the clouds reach each other. Cut, pulls and look-ups in the other cloud and copies home pause."""
        return self._link_up

    @link_up.setter
    def link_up(self, up: bool) -> None:
        self._link_up = up
        if not up:
            self._healed.clear()
            return
        self._healed.set()
        self._copy()
        for cloud in self._clouds.values():
            for consumer in cloud.consumers.values():
                consumer.pump()

    async def until_reachable(self, here: str, there: str, timeout: float) -> None:
        """Wait until a cloud can be reached from another.

        Raises:
            TransportError: Not in ``timeout`` seconds.
        """
        if self.reaches(here, there):
            return
        try:
            async with asyncio.timeout(timeout):
                await self._healed.wait()
        except TimeoutError:
            raise TransportError(f"{there}: nobody answers: the link is away") from None

    def reaches(self, here: str, there: str) -> bool:
        """Whether a cloud can be reached from another now."""
        return here == there or self._link_up

    def publish(self, cloud: Cloud, stream: str, subject: str, data: bytes, headers: Mapping[str, str]) -> PubAck:
        """Store a message in a cloud's stream."""
        found = next((s for s in cloud.streams.values() if s.takes(subject)), None)
        if found is None:
            raise PublishTimeout(f"{subject}: {stream} does not answer; is it provisioned?")
        self.tell(cloud, Message(subject, data, headers))  # who listens hears it, whether it is stored or not
        if found.name != stream:
            raise TransportError(f"{subject}: {stream} refused it: expected stream does not match (10060)")
        ack = found.store(subject, data, headers, now())
        if not ack.duplicate:
            asyncio.get_running_loop().call_soon(self._spread, cloud, found, ack.sequence)
        return ack

    def tell(self, cloud: Cloud, message: Message) -> None:
        """Bring a message to those who listen in a cloud, and in the others what crosses the link as it is said."""
        crosses = self._link_up and message.subject.partition(".")[0] in _CROSSING
        for each in self._clouds.values():
            if each is cloud or crosses:
                each.tell(message)

    def stream(self, cloud: str, name: str) -> Stream:
        """A stream of a cloud.

        Raises:
            TransportError: There is none.
        """
        stream = self.cloud(cloud).streams.get(name)
        if stream is None:
            raise TransportError(f"{cloud}: nobody answers for {name}; is it in the plan?")
        return stream

    def consumer(self, cloud: str, stream: str, name: str) -> Consumer:
        """A consumer of a cloud.

        Raises:
            TransportError: There is none.
        """
        consumer = self.cloud(cloud).consumers.get((stream, name))
        if consumer is None:
            raise TransportError(f"{cloud}: {stream} has no consumer {name}; is it in the plan?")
        return consumer

    def consumer_of(self, here: str, delivery: Delivery) -> tuple[Consumer, int] | None:
        """Where an ack goes, and for which sequence; None if it gets lost on the way."""
        _, _, stream, name, _, sequence, *_ = delivery.ack_subject.split(".")
        for cloud in self._clouds.values():
            consumer = cloud.consumers.get((stream, name))
            if consumer is not None and self.reaches(here, cloud.name):
                return consumer, int(sequence)
        return None

    def _spread(self, cloud: Cloud, stream: Stream, sequence: int) -> None:
        message = stream.get(sequence)
        if message is not None:
            cloud.stored(stream, message)
        self._copy()

    def _copy(self) -> None:
        if self._link_up:
            for source in self._sources:
                source.copy(now())


_ZERO: Final = datetime.now(UTC) - timedelta(seconds=time.monotonic())
"""When the clock of event loops was 0: the same for every look at a message."""


def now() -> float:
    """The running loop's clock: a test that steers it steers ages, ack waits and windows."""
    return asyncio.get_running_loop().time()


def found(stream: Stream, message: Stored) -> dict[str, str]:
    """The headers of a message that was looked up or republished: its own, and where it was found."""
    where = {
        "Nats-Stream": stream.name,
        "Nats-Subject": message.subject,
        "Nats-Sequence": str(message.sequence),
        "Nats-Time-Stamp": (_ZERO + timedelta(seconds=message.stored)).isoformat(),
    }
    return {**message.headers, **where}
