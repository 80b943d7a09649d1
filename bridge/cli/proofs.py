"""Reports of ``bunny prove``: who signs them, and what several of them say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bridge.cli.frame import NotAsAsked
from bridge.cli.out import Out, when
from bridge.cli.where import BRIDGE_FOLDER
from bridge.crypto import SigningKey, VerifyKey
from bridge.devserver import Folder
from bridge.errors import ConfigurationError, TransportError
from bridge.explain import Ground
from bridge.files import read_file, write_file
from bridge.identity import Identity, PublicIdentity
from bridge.policy import Policy
from bridge.prove import ANYONE, Stand, Statement
from bridge.prove.report import read


def signing_keys(stand: Stand) -> dict[str, SigningKey]:
    """The newest signing key of each identity at hand.

    Raises:
        ConfigurationError: None of them has one.
    """
    identities = [Identity.load(folder) for folder in stand.folders.values()]
    found = {each.name: each.sign[-1] for each in identities if each.sign}
    if not found:
        raise ConfigurationError("a link has no key to sign with; name another identity too, with --identity")
    return found


def tell_reports(out: Out, policy: Policy, path: Path, reports: Sequence[Path], merged: Path | None) -> None:
    """Verify reports as one, print what they say, and write them as one where that is asked for.

    Raises:
        BadReport: One of them must not be believed.
    """
    ground, keys = Ground(policy), _PublicKeys(path)
    texts = [read_file(each) for each in reports]
    for each, text in zip(reports, texts, strict=True):
        read(text, str(each), ground, keys)  # by its own name, where it is at fault
    whole = b"".join(texts)
    said = read(whole, "the reports together", ground, keys)
    if merged is not None:
        write_file(merged, whole)
    _print(out, policy, said, merged)


class _PublicKeys:
    """Whose keys a signature may be, from ``keys/`` beside the policy or of the bridge that runs there.

    Args:
        path: The policy's file.
    """

    def __init__(self, path: Path) -> None:
        beside = path.parent / "keys"
        self._folder = beside if beside.is_dir() else Folder(path.parent / BRIDGE_FOLDER).keys

    def __call__(self, name: str) -> Sequence[VerifyKey]:
        return PublicIdentity.load(self._folder / f"{name}.json").sign


def _print(out: Out, policy: Policy, said: Sequence[Statement], merged: Path | None) -> None:
    missing = sorted({*policy.identities, ANYONE} - {each.identity for each in said})
    differing = sum(each.differing for each in said)
    partly = sorted({each.identity for each in said if each.not_run})
    out.table(
        ("identity", "when", "signed by", "acts", "found otherwise"),
        [(s.identity, when(s.time_ms), s.by, f"{s.acts:,}", _otherwise(s)) for s in said]
        + [(name, "not run", "", "", "") for name in missing],
    )
    for each in said:
        for line in each.otherwise:
            out.say(f"{each.identity}: {line}", "bold red")
    out.say(f"every line is signed, and about policy {policy.digest[:16]}", "bold")
    if merged is not None:
        out.say(f"wrote {merged}")
    out.result(
        {
            "policy": policy.digest,
            "acts": sum(each.acts for each in said),
            "differing": differing,
            "not_run": [*missing, *partly],
            "statements": [asdict(each) for each in said],
            "report": str(merged) if merged is not None else None,
        }
    )
    if differing:
        raise NotAsAsked(TransportError(f"{differing} acts were not as the policy says"))
    if missing or partly:
        raise NotAsAsked(ConfigurationError(f"not run, which is no pass: {', '.join([*missing, *partly])}"))


def _otherwise(said: Statement) -> str:
    words = [f"{said.differing:,}" if said.differing else "", f"{said.not_run} not run" if said.not_run else ""]
    return ", ".join(word for word in words if word)
