"""Settling deliveries: what an ack subject may be, what it says, and the words that are sent to it."""

from __future__ import annotations

import json
import re
from typing import Final

from nats.errors import Error as NatsError

from bridge.jetstream.client import log
from bridge.jetstream.connection import Wire

ACK: Final = b"+ACK"
NAK: Final = b"-NAK"
IN_PROGRESS: Final = b"+WPI"

_ACK_SUBJECT: Final = re.compile(r"\$JS\.ACK(?:\.[A-Za-z0-9_-]+)+")
_DELIVERED_V1 = 4  # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
_DELIVERED_V2 = 6  # $JS.ACK.<domain>.<hash>.<stream>.<consumer>.<delivered>.…


def is_ack_subject(subject: str) -> bool:
    """Whether an ack may be sent to ``subject``.

    An ack goes wherever the delivery's reply subject says. A hostile broker must not choose that freely: "+ACK"
    published on the subject of a result would burn the fence.
    """
    return _ACK_SUBJECT.fullmatch(subject) is not None


def delivered(ack_subject: str) -> int:
    """How many times the broker says it delivered the message; 2, so "look it up", where that cannot be read."""
    tokens = ack_subject.split(".")
    at = _DELIVERED_V1 if len(tokens) == 9 else _DELIVERED_V2
    if len(tokens) > at and tokens[at].isascii() and tokens[at].isdigit() and len(tokens[at]) < 10:
        return int(tokens[at])
    return 2


def place(ack_subject: str) -> tuple[int, int] | None:
    """Which delivery of its consumer this is, and when the broker stored the message; None where it cannot be read."""
    tokens = ack_subject.split(".")
    at = (_DELIVERED_V1 if len(tokens) == 9 else _DELIVERED_V2) + 2
    numbers = tokens[at : at + 2]
    if len(numbers) < 2 or not all(each.isascii() and each.isdigit() and len(each) < 20 for each in numbers):
        return None
    return int(numbers[0]), int(numbers[1]) // 1_000_000


def nak(delay: float) -> bytes:
    """The words for "again after ``delay`` seconds"."""
    return NAK + b" " + json.dumps({"delay": int(delay * 1e9)}).encode() if delay > 0 else NAK


async def settle(wire: Wire, ack_subject: str, words: bytes) -> None:
    """Send ``words``, flushed together with others.

    A message whose settling gets lost is delivered again and then looked up at the fence, so this is not an error
    of the caller.

    Raises:
        NotConnected: The transport is closed.
    """
    wire.check_open()
    try:
        await wire.client.publish(ack_subject, words)
    except NatsError as error:
        log.warning("ack_not_sent", error=type(error).__name__)
