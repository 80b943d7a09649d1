"""``bunny revoke``: an identity, or the leaf, refused everywhere from now on."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge.cli.frame import AsJson, BridgeFolder, PolicyFile, example, run
from bridge.cli.out import Out
from bridge.cli.rotate.place import here
from bridge.cli.where import find_bridge, find_policy, read_policy
from bridge.devserver.revocation import Revoked
from bridge.devserver.revocation import revoke as revoke_here
from bridge.devserver.standing import Standing
from bridge.errors import ConfigurationError
from bridge.files import read_file, write_file
from bridge.policy import Policy, Role
from bridge.policy.hints import nearest

LEAF: Final = "leaf"
"""What stands for the identity of the link."""
_LINE: Final = re.compile(r"^revoked:[ ]*\[([^\]\n]*)\](.*)$", re.MULTILINE)

_NEXT: Final = (
    "merge {policy}: from then on every bundle and every rendered file has none of {names}",
    "holders of root keys: `bunny trust sign`, and deliver trust.json to every service of BOTH clouds, first of all: "
    "what was signed is refused within 5 s of that, queued or not; raise BUNNY_TRUST_MIN_VERSION where it is pinned",
    "whoever runs the servers in {where}: `bunny render`, accounts.conf and cluster.conf to each, SIGHUP: live "
    "connections are closed at once",
    "whoever runs the servers in {other}: the same, for what they no longer offer",
    "see that it is refused: `BUNNY_IDENTITY=FOLDER bunny doctor` with the folder of {names}",
    "to give it back: `bunny keys new` in a new folder, the new keys/NAME.json, and the name out of `revoked`",
)
_LINK: Final = (
    "of a link, what crosses ends with the hub's SIGHUP; its TCP connection stands until the hub's servers are "
    "restarted, one after another, and is refused then"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("revoke", epilog=example("bunny revoke bunny", "bunny revoke leaf --dry-run"))(revoke)


def revoke(
    name: Annotated[str, typer.Argument(help="The identity, or `leaf`: that of the link.", metavar="IDENTITY|leaf")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    folder: BridgeFolder = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Refuse an identity everywhere: its connections, what it signs, and what it signed.

    Its name goes into `revoked` of bridge.yaml. Of a bridge that `bunny up` runs here the rest follows: bundle,
    servers, live connections, and the proof, with the time that each took. Elsewhere it says who must do what.
    """
    out, path = Out(as_json), find_policy(policy)
    values = read_policy(path)
    names = _meant(values, name, path)
    text, revoked = _revoking(path, values, names)
    with contextlib.ExitStack() as stack:
        at: Standing | None = None
        if folder is not None or _runs():
            # Cut off before the servers knew, it is done again: then the file says it, and they do not.
            before = replace(values, revoked=tuple(each for each in values.revoked if each not in names))
            at = stack.enter_context(here(folder, path, before))
        if dry_run:
            out.say(f"would revoke {', '.join(names)} in {path}" + ("" if at is None else f" and in {at.folder.path}"))
            out.result({"revoked": names, "dry_run": True})
            return
        write_file(path, text)
        out.say(f"{path}: revoked: {', '.join(revoked.revoked)}", "bold")
        if at is None:
            _say_next(out, path, revoked, names)
            return
        done = run(revoke_here(replace(at, policy=revoked), names, out.say))
    _tell(out, names, done)


def _meant(policy: Policy, name: str, path: Path) -> list[str]:
    if name == LEAF and LEAF not in policy.identities:
        return [each.name for each in policy.identities.values() if each.role is Role.LINK]
    if name not in policy.identities:
        raise ConfigurationError(f"{name[:80]!r} is not an identity of {path}; {nearest(name, policy.identities)}")
    return [name]


def _revoking(path: Path, policy: Policy, names: list[str]) -> tuple[str, Policy]:
    """The policy's text and values with more names in ``revoked``."""
    text = read_file(path).decode()
    wanted = ", ".join(sorted({*policy.revoked, *names}))
    if _LINE.search(text):
        text = _LINE.sub(lambda found: f"revoked: [{wanted}]{found[2]}", text, count=1)
    elif policy.revoked:
        raise ConfigurationError(f"{path}: write revoked: [{wanted}] on one line, and run this again")
    else:
        text = f"{text.rstrip()}\n\n# Refused everywhere, whatever else names them.\nrevoked: [{wanted}]\n"
    return text, replace(policy, revoked=tuple(sorted({*policy.revoked, *names})))


def _runs() -> bool:
    try:
        find_bridge(None)
    except ConfigurationError:
        return False
    return True


def _say_next(out: Out, path: Path, policy: Policy, names: list[str]) -> None:
    links = any(policy.identities[name].role is Role.LINK for name in names)
    own = policy.hub.name if links else policy.identities[names[0]].cloud
    other = next(cloud for cloud in policy.clouds if cloud != own)
    said = ", ".join(names)
    lines = [line.format(policy=path, names=said, where=own, other=other) for line in _NEXT]
    if links:
        lines.insert(3, _LINK)
    for number, line in enumerate(lines, 1):
        out.say(f"{number}. {line}")
    out.result({"revoked": names, "policy": str(path), "next": lines})


def _tell(out: Out, names: list[str], done: Revoked) -> None:
    out.say(
        f"refused everywhere: connections after {done.cut_s:.1f} s, signatures after {done.refused_s:.1f} s", "bold"
    )
    out.result(
        {
            "revoked": names,
            "delivered_seconds": round(done.delivered_s, 3),
            "cut_seconds": round(done.cut_s, 3),
            "connections": done.connections,
            "refused_seconds": round(done.refused_s, 3),
            "stored": done.stored,
        }
    )
