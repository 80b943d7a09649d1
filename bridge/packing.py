"""What is done to content before it is sealed: compressed so that there is less of it, or padded so that its size says
less. Bytes to bytes. No I/O.

Never both: what shrinks by what it says would be padded to a size that still says so.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Final

from bridge.errors import BadPacking

if sys.version_info >= (3, 14):
    from compression import zstd as _zstd
else:
    from backports import zstd as _zstd


class Packing(StrEnum):
    """How a queue's content is packed."""

    ZSTD = "zstd"
    """Compressed (RFC 8878), a body or a part at a time, where that makes it shorter."""
    PADME = "padme"
    """Padded with zero bytes to the next of few sizes: at most 6.3 % more from 1 KiB on, and 3.2 % from 64 KiB."""


LEAST_COMPRESSED: Final = 512
"""Bytes of a body below which nothing would be won."""
LEAST_PADDED: Final = 1024
"""Bytes that whatever is padded has at least: how a job ended, or a number that it gave, is shorter."""

_LEVEL: Final = 1
"""The fastest that shrinks text as much as gzip does."""
_WINDOW_LOG: Final = 18
"""A frame may look back 256 KiB, all that a part or a body has: what asks for more memory is refused."""


def compressed(data: bytes | memoryview) -> bytes | memoryview:
    """A zstd frame of the data; the data itself where that is no shorter."""
    parameter = _zstd.CompressionParameter
    packed = _zstd.compress(data, options={parameter.compression_level: _LEVEL, parameter.window_log: _WINDOW_LOG})
    return packed if len(packed) < len(data) else data


def decompressed(packed: bytes, length: int) -> bytes:
    """What a frame holds, which must be exactly ``length`` bytes: no more is ever made of it, whatever it claims.

    Raises:
        BadPacking: It is no frame, wants more than 256 KiB to look back, or holds more or less.
    """
    reader = _zstd.ZstdDecompressor(options={_zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    try:
        data = reader.decompress(packed, max_length=length + 1)
    except _zstd.ZstdError:
        raise BadPacking("what is compressed does not open") from None
    if len(data) != length or not reader.eof or reader.unused_data:
        raise BadPacking("what is compressed is not of the length that was signed")
    return data


def padded_length(length: int) -> int:
    """How many bytes ``length`` bytes are padded to.

    As Padmé has it (Nikitin and others, *Reducing Metadata Leakage from Encrypted Files and Communication with PURBs*):
    what is left of a length has no more significant bits than its exponent has.
    """
    length = max(length, LEAST_PADDED)
    exponent = length.bit_length() - 1
    rest = (1 << (exponent - exponent.bit_length())) - 1
    return (length + rest) & ~rest


def check_padding(padding: bytes | memoryview) -> None:
    """Check what was added.

    Raises:
        BadPacking: It is not all zero bytes.
    """
    if padding != bytes(len(padding)):
        raise BadPacking("what should be padding is something else")
