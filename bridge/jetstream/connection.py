"""One connection to the local NATS server: dialled for ever and loudly, and its state told to those who wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from bridge.errors import ConfigurationError, Denied, NotConnected, PublishTimeout, TransportError
from bridge.jetstream.client import CLOSE_TIMEOUT_S, TolerantClient, abort, bury, is_unauthorized, log
from bridge.jetstream.credentials import Credentials
from bridge.jetstream.pauses import Pauses
from bridge.jetstream.refusals import Refusals

FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 10.0
"""Between two attempts to connect."""

REFUSED_WAIT_S: Final = 60.0
"""Between two attempts where refusals are no longer taken for a passing one: an identity may be given back."""

PING_INTERVAL_S: Final = 10
"""Two pings unanswered and the connection counts as dead: about 30 s for a black hole."""

CONNECT_TIMEOUT_S: Final = 5
FORCED_FLUSH_TIMEOUT_S: Final = 2.0
"""The longest one send waits for room in the client's 2 MiB buffer; its own deadline still counts."""

FLUSH_TRY_S: Final = 2.0

_VIOLATION = re.compile(r"permissions violation for (publish|subscription)(?: with reply of| to) \"([^\"]*)\"")


class Wire:
    """A nats-py client and its state.

    Callbacks are plain functions, called on the event loop: ``on_lost`` when the connection breaks, ``on_back``
    when it stands again (subscriptions are back by then), ``on_closed`` once, when it is closed for good,
    ``on_refused`` when it is refused for so long that this is no passing trouble, and ``on_denied`` with the subject
    (in lower case, as nats-py reports it) that the server's permissions refuse.
    """

    def __init__(self, server: str, credentials: Credentials, *, name: str, inbox_prefix: str) -> None:
        self.inbox_prefix = inbox_prefix
        self.client: Client = TolerantClient()
        self.on_lost: list[Callable[[], None]] = []
        self.on_back: list[Callable[[], None]] = []
        self.on_closed: list[Callable[[], None]] = []
        self.on_refused: list[Callable[[NotConnected], None]] = []
        self.on_denied: list[Callable[[str], None]] = []
        self._up = asyncio.Event()
        self._closed = ""
        self._dialled = False
        self._pauses = Pauses(FIRST_WAIT_S, LONGEST_WAIT_S)
        self._reason = "no attempt was made"
        self._unauthorized = False
        self._refusals = Refusals()
        self.refused: NotConnected | None = None
        """Why whoever would wait for a connection should not; None while there is one, or may soon be."""
        self._log = log.bind(server=server)
        self._credentials = credentials
        self._unfollow: Callable[[], None] = lambda: None
        self._redialling: asyncio.Task[None] | None = None
        self._urls, hostname = _addresses(server)
        self._options: dict[str, Any] = {
            "tls_hostname": hostname,
            "tls_handshake_first": True,
            "name": name,
            "inbox_prefix": inbox_prefix,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": FIRST_WAIT_S,
            "ping_interval": PING_INTERVAL_S,
            "max_outstanding_pings": 2,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "flush_timeout": FORCED_FLUSH_TIMEOUT_S,
            "error_cb": self._error,
            "disconnected_cb": self._lost,
            "reconnected_cb": self._back,
            "closed_cb": self._gone,
        }

    @property
    def connected(self) -> bool:
        """Whether the server can be reached now."""
        return not self._closed and self.client.is_connected

    @property
    def certificate(self) -> bytes | None:
        """The certificate, in DER, that the server showed; None while not connected."""
        writer = getattr(self.client._transport, "_io_writer", None) if self.connected else None
        tls = writer.get_extra_info("ssl_object") if writer is not None else None
        return tls.getpeercert(binary_form=True) if tls is not None else None

    async def dial(self, timeout: float | None) -> None:
        """Connect, trying for ever or for ``timeout`` seconds, or until it is refused for good.

        Raises:
            IdentityRefused: The server goes on not to accept this identity.
            Denied: In ``timeout``, and the server does not know this identity.
            NotConnected: In ``timeout``, for any other reason; or the server's certificate goes on not to be accepted.
        """
        try:
            async with asyncio.timeout(timeout):
                while not self.client.is_connected:  # an INFO in the place of the PONG leaves nats-py half connected
                    await bury(self.client)
                    self.client = TolerantClient()
                    await self.client.connect(self._urls, **self._options, **self._credentials.options())
                    if not self.client.is_connected:
                        await self._rest()
        except TimeoutError:
            await self._give_up()
            if self._unauthorized:
                raise Denied(f"{self._where}: {self._reason}") from None
            raise NotConnected(f"{self._where}: {self._reason}; is the server up?") from None
        except BaseException:
            await self._give_up()
            raise
        self._dialled = True
        self._unfollow = self._credentials.follow(self._replaced)
        self._settle()
        self._log.info("connected")

    async def until_up(self, deadline: float) -> None:
        """Wait for a connection.

        Raises:
            NotConnected: The transport is closed, or it is refused and waiting is no use.
            PublishTimeout: ``deadline`` (of the loop's clock) has passed.
        """
        while not self.connected:
            self.check_open()
            if self.refused is not None:
                raise self.refused
            self._up.clear()  # nats-py changes its state a moment before it calls back
            try:
                async with asyncio.timeout_at(deadline):
                    await self._up.wait()
            except TimeoutError:
                raise PublishTimeout(f"{self._where}: not connected in time: {self._reason}") from None

    async def subscribe(
        self, subject: str, callback: Callable[[Msg], Awaitable[None]], timeout: float, *, limit: int = 0
    ) -> Subscription:
        """Subscribe, and return once the server knows.

        Args:
            subject: The subject.
            callback: Called with one message after the other.
            timeout: Seconds.
            limit: Bytes that may wait for the callback, more is dropped and logged; 0 where what may come is bounded.

        Raises:
            Denied: The permissions refuse the subject.
            TransportError: The server did not confirm it in time.
        """
        denied: list[str] = []
        self.on_denied.append(denied.append)
        deadline = asyncio.get_running_loop().time() + timeout
        self.check_open()
        subscription = await self.client.subscribe(subject, cb=callback, pending_bytes_limit=limit)
        try:
            await self.flush(deadline)
            if subject.lower() in denied:
                raise Denied(f"the server's permissions refuse a subscription to {subject}")
        except BaseException:  # cancelled as well
            with contextlib.suppress(NatsError):
                await subscription.unsubscribe()
            raise
        finally:
            self.on_denied.remove(denied.append)
        return subscription

    async def flush(self, deadline: float) -> None:
        """Wait until the server has everything sent so far, over a reconnect if need be.

        Raises:
            TransportError: Not by ``deadline`` (of the loop's clock).
        """
        loop = asyncio.get_running_loop()
        while True:
            await self.until_up(deadline)
            left = min(FLUSH_TRY_S, max(0.01, deadline - loop.time()))
            try:
                await self.client.flush(left)  # type: ignore[arg-type]  # seconds; annotated too narrowly
                return
            except (NatsError, OSError):  # a PONG that a broken connection lost never comes: ask again
                if loop.time() >= deadline:
                    raise PublishTimeout(f"{self._where}: no answer in time") from None

    def check_open(self) -> None:
        """Raise NotConnected if the connection is closed for good."""
        if self._closed:
            raise NotConnected(f"{self._where}: {self._closed}")

    async def close(self) -> None:
        """Flush what can be flushed and disconnect, within 2 seconds. Never raises."""
        if self._closed:
            return
        self._closed = "the transport was closed"
        self._unfollow()
        if self.client.is_connected:
            with contextlib.suppress(NatsError, OSError):
                await self.client.flush(CLOSE_TIMEOUT_S / 2)  # type: ignore[arg-type]  # seconds, as above
        await bury(self.client)
        self._tell_closed()

    @property
    def _where(self) -> str:
        return ",".join(self._urls)

    async def _rest(self) -> None:
        """Wait after a server that hung up instead of its PONG, which nats-py reports as little as a success."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # nats-py swallows a cancellation that comes between two tries
            raise asyncio.CancelledError
        pause = self._pauses.next()
        if not self._unauthorized:
            self._reason = "the server hung up"
        self._log.warning("connect_failed", reason=self._reason, seconds=round(pause, 2))
        await asyncio.sleep(pause)

    async def _give_up(self) -> None:
        self._closed = "the transport was closed"
        await bury(self.client)

    def _settle(self) -> None:
        self._unauthorized = False
        self.refused = None
        self._refusals.reset()
        self._pauses.reset()
        self.client.options["reconnect_time_wait"] = FIRST_WAIT_S
        self._up.set()

    async def _error(self, error: Exception) -> None:
        violation = _VIOLATION.search(str(error))
        if violation:
            self._log.warning("denied", action=violation[1], subject=violation[2])
            for denied in self.on_denied:
                denied(violation[2])
        elif self.client.is_connected:
            self._log.warning("connection_trouble", reason=_reason(error))
        else:
            # Refused, a client may find the connection gone before it has read why: that is no news.
            if not (self._unauthorized and isinstance(error, ConnectionError)):
                self._reason = _reason(error)
                self._unauthorized = is_unauthorized(error)
            if isinstance(error, OSError):
                abort(self.client)
            pause = self._pauses.next()
            if (refused := self._refusals.took(error, self._where, self._reason)) is not None:
                pause *= REFUSED_WAIT_S / LONGEST_WAIT_S
                self._refuse(refused)
            self.client.options["reconnect_time_wait"] = pause  # read anew before each attempt
            self._credentials.renew(self.client)
            self._log.warning("connect_failed", reason=self._reason, seconds=round(pause, 2))

    def _replaced(self) -> None:
        """Connect anew, as the NKey that took the place of the one before; nothing of what waits is lost by it."""
        self._redialling = asyncio.create_task(self.client.force_reconnect(), name="nkey-redial")

    def _refuse(self, refused: NotConnected) -> None:
        if not self._dialled:
            raise refused  # out of nats-py's `connect`, and so of `dial`
        if self.refused is None:
            self._log.error("connection_refused", error=type(refused).__name__, reason=str(refused))
            self.refused = refused
            self._up.set()  # whoever waits in `until_up` is told
            for each in self.on_refused:
                each(refused)

    async def _lost(self) -> None:
        self._up.clear()
        self._credentials.renew(self.client)
        if not self._closed and not self.client.is_closed:
            self._reason = "the connection was lost"
            self._log.warning("disconnected")
        for lost in self.on_lost:
            lost()

    async def _back(self) -> None:
        self._settle()
        self._log.info("reconnected")
        for back in self.on_back:
            back()

    async def _gone(self) -> None:
        if self._closed:
            return
        error = self.client.last_error
        self._closed = "the server closed the connection for good"
        if error is not None:
            self._closed += f": {_reason(error)}"
        self._log.error("connection_closed", reason=self._closed)
        self._tell_closed()

    def _tell_closed(self) -> None:
        self._up.set()
        for closed in tuple(self.on_closed):  # they take themselves off the list
            closed()


def _addresses(server: str) -> tuple[list[str], str | None]:
    """The servers' URLs, and the name to verify where it is not simply the URL's.

    A trailing dot keeps a name from being searched for in every domain of the resolver, but is no part of a
    certificate: nats-py would send it in the handshake, which then fails.
    """
    urls = [url.strip() for url in server.split(",") if url.strip()]
    hosts = [_host(url) for url in urls]
    if not urls:
        raise ConfigurationError("connection.yaml: server: empty; write it with `bunny render`")
    if len(urls) == 1:
        return urls, hosts[0].rstrip(".")
    return [url.replace(host, host.rstrip("."), 1) for url, host in zip(urls, hosts, strict=True)], None


def _host(url: str) -> str:
    parts = urlsplit(url)
    try:
        usable = parts.scheme == "tls" and parts.hostname and parts.port and parts.username is None
    except ValueError:
        usable = False
    if not usable or parts.hostname is None:
        raise ConfigurationError("connection.yaml: server: not tls://host:port; write it with `bunny render`")
    return parts.hostname


def _reason(error: Exception) -> str:
    """One printable line of why a connection failed: words of the operating system, of TLS or of our own server."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    if is_unauthorized(error):
        return "the server does not accept this identity; is it in its accounts.conf?"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "the server's name is not known here"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    if isinstance(error, NatsError):
        return re.sub(r"[^ -~]", "?", str(error))[:160]
    return type(error).__name__


def as_transport_error(error: Exception) -> TransportError:
    """What nats-py raised, in our words."""
    return TransportError(f"the NATS client refused: {type(error).__name__}")
