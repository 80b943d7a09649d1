"""The nearest right thing to what stands in the policy: the last words of its errors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

from bridge.policy.document import Mapping, Node, Scalar, Sequence, shown
from bridge.subjects import is_name

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_URL: Final = re.compile(
    rf"tls://(?P<host>{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]{{2,45}}\]):(?P<port>[1-9][0-9]{{0,4}})"
)


def is_url(text: str) -> bool:
    """Whether it is an address ``tls://host:port``, without path, user or query."""
    match = _URL.fullmatch(text)
    return match is not None and len(match["host"]) <= 253 and int(match["port"]) <= 65_535


def near_name(text: str) -> str:
    """The remedy for a name that NATS cannot carry."""
    near = re.sub(r"[^a-z0-9_-]+", "-", text.lower())[:63].strip("-_")
    return f"say {near!r}" if near else "say 'relay-api', for example"


def nearest(word: str, options: Iterable[str]) -> str:
    """The remedy for a word that is none of the options."""
    options = list(options)
    near = difflib.get_close_matches(word.lower()[:100], options, n=1)
    return f"did you mean {shown(near[0])}?" if near else f"say one of {', '.join(map(shown, options[:20]))}"


def near_url(text: str, port: int) -> str:
    """The remedy for an address that is not ``tls://host:port``."""
    match = re.match(r"(?:[A-Za-z]*:?//)?(?:[^@/]*@)?([A-Za-z0-9.-]+)(?::([0-9]+))?", text[:300])
    host, given = match.groups() if match else ("", None)
    for near in (f"tls://{host}:{given}", f"tls://{host}:{port}"):
        if is_url(near):
            return f"say {near}"
    return f"say tls://nats.example:{port}, for example"


def near_whole(text: str, least: int, most: int) -> str:
    """The remedy for a text that is not a whole number."""
    if re.fullmatch(r"[1-9][0-9]{0,8}(\.0*)?", text) and least <= int(float(text)) <= most:
        return f"say {int(float(text))}"
    return f"say one from {least} to {most}"


def quoted(node: Node) -> str:
    """The remedy for a value that YAML does not take for text."""
    return f'write "{node.text}"' if isinstance(node, Scalar) and is_name(node.text) else "write a word"


def a(node: Node) -> str:
    """What a node is, with its article."""
    if isinstance(node, Sequence | Mapping):
        filled = node.items if isinstance(node, Sequence) else node.entries
        return f"a {node.kind}" if filled else "empty"
    return {"yes/no": "a yes or no", "text": "text", "nothing": "nothing"}.get(node.kind, f"a {node.kind}")
