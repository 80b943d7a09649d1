"""The framing of an envelope: bytes to parts and back, every length checked before anything is made. No I/O."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridge import core as cores
from bridge import crypto
from bridge.core import Core
from bridge.crypto import MAX_TREE, SIGNATURE_LEN, WRAP_LEN
from bridge.errors import BadFrame

MAGIC: Final = b"RB1\0"
MAX_RECIPIENTS: Final = 8
MAX_ENVELOPE_LEN: Final = 768 * 1024
"""Far below either server's ``max_payload``."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An envelope taken apart, **not verified**."""

    core: Core
    head: memoryview
    """Every byte before the signature block: what is signed."""
    before_digest: bytes
    """SHA-256 of every byte before ``ct_len``: what the body's key is bound to."""
    wraps: tuple[tuple[bytes, bytes], ...]
    ciphertext_digest: bytes
    kid: bytes
    size: int
    index: int
    path: tuple[bytes, ...]
    signature: bytes
    ciphertext: memoryview


class _Reader:
    """Takes bytes off the front, and never more than there are."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data, self.at = memoryview(data), 0

    def take(self, n: int) -> memoryview:
        if n > len(self.data) - self.at:
            raise BadFrame("the envelope is shorter than it says")
        self.at += n
        return self.data[self.at - n : self.at]


def parse(data: bytes) -> Frame:
    """Take an envelope apart.

    Raises:
        BadFrame: Any length, count or order is not as specified, or bytes are left over.
        UnknownVersion: The core is of another version.
    """
    if len(data) > MAX_ENVELOPE_LEN:
        raise BadFrame(f"the envelope is longer than {MAX_ENVELOPE_LEN} bytes")
    reader = _Reader(data)
    if bytes(reader.take(4)) != MAGIC:
        raise BadFrame("not an envelope of version 1")
    core = cores.decode(bytes(reader.take(int.from_bytes(reader.take(2)))))
    n = reader.take(1)[0]
    # A start seals nothing; anything else is sealed to someone.
    if n > MAX_RECIPIENTS or (n == 0) != (core.type == "start"):
        raise BadFrame(f"an envelope of a {core.type} with {n} recipients")
    wraps = tuple((bytes(reader.take(32)), bytes(reader.take(WRAP_LEN))) for _ in range(n))
    if len({kid for kid, _ in wraps}) != n:
        raise BadFrame("two wraps for one key")
    before_digest = crypto.sha256(reader.data[: reader.at])
    ciphertext_len = int.from_bytes(reader.take(8))
    ciphertext_digest = bytes(reader.take(32))
    head = reader.data[: reader.at]
    kid = bytes(reader.take(32))
    size, index = struct.unpack(">QB", reader.take(9))
    if not index < size <= MAX_TREE:
        raise BadFrame("the signature block names no leaf of a tree of at most 256")
    path = tuple(bytes(reader.take(32)) for _ in range(crypto.path_length(index, size)))
    signature = bytes(reader.take(SIGNATURE_LEN))
    if ciphertext_len != len(reader.data) - reader.at:
        raise BadFrame("the ciphertext is not as long as the envelope says")
    if core.type == "start" and ciphertext_len:
        raise BadFrame("a start with a ciphertext")
    ciphertext = reader.take(ciphertext_len)
    return Frame(core, head, before_digest, wraps, ciphertext_digest, kid, size, index, path, signature, ciphertext)


def head(core: Core, wraps: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Every byte before ``ct_len``."""
    encoded = core.encode()
    return b"".join(
        (MAGIC, len(encoded).to_bytes(2), encoded, bytes([len(wraps)]), *(part for w in wraps for part in w))
    )


def close(head: bytes, ciphertext: bytes) -> bytes:
    """Every byte before the signature block."""
    return b"".join((head, len(ciphertext).to_bytes(8), crypto.sha256(ciphertext)))


def signature_block(kid: bytes, size: int, index: int, path: Sequence[bytes], signature: bytes) -> bytes:
    """Everything between head and ciphertext."""
    return b"".join((kid, struct.pack(">QB", size, index), *path, signature))
