"""JSON, and bytes in it, without the parts that two parsers read differently. No I/O.

Used for everything that is signed or that decides a permission. Refused, where Python's parser is lax:
duplicate keys, floats, NaN and Infinity, a byte order mark, bytes that are not UTF-8, half a surrogate pair, and
nesting deeper than the parser's stack (RFC 8259 leaves all of these to the implementation).
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final, NoReturn

Object = dict[str, Any]


def parse_object(data: bytes) -> Object:
    """Parse one JSON object.

    Raises:
        ValueError: It is not strict JSON, or not an object. The text never holds any of the input.
    """
    try:
        value = _READER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError):
        # The causes carry the input (JSONDecodeError.doc, UnicodeDecodeError.object): drop them.
        raise ValueError("not strict JSON") from None
    if type(value) is not dict:
        raise ValueError("not a JSON object")
    if b"\\u" in data:
        _check_text(value)
    return value


def expect_keys(value: object, names: set[str]) -> None:
    """Check that a parsed value is an object with just these keys.

    Raises:
        ValueError: It is not.
    """
    if type(value) is not dict or set(value) != names:
        raise ValueError("not the object expected")


def dump(value: Object) -> bytes:
    """Encode compactly, keys in the order given."""
    return _WRITER.encode(value).encode("utf-8")


def quote(text: str) -> str:
    """A text as `dump` writes it."""
    return _WRITER.encode(text)


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """The bytes of `b64`, strictly: one text for one value.

    Raises:
        ValueError: Another alphabet, padding, or stray bits.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, TypeError):
        raise ValueError("not base64url") from None
    if b64(data) != text:
        raise ValueError("not base64url")
    return data


def _object(pairs: list[tuple[str, Any]]) -> Object:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError
    return value


def _check_text(value: Object) -> None:
    """Refuse half a surrogate pair, which only an escape can write: no other parser's text can hold it."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError):
        raise ValueError("not Unicode text") from None


def _refuse(_: str) -> NoReturn:
    raise ValueError


# Made once: `json.loads` and `json.dumps` make one for each call, which takes longer than a core does.
_READER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=_refuse, parse_constant=_refuse)
_WRITER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
