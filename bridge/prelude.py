"""What is sealed: a prelude, which says what follows it and how it is packed, and the body. Bytes to bytes. No I/O.

::

    prelude_len u16 | prelude | body, compressed or not | zero bytes where it is padded
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Final

from bridge import crypto, packing, strict_json
from bridge.core import Core
from bridge.errors import BadPacking, BadPrelude, PayloadTooLarge
from bridge.job import INLINE_LIMIT, Content, Status
from bridge.packing import LEAST_COMPRESSED, Packing
from bridge.payload import Manifest
from bridge.values import value

MAX_LEN: Final = 1024

_STATUSES: Final[dict[bytes | None, Status | None]] = {None: None, **{str(each).encode(): each for each in Status}}
_USUAL: Final = re.compile(
    rb'\{"content_type":"([ !#-\[\]-~]{1,256})","length":(0|[1-9][0-9]{0,8}),"sha256":"([0-9a-f]{64})"'
    rb'(?:,"status":"(%s)")?\}' % b"|".join(each for each in _STATUSES if each)
)
"""How this release writes it of a body that is not packed: no other strict JSON says the same in these bytes."""


@value(frozen=True, slots=True)
class Inside:
    """What was sealed."""

    content: Content
    status: Status | None
    """Results only."""
    payload: Manifest | None
    """What travels in parts, as its core and its prelude have it."""


def write(core: Core, content: Content, status: Status | None, how: Packing | None, payload: Manifest | None) -> bytes:
    """The bytes to be sealed.

    Args:
        core: Of the message.
        content: Its content; without a body where that is in parts.
        status: Of a result.
        how: How the body is packed, where it is not in parts.
        payload: The parts, which say how they are packed.

    Raises:
        PayloadTooLarge: It is larger than what travels inline.
    """
    if len(content.body) > INLINE_LIMIT:
        raise PayloadTooLarge(
            f"{len(content.body)} bytes are more than travel in one envelope (INLINE_LIMIT, {INLINE_LIMIT} bytes)"
        )
    if (status is not None) != (core.type == "result"):
        raise ValueError("results have a status, and nothing else has")
    body, digest = content.body, crypto.sha256(content.body).hex()
    if payload is None and how is None:
        said = f'"content_type":{_quoted(content.content_type)},"length":{len(body)},"sha256":"{digest}"'
        encoded = (f"{{{said}}}" if status is None else f'{{{said},"status":"{status}"}}').encode()
        return b"".join((_length(encoded), encoded, body))
    value: strict_json.Object = {"content_type": content.content_type, "length": len(body), "sha256": digest}
    if status is not None:
        value["status"] = str(status)
    if payload is not None:
        how = payload.packing
    elif how is Packing.ZSTD:
        body = bytes(packing.compressed(body)) if len(body) >= LEAST_COMPRESSED else body
        how = how if body is not content.body else None
    if how is Packing.ZSTD:
        value["compression"] = str(how)
    elif how is Packing.PADME:
        value["padding"] = str(how)
        if payload is not None:
            value["content_length"] = payload.content
    encoded = strict_json.dump(value)
    before = b"".join((_length(encoded), encoded, body))
    return before.ljust(packing.padded_length(len(before)), b"\0") if how is Packing.PADME else before


_quoted: Final = lru_cache(256)(strict_json.quote)


def _length(encoded: bytes) -> bytes:
    if len(encoded) > MAX_LEN:
        raise PayloadTooLarge(f"the content type makes the prelude longer than {MAX_LEN} bytes; shorten it")
    return len(encoded).to_bytes(2)


def read(core: Core, data: bytes) -> Inside:
    """What bytes that were sealed hold.

    Raises:
        BadPrelude: They are not as specified, or speak of another body.
        BadPacking: The body is compressed or padded otherwise than they say.
    """
    usual = _read_usual(core, data)
    return usual if usual is not None else _read(core, data)


def _read_usual(core: Core, data: bytes) -> Inside | None:
    """What is written as this release does; None where it is not, or wrong, which `_read` then names."""
    start = 2 + int.from_bytes(data[:2])
    if start - 2 > MAX_LEN or len(data) < start or core.length:
        return None
    found = _USUAL.fullmatch(data, 2, start)
    if found is None:
        return None
    content_type, length, digest, ended = found.groups()
    body, status = data[start:], _STATUSES[ended]
    if int(length) != len(body) or (status is not None) != (core.type == "result"):
        return None
    if digest != crypto.sha256(body).hex().encode():
        return None
    return Inside(Content(content_type.decode(), body), status, None)


def _read(core: Core, data: bytes) -> Inside:
    """The same, the long way."""
    start = 2 + int.from_bytes(data[:2])
    payload = Manifest.of(core)
    try:
        if len(data) < start or start - 2 > MAX_LEN:
            raise ValueError
        value = strict_json.parse_object(data[2:start])
        how, names = _packing(value), {"content_type", "length", "sha256"}
        if core.type == "result":
            names.add("status")
        if how is Packing.PADME and payload is not None:
            names.add("content_length")
        strict_json.expect_keys(value, names | (_PACKINGS.keys() & value.keys()))
        status = None if core.type != "result" else Status(value["status"])
        content_type, length = value["content_type"], value["length"]
        if type(content_type) is not str or not content_type or type(length) is not int or length < 0:
            raise ValueError
        if payload is not None:
            payload = replace(payload, packing=how, padding=_padding(value, payload, how))
    except ValueError:
        raise BadPrelude("the sealed prelude is not as specified") from None
    if how is Packing.PADME:
        body = _unpadded(data, start, length)
    elif how is Packing.ZSTD and payload is None:
        body = _decompressed(data[start:], length)
    else:
        body = data[start:]
    if length != len(body) or value["sha256"] != crypto.sha256(body).hex():
        raise BadPrelude("the sealed prelude speaks of another body")
    return Inside(Content(content_type, body), status, payload)


_PACKINGS: Final = {"compression": Packing.ZSTD, "padding": Packing.PADME}


def _packing(value: strict_json.Object) -> Packing | None:
    found = [how for name, how in _PACKINGS.items() if name in value]
    if len(found) > 1 or any(value[name] != str(how) for name, how in _PACKINGS.items() if name in value):
        raise ValueError
    return found[0] if found else None


def _padding(value: strict_json.Object, payload: Manifest, how: Packing | None) -> int:
    """How many bytes of a payload are padding: as many as its own length comes to, and no other number."""
    if how is not Packing.PADME:
        return 0
    content = value["content_length"]
    if type(content) is not int or content < 1 or packing.padded_length(content) != payload.length:
        raise ValueError
    return payload.length - content


def _unpadded(data: bytes, start: int, length: int) -> bytes:
    end = start + length
    if end > len(data) or packing.padded_length(end) != len(data):
        raise BadPacking("a body is padded to another length than it should be")
    packing.check_padding(memoryview(data)[end:])
    return data[start:end]


def _decompressed(packed: bytes, length: int) -> bytes:
    if length > INLINE_LIMIT:  # said by who may have anything signed: nothing is decompressed to find out
        raise BadPacking(f"a compressed body has at most {INLINE_LIMIT} bytes")
    return packing.decompressed(packed, length)
