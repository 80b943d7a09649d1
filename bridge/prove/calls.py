"""Every call of JetStream's API, and every question that servers answer, as nats-server 2.15 has them. No I/O.

A call that a server has and this list has not is found by ``tests/unit/test_prove.py``, which reads the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

STRANGER: Final = "PROVE"
"""A stream, consumer or account that nobody has."""

_OF_ACCOUNT: Final = (
    *("INFO", "STREAM.NAMES", "STREAM.LIST", "META.LEADER.STEPDOWN", "META.RESCUE", "SERVER.REMOVE", "SERVER.EVACUATE"),
    *(f"ACCOUNT.{call}.{STRANGER}" for call in ("PURGE", f"STREAM.MOVE.{STRANGER}", f"STREAM.CANCEL_MOVE.{STRANGER}")),
)

_OF_STREAM: Final = (
    *("STREAM.CREATE", "STREAM.UPDATE", "STREAM.INFO", "STREAM.DELETE", "STREAM.PURGE", "STREAM.SNAPSHOT"),
    *("STREAM.RESTORE", "STREAM.MSG.DELETE", "STREAM.MSG.GET", "STREAM.LEADER.STEPDOWN", "STREAM.PEER.REMOVE"),
    *("STREAM.PEER.EVACUATE", "STREAM.CANCEL_MOVE", "CONSUMER.CREATE", "CONSUMER.NAMES", "CONSUMER.LIST", "DIRECT.GET"),
)

_OF_CONSUMER: Final = (
    *("CONSUMER.CREATE", "CONSUMER.DURABLE.CREATE", "CONSUMER.INFO", "CONSUMER.DELETE", "CONSUMER.MSG.NEXT"),
    *("CONSUMER.PAUSE", "CONSUMER.RESET", "CONSUMER.UNPIN", "CONSUMER.LEADER.STEPDOWN", "CONSUMER.PEER.REMOVE"),
    "CONSUMER.PEER.EVACUATE",
)

ACTING: Final = ("RELOAD", "KICK", "LDM", "PROFILEZ")
"""What a server does when it is asked, apart from telling of itself."""

Assets = Iterable[tuple[str, Iterable[str]]]
"""Streams, and the consumers of each."""


def calls(api: str, assets: Assets) -> Iterator[str]:
    """Every call of an API, on the streams and consumers of a cloud and on some that it has not.

    Args:
        api: Its prefix: ``$JS.API``.
        assets: The streams and consumers.
    """
    yield from (f"{api}.{call}" for call in _OF_ACCOUNT)
    for stream, consumers in (*assets, (STRANGER, ())):
        yield from (f"{api}.{call}.{stream}" for call in _OF_STREAM)
        yield f"{api}.DIRECT.GET.{stream}.{STRANGER}"
        for consumer in (*consumers, STRANGER):
            yield from (f"{api}.{call}.{stream}.{consumer}" for call in _OF_CONSUMER)
            yield f"{api}.CONSUMER.CREATE.{stream}.{consumer}.{STRANGER}"


def acks(cloud: str, assets: Assets) -> Iterator[str]:
    """Acks of deliveries that never were, and confirmations of flow control, in both forms that servers know."""
    for stream, consumers in assets:
        for consumer in (*consumers, STRANGER):
            yield from (ack(f"{head}.{stream}.{consumer}") for head in ("$JS.ACK", f"$JS.ACK.{cloud}.0"))
            yield from (f"{head}.{stream}.{consumer}.0" for head in ("$JS.FC", f"$JS.FC.{cloud}.0"))


def ack(prefix: str) -> str:
    """The subject that settles a delivery that no consumer has made: its sequences are beyond any stream's."""
    return f"{prefix}.1.{BEYOND}.{BEYOND}.0.0"


BEYOND: Final = 2**53
