"""A compromised leaf: the link's own key and certificate, and no nats-server, straight at the hub's leafnode port.

Only as much of the leafnode protocol as an attacker needs: ``CONNECT``, ``LS+`` to subscribe, ``LMSG`` to publish.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nkeys

from bridge.devserver import Bridge
from bridge.identity import Identity

PATIENCE_S = 10.0


class FakeLeaf:
    """One connection to the hub, and what came back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.errors: list[str] = []
        self.messages: list[tuple[str, bytes]] = []
        self.closed = False

    async def connect(self, seed: str, claims: dict[str, Any]) -> None:
        """Answer the hub's nonce, as the real leaf does, with whatever else is claimed."""
        info = json.loads((await self._reader.readline()).removeprefix(b"INFO "))
        key = nkeys.from_seed(seed.encode())
        signature = base64.urlsafe_b64encode(key.sign(info["nonce"].encode())).rstrip(b"=").decode()
        hello = {
            "nkey": key.public_key.decode(),
            "sig": signature,
            "server_id": "FAKE",
            "name": "fake",
            "version": "2.15.1",
            "headers": True,
            "protocol": 1,
            "compress_mode": "off",
        }
        self._writer.write(b"CONNECT %s\r\n" % json.dumps(hello | claims).encode())

    def subscribe(self, subject: str) -> None:
        """Say that the leaf has interest in a subject."""
        self._writer.write(f"LS+ {subject}\r\n".encode())

    def publish(self, subject: str, data: bytes = b"", reply: str = "") -> None:
        """Send a message as if it had been published in the leaf."""
        self._writer.write(f"LMSG {subject} {reply + ' ' if reply else ''}{len(data)}\r\n".encode() + data + b"\r\n")

    async def settled(self) -> None:
        """Read until the hub has answered everything sent so far, or has closed the connection."""
        self._writer.write(b"PING\r\n")
        async with asyncio.timeout(PATIENCE_S):
            while not self.closed and await self._read() != "PONG":
                pass

    async def heard(self, subject: str) -> bytes:
        """Read until a message comes on a subject."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for found, data in self.messages:
                    if found == subject:
                        return data
                assert not self.closed, self.errors
                await self._read()

    async def _read(self) -> str:
        """Read one operation."""
        try:
            line = (await self._reader.readline()).decode().strip()
        except ConnectionError:
            line = ""
        verb, _, rest = line.partition(" ")
        match verb:
            case "":
                self.closed = True
            case "-ERR":
                self.errors.append(rest)
            case "PING":
                self._writer.write(b"PONG\r\n")
            case "LMSG" | "HMSG":
                words = rest.split(" ")
                whole = await self._reader.readexactly(int(words[-1]) + 2)
                header = int(words[-2]) if verb == "HMSG" else 0
                self.messages.append((words[0], whole[header:-2]))
        return verb


def link_tls(bridge: Bridge, certificate: Path | None = None) -> ssl.SSLContext:
    """The leaf's end of the link: its certificate (or another), and the hub's CA."""
    context = ssl.create_default_context(cafile=str(bridge.folder.pki / bridge.policy.hub.name / "ca.pem"))
    mine = certificate or bridge.folder.pki / bridge.policy.leaf.name / "link.pem"
    context.load_cert_chain(mine, mine.with_suffix(".key"))
    return context


@contextlib.asynccontextmanager
async def fake_leaf(
    bridge: Bridge,
    claims: dict[str, Any] | None = None,
    *,
    identity: str = "link-azure",
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[FakeLeaf]:
    """Dial the hub as an identity, which may claim what it likes of itself."""
    port = bridge.ports[bridge.policy.hub.name].leafnodes
    # TLS from the first byte: the hub says nothing in clear.
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls or link_tls(bridge))
    try:
        leaf = FakeLeaf(reader, writer)
        await leaf.connect(Identity.load(bridge.identity(identity)).nkey_seed, claims or {})
        await leaf.settled()
        yield leaf
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
