"""The framing of an envelope: bytes to parts and back, every length checked before anything is made. No I/O."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from bridge import core as cores
from bridge import crypto
from bridge.core import Core
from bridge.crypto import MAX_TREE, SIGNATURE_LEN, WRAP_LEN
from bridge.errors import BadFrame
from bridge.values import value

MAGIC: Final = b"RB1\0"
MAX_RECIPIENTS: Final = 8
MAX_ENVELOPE_LEN: Final = 768 * 1024
"""Far below either server's ``max_payload``."""
_WRAPPED_LEN: Final = 32 + WRAP_LEN
_SHORT: Final = "the envelope is shorter than it says"


@value(frozen=True, slots=True)
class Frame:
    """An envelope taken apart, **not verified**."""

    core: Core
    head: memoryview
    """Every byte before the signature block: what is signed."""
    digest: bytes
    """SHA-256 of them."""
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


_CLOSE: Final = struct.Struct(">Q32s")
"""``ct_len`` and ``ct_sha256``."""
_BLOCK: Final = struct.Struct(">32sQB")
"""What the signature block begins with: kid, size of the tree, index."""


def parse(data: bytes) -> Frame:
    """Take an envelope apart.

    Raises:
        BadFrame: Any length, count or order is not as specified, or bytes are left over.
        UnknownVersion: The core is of another version.
    """
    if len(data) > MAX_ENVELOPE_LEN:
        raise BadFrame(f"the envelope is longer than {MAX_ENVELOPE_LEN} bytes")
    if data[:4] != MAGIC:
        raise BadFrame(_SHORT if len(data) < 4 else "not an envelope of version 1")
    at = 6 + int.from_bytes(data[4:6])
    if len(data) <= at:  # the number of wraps at least
        raise BadFrame(_SHORT)
    core = cores.decode(data[6:at])
    n = data[at]
    # A start seals nothing; anything else is sealed to someone.
    if n > MAX_RECIPIENTS or (n == 0) != (core.type == "start"):
        raise BadFrame(f"an envelope of a {core.type} with {n} recipients")
    first = at + 1
    at = first + n * _WRAPPED_LEN
    if len(data) < at + _CLOSE.size + _BLOCK.size:
        raise BadFrame(_SHORT)
    wraps = tuple([(data[i : i + 32], data[i + 32 : i + _WRAPPED_LEN]) for i in range(first, at, _WRAPPED_LEN)])
    if n > 1 and len({kid for kid, _ in wraps}) != n:
        raise BadFrame("two wraps for one key")
    view = memoryview(data)
    before = at
    ciphertext_len, ciphertext_digest = _CLOSE.unpack_from(data, at)
    at += _CLOSE.size
    head = view[:at]
    before_digest, digest = crypto.sha256_twice(head[:before], head[before:])
    kid, size, index = _BLOCK.unpack_from(data, at)
    at += _BLOCK.size
    if not index < size <= MAX_TREE:
        raise BadFrame("the signature block names no leaf of a tree of at most 256")
    signed = at + 32 * crypto.path_length(index, size)
    if len(data) < signed + SIGNATURE_LEN:
        raise BadFrame(_SHORT)
    path = tuple([data[i : i + 32] for i in range(at, signed, 32)])
    at = signed + SIGNATURE_LEN
    if ciphertext_len != len(data) - at:
        raise BadFrame("the ciphertext is not as long as the envelope says")
    if core.type == "start" and ciphertext_len:
        raise BadFrame("a start with a ciphertext")
    signature = data[signed:at]
    return Frame(
        core, head, digest, before_digest, wraps, ciphertext_digest, kid, size, index, path, signature, view[at:]
    )


def wrapping(wraps: Sequence[tuple[bytes, bytes]]) -> bytes:
    """What stands between a core and ``ct_len``."""
    return b"".join((bytes([len(wraps)]), *(part for w in wraps for part in w)))


def head(core: Core, wrapping: bytes) -> bytes:
    """Every byte before ``ct_len``."""
    encoded = core.encode()
    return b"".join((MAGIC, len(encoded).to_bytes(2), encoded, wrapping))


def closing(ciphertext: bytes) -> bytes:
    """What stands between these and the signature block."""
    return _CLOSE.pack(len(ciphertext), crypto.sha256(ciphertext))


def signed(
    head: bytes, kid: bytes, size: int, index: int, path: Sequence[bytes], signature: bytes, ciphertext: bytes
) -> bytes:
    """An envelope: ``head`` is every byte before the signature block."""
    return b"".join((head, _BLOCK.pack(kid, size, index), *path, signature, ciphertext))
