"""One TLS connection, made step by step so that each step can be judged: route, TCP, handshake, INFO."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from bridge.errors import TransportError

_RECORDED_BYTES: Final = 16 * 1024
_CHUNK: Final = 64 * 1024
_LINE_LIMIT: Final = 64 * 1024


class Tls:
    """TLS over a TCP connection, whose first bytes from the server are kept: what came in clear is among them.

    Args:
        reader: From the server.
        writer: To it.
        context: What is trusted and shown.
        name: The name that the certificate must have.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext, name: str
    ) -> None:
        self._reader, self._writer = reader, writer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self._rest = bytearray()
        self.heard = bytearray()

    async def handshake(self) -> None:
        """Shake hands.

        Raises:
            ssl.SSLError: The certificate is refused, or what answers is no TLS.
            ConnectionError: The server ended it.
        """
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
        await self._flush()

    @property
    def certificate(self) -> bytes:
        """What the server showed, DER; empty before it has."""
        return self._tls.getpeercert(binary_form=True) or b""

    async def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        while len(self._rest) < size:
            await self._decrypt()
        return self._take(size)

    async def read_line(self) -> bytes:
        """A line, without its CRLF."""
        while (end := self._rest.find(b"\r\n")) < 0:
            if len(self._rest) > _LINE_LIMIT:
                raise TransportError("a line of the server does not end")
            await self._decrypt()
        return self._take(end + 2)[:-2]

    async def write(self, data: bytes) -> None:
        """Send."""
        self._tls.write(data)
        await self._flush()

    async def read_info(self) -> dict[str, Any]:
        """The server's ``INFO``, the first line it sends.

        Raises:
            TransportError: It is something else.
        """
        line = await self.read_line()
        try:
            if line.startswith(b"INFO "):
                return dict(json.loads(line[5:]))
        except (ValueError, TypeError):
            pass
        raise TransportError("the first line is no INFO of a NATS server")

    def _take(self, size: int) -> bytes:
        data = bytes(self._rest[:size])
        del self._rest[:size]
        return data

    async def _decrypt(self) -> None:
        while True:
            try:
                data = self._tls.read(_CHUNK)
            except ssl.SSLWantReadError:
                await self._fill()
                continue
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._rest += data
            return

    async def _fill(self) -> None:
        data = await self._reader.read(_CHUNK)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self.heard += data[: max(0, _RECORDED_BYTES - len(self.heard))]
        self._in.write(data)

    async def _flush(self) -> None:
        self._writer.write(self._out.read())
        await self._writer.drain()


@asynccontextmanager
async def dialled(address: str, port: int, context: ssl.SSLContext, name: str) -> AsyncIterator[Tls]:
    """A TCP connection on which TLS can begin; it is aborted at the end."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        yield Tls(reader, writer, context, name)
    finally:
        writer.transport.abort()


async def shown_certificate(address: str, port: int, name: str, identity: tuple[Path, Path] | None) -> bytes:
    """The certificate that a server shows to whoever asks, unverified, to be described; DER, or nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent on this connection
    if identity is not None:
        context.load_cert_chain(*identity)
    async with dialled(address, port, context, name) as tls:
        await tls.handshake()
        return tls.certificate


def local_address(address: str, port: int) -> str:
    """The address that this machine would speak from; nothing is sent.

    Raises:
        OSError: There is no route.
    """
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))
        return str(probe.getsockname()[0])


async def tcp_time(address: str, port: int) -> float:
    """Connect and close; the seconds it took.

    Raises:
        OSError: Refused, unreachable or silent.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    _, writer = await asyncio.open_connection(address, port)
    writer.transport.abort()
    return loop.time() - start


def offers_hybrid(context: ssl.SSLContext) -> bool:
    """Whether this Python's TLS offers X25519MLKEM768: its group number stands in the ClientHello it would send."""
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="bunny.invalid")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return (0x11EC).to_bytes(2, "big") in _supported_groups(out.read())


def _supported_groups(hello: bytes) -> list[bytes]:
    """Extension 10 of a ClientHello in one record (RFC 8446, 4.1.2 and 4.2.7)."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at] + 2
    while at + 4 <= len(hello):
        kind, length = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == 10:
            groups = hello[at + 6 : at + 4 + length]
            return [groups[i : i + 2] for i in range(0, len(groups), 2)]
        at += 4 + length
    return []
