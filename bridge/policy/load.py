"""`bridge.yaml` read into a `Policy`, or into one line for each of its mistakes."""

from __future__ import annotations

from collections.abc import Mapping as Mapping_
from pathlib import Path
from typing import Final

from bridge.errors import PolicyError
from bridge.policy.document import Mapping, Node, Scalar, Sequence, parse, shown
from bridge.policy.hints import nearest
from bridge.policy.parties import Declared, read_clouds, read_identities
from bridge.policy.quantities import spell_size
from bridge.policy.queues import read_queues
from bridge.policy.schedules import read_schedules
from bridge.policy.section import Problems, Section
from bridge.policy.values import DAY, HOUR, MIB, MINUTE, YEAR, IdentityEntry, Policy, Role, TrustPolicy

MAX_FILE: Final = MIB
"""Bytes of a policy file: far above what people review, far below what hurts to parse."""

_TOP: Final = ("version", "bridge", "clouds", "identities", "trust", "max_outage", "queues", "schedules", "revoked")
_TRUST: Final = ("threshold", "expires")


def load_policy(path: Path) -> Policy:
    """Load the policy.

    Raises:
        PolicyError: Its first mistake.
    """
    policy, problems = _load(path)
    if policy is None:
        raise problems[0]
    return policy


def check_policy(path: Path) -> list[PolicyError]:
    """Every mistake that can be found without guessing, in the order of the file's lines; empty if it loads."""
    return _load(path)[1]


def policy_lines(path: Path) -> dict[tuple[str, ...], int]:
    """Where everything stands: the line of each key and of each word of a list, by the keys that lead to it.

    Raises:
        PolicyError: It is not one plain YAML document.
    """
    problems = Problems(str(path))
    found: dict[tuple[str, ...], int] = {}
    left: list[tuple[tuple[str, ...], Node]] = [((), parse(_read(path, problems), problems.error)[0])]
    while left:
        at, node = left.pop()
        if isinstance(node, Mapping):
            for key, entry in node.entries.items():
                found[*at, key] = entry.key.line
                left.append(((*at, key), entry.node))
        elif isinstance(node, Sequence):
            found |= {(*at, item.text): item.line for item in node.items if isinstance(item, Scalar)}
    return found


def _load(path: Path) -> tuple[Policy | None, list[PolicyError]]:
    problems = Problems(str(path))
    try:
        node, twice = parse(_read(path, problems), problems.error)
    except PolicyError as error:
        return None, [error]
    problems.found += twice
    policy = _policy(problems, node)
    found = sorted(problems.found, key=lambda problem: problem.line)
    return (None, found) if found else (policy, [])


def _read(path: Path, problems: Problems) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise problems.error(0, "there is no such file", "let `bunny init` write one") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        why = (error.strerror if isinstance(error, OSError) else None) or "not a path"
        raise problems.error(0, f"cannot be read: {why}", "name a file that you may read") from None
    if len(data) > MAX_FILE:
        raise problems.error(0, f"larger than {spell_size(MAX_FILE)}", "a policy is a page: is this the right file?")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    raise problems.error(line, "not UTF-8", "save the file as UTF-8")


def _policy(problems: Problems, node: Node) -> Policy:
    """Read everything. What it returns is good only if no problem was noted."""
    top = Section(problems, "the policy", 1, node, _TOP)
    version = top.whole("version", None, 1, 2**31)
    if version != 1:
        top.note(top.line_of("version"), f"version {version} is not known to this release", "say version: 1")
    bridge = top.name("bridge", "add bridge: and a name for the trust domain")
    clouds = read_clouds(top)
    identities = read_identities(top, clouds)
    max_outage = top.duration("max_outage", 12 * HOUR, MINUTE, 30 * DAY)
    queues = read_queues(top, clouds, identities, max_outage)
    return Policy(
        bridge=bridge,
        clouds=clouds,
        identities={name: IdentityEntry(name, its.cloud, its.role or Role.SERVICE) for name, its in identities.items()},
        queues=queues,
        trust=_trust(top),
        max_outage_ms=max_outage,
        schedules=read_schedules(top, identities, queues),
        revoked=_revoked(top, identities),
    )


def _revoked(top: Section, identities: Mapping_[str, Declared]) -> tuple[str, ...]:
    if not top.has("revoked"):
        return ()
    names = top.texts("revoked", "say revoked: [NAME], or remove it")
    for name, line in names.items():
        if name not in identities:
            top.note(line, f"{shown(name)} is revoked and no identity of this policy", nearest(name, identities))
    return tuple(sorted(names))


def _trust(top: Section) -> TrustPolicy:
    default = TrustPolicy()
    section = top.section("trust", _TRUST)
    if section is None:
        return default
    return TrustPolicy(
        threshold=section.whole("threshold", default.threshold, 1, 16),
        expires_ms=section.duration("expires", default.expires_ms, HOUR, YEAR),
    )
