"""The leaf's side of the leafnode protocol, as far as an attacker with the link's own keys would need it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, Final

from bridge.crypto import nkey_public, nkey_sign
from bridge.doctor import dial
from bridge.doctor.session import Question
from bridge.errors import TransportError
from bridge.strict_json import b64

_NAME: Final = "bunny-prove"
"""Another than the real leaf's, which a hub would else take for gone and drop."""


class Leaf:
    """One connection to a hub, and what came back.

    Args:
        tls: The connection, after its ``INFO`` was read.
        timeout: Seconds for each exchange.
    """

    def __init__(self, tls: dial.Tls, timeout: float) -> None:
        self._tls, self._timeout = tls, timeout
        self.errors: list[str] = []
        self.answers: dict[str, bytes] = {}
        """Headers and bodies, by the subjects that they came on."""
        self.closed = False

    async def log_in(self, info: dict[str, Any], seed: str | None) -> None:
        """Say who it is, and wait for what the hub makes of it.

        Args:
            info: The hub's ``INFO``.
            seed: The NKey's seed; None to show none.
        """
        hello: dict[str, Any] = {"name": _NAME, "version": "2.15.1", "headers": True, "protocol": 1, "domain": _NAME}
        if seed is not None:
            signature = nkey_sign(seed, str(info.get("nonce", "")).encode())
            hello |= {"nkey": nkey_public(seed), "sig": b64(signature)}
        await self.exchange(f"CONNECT {json.dumps(hello)}\r\n".encode())

    async def exchange(self, lines: bytes) -> None:
        """Send, and read until the hub has answered everything, or has closed the connection."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._tls.write(lines + b"PING\r\n")
                while not self.closed and await self._take() != "PONG":
                    pass
        except (OSError, TransportError):  # a timeout is one too
            self.closed = True

    async def until(self, subjects: set[str]) -> None:
        """Read until something has come on each of these, for at most as long as an exchange may take."""
        try:
            async with asyncio.timeout(self._timeout):
                while not self.closed and not subjects <= self.answers.keys():
                    await self._take()
        except TimeoutError:
            pass
        except (OSError, TransportError):
            self.closed = True

    async def _take(self) -> str:
        line = (await self._tls.read_line()).decode(errors="replace")
        verb, _, rest = line.partition(" ")
        if verb == "-ERR":
            self.errors.append(rest.strip("'"))
        elif verb == "PING":
            await self._tls.write(b"PONG\r\n")
        elif verb in ("LMSG", "HMSG"):
            words = rest.split(" ")
            self.answers[words[0]] = (await self._tls.read(int(words[-1]) + 2))[:-2]
        return verb


def published(question: Question, reply: str) -> bytes:
    """The line of a message, as if it had been published in the leaf."""
    if question.headers is None:
        return f"LMSG {question.subject} {reply} {len(question.data)}\r\n".encode() + question.data + b"\r\n"
    head = "NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in question.headers.items()) + "\r\n"
    sizes = f"{len(head)} {len(head) + len(question.data)}"
    return f"HMSG {question.subject} {reply} {sizes}\r\n{head}".encode() + question.data + b"\r\n"


@dataclass(frozen=True, slots=True)
class Port:
    """A listener for the link.

    Args:
        address: Where it is.
        port: Its port.
        name: What its certificate names.
        timeout: Seconds for each exchange.
    """

    address: str
    port: int
    name: str
    timeout: float

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


@dataclass(slots=True)
class Entry:
    """How far one got into a port."""

    info: dict[str, Any] = field(default_factory=dict)
    """What the server said of itself: empty where it said nothing."""
    leaf: Leaf | None = None
    """The connection, if the server took whoever dialled for a leaf."""


@asynccontextmanager
async def entered(port: Port, context: SSLContext, seed: str | None) -> AsyncIterator[Entry]:
    """Dial, shake hands, and say who it is.

    Raises:
        TransportError: Nothing listens there.
    """
    entry = Entry()
    try:
        async with asyncio.timeout(port.timeout):
            dialled = dial.dialled(port.address, port.port, context, port.name)
            tls = await dialled.__aenter__()
    except OSError as error:
        raise TransportError(f"{port}: {error.strerror or 'no answer'}") from None
    try:
        try:
            async with asyncio.timeout(port.timeout):
                await tls.handshake()
                entry.info = await tls.read_info()
        except (OSError, TransportError):  # what TLS raises is an OSError; a certificate is judged after the handshake
            pass
        if entry.info:
            leaf = Leaf(tls, port.timeout)
            await leaf.log_in(entry.info, seed)
            entry.leaf = None if leaf.closed or leaf.errors else leaf
        yield entry
    finally:
        await dialled.__aexit__(None, None, None)


async def says_in_clear(port: Port) -> bool:
    """Whether a server says anything to whoever begins without TLS.

    Raises:
        TransportError: Nothing listens there.
    """
    try:
        async with asyncio.timeout(port.timeout):
            reader, writer = await asyncio.open_connection(port.address, port.port)
    except OSError as error:
        raise TransportError(f"{port}: {error.strerror or 'no answer'}") from None
    try:
        writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        async with asyncio.timeout(port.timeout):
            return (await reader.read(5)).startswith((b"INFO", b"PONG", b"-ERR", b"+OK"))
    except OSError:
        return False
    finally:
        writer.transport.abort()
