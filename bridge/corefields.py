"""How each field of a core is read and written: strictly, and what is the same from message to message once. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from bridge.subjects import DECIMAL, SESSION, is_name

REMEMBERED: Final = 4096
"""Values that are the same from message to message, such as names and kids, are checked once while so many others have
not come in between: none is longer than 128 characters."""

JOB_ID: Final = re.compile(rf"{SESSION.pattern}\.(?:{DECIMAL.pattern})")


@dataclass(frozen=True, slots=True)
class Field:
    """One field: where `bridge.core.Core` has it, and what it is in JSON."""

    attribute: str
    read: Callable[[Any], Any]
    """Raises ValueError, or TypeError of a list or an object, for what it does not take."""
    write: Callable[[Any], Any] | None = None
    """None where it is in JSON as it is held."""


def plain(attribute: str, read: Callable[[object], object]) -> Field:
    """What is in JSON as it is held."""
    return Field(attribute, read)


def raw(attribute: str, length: int) -> Field:
    """So many bytes, in hex."""
    return Field(attribute, hexadecimal(length), bytes.hex)


def known(attribute: str, length: int) -> Field:
    """The same, of bytes that come again and again."""
    return Field(attribute, lru_cache(REMEMBERED)(hexadecimal(length)), bytes.hex)


@lru_cache(REMEMBERED)
def read_name(value: object) -> str:
    """A name (`bridge.subjects.is_name`)."""
    if type(value) is str and is_name(value):
        return value
    raise ValueError


def read_job_id(value: object) -> str:
    """``<session>.<n>``"""
    if type(value) is str and JOB_ID.fullmatch(value):
        return value
    raise ValueError


def one_of(*allowed: str) -> Callable[[object], str]:
    """One of these words."""

    def read(value: object) -> str:
        if type(value) is str and value in allowed:
            return value
        raise ValueError

    return read


def matching(pattern: re.Pattern[str]) -> Callable[[object], str]:
    """Text that a pattern describes."""

    def read(value: object) -> str:
        if type(value) is str and pattern.fullmatch(value):
            return value
        raise ValueError

    return read


def hexadecimal(length: int) -> Callable[[object], bytes]:
    """So many bytes, in lower-case hex."""

    def read(value: object) -> bytes:
        if type(value) is str and len(value) == 2 * length:
            data = bytes.fromhex(value)
            if data.hex() == value:  # no capitals, and no spaces, which Python takes
                return data
        raise ValueError

    return read


def whole(most: int, least: int = 0) -> Callable[[object], int]:
    """A whole number between these, both included."""

    def read(value: object) -> int:
        if type(value) is int and least <= value <= most:
            return value
        raise ValueError

    return read
