"""A value of the policy as JSON: what a schedule's jobs are given. YAML's own guesses are refused."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from bridge.policy.document import Mapping, Node, Scalar, Sequence, shown
from bridge.policy.section import Section

_WHOLE: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,15})")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS: Final = {"true": True, "false": False, "null": None}


def json_text(section: Section, key: str) -> str:
    """What stands at a key, as JSON in ASCII; ``null`` where nothing does, and where something is no JSON."""
    if not section.has(key):
        return "null"
    mistakes = section.mistakes
    node = section.node(key, "")
    value = None if node is None else _value(section, key, node)
    # ASCII, since YAML reads the halves of an escaped character beyond 16 bits apart, and JSON within it together.
    return json.dumps(value, separators=(",", ":")) if section.mistakes == mistakes else "null"


def _value(section: Section, key: str, node: Node) -> Any:  # noqa: ANN401  a JSON value
    if isinstance(node, Sequence):
        return [_value(section, key, item) for item in node.items]
    if isinstance(node, Mapping):
        for entry in node.entries.values():
            if entry.key.kind != "text":
                problem = f"{key}: the key {shown(entry.key.text)} is no text, and JSON has no other keys"
                section.note(entry.key.line, problem, f"write {_quoted(entry.key)}")
        return {name: _value(section, key, entry.node) for name, entry in node.entries.items()}
    return _scalar(section, key, node)


def _scalar(section: Section, key: str, scalar: Scalar) -> Any:  # noqa: ANN401  a JSON value
    text = scalar.text
    if scalar.kind == "text":
        try:
            text.encode()
        except UnicodeEncodeError:
            section.note(scalar.line, f"{key}: half of a surrogate pair, which JSON cannot carry", "remove it")
        return text
    if scalar.kind == "whole number" and _WHOLE.fullmatch(text):
        return int(text)
    if scalar.kind == "number" and _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if scalar.kind in ("yes/no", "nothing") and text in _WORDS:
        return _WORDS[text]
    near = {"yes/no": "true or false, or ", "nothing": "null, or "}.get(scalar.kind, "")
    problem = f"{key}: YAML takes {shown(text)} for a {scalar.kind}, as JSON does not"
    section.note(scalar.line, problem, f"say {near}{_quoted(scalar)}")
    return None


def _quoted(scalar: Scalar) -> str:
    return json.dumps(scalar.text[:60], ensure_ascii=False)
