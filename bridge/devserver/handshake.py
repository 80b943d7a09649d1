"""Reads a TLS handshake as it crossed the relay: version, key exchange, and that nothing came in clear."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

_HANDSHAKE_RECORD: Final = 22
_SERVER_HELLO: Final = 2
_SUPPORTED_VERSIONS: Final = 43
_KEY_SHARE: Final = 51
_RETRY: Final = sha256(b"HelloRetryRequest").digest()
"""The random that marks a ServerHello as a HelloRetryRequest (RFC 8446, 4.1.3)."""

VERSIONS: Final = {0x0303: "TLS 1.2", 0x0304: "TLS 1.3"}
GROUPS: Final = {
    0x0017: "secp256r1",
    0x0018: "secp384r1",
    0x001D: "x25519",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
}
CIPHERS: Final = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
}


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the listening side chose.

    Args:
        version: For example ``TLS 1.3``.
        group: The key exchange, for example ``X25519MLKEM768``; empty if the hello names none.
        cipher: The cipher suite.
        in_clear: Whether the listening side sent anything but TLS first (a NATS server's INFO, say).
    """

    version: str
    group: str
    cipher: str
    in_clear: bool = False

    @property
    def post_quantum(self) -> bool:
        """Whether the key exchange holds against a quantum computer that records the link today."""
        return "MLKEM" in self.group


def read_handshake(from_listener: bytes) -> Handshake | None:
    """Read the ServerHello among the first bytes that the listening side sent.

    Args:
        from_listener: The bytes, from the first one on.

    Returns:
        The handshake, or None if there are not enough bytes to tell.
    """
    if from_listener and from_listener[0] != _HANDSHAKE_RECORD:
        return Handshake("", "", "", in_clear=True)
    try:
        for kind, body in _messages(from_listener):
            if kind == _SERVER_HELLO and body[2:34] != _RETRY:
                return _server_hello(body)
    except IndexError:
        pass
    return None


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    """The complete handshake messages of the leading plaintext records (RFC 8446, 5.1 and 4)."""
    stream, at = b"", 0
    while at + 5 <= len(data):
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] == _HANDSHAKE_RECORD:
            stream += data[at + 5 : at + 5 + length]
        at += 5 + length
    found, at = [], 0
    while at + 4 <= len(stream):
        length = int.from_bytes(stream[at + 1 : at + 4], "big")
        if at + 4 + length > len(stream):
            break
        found.append((stream[at], stream[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


def _server_hello(body: bytes) -> Handshake:
    """``version(2) random(32) session(1+n) cipher(2) compression(1) extensions(2+n)``, RFC 8446, 4.1.3."""
    version, at = int.from_bytes(body[0:2], "big"), 35 + body[34]
    cipher = int.from_bytes(body[at : at + 2], "big")
    group, at = None, at + 5
    while at + 4 <= len(body):
        kind, length = int.from_bytes(body[at : at + 2], "big"), int.from_bytes(body[at + 2 : at + 4], "big")
        if kind == _SUPPORTED_VERSIONS:
            version = int.from_bytes(body[at + 4 : at + 6], "big")
        elif kind == _KEY_SHARE:
            group = int.from_bytes(body[at + 4 : at + 6], "big")
        at += 4 + length
    return Handshake(
        VERSIONS.get(version, f"{version:#06x}"),
        "" if group is None else GROUPS.get(group, f"{group:#06x}"),
        CIPHERS.get(cipher, f"{cipher:#06x}"),
    )
