"""YAML text in, a tree with line numbers out; no Python object is ever constructed. No I/O.

Only events are read from PyYAML: its composer recurses, expands aliases and keeps the last of two equal keys.
Aliases and tags are refused, nesting is bounded, and so neither a bomb nor a surprise survives review.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import yaml

from bridge.errors import PolicyError

_RESOLVER: Final = yaml.resolver.Resolver()
MAX_DEPTH: Final = 8
"""Twice what the policy needs."""

_KINDS: Final = {
    "tag:yaml.org,2002:int": "whole number",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:bool": "yes/no",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "date",
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value as it was written."""

    line: int
    text: str
    kind: str
    """What YAML 1.1 takes it for: text, whole number, number, yes/no, date or nothing."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    line: int
    items: list[Node] = field(default_factory=list)
    kind: str = "list"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys with their values, in the order written."""

    line: int
    entries: dict[str, Entry] = field(default_factory=dict)
    kind: str = "mapping"


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value."""

    key: Scalar
    node: Node


Node = Scalar | Sequence | Mapping
Fail = Callable[[int, str, str], PolicyError]
"""Makes the error of a line: line, problem, remedy."""


def shown(text: str) -> str:
    """Text of the file as an error may quote it: short, and on one line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def parse(text: str, fail: Fail) -> tuple[Node, list[PolicyError]]:
    """Parse one YAML document.

    Args:
        text: The document.
        fail: Makes an error.

    Returns:
        The tree, and an error for each key that is written twice (the first is kept).

    Raises:
        PolicyError: It is not one plain YAML document.
    """
    line = 0
    try:
        loader = yaml.SafeLoader(text)
        try:
            return _build(loader, fail)
        finally:
            line = loader.line + 1
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.context == "while scanning an alias":  # the first thing that stands in most cron expressions
            line = mark.line + 1 if mark else 0
            raise fail(
                line, "a value that begins with * and is no alias", "write it in quotes, '*/5 * * * *'"
            ) from None
        raise fail(*_explain(text, error.problem or "", mark.line if mark else 0)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise fail(line, "a control character", "write plain text") from None
    except (yaml.YAMLError, ValueError, OverflowError):  # ValueError: an escape beyond Unicode
        raise fail(line, "not YAML", "compare it with what `bunny init` writes") from None


def _explain(text: str, problem: str, at: int) -> tuple[int, str, str]:
    lines = text.splitlines()
    if "'\\t'" in problem or (at < len(lines) and lines[at].lstrip(" ").startswith("\t")):
        return at + 1, "a tab where YAML wants spaces", "indent with spaces"
    return at + 1, f"not YAML: {problem[:200]}", "compare it with what `bunny init` writes"


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    node: Sequence | Mapping
    key: Scalar | None = None
    keep: bool = True


def _build(loader: yaml.SafeLoader, fail: Fail) -> tuple[Node, list[PolicyError]]:
    problems: list[PolicyError] = []
    open_: list[_Open] = []
    root: Node | None = None
    while loader.check_event():
        event: yaml.Event = loader.get_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.CollectionEndEvent):
            open_.pop()
            continue
        if isinstance(event, yaml.DocumentStartEvent) and root is not None:
            raise fail(line, "a second document starts here", "keep one; remove the line ---")
        if isinstance(event, yaml.AliasEvent):
            raise fail(line, f"an alias, {shown(event.anchor or '')}", "write the value out")
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            continue
        if event.anchor is not None:
            raise fail(line, f"an anchor, {shown(event.anchor)}", "remove it, and write the value out where it is used")
        if event.tag is not None:
            raise fail(line, f"a YAML tag, {shown(event.tag)}", "remove it; the policy needs none")
        node = _node(event, line)
        if not open_:
            root = node
        else:
            _place(open_[-1], node, fail, problems)
        if not isinstance(node, Scalar):
            open_.append(_Open(node))
            if len(open_) > MAX_DEPTH:
                raise fail(line, f"nested deeper than {MAX_DEPTH}", "compare it with what `bunny init` writes")
    if root is None:
        raise fail(0, "the file is empty", "let `bunny init` write one")
    return root, problems


def _place(parent: _Open, node: Node, fail: Fail, problems: list[PolicyError]) -> None:
    """Put a node where it belongs: into a list, or as a mapping's next key or value."""
    if isinstance(parent.node, Sequence):
        parent.node.items.append(node)
    elif parent.key is None:
        if not isinstance(node, Scalar):
            raise fail(node.line, f"a {node.kind} where a key belongs", "write one word as the key")
        first = parent.node.entries.get(node.text)
        if first is not None:
            problem = f"key {shown(node.text)} stands twice"
            problems.append(fail(node.line, problem, f"keep one (line {first.key.line} has it already)"))
        parent.key, parent.keep = node, first is None
    else:
        if parent.keep:
            parent.node.entries[parent.key.text] = Entry(parent.key, node)
        parent.key = None


def _node(event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int) -> Node:
    if isinstance(event, yaml.ScalarEvent):
        tag: str = _RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]  # the stubs leave it out
        return Scalar(line, event.value, _KINDS.get(tag, "text"))
    return Mapping(line) if isinstance(event, yaml.MappingStartEvent) else Sequence(line)
