"""The readers of ``docs/spec.md`` section 1: strict JSON, and the texts that stand for bytes and names."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
TIME_END = 2**53

Check = Callable[[Any], bool]
"""Whether a JSON value is what a field takes."""


class Refused(Exception):
    """What an implementation of the specification refuses, by the name the specification gives it."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        super().__init__(f"{name}: {why}")


def read(raw: bytes, refusal: str) -> dict[str, Any]:
    """A strict JSON object."""

    def no(what: str) -> NoReturn:
        raise ValueError(what)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            no("a key twice")
        return dict(pairs)

    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=unique, parse_float=no, parse_constant=no)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        raise Refused(refusal, "no strict JSON") from None
    if not isinstance(value, dict):
        raise Refused(refusal, "no object")
    return value


def fields(value: Any, refusal: str, **checks: Check) -> None:  # noqa: ANN401  a JSON value
    """Refuse what is no object, has not exactly these fields, or one of them of the wrong form.

    Args:
        checks: By field; a trailing underscore keeps a name from being a word of Python.
    """
    wanted = {name.rstrip("_"): check for name, check in checks.items()}
    if not isinstance(value, dict) or value.keys() != wanted.keys():
        raise Refused(refusal, f"other fields than {', '.join(wanted)}")
    for name, check in wanted.items():
        if not check(value[name]):
            raise Refused(refusal, name)


def whole(least: int, most: int) -> Check:
    # A bool is an int to Python, and no number to JSON.
    return lambda value: type(value) is int and least <= value <= most


time = whole(0, TIME_END - 1)


def text(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, str) and value != ""


def one_of(*allowed: object) -> Check:
    return lambda value: any(type(value) is type(one) and value == one for one in allowed)


def matches(pattern: str | re.Pattern[str]) -> Check:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


name = matches(NAME)


def hex_of(count: int) -> Check:
    return matches(rf"[0-9a-f]{{{2 * count}}}")


def list_of(check: Check, least: int = 0, most: int = 2**31) -> Check:
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(check, value))


def base64url(value: Any, refusal: str) -> bytes:  # noqa: ANN401
    """The bytes of the one base64url text without padding that stands for them."""
    return _decoded(value, refusal, base64.urlsafe_b64decode, lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"="))


def base64_padded(value: Any, refusal: str) -> bytes:  # noqa: ANN401
    return _decoded(value, refusal, base64.b64decode, base64.b64encode)


def _decoded(
    value: Any,  # noqa: ANN401
    refusal: str,
    decode: Callable[[bytes], bytes],
    encode: Callable[[bytes], bytes],
) -> bytes:
    try:
        written = value.encode("ascii")
        raw = decode(written + b"=" * (-len(written) % 4))
    except (AttributeError, ValueError):
        raise Refused(refusal, "base64") from None
    if encode(raw) != written:
        raise Refused(refusal, "another encoding of its bytes")
    return raw
