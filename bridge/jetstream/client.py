"""nats-py's client, and what it takes to live with it: names that are private to it stand here alone."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, Final

import nkeys
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import AuthorizationError

from bridge.jetstream.lines import LineParser

CLOSE_TIMEOUT_S: Final = 2.0
_PLAIN: Final = b"NATS/1.0\r\n"
_END: Final = b"\r\n\r\n"

log = structlog.get_logger("bridge.jetstream")


class TolerantClient(Client):
    """A nats-py client that no subject or headers can end, nor a server that changes its mind on who may connect."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = LineParser(self)  # private, and made once, by the client

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        # As private, and as fatal as below: a server takes and stores subjects that are not UTF-8.
        return Msg(self, subject.decode(errors="replace"), reply.decode(errors="replace"), data, headers, _sid=sid)

    async def _process_headers(self, headers: Any) -> dict[str, str] | None:  # noqa: ANN401  as nats-py has it
        # Private to nats-py, whose reading stops for good, without a reconnect, at a status that is not UTF-8 or a
        # block too short: one message of any producer would silence every worker it is delivered to.
        try:
            # As of all messages but the server's own, and read here at a fifth of the price.
            if headers and headers.startswith(_PLAIN) and headers.endswith(_END):
                with contextlib.suppress(ValueError):
                    lines = headers[len(_PLAIN) : -len(_END)].decode("ascii").split("\r\n")
                    return dict(_header(line) for line in lines)
            return await super()._process_headers(headers)
        except Exception:
            log.warning("headers_unreadable", bytes=len(headers))
            return None

    async def _process_pong(self) -> None:
        # As private, and as fatal: an answer to a flush that was given up meanwhile.
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pongs_received += 1
            self._pings_outstanding = 0
        else:
            await super()._process_pong()

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        # As private: nats-py writes a PING ahead of what waits to be written, so that the answer to it would say
        # nothing of that, and a subscription that is refused be taken for one that is not.
        if self.is_connected and self._pending and self._transport is not None:
            waiting, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(waiting)
        await super()._send_ping(future)

    async def _process_err(self, err_msg: str) -> None:
        # Left to itself nats-py closes for good at the first word of it; how long to go on is `Wire`'s to decide.
        if is_unauthorized(err_msg):
            await self._process_op_err(AuthorizationError())
        else:
            await super()._process_err(err_msg)


def show_as(client: Client, nkeys_seed_str: str, tls: ssl.SSLContext) -> None:
    """Have a client's next attempt to connect show another NKey, and believe other authorities.

    nats-py signs with the seed that it reads at each attempt; the public half it keeps apart.
    """
    client.options["tls"] = tls
    if client._nkeys_seed_str != nkeys_seed_str:
        pair = nkeys.from_seed(bytearray(nkeys_seed_str.encode()))
        client._nkeys_seed_str, client._public_nkey = nkeys_seed_str, pair.public_key.decode()
        pair.wipe()


def _header(line: str) -> tuple[str, str]:
    name, value = line.split(": ", 1)
    return name, value


def is_unauthorized(said: object) -> bool:
    """Whether a server's words, or what nats-py made of them, say that it does not accept the identity."""
    return "authorization violation" in str(said).lower()


async def bury(client: Client) -> None:
    """Close a nats-py client within 2 seconds and leave none of its tasks behind. Never raises.

    `Client.close` cancels its tasks without waiting for them, and on a black-holed connection waits half a minute
    for the TLS farewell; so its tasks are reaped and the socket aborted here, by names that are private to nats-py.
    """
    holders: list[Any] = [client, *client._subs.values()]
    names = ("_reading_task", "_ping_interval_task", "_flusher_task", "_reconnection_task", "_wait_for_msgs_task")
    tasks = [task for holder in holders for name in names if (task := getattr(holder, name, None)) is not None]
    with contextlib.suppress(Exception):  # whatever its state was, what follows leaves nothing of it
        async with asyncio.timeout(CLOSE_TIMEOUT_S / 2):
            await client.close()
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S / 2)
    abort(client)


def abort(client: Client) -> None:
    """Close the socket without a farewell, and forget it.

    nats-py waits for a farewell half a minute where none comes, and after a TLS handshake that failed for ever.
    """
    writer = getattr(client._transport, "_io_writer", None)
    if writer is not None:
        writer.transport.abort()
    client._transport = None
