"""What is compressed or padded, written from ``docs/spec.md`` alone (4.5, 4.7)."""

from __future__ import annotations

import sys
from typing import Any

from tests.vectors import strictness as strict
from tests.vectors.strictness import Refused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMIT = 262_144


def padded(length: int) -> int:
    """Padmé, in its own words: the last of a length's bits are zero, but for as many as its exponent has."""
    length = max(length, 1_024)
    exponent = len(f"{length:b}") - 1
    step = 1 << (exponent - len(f"{exponent:b}"))
    return -(-length // step) * step


def checks(prelude: Any, core: dict[str, Any]) -> dict[str, strict.Check]:  # noqa: ANN401  a JSON value
    """What a prelude that packs anything has beside its other fields."""
    found: dict[str, strict.Check] = {}
    if not isinstance(prelude, dict):
        return found
    if "compression" in prelude:
        found["compression"] = strict.one_of("zstd")
    elif "padding" in prelude:
        found["padding"] = strict.one_of("padme")
        if "length" in core:
            found["content_length"] = strict.whole(1, 2**34)
    return found


def unpack(prelude: dict[str, Any], core: dict[str, Any], before: int, rest: bytes) -> bytes:
    """The body, from what follows the prelude."""
    if "content_length" in prelude and padded(prelude["content_length"]) != core["length"]:
        raise Refused("BadPrelude", "content_length")
    length = prelude["length"]
    if "padding" in prelude:
        if length > len(rest) or padded(before + length) != before + len(rest) or rest[length:].strip(b"\0"):
            raise Refused("BadPacking", "padding")
        return rest[:length]
    if "compression" in prelude and "length" not in core:
        if length > LIMIT:
            raise Refused("BadPacking", "length")
        return expand(rest, length)
    return rest


def expand(frame: bytes, length: int) -> bytes:
    """What one zstd frame holds."""
    if _window(frame) > LIMIT:
        raise Refused("BadPacking", "window")
    reader = zstd.ZstdDecompressor()
    try:
        data = reader.decompress(frame)
    except zstd.ZstdError:
        raise Refused("BadPacking", "frame") from None
    if len(data) != length or not reader.eof or reader.unused_data:
        raise Refused("BadPacking", "length")
    return data


def _window(frame: bytes) -> int:
    """How far back it may look (RFC 8878, 3.1.1.1)."""
    if len(frame) < 6 or frame[:4] != b"\x28\xb5\x2f\xfd":
        raise Refused("BadPacking", "no frame")
    descriptor = frame[4]
    if descriptor & 0x20:  # a single segment: as far as it is long
        size = 1 << (descriptor >> 6)
        at = 5 + (0, 1, 2, 4)[descriptor & 3]
        return int.from_bytes(frame[at : at + size], "little") + (256 if size == 2 else 0)
    base = 1 << (10 + (frame[5] >> 3))
    return base + base // 8 * (frame[5] & 7)
