"""What was found, signed by whoever found it: a line for each identity; lines of several are one report. No I/O.

A line is a DSSE envelope on one line. What was tried follows from the policy, so a line holds its digest, how many acts
there were, and those that were found otherwise; whoever verifies makes the list anew, and misses what was left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from bridge import dsse, strict_json
from bridge.crypto import SigningKey, VerifyKey
from bridge.errors import BadBundle, BadReport
from bridge.explain import Ground
from bridge.policy import Policy, Role
from bridge.prove.acts import Expectation, expectations, of_headers
from bridge.prove.link import of_anyone, of_holder
from bridge.prove.run import ANYONE, Trial
from bridge.prove.trial import Found
from bridge.versions import release

LISTED: Final = 200
"""Acts found otherwise that a line names; their number stands in it whatever it is."""

MAX_LINES: Final = 4096
"""Of a report; more identities than any policy has."""

_HEX: Final = re.compile(r"[0-9a-f]{64}")
_RELEASE: Final = re.compile(r"[0-9A-Za-z.+() ]{1,40}")
_FIELDS: Final = {
    *(
        "v",
        "bridge",
        "policy",
        "release",
        "time",
        "identity",
        "by",
        "acts",
        "tried",
        "differing",
        "not_run",
        "otherwise",
    )
}


@dataclass(frozen=True, slots=True)
class Statement:
    """What one identity found, as its line says."""

    identity: str
    by: str
    """Who signed it: the identity itself, or for what has no key to sign with any other of the bridge."""
    time_ms: int
    release: str
    acts: int
    differing: int
    not_run: int
    """Acts for which something was not at hand."""
    otherwise: tuple[str, ...]
    """The first `LISTED` that differ, in words."""


def tried(ground: Ground, name: str) -> list[Expectation]:
    """What an identity of the policy tries, or whoever has no key."""
    if name == ANYONE:
        return of_anyone(ground.policy)
    me = ground.policy.identities[name]
    if me.role is Role.LINK:
        return of_holder(ground, me)
    mine = expectations(ground, me)
    return [*mine, *of_headers(ground, me, mine)]


def write(trials: Sequence[Trial], policy: Policy, signers: Mapping[str, SigningKey], time_ms: int) -> bytes:
    """The report of what was run.

    Args:
        trials: What was found; those that were not run are left out.
        policy: The policy that it was held to.
        signers: The keys at hand to sign with, by identity: at least one.
        time_ms: When.
    """
    lines = []
    for trial in trials:
        if trial.not_run:
            continue
        by = trial.name if trial.name in signers else min(signers)
        payload = strict_json.dump(_payload(trial, policy, by, time_ms))
        signature = signers[by].sign(dsse.signed_bytes(payload, dsse.PROOF_TYPE))
        lines.append(dsse.encode(payload, [(signers[by].kid, signature)], dsse.PROOF_TYPE))
    return b"".join(lines)


def _payload(trial: Trial, policy: Policy, by: str, time_ms: int) -> strict_json.Object:
    return {
        "v": 1,
        "bridge": policy.bridge,
        "policy": policy.digest,
        "release": release(),
        "time": time_ms,
        "identity": trial.name,
        "by": by,
        "acts": len(trial.outcomes),
        "tried": _digest(each.expected for each in trial.outcomes),
        "differing": len(trial.differing),
        "not_run": sum(each.found is Found.NOT_RUN for each in trial.outcomes),
        "otherwise": [f"{each.expected.act}: {each.found}" for each in trial.differing[:LISTED]],
    }


def _digest(tried: Iterable[Expectation]) -> str:
    """SHA-256 over what was tried and what was expected of it, in whatever order."""
    lines = sorted(f"{each.act}\t{'allowed' if each.allowed else 'refused'}\n" for each in tried)
    return sha256("".join(lines).encode()).hexdigest()


def read(report: bytes, where: str, ground: Ground, keys: Callable[[str], Sequence[VerifyKey]]) -> list[Statement]:
    """Verify every line of a report.

    Args:
        report: The bytes.
        where: Its file, for errors.
        ground: The policy that it must be about, and what follows from it.
        keys: The public keys that an identity of the policy signs with.

    Returns:
        The newest statement of each identity, by name; of what has no key, the newest of everyone that speaks for it,
        so that no holder can talk another's finding away.

    Raises:
        BadReport: A line is not signed by whom it says, speaks for another, or is about another policy or other acts.
    """
    found: dict[tuple[str, str], Statement] = {}
    lines = report.splitlines()
    if not 0 < len(lines) <= MAX_LINES:
        raise BadReport(f"{where}: not a report of `bunny prove`")
    for number, line in enumerate(lines, 1):
        each = _statement(line, f"{where}:{number}", ground, keys)
        before = found.get((each.identity, each.by))
        if before is None or before.time_ms < each.time_ms:
            found[each.identity, each.by] = each
    return [found[who] for who in sorted(found)]


def _statement(line: bytes, where: str, ground: Ground, keys: Callable[[str], Sequence[VerifyKey]]) -> Statement:
    policy = ground.policy
    try:
        payload, signatures = dsse.decode(line, dsse.PROOF_TYPE)
        value = strict_json.parse_object(payload)
        strict_json.expect_keys(value, _FIELDS)
        said = _typed(value)
    except (BadBundle, ValueError):
        raise BadReport(f"{where}: not a line of a report of `bunny prove`") from None
    if said.by not in policy.identities or not (said.identity in policy.identities or said.identity == ANYONE):
        raise BadReport(f"{where}: of an identity that the policy has not; name the right policy with --policy")
    if said.by != said.identity and not _is_mute(policy, said.identity):
        raise BadReport(f"{where}: {said.by} speaks for {said.identity}, which has keys of its own")
    message = dsse.signed_bytes(payload, dsse.PROOF_TYPE)
    known = {key.kid: key for key in keys(said.by)}
    kid, signature = signatures[0]
    if len(signatures) != 1 or kid not in known or not known[kid].verify(signature, message):
        raise BadReport(f"{where}: not signed with a key of {said.by}, as keys/{said.by}.json has them")
    if (value["bridge"], value["policy"]) != (policy.bridge, policy.digest):
        raise BadReport(f"{where}: {said.identity} was tried under another policy, {value['policy'][:16]}")
    wanted = tried(ground, said.identity)
    if (value["acts"], value["tried"]) != (len(wanted), _digest(wanted)):
        theirs = f"it was tried by release {said.release}" if said.release != release() else "some are missing"
        raise BadReport(f"{where}: {said.identity} tried other acts than this release does; {theirs}")
    return said


def _is_mute(policy: Policy, name: str) -> bool:
    """Whether it has no key to sign with."""
    return name == ANYONE or policy.identities[name].role is Role.LINK


def _typed(value: strict_json.Object) -> Statement:
    texts = [value[name] for name in ("identity", "by", "release", "bridge", "policy", "tried")]
    numbers = [value[name] for name in ("time", "acts", "differing", "not_run")]
    otherwise: Any = value["otherwise"]
    if (
        value["v"] != 1
        or any(type(text) is not str or len(text) > 200 for text in texts)
        or any(type(number) is not int or not 0 <= number < 2**53 for number in numbers)
        or not _RELEASE.fullmatch(value["release"])
        or not _HEX.fullmatch(value["policy"])
        or type(otherwise) is not list
        or len(otherwise) > LISTED
        or any(type(each) is not str for each in otherwise)
    ):
        raise ValueError
    identity, by, release = texts[:3]
    time_ms, acts, differing, not_run = numbers
    return Statement(identity, by, time_ms, release, acts, differing, not_run, tuple(otherwise))
