"""``bunny rotate``: each key of a bridge replaced, as one act on this machine, or step by step where two must act."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from bridge.cli.frame import AsJson, BridgeFolder, NotAsAsked, PolicyFile, example, group, run
from bridge.cli.out import Out
from bridge.cli.rotate.place import here
from bridge.cli.rotate.stepwise import stepwise
from bridge.devserver import rotations, turnover
from bridge.devserver.rotations import Outcome, Told
from bridge.devserver.standing import Standing
from bridge.errors import ConfigurationError, UsageError
from bridge.rotation import KEM, NKEY, SIGN

Act: TypeAlias = Callable[[Standing, Sequence[str], Told], Awaitable[Outcome]]

_ACTS: Final[dict[str, tuple[Act, Act]]] = {
    SIGN: (rotations.rotate_sign, rotations.retire_sign),
    KEM: (rotations.rotate_kem, rotations.retire_kem),
    NKEY: (rotations.rotate_nkey, rotations.retire_nkey),
}
"""Each rotation, and its end alone: for what had to wait."""

Names = Annotated[
    list[str] | None, typer.Argument(help="Identities.", show_default="all that have such a key", metavar="[NAME]...")
]
Clouds = Annotated[list[str] | None, typer.Argument(help="Clouds.", show_default="both", metavar="[CLOUD]...")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        metavar="FOLDER",
        help="The next step for this identity folder, where no `bunny up` runs the bridge.",
        show_default=False,
    ),
]
Retire = Annotated[bool, typer.Option("--retire", help="Only drop old keys that nothing needs any more.")]
Keys = Annotated[
    Path | None,
    typer.Option("--keys", metavar="DIR", help="Where the public half goes.", show_default="keys beside the policy"),
]
OutFolder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Of a folder that cannot be written: where the changed copy goes."),
]
Inspectors = Annotated[
    list[Path] | None,
    typer.Option(
        "--inspector",
        metavar="FOLDER",
        help="With --retire: who looks what is stored, one for each cloud. Again for more.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    rotate = group("Replace keys while jobs flow; nothing is lost or refused.")
    rotate.command(
        "sign", epilog=example("bunny rotate sign relay-api", "bunny rotate sign --identity /etc/bunny/relay-api")
    )(sign)
    rotate.command("kem", epilog=example("bunny rotate kem bunny", "bunny rotate kem bunny --retire"))(kem)
    rotate.command("nkey", epilog=example("bunny rotate nkey bunny", "bunny rotate nkey azure-link"))(nkey)
    rotate.command("certs", epilog=example("bunny rotate certs", "bunny rotate certs azure"))(certs)
    rotate.command("ca", epilog=example("bunny rotate ca aws", "bunny rotate ca aws --dry-run"))(ca)
    rotate.command("roots", epilog=example("bunny rotate roots"))(roots)
    app.add_typer(rotate, name="rotate")


def sign(
    names: Names = None,
    identity: Folder = None,
    retire: Retire = False,
    keys: Keys = None,
    out: OutFolder = None,
    inspector: Inspectors = None,
    dry_run: DryRun = False,
    folder: BridgeFolder = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Replace the keys that identities sign with.

    The new key is made, the trust bundle signed with old and new, delivered, and then the new one signs. The old
    private key is deleted at once; its public half stays believed until nothing that it signed is stored, which
    --retire looks for. With --identity each run does the next step and says who must do what before the one after.
    """
    _rotate(SIGN, names, identity, retire, keys, out, inspector, dry_run, folder, policy, as_json)


def kem(
    names: Names = None,
    identity: Folder = None,
    retire: Retire = False,
    keys: Keys = None,
    out: OutFolder = None,
    inspector: Inspectors = None,
    dry_run: DryRun = False,
    folder: BridgeFolder = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Replace the keys that identities are sealed to: a new epoch.

    The new key is made, and its owner opens with both; then the trust bundle has both, and senders take the newer. The
    old private key is deleted once nothing that it opens is stored, which --retire looks for.
    """
    _rotate(KEM, names, identity, retire, keys, out, inspector, dry_run, folder, policy, as_json)


def nkey(
    names: Names = None,
    identity: Folder = None,
    retire: Retire = False,
    keys: Keys = None,
    out: OutFolder = None,
    dry_run: DryRun = False,
    folder: BridgeFolder = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Replace the NKeys that identities connect with, and that of the link.

    Servers accept old and new, services connect anew, and servers forget the old one when nobody is connected with it.
    """
    _rotate(NKEY, names, identity, retire, keys, out, None, dry_run, folder, policy, as_json)


def certs(
    clouds: Clouds = None,
    dry_run: DryRun = False,
    folder: BridgeFolder = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Replace the servers' certificates of the bridge that runs here, and dial the link with them.

    Elsewhere: `bunny pki --renew`, then a SIGHUP. docs/rotation.md says who does what.
    """
    _servers("certs", turnover.renew_certificates, clouds, dry_run, folder, policy, as_json)


def ca(
    clouds: Clouds = None,
    dry_run: DryRun = False,
    folder: BridgeFolder = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Replace the certificate authorities of the bridge that runs here.

    Servers and services of both clouds trust old and new, then the servers show certificates of the new one, then the
    old one is trusted by nobody. Elsewhere each team does its part; docs/rotation.md.
    """
    _servers("ca", turnover.replace_authorities, clouds, dry_run, folder, policy, as_json)


def roots(
    dry_run: DryRun = False, folder: BridgeFolder = None, policy: PolicyFile = None, as_json: AsJson = False
) -> None:
    """Replace the root keys of the trust bundle of the bridge that runs here.

    The bundle is signed by old and new, then roots.json names the new, then they sign alone. Elsewhere the holders of
    root keys do it in the same order; docs/rotation.md.
    """

    async def replace(at: Standing, _: Sequence[str], told: Told) -> Outcome:
        return await turnover.replace_roots(at, told)

    _servers("roots", replace, None, dry_run, folder, policy, as_json)


def _servers(
    kind: str,
    act: Act,
    clouds: list[str] | None,
    dry_run: bool,
    folder: Path | None,
    policy: Path | None,
    as_json: bool,
) -> None:
    out = Out(as_json)
    with here(folder, policy) as at:
        if dry_run:
            meant = clouds or [at.policy.hub.name, at.policy.leaf.name]
            out.say(f"would replace {kind}" + ("" if kind == "roots" else f" of {', '.join(meant)}"))
            out.result({"kind": kind, "names": [] if kind == "roots" else meant, "dry_run": True})
            return
        _tell(out, kind, act, at, clouds or [])


def _rotate(
    kind: str,
    names: list[str] | None,
    identity: Path | None,
    retire: bool,
    keys: Path | None,
    changed: Path | None,
    inspectors: list[Path] | None,
    dry_run: bool,
    folder: Path | None,
    policy: Path | None,
    as_json: bool,
) -> None:
    out = Out(as_json)
    if identity is not None:
        if names or folder:
            raise UsageError("--identity names one folder: leave NAME and --dir out")
        stepwise(out, kind, identity, policy, keys, changed, inspectors or [], retire=retire, dry_run=dry_run)
        return
    if keys or changed or inspectors:
        raise UsageError("--keys, --out and --inspector go with --identity")
    with here(folder, policy) as at:
        if dry_run:
            meant = rotations.chosen(at, names or (), kind)
            out.say(f"would {'drop the old' if retire else 'replace the'} {kind} keys of {', '.join(meant)}")
            out.result({"kind": kind, "names": meant, "dry_run": True})
            return
        _tell(out, kind, _ACTS[kind][1 if retire else 0], at, names or [])


def _tell(out: Out, kind: str, act: Act, at: Standing, names: Sequence[str]) -> None:
    lines: list[str] = []

    def told(line: str) -> None:
        lines.append(line)
        out.say(line)

    async def rotated() -> Outcome:
        return await act(at, names, told)

    outcome = run(rotated())
    if outcome.complete:
        out.say("done: nothing of the old keys is left", "bold green")
    else:
        out.say(f"done: the new keys are in use. Later: `bunny rotate {kind} --retire`", "bold")
    out.result({"kind": kind, "did": lines, "complete": outcome.complete, "left": outcome.left})
    if kind == NKEY and not outcome.complete:
        raise NotAsAsked(ConfigurationError(outcome.left))
