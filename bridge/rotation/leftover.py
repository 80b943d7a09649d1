"""What is still stored that was signed with a key, or is sealed to it: read from the streams, as an inspector may."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

from bridge import frame, replay, segments, subjects
from bridge.errors import Refusal, TransportError
from bridge.jetstream import JetStreamTransport
from bridge.policy import Policy
from bridge.render.streams import plan
from bridge.transport import Transport

Ends = Callable[[str], Awaitable[int]]
"""The sequence of the last message of a stream."""
TIMEOUT_S: Final = 30.0
PAGE: Final = 500
"""Messages asked for at once; a server ends a page after 1 MiB in any case."""
_WITHOUT: Final = ("PARTS_", "SLOTS_", "REFUSED_")
"""Streams whose messages need no key: parts are opened by the secret of the message that names them. Segments of
records need one, and lie among the parts."""
_ORDERS: Final = "REPLAY_"
"""Streams whose messages are two envelopes: the order, and the job that is to run again."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A message that needs a key."""

    stream: str
    subject: str
    issued: int
    """Milliseconds UTC, as its author says."""


async def left(
    transport: Transport,
    policy: Policy,
    cloud: str,
    kids: Collection[bytes],
    ends: Ends | None = None,
    *,
    timeout: float = TIMEOUT_S,
) -> dict[bytes, Leftover]:
    """For each key that signed something that one cloud stores, or that something is sealed to, one such message.

    A job that dies meanwhile moves from its producers' cloud to its workers': look at the first of two clouds again.

    Args:
        transport: A connection to that cloud, of an identity that may read its streams.
        policy: Names the streams.
        cloud: The cloud.
        kids: The keys.
        ends: Says where each stream ends now (`ends_of`): where jobs flow there is always one more message, and what
            comes later is none of the old keys'. None reads until there is none.
        timeout: Seconds for a page.

    Raises:
        TransportError: A stream could not be read: then nobody knows.
    """
    found: dict[bytes, Leftover] = {}
    for stream in plan(policy, cloud)["streams"]:
        name = str(stream["name"])
        if not name.startswith(_WITHOUT):
            await _look(transport, name, ">", set(kids), found, ends, timeout)
    for queue in policy.queues.values():
        if queue.work == cloud and queue.payload_bytes:
            parts = subjects.parts_stream(queue.name)
            await _look(transport, parts, segments.any_segment(queue.name), set(kids), found, ends, timeout)
    return found


async def _look(
    transport: Transport,
    stream: str,
    pattern: str,
    kids: set[bytes],
    found: dict[bytes, Leftover],
    ends: Ends | None,
    timeout: float,
) -> None:
    """Read what a pattern covers of a stream until each of the keys was found somewhere, or to its end."""
    first, last = 1, None if ends is None else await ends(stream)
    while (last is None or first <= last) and kids - found.keys():
        messages = await transport.read(stream, pattern, first=first, most=PAGE, timeout=timeout)
        if not messages:
            return
        for message in messages:
            for data in replay.unpack(message.data) if stream.startswith(_ORDERS) else (message.data,):
                try:
                    parsed = frame.parse(data)
                except Refusal:  # what nobody can read needs no key
                    continue
                for kid in kids & {parsed.kid, *(kid for kid, _ in parsed.wraps)}:
                    found.setdefault(kid, Leftover(stream, message.subject, parsed.core.issued))
        first = int(messages[-1].headers["Nats-Sequence"]) + 1


def ends_of(transport: JetStreamTransport) -> Ends:
    """Asks the server that a transport is connected to, as an inspector may."""

    async def last(stream: str) -> int:
        said = await transport.request(subjects.api_call("STREAM.INFO", stream), b"", TIMEOUT_S)
        try:
            return int(json.loads(said)["state"]["last_seq"])
        except (ValueError, KeyError, TypeError):
            raise TransportError(f"{stream}: the server does not say what is stored there; provision it") from None

    return last
