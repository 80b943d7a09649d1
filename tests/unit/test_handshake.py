"""Handshakes as an eavesdropper records them, made by the TLS stack in memory."""

from __future__ import annotations

import contextlib
import ssl
from pathlib import Path

import pytest

from bridge import pki
from bridge.devserver import read_handshake
from tests.support import write_policy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pki.issue(write_policy(tmp_path), tmp_path)
    return tmp_path / "aws"


def recorded(folder: Path, version: ssl.TLSVersion, curve: str | None = None) -> bytes:
    """What a listener sends in a handshake."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(folder / "clients.pem", folder / "clients.key")
    client.load_verify_locations(folder / "ca.pem")
    server.minimum_version = server.maximum_version = version
    if curve is not None:
        server.set_ecdh_curve(curve)
    from_client, to_client, to_server, from_server = (ssl.MemoryBIO() for _ in range(4))
    ends = (
        client.wrap_bio(to_client, from_client, server_hostname="relay-nats.relay.svc"),
        server.wrap_bio(to_server, from_server, server_side=True),
    )
    sent = b""
    for _ in range(6):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            to_server.write(from_client.read())
            sent += (data := from_server.read())
            to_client.write(data)
    return sent


def test_version_group_and_cipher_are_read(folder: Path) -> None:
    found = read_handshake(recorded(folder, ssl.TLSVersion.TLSv1_3))
    assert found is not None
    assert found.version == "TLS 1.3"
    assert found.cipher.startswith("TLS_")
    assert found.group
    assert not found.in_clear


def test_a_retry_is_not_taken_for_the_answer(folder: Path) -> None:
    """The listener wants another group than the one offered: the second hello counts."""
    found = read_handshake(recorded(folder, ssl.TLSVersion.TLSv1_3, "secp384r1"))
    assert found is not None
    assert (found.version, found.group) == ("TLS 1.3", "secp384r1")
    assert not found.post_quantum


def test_an_older_version_is_named(folder: Path) -> None:
    found = read_handshake(recorded(folder, ssl.TLSVersion.TLSv1_2))
    assert found is not None
    assert found.version == "TLS 1.2"


def test_too_few_bytes_tell_nothing(folder: Path) -> None:
    data = recorded(folder, ssl.TLSVersion.TLSv1_3)
    whole = read_handshake(data)
    for length in range(len(data)):
        assert read_handshake(data[:length]) in (None, whole)
    assert read_handshake(b"") is None


def test_anything_but_tls_is_in_clear() -> None:
    found = read_handshake(b'INFO {"server_id":"N"}\r\n')
    assert found is not None
    assert found.in_clear


def test_hostile_bytes_do_not_crash() -> None:
    hello = b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26" + bytes(34) + b"\xff" + bytes(3)
    for length in range(len(hello) + 1):
        read_handshake(hello[:length])
    read_handshake(b"\x16" + b"\xff" * 100)
