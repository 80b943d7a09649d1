"""Subjects with wildcards, as NATS understands them: ``*`` is one token, a last ``>`` one or more. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

_Branch: TypeAlias = "dict[str, _Branch]"

_END: Final = ""
"""Where a pattern ends: no token is empty."""


def is_subject(text: str) -> bool:
    """Whether a server takes it as a subject, with wildcards or without: printable tokens, ``>`` the last alone."""
    tokens = text.split(".")
    return all(t and t.isprintable() and " " not in t for t in tokens) and ">" not in tokens[:-1]


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one of a pattern's: ``*`` is one token, a last ``>`` one or more.

    As a server does it: a wildcard of ``subject`` is a token like any other.
    """
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(given) >= len(wanted) and all(a in ("*", b) for a, b in zip(wanted[:-1], given, strict=False))
    return len(wanted) == len(given) and all(a in ("*", b) for a, b in zip(wanted, given, strict=True))


class Patterns:
    """Many patterns, looked through at once: a policy of a hundred queues asks a million times whether one matches.

    Args:
        patterns: Each as `matches` takes it.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._root: _Branch = {}
        for pattern in patterns:
            branch = self._root
            for token in (*pattern.split("."), _END):
                branch = branch.setdefault(token, {})

    def match(self, subject: str) -> bool:
        """Whether any of them `matches` the subject."""
        branches = [self._root]
        for token in subject.split("."):
            if any(">" in branch for branch in branches):
                return True
            branches = [branch[taken] for branch in branches for taken in {token, "*"} if taken in branch]
        return any(_END in branch for branch in branches)


def covers(pattern: str, other: str) -> bool:
    """Whether everything that ``other`` stands for is one of the pattern's."""
    return matches(pattern, other) and (pattern.split(".")[-1] == ">" or other.split(".")[-1] != ">")


def overlaps(pattern: str, other: str) -> bool:
    """Whether some subject is one of both."""
    one, two = pattern.split("."), other.split(".")
    for a, b in zip(one, two, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(one) == len(two)
