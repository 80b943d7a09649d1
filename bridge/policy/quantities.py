"""Durations and sizes as people write them. A number without a unit is refused: everyone guesses another one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from bridge.policy.values import DAY, GIB, HOUR, KIB, MIB, MINUTE, SECOND

_MS: Final = {"d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": 1}
_BYTES: Final = {"TiB": 1024 * GIB, "GiB": GIB, "MiB": MIB, "KiB": KIB, "B": 1}
_DURATION: Final = re.compile("".join(rf"(?:([0-9]{{1,12}}){unit})?" for unit in _MS))
_SIZE: Final = re.compile(r"([0-9]{1,18})(TiB|GiB|MiB|KiB|B)")
_QUANTITY: Final = re.compile(r"(-?)([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")
_OTHER_WORDS: Final = {
    **dict.fromkeys(("day", "days"), "d"),
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("msec", "msecs", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("t", "tb", "ti", "tib"), "TiB"),
    **dict.fromkeys(("g", "gb", "gi", "gib"), "GiB"),
    **dict.fromkeys(("m", "mb", "mi", "mib"), "MiB"),
    **dict.fromkeys(("k", "kb", "ki", "kib"), "KiB"),
    **dict.fromkeys(("b", "byte", "bytes"), "B"),
}


class BadQuantity(ValueError):
    """A text that is no duration or size.

    Args:
        problem: What is wrong, to follow the text.
        remedy: The nearest right thing.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


def parse_duration(text: str, usual: str = "s") -> int:
    """Read a duration such as ``30s``, ``250ms`` or ``1h30m``, in milliseconds.

    Args:
        text: The duration.
        usual: The unit that is suggested where none is written.

    Raises:
        BadQuantity: It is none.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise _explain(text, _MS, "duration", usual)
    return sum(int(part) * unit for part, unit in zip(match.groups(), _MS.values(), strict=True) if part)


def parse_size(text: str) -> int:
    """Read a size such as ``256KiB``, in bytes.

    Raises:
        BadQuantity: It is none.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise _explain(text, _BYTES, "size", "B")
    return int(match[1]) * _BYTES[match[2]]


def spell_duration(milliseconds: int) -> str:
    """Write a duration as `parse_duration` reads it."""
    text, rest = "", abs(milliseconds)
    for unit, length in _MS.items():
        count, rest = divmod(rest, length)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def spell_size(size: int) -> str:
    """Write a size as `parse_size` reads it, in the largest unit that divides it."""
    unit = next(unit for unit, length in _BYTES.items() if size % length == 0 and (size or unit == "B"))
    return f"{size // _BYTES[unit]}{unit}"


def _explain(text: str, units: Mapping[str, int], what: str, usual: str) -> BadQuantity:
    example = "30s" if what == "duration" else "256KiB"
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        return BadQuantity(f"is not a {what}", f"say {example}, for example")
    sign, number, word = match.groups()
    unit = _unit(word, units) if word else usual
    if unit is None:
        return BadQuantity(f"has the unknown unit {word!r}", f"say one of {', '.join(units)}, such as {example}")
    exact = float(number) * units[unit]
    near = (spell_duration if what == "duration" else spell_size)(math.ceil(exact)) if "." in number else number + unit
    if sign:
        problem = "is negative"
    elif not word:
        problem = "has no unit"
    elif word != unit:
        problem = f"has the unknown unit {word!r}"
    else:
        problem = f"is not a {what} in whole numbers" if "." in number else f"is not a {what}"
    return BadQuantity(problem, f"say {near}")


def _unit(word: str, units: Mapping[str, int]) -> str | None:
    """The unit that a word means, in whatever case and length it is written."""
    if word in units:
        return word
    meant = (unit for unit in (word.lower(), _OTHER_WORDS.get(word.lower(), "")) if unit in units)
    if word.lower() in ("m", "mb", "mi", "mib"):  # minutes among durations, MiB among sizes
        return "m" if "m" in units else "MiB"
    return next(meant, None)
