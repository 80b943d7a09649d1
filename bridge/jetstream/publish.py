"""Storing one message: its PubAck, its retries, and what a refusal means."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from typing import Final

from pydantic_core import from_json

from bridge.errors import PayloadTooLarge, PublishTimeout, QueueFull, SubjectChanged, SubjectTaken, TransportError
from bridge.jetstream.connection import Wire
from bridge.jetstream.exchange import LOST, Exchange
from bridge.jetstream.pauses import Pauses
from bridge.transport import MAX_MESSAGE, PubAck

IN_FLIGHT: Final = 4096
"""Publishes that may wait for a PubAck; more wait for a slot, so that memory stays bounded."""

_STORE_FULL: Final = {10023, 10028, 10047, 10002}
"""Insufficient resources, resource limits of the account or of storage: the same to a producer as a full stream."""

_STREAM_LIMIT: Final = 10077
_WRONG_SEQUENCE: Final = 10071
_TOO_LARGE: Final = 10054


class Publisher:
    """Publishes with one `Nats-Msg-Id` for each call, kept across the call's own retries."""

    def __init__(self, wire: Wire, exchange: Exchange) -> None:
        self._wire = wire
        self._exchange = exchange
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def publish(
        self,
        stream: str,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None,
        expected: int | None,
        timeout: float,
    ) -> PubAck:
        """See `bridge.transport.Transport.publish`."""
        if len(data) > MAX_MESSAGE:
            raise PayloadTooLarge(f"{subject}: {len(data)} bytes, above the {MAX_MESSAGE} of a message")
        deadline = self._loop.time() + timeout
        try:
            if self._slots.locked():
                async with asyncio.timeout_at(deadline):
                    await self._slots.acquire()
            else:
                await self._slots.acquire()
        except TimeoutError:
            raise PublishTimeout(f"{subject}: {IN_FLIGHT} publishes wait already; nothing was sent") from None
        try:
            sent = {**(headers or {}), "Nats-Msg-Id": secrets.token_hex(16), "Nats-Expected-Stream": stream}
            if expected is not None:
                sent["Nats-Expected-Last-Subject-Sequence"] = str(expected)
            return await self._until_stored(stream, subject, data, sent, deadline)
        finally:
            self._slots.release()

    async def _until_stored(
        self, stream: str, subject: str, data: bytes, headers: dict[str, str], deadline: float
    ) -> PubAck:
        retried, pauses = False, None
        while True:
            if not self._wire.connected:
                await self._wire.until_up(deadline)
            try:
                reply = await self._exchange.ask(subject, data, headers, deadline)
            except TimeoutError:
                raise PublishTimeout(f"{subject}: no PubAck from {stream} in time; it may be stored or not") from None
            if reply is LOST:
                retried = True
                continue
            ack = read_puback(reply.data, reply.headers, stream, subject)
            if ack is None:
                retried = True
                pauses = pauses or Pauses(0.1, 1.0)
                pause = pauses.next()
                if self._loop.time() + pause >= deadline:
                    raise PublishTimeout(f"{subject}: {stream} does not answer; is JetStream up, and provisioned?")
                await asyncio.sleep(pause)
                continue
            if ack.duplicate and not retried:
                # Its id is random: someone stored another message under it first, to make us believe ours is stored.
                raise TransportError(f"{subject}: {stream} calls a first send a duplicate: a poisoned Nats-Msg-Id")
            return ack


def is_no_responders(data: bytes, headers: Mapping[str, str] | None) -> bool:
    """Whether nobody listens: the stream, its server or the link to it is away."""
    return not data and headers is not None and headers.get("Status") == "503"


def read_puback(data: bytes, headers: Mapping[str, str] | None, stream: str, subject: str) -> PubAck | None:
    """What the server said of a publish; None where it is to be tried again.

    Raises:
        SubjectTaken, SubjectChanged, QueueFull, PayloadTooLarge, TransportError: As their names say.
    """
    if is_no_responders(data, headers):
        return None
    try:
        answer = from_json(data, allow_inf_nan=False)
        error = answer.get("error")
        if error is None:
            ack = PubAck(answer["stream"], int(answer["seq"]), bool(answer.get("duplicate", False)))
        else:
            code, number = int(error["code"]), int(error["err_code"])
            words = str(error.get("description", ""))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise TransportError(f"{subject}: {stream}: not a PubAck") from None
    if error is None:
        if ack.stream != stream:
            raise TransportError(f"{subject}: stored by another stream than {stream}; provision the streams anew")
        return ack
    if number == _STREAM_LIMIT and words == "maximum messages per subject exceeded":
        raise SubjectTaken(f"{subject}: {stream} holds a message of this subject already")
    if number == _WRONG_SEQUENCE:
        raise SubjectChanged(f"{subject}: its last message in {stream} is another than expected")
    if number == _STREAM_LIMIT or number in _STORE_FULL:
        raise QueueFull(f"{stream} is full: {_plain(words)}; wait until some of it is worked, or raise its limits")
    if number == _TOO_LARGE:
        raise PayloadTooLarge(f"{subject}: more bytes than {stream} takes")
    if code == 503:
        return None
    raise TransportError(f"{subject}: {stream} refused it: {_plain(words)} ({number})")


def _plain(words: str) -> str:
    return re.sub(r"[^ -~]", "?", words)[:120]
