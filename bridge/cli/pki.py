"""``bunny pki``: issue, renew and check the certificates of the servers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bridge import pki as authority
from bridge.cli.frame import AsJson, NotAsAsked, PolicyFile, example
from bridge.cli.out import Out, when
from bridge.cli.where import find_policy, private_folder, read_policy
from bridge.errors import ConfigurationError
from bridge.pki import Certificate

_USES: Final = {
    "ca": "trust",
    "issuer": "signing",
    "clients": "services",
    "leafnodes": "link",
    "link": "link",
    "cluster": "routes",
}
"""What each certificate is for, by the stem of its file: in words that leave room for names in 80 columns."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    lines = ("bunny pki --cloud aws", "bunny pki --renew --cloud aws", "bunny pki --check pki")
    app.command("pki", epilog=example(*lines))(pki)


def pki(
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="A folder per cloud is made in it.", show_default="pki beside the policy"),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            help="A further name or address of the servers. Again for more; --renew keeps those that there are.",
            show_default=False,
        ),
    ] = None,
    cloud: Annotated[
        str | None, typer.Option("--cloud", help="This cloud alone, as each team does for its own.")
    ] = None,
    renew: Annotated[bool, typer.Option("--renew", help="Replace the servers' certificates; the roots stay.")] = False,
    check: Annotated[
        Path | None, typer.Option("--check", help="Only describe the certificates in this folder.", metavar="DIR")
    ] = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Issue a root, an issuer and the servers' certificates for each cloud.

    The servers' certificates live for a week: renew them daily, and servers take them up at a SIGHUP. Take root.key
    offline once it is made. Certificates from elsewhere do as well: put them in the same places, and --check them.
    """
    if check is not None and (folder or host or cloud or renew):
        raise typer.BadParameter("--check only describes: it takes no other option")
    out = Out(as_json)
    if check is not None:
        _report(out, authority.check(check), [])
        return
    path = find_policy(policy)
    values, folder = read_policy(path), folder or path.parent / "pki"
    private_folder(folder)
    if renew:
        written = [
            p
            for c in ([cloud] if cloud else values.clouds)
            for p in authority.renew(values, folder, c, hosts=host or ())
        ]
    else:
        written = authority.issue(values, folder, hosts=host or (), cloud=cloud)
    _report(out, [each for each in authority.check(folder) if each.path in written], written)
    if not renew:
        out.say()
        out.say(
            "Hand each ca.pem to the other team, take each root.key offline, and renew daily with `bunny pki --renew`."
        )


def _report(out: Out, found: list[Certificate], written: list[Path]) -> None:
    out.table(
        ("certificate", "for", "until", "names"),
        [
            (f"{each.cloud}/{each.path.name}", _USES.get(each.path.stem, ""), _until(each), ", ".join(each.names))
            for each in found
        ],
    )
    for path in written:
        if path.suffix == ".key":
            out.say(f"private  {path}")
    out.result({"certificates": [_values(each) for each in found], "written": [str(path) for path in written]})
    problems = [f"{each.path}: {problem}" for each in found for problem in each.problems]
    if problems:
        raise NotAsAsked(ConfigurationError("\n".join(problems)))


def _until(each: Certificate) -> str:
    left = each.not_after_ms / 1000 - time.time()
    days = f"{left / 86_400:.0f} d" if left > 0 else "expired"
    return f"{when(each.not_after_ms)[:10]} ({days}){', renew now' if each.renew else ''}"


def _values(each: Certificate) -> dict[str, Any]:
    return {
        "path": str(each.path),
        "cloud": each.cloud,
        "usages": list(each.usages),
        "names": list(each.names),
        "not_before_ms": each.not_before_ms,
        "not_after_ms": each.not_after_ms,
        "renew": each.renew,
        "problems": list(each.problems),
    }
