"""A writer of the NATS configuration language: just enough of it, and never a string it could misread. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

WIDTH: Final = 120
"""Columns up to which a list or block stays on one line."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A value with a line of comment above it, for the people who review the file."""

    note: str
    value: Value


@dataclass(frozen=True, slots=True)
class Variable:
    """The name of a variable that the server looks up: in what encloses the value, then in its environment."""

    name: str


Value: TypeAlias = "bool | int | str | Sequence[Value] | Mapping[str, Value] | Noted | Variable"


def write(entries: Mapping[str, Value], notes: Iterable[str] = ()) -> str:
    """The text of a configuration file.

    Args:
        entries: Top-level keys and values, in the order in which they are written.
        notes: Lines of comment at the top.

    Raises:
        ValueError: A string holds a quote, a backslash or a control character; no name or address does.
    """
    lines = [*(f"# {note}" for note in notes), ""]
    for key, value in entries.items():
        lines += _lines(value, 0, f"{_key(key)}: ")
    return "\n".join(lines) + "\n"


def _lines(value: Value, depth: int, lead: str) -> list[str]:
    indent = "  " * depth
    if isinstance(value, Noted):
        return [f"{indent}# {value.note}", *_lines(value.value, depth, lead)]
    flat = _flat(value)
    if flat is not None and len(indent) + len(lead) + len(flat) <= WIDTH:
        return [indent + lead + flat]
    if isinstance(value, Mapping):
        inner = [line for key, item in value.items() for line in _lines(item, depth + 1, f"{_key(key)}: ")]
        return [f"{indent}{lead}{{", *inner, f"{indent}}}"]
    if isinstance(value, Sequence) and not isinstance(value, str):
        inner = [line for item in value for line in _lines(item, depth + 1, "")]
        return [f"{indent}{lead}[", *inner, f"{indent}]"]
    return [f"{indent}{lead}{flat}"]


def _flat(value: Value) -> str | None:
    """The value on one line, or None where it has a comment or holds a list of blocks."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Noted):
        return None
    if isinstance(value, Variable):
        return f"${value.name}"
    if isinstance(value, Mapping):
        pairs = [(key, _flat(item)) for key, item in value.items()]
        if any(text is None for _, text in pairs):
            return None
        return "{ " + ", ".join(f"{_key(key)}: {text}" for key, text in pairs) + " }" if pairs else "{}"
    if any(isinstance(item, Mapping) for item in value):
        return None
    items = [_flat(item) for item in value]
    return None if None in items else "[" + ", ".join(filter(None, items)) + "]"


def _key(key: str) -> str:
    # Bare where no reader can take it for anything else; `include` would be obeyed.
    return key if key.isidentifier() and key != "include" else _quoted(key)


def _quoted(text: str) -> str:
    # Quoted, nothing of a string is a variable, a number with a suffix or a comment.
    if '"' in text or "\\" in text or not text.isprintable():
        raise ValueError(f"not a string that a NATS configuration can hold: {text!r}")
    return f'"{text}"'
