"""Payloads too large for an envelope: sealed parts and the index of their digests, bytes to bytes. No I/O.

A payload is cut into parts of 256 KiB, each sealed and opened on its own, so that many may be on their way at once and
a reader can go on from any of them. The index is the SHA-256 of every sealed part. The message that the payload belongs
to names it by transfer, index and length (`Manifest`, in its signed core), so one signature covers every part: a
reader hashes a part and compares before any key is used on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridge import crypto, packing
from bridge.core import MAX_PAYLOAD, Core
from bridge.errors import BadPart, BridgeError, PayloadTooLarge, Refusal
from bridge.packing import Packing

PART: Final = 262_144
"""Bytes of every part but the last, before sealing. Sealed it is far below what one message may hold."""
SEALED_PART: Final = crypto.sealed_length(PART)
PART_OVERHEAD: Final = 600
"""Bytes that a stream keeps beside a part: its subject, headers and a record."""
PIECE: Final = PART // 32
"""Digests of one piece of the index: 2 GiB of payload."""

_PARTS_LABEL: Final = b"bunny-bridge/v1/parts\0"
_PART_LABEL: Final = b"bunny-bridge/v1/part\0"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a signed core says of its payload, and what was sealed with it."""

    transfer: bytes
    """16 random bytes, in every part's subject."""
    index: bytes
    """SHA-256 of the index."""
    length: int
    """Bytes, before compressing and sealing, padding included; from 1."""
    packing: Packing | None = None
    """How its parts are packed; sealed, so not known to who has no key."""
    padding: int = 0
    """How many of its bytes, the last ones, are none of the payload's; sealed."""

    @classmethod
    def of(cls, core: Core) -> Manifest | None:
        """What all may know of that of a message; None where all of it travels inline."""
        return cls(core.transfer, core.index, core.length) if core.length else None

    @property
    def content(self) -> int:
        """Bytes of the payload itself."""
        return self.length - self.padding

    @property
    def parts(self) -> int:
        """How many there are."""
        return -(-self.length // PART)

    @property
    def pieces(self) -> int:
        """Messages of the index; they follow the parts, so piece ``p`` is number ``parts + p``."""
        return -(-self.parts // PIECE)

    @property
    def messages(self) -> int:
        """Parts and pieces."""
        return self.parts + self.pieces

    def fits(self, number: int, size: int) -> bool:
        """Whether message ``number`` may have so many bytes."""
        if self.packing is Packing.ZSTD and number < self.parts:
            return crypto.sealed_length(1) <= size <= self.size_of(number)
        return size == self.size_of(number)

    def size_of(self, number: int) -> int:
        """Bytes that message ``number`` must have; at most, where parts are compressed."""
        if number < self.parts:
            return crypto.sealed_length(min(PART, self.length - number * PART))
        return 32 * min(PIECE, self.parts - (number - self.parts) * PIECE)


def stored_length(length: int) -> int:
    """Bytes that a payload's parts and index take in a stream, without subjects and headers."""
    parts = -(-length // PART)
    last = length - (parts - 1) * PART
    return (parts - 1) * SEALED_PART + crypto.sealed_length(last) + 32 * parts


class PartSealer:
    """Seals one payload, from its beginning to its end.

    Args:
        secret: The wrapped secret of the message that will name it, used for no other message.
        packing: How its parts are packed.
    """

    def __init__(self, secret: bytes, packing: Packing | None = None) -> None:
        self.transfer: Final = crypto.random_bytes(16)
        self._packing = packing
        self.content = MAX_PAYLOAD
        """Bytes of the payload, once it is padded; at most, before."""
        self._key = _key(secret, self.transfer)
        self._room = bytearray(SEALED_PART)
        self._digests: list[bytes] = []
        self._length = 0

    def seal(self, data: bytes | memoryview) -> tuple[int, bytes]:
        """Seal the next part: 256 KiB, or what is left of the payload.

        Returns:
            The part's number, and its bytes as they are stored.

        Raises:
            PayloadTooLarge: Nothing of this length can be named.
            ValueError: It is empty or longer than a part, or follows one that was shorter.
        """
        number = len(self._digests)
        if not 0 < len(data) <= PART or self._length != number * PART:
            raise ValueError(f"every part but the last has {PART} bytes")
        if self._length + len(data) > MAX_PAYLOAD:
            raise PayloadTooLarge(f"a payload has at most {MAX_PAYLOAD} bytes (MAX_PAYLOAD)")
        packed = packing.compressed(data) if self._packing is Packing.ZSTD else data
        sealed = crypto.seal_body(self._key, _context(number), packed, self._room)
        self._digests.append(crypto.sha256(sealed))
        self._length += len(data)
        return number, sealed

    def padding(self, content: int) -> int:
        """How many zero bytes are to follow a payload of so many bytes; from then on they are none of it."""
        self.content = content
        return packing.padded_length(content) - content if self._packing is Packing.PADME else 0

    def pieces(self) -> list[tuple[int, bytes]]:
        """The index, once all parts are sealed: numbers and bytes of its messages."""
        count = len(self._digests)
        return [(count + at // PIECE, b"".join(self._digests[at : at + PIECE])) for at in range(0, count, PIECE)]

    def manifest(self) -> Manifest:
        """What the message is to say, once all parts are sealed."""
        if not self._digests:
            raise ValueError("a payload without a byte travels inline")
        index = crypto.sha256(b"".join(self._digests))
        return Manifest(self.transfer, index, self._length, self._packing, max(self._length - self.content, 0))


class PartOpener:
    """Checks and opens the parts of one payload, in any order and any number of times.

    Args:
        secret: The wrapped secret of the message that names it.
        manifest: What the message says.
    """

    def __init__(self, secret: bytes, manifest: Manifest) -> None:
        self.manifest: Final = manifest
        self._key = _key(secret, manifest.transfer)
        self._index: bytes | None = None
        self.failed: BridgeError | None = None
        """What kept it from being read, for who cannot see what its reader made of that."""

    def learn(self, pieces: Sequence[bytes]) -> None:
        """Take the index.

        Raises:
            BadPart: It is not the one that was signed.
        """
        index = b"".join(pieces)
        if len(index) != 32 * self.manifest.parts or crypto.sha256(index) != self.manifest.index:
            raise self._refused(BadPart("the index of a payload is not the one that was signed"))
        self._index = index

    def matches(self, number: int, sealed: bytes | memoryview) -> bool:
        """Whether a part is the one that was signed, in this place; no key is used."""
        if self._index is None:
            raise ValueError("the index comes first")
        return crypto.sha256(sealed) == self._index[32 * number : 32 * number + 32]

    def check(self, number: int, sealed: bytes | memoryview) -> None:
        """As `matches`.

        Raises:
            BadPart: It is not the one that was signed, in this place, or too long or short for it all the same.
        """
        if not self.matches(number, sealed):
            raise self._refused(BadPart(f"part {number} of a payload is not the one that was signed"))
        if not self.manifest.fits(number, len(sealed)):
            raise self._refused(BadPart(f"part {number} of a payload is of another length than was signed"))

    def open(self, number: int, sealed: bytes | memoryview) -> bytes:
        """The payload's bytes in a part; none in one that is all padding.

        Raises:
            BadPart: It is not the one that was signed, or of another length than the message says.
            BadSeal, BadPacking: Its author signed what does not open.
        """
        self.check(number, sealed)  # a decryptor gets nothing that was not signed
        return self.unseal(number, sealed)

    def unseal(self, number: int, sealed: bytes | memoryview) -> bytes:
        """The payload's bytes in a part that was checked before; raises as `open`."""
        try:
            return self._open(number, sealed)
        except Refusal as refusal:
            raise self._refused(refusal) from None

    def _open(self, number: int, sealed: bytes | memoryview) -> bytes:
        data = crypto.open_body(self._key, _context(number), sealed)
        manifest, length = self.manifest, min(PART, self.manifest.length - number * PART)
        if manifest.packing is Packing.ZSTD and len(data) < length:  # what compressing made no shorter is as it was
            data = packing.decompressed(data, length)
        if len(data) != length:
            raise BadPart(f"part {number} of a payload is of another length than was signed")
        if (own := max(manifest.content - number * PART, 0)) < length:
            packing.check_padding(memoryview(data)[own:])
            data = data[:own]
        return data

    def _refused(self, refusal: Refusal) -> Refusal:
        self.failed = refusal
        return refusal


def _key(secret: bytes, transfer: bytes) -> bytes:
    # Not the body's key: that is bound to the core, which names the digests of what is sealed here.
    return crypto.derive_key(secret, _PARTS_LABEL + transfer)


def _context(number: int) -> bytes:
    return _PART_LABEL + number.to_bytes(4)
