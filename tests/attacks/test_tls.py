"""H39: a server that is not the one meant, or not as safe, hears nothing from a service: no CONNECT, no byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge import pki
from bridge.errors import NotConnected
from bridge.identity import Connection, Identity
from bridge.jetstream import connect
from tests.world import POLICY

INFO = {"server_id": "x", "version": "2.15.1", "proto": 1, "max_payload": 1_048_576, "nonce": "nonce", "headers": True}


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext | None, heard: list[bytes]) -> AsyncIterator[int]:
    """A server that says INFO at once, in clear or within TLS, and keeps what it is told; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(b"INFO " + json.dumps(INFO).encode() + b"\r\n")
            heard.append(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def trusted(folder: Path, host: str = "localhost") -> ssl.SSLContext:
    """A server's TLS with a certificate of the authority in ``folder``."""
    if not (folder / "aws").exists():
        pki.issue(POLICY, folder, hosts=(host,), cloud="aws")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "aws" / "clients.pem", folder / "aws" / "clients.key")
    return context


async def attempt(folder: Path, port: int, timeout: float = 1.0) -> None:
    """Connect to ``localhost`` trusting the authority in ``folder``."""
    connection = Connection(
        bridge="acme", identity="relay", cloud="aws", role="service", server=f"tls://localhost:{port}"
    )
    seed = Identity.generate("relay").nkey_seed
    transport = await connect(connection, seed, folder / "aws" / "ca.pem", name="relay", timeout=timeout)
    await transport.close()


async def test_h39_what_is_listening_hears_what_a_safe_server_would(tmp_path: Path) -> None:
    """The positive control: to a server in order a service does speak, its NKey's signature too."""
    heard: list[bytes] = []
    async with listening(trusted(tmp_path), heard) as port:
        with pytest.raises(NotConnected):
            await attempt(tmp_path, port, timeout=3.0)  # on a machine with other things to do
    assert any(said.startswith(b"CONNECT ") and b'"sig"' in said for said in heard)
    assert len(heard) < 10  # however soon it hangs up, it is not dialled again without a pause


async def test_h39_a_server_in_clear_hears_no_word_of_nats(tmp_path: Path) -> None:
    heard: list[bytes] = []
    trusted(tmp_path)
    async with listening(None, heard) as port:
        with pytest.raises(NotConnected):
            await attempt(tmp_path, port)
    assert heard
    assert all(said[:2] in (b"\x16\x03", b"") for said in heard)  # a ClientHello, which names nothing but the host


@pytest.mark.parametrize("fault", ["TLS 1.2", "another authority", "another name", "the link's certificate"])
async def test_h39_a_server_that_is_not_in_order_hears_nothing(fault: str, tmp_path: Path) -> None:
    heard: list[bytes] = []
    ours = tmp_path / "ours"
    context = trusted(ours, "elsewhere.test" if fault == "another name" else "localhost")
    if fault == "TLS 1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    elif fault == "another authority":
        context = trusted(tmp_path / "theirs")
    elif fault == "the link's certificate":
        pki.issue(POLICY, tmp_path / "leaf", hosts=("localhost",), cloud="azure")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "leaf" / "azure" / "link.pem", tmp_path / "leaf" / "azure" / "link.key")
        (ours / "aws" / "ca.pem").write_bytes((tmp_path / "leaf" / "azure" / "ca.pem").read_bytes())
    async with listening(context, heard) as port:
        with pytest.raises(NotConnected):
            await attempt(ours, port)
    assert not any(heard)
