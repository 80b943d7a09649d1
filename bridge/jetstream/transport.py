"""The transport protocol over one NATS connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from bridge import subjects
from bridge.errors import NotConnected, PublishTimeout, TransportError
from bridge.identity import Connection
from bridge.jetstream.client import log
from bridge.jetstream.connection import Wire, as_transport_error
from bridge.jetstream.credentials import Credentials
from bridge.jetstream.exchange import LOST, Exchange, Take
from bridge.jetstream.pauses import Pauses
from bridge.jetstream.publish import Publisher, is_no_responders
from bridge.jetstream.pull import JetStreamPull
from bridge.jetstream.settle import ACK, IN_PROGRESS, nak, settle
from bridge.keyring import Keyring
from bridge.transport import PARTS, Delivery, Message, PubAck, Unsubscribe

SUBSCRIBE_TIMEOUT_S: Final = 10.0
WAITING_BYTES: Final = 64 * 1024 * 1024
"""How far a subscription's callback may be behind. What is dropped beyond that is found as what never came is."""
READ_BYTES: Final = 1024 * 1024
"""After how much a batched direct get is to end: left to itself a server sends 64 MiB."""

RETRY_FIRST_S: Final = 0.1
RETRY_LONGEST_S: Final = 1.0

_GONE: Final = (10037, 10043)
_NOT_REMOVED: Final = 10057
_NOT_THERE: Final = ("no message found", "deleted message", "stream store EOF")
"""What a server says where the message to be removed is not there: a number of its own, or a reason."""


async def connect(
    connection: Connection, nkey_seed: str | Keyring, ca_file: Path, *, name: str, timeout: float | None = None
) -> JetStreamTransport:
    """Connect an identity to its local NATS server.

    Args:
        connection: Where to connect, from the identity folder.
        nkey_seed: The identity's private NKey, or the keyring that holds it: where that changes, the connection is
            made anew. It stays in memory: never in a file of ours, never in an argument of a process.
        ca_file: The CA of the identity's own cloud, read again whenever it is dialled.
        name: What the server shows for this connection.
        timeout: Seconds to try; None tries for as long as servers are down, and logs each attempt that failed.

    Raises:
        ConfigurationError: The address or the CA file is unusable.
        IdentityRefused: The server goes on not to accept the identity.
        Denied: The server does not accept the identity, within ``timeout``.
        NotConnected: No connection within ``timeout``, or the server's certificate goes on not to be accepted.
    """
    wire = Wire(
        connection.server,
        Credentials(nkey_seed, ca_file),
        name=name,
        inbox_prefix=subjects.inbox_prefix(connection.identity),
    )
    await wire.dial(timeout)
    try:
        exchange = Exchange(wire)
        await exchange.start()
    except BaseException:
        await wire.close()
        raise
    return JetStreamTransport(wire, exchange)


class JetStreamTransport:
    """See `bridge.transport.Transport`. Made by `connect`; an async context manager that closes it."""

    def __init__(self, wire: Wire, exchange: Exchange) -> None:
        self._wire = wire
        self._exchange = exchange
        self._publisher = Publisher(wire, exchange)
        self._pulls: list[JetStreamPull] = []
        self._moved = -math.inf
        self._loop = asyncio.get_running_loop()

    async def __aenter__(self) -> JetStreamTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        """See `bridge.transport.Transport.connected`."""
        return self._wire.connected

    @property
    def moved(self) -> float:
        """See `bridge.transport.Transport.moved`."""
        return max([self._moved, *(pull.brought for pull in self._pulls)])

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """See `bridge.transport.Transport.on_reconnect`."""
        self._wire.on_back.append(callback)

    def on_refused(self, callback: Callable[[NotConnected], None]) -> None:
        """See `bridge.transport.Transport.on_refused`."""
        self._wire.on_refused.append(callback)

    async def redial(self) -> None:
        """See `bridge.transport.Transport.redial`."""
        await self._wire.client.force_reconnect()

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
        """See `bridge.transport.Transport.publish`."""
        if not stream.startswith(PARTS):
            self._moved = time.monotonic()
        return await self._publisher.publish(stream, subject, data, headers, expected, timeout)

    async def tell(self, subject: str, data: bytes, reply: str = "") -> None:
        """See `bridge.transport.Transport.tell`."""
        if not self._wire.connected:  # the client would keep it, and send it when it is no longer true
            raise NotConnected("not connected to the local NATS server")
        try:
            await self._wire.client.publish(subject, data, reply)
        except NatsError as error:
            raise as_transport_error(error) from None

    @property
    def certificate(self) -> bytes | None:
        """The certificate, in DER, that the server showed; None while not connected."""
        return self._wire.certificate

    async def lookup(
        self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
    ) -> Message | None:
        """See `bridge.transport.Transport.lookup`."""
        reply = await self._ask(subjects.direct_get(stream, subject, cloud), b"", timeout)
        found = _found(reply, stream, subject)
        if found is not None and found.headers.get("Nats-Subject") != subject:
            raise TransportError(f"{subject}: {stream}: a direct get answered with another subject's message")
        return None if found is None else Message(subject, found.data, found.headers)

    async def remove(self, stream: str, sequence: int, *, timeout: float = 5.0) -> bool:
        """See `bridge.transport.Transport.remove`."""
        asked = subjects.api_call("STREAM.MSG.DELETE", stream)
        reply = await self._ask(asked, json.dumps({"seq": sequence}).encode(), timeout)
        try:
            error = json.loads(reply.data).get("error")
            code, words = (int(error["err_code"]), str(error["description"])) if error else (0, "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise TransportError(f"{stream}: not an answer to the removal of a message") from None
        if code and code not in _GONE and not (code == _NOT_REMOVED and words in _NOT_THERE):
            raise TransportError(f"{stream}: message {sequence} is not removed: {words[:80]} ({code})")
        return code == 0

    async def request(self, subject: str, payload: bytes, timeout: float = 5.0) -> bytes:
        """Ask the server's API, with JSON in and out; for provisioning and listing.

        Raises:
            Denied: The permissions refuse the subject.
            TransportError: No answer in time.
        """
        return (await self._ask(subject, payload, timeout)).data

    async def read(
        self, stream: str, pattern: str, *, first: int, most: int, cloud: str | None = None, timeout: float = 5.0
    ) -> list[Message]:
        """See `bridge.transport.Transport.read`."""
        subject = subjects.api_call("DIRECT.GET", stream, cloud=cloud)
        wanted = {"seq": first, "next_by_subj": pattern, "batch": most, "max_bytes": READ_BYTES}
        found: list[Msg] = []

        def taken(message: Msg) -> bool:
            if "Nats-Stream" not in (message.headers or {}) or len(found) >= most:  # see `lookup`
                return False
            found.append(message)
            return True

        last = await self._ask(subject, json.dumps(wanted).encode(), timeout, taken)
        status = (last.headers or {}).get("Status", "")
        if status not in ("204", "404") or last.data:
            raise TransportError(f"{stream}: a batched direct get ended with {status[:3] or 'no status'}")
        headed = [(each, each.headers or {}) for each in found]
        return [Message(headers.get("Nats-Subject", ""), each.data, headers) for each, headers in headed]

    async def subscribe(self, subject: str, callback: Callable[[Message], Awaitable[None]]) -> Unsubscribe:
        """See `bridge.transport.Transport.subscribe`."""

        async def received(message: Msg) -> None:
            self._moved = time.monotonic()
            try:
                await callback(Message(message.subject, message.data, message.headers or {}))
            except Exception:  # one message must not end the subscription
                log.exception("subscription_callback_failed", subject=message.subject)

        subscription = await self._wire.subscribe(subject, received, SUBSCRIBE_TIMEOUT_S, limit=WAITING_BYTES)

        async def end() -> None:
            with contextlib.suppress(NatsError):  # closed: then it has ended
                await subscription.unsubscribe()

        return end

    def pull(self, stream: str, consumer: str, *, cloud: str | None = None) -> JetStreamPull:
        """See `bridge.transport.Transport.pull`."""
        self._wire.check_open()
        self._pulls = [pull for pull in self._pulls if not pull.task.done()]
        pull = JetStreamPull(self._wire, stream, consumer, cloud)
        self._pulls.append(pull)
        return pull

    async def ack(self, delivery: Delivery) -> None:
        """See `bridge.transport.Transport.ack`."""
        await settle(self._wire, delivery.ack_subject, ACK)

    async def nak(self, delivery: Delivery, delay: float = 0.0) -> None:
        """See `bridge.transport.Transport.nak`."""
        await settle(self._wire, delivery.ack_subject, nak(delay))

    async def in_progress(self, delivery: Delivery) -> None:
        """See `bridge.transport.Transport.in_progress`."""
        await settle(self._wire, delivery.ack_subject, IN_PROGRESS)

    async def flush(self, timeout: float = 5.0) -> None:
        """See `bridge.transport.Transport.flush`."""
        await self._wire.flush(self._loop.time() + timeout)

    async def close(self) -> None:
        """See `bridge.transport.Transport.close`."""
        for pull in self._pulls:
            pull.end()
            pull.task.cancel()
        await self._wire.close()
        await asyncio.gather(*(pull.task for pull in self._pulls), return_exceptions=True)
        self._pulls.clear()

    async def _ask(self, subject: str, payload: bytes, timeout: float, take: Take | None = None) -> Msg:
        deadline = self._loop.time() + timeout
        pauses = Pauses(RETRY_FIRST_S, RETRY_LONGEST_S)
        problem = "no answer in time"
        with contextlib.suppress(TimeoutError):
            while True:
                try:
                    await self._wire.until_up(deadline)
                except PublishTimeout as error:
                    raise TransportError(str(error)) from None
                reply = await self._exchange.ask(subject, payload, None, deadline, take)
                if reply is LOST:
                    if take is not None:
                        raise TransportError(f"{subject}: the connection broke while it was answered")
                    continue
                if not is_no_responders(reply.data, reply.headers):
                    return reply
                problem = "nobody answers: not provisioned, or its server or the link is away"
                async with asyncio.timeout_at(deadline):
                    await asyncio.sleep(pauses.next())
        raise TransportError(f"{subject}: {problem}")


def _found(reply: Msg, stream: str, asked: str) -> Message | None:
    headers = reply.headers or {}
    # A stored message may carry any header, "Status: 404" among them, and nats-py puts the server's status line
    # and the headers in one mapping. Only the server's own replies lack the stream's name.
    if "Nats-Stream" not in headers:
        status = headers.get("Status", "")
        if status == "404" and not reply.data:
            return None
        raise TransportError(f"{asked}: {stream}: a direct get answered {status[:3] or 'with no headers'}")
    return Message(headers.get("Nats-Subject", ""), reply.data, headers)
