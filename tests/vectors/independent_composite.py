"""What a value with payloads among its fields is, written from ``docs/spec.md`` alone (4.9, 7.5)."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from typing import NamedTuple

from tests.vectors import strictness
from tests.vectors.independent_keyed import written
from tests.vectors.strictness import Refused

CONTENT_TYPE = "application/vnd.bunny-bridge.composite"


class Composite(NamedTuple):
    document: bytes
    payloads: list[tuple[str, bytes]]


def read_composite(body: bytes, payload: bytes | None) -> Composite:
    """A value from the body of its message and the message's payload in parts, None where it has none."""
    size = int.from_bytes(body[:2], "big")
    if len(body) < 2 + size or not 0 < size <= 32_768:
        raise Refused("BadPrelude", "table_len")
    table = strictness.read(body[2 : 2 + size], "BadPrelude")
    strictness.fields(
        table, "BadPrelude", document=_whole, payloads=lambda rows: isinstance(rows, list) and 1 <= len(rows) <= 64
    )
    for row in table["payloads"]:
        strictness.fields(row, "BadPrelude", content_type=_type, length=_whole)
    rest = body[2 + size :]
    if payload is not None:
        if rest:
            raise Refused("BadPrelude", "a rest beside a payload")
        rest = payload
    lengths = [table["document"], *(row["length"] for row in table["payloads"])]
    if sum(lengths) != len(rest):
        raise Refused("BadPrelude", "other lengths")
    pieces = []
    for length in lengths:
        pieces.append(rest[:length])
        rest = rest[length:]
    types = [row["content_type"] for row in table["payloads"]]
    return Composite(pieces[0], list(zip(types, pieces[1:], strict=True)))


def tag_of_composite(secret: bytes, value: Composite) -> str:
    canonical = CONTENT_TYPE.encode() + b"\0"
    canonical += hashlib.sha256(written(json.loads(value.document)).encode("utf-8")).digest()
    for content_type, data in value.payloads:
        canonical += hashlib.sha256(content_type.encode()).digest() + hashlib.sha256(data).digest()
    return hmac.new(secret, struct.pack(">I", len(canonical)) + canonical, hashlib.sha256).hexdigest()


def _whole(value: object) -> bool:
    return type(value) is int and 0 <= value <= 2**34


def _type(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 257
