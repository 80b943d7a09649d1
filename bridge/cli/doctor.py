"""``bunny doctor``: why it does not work, or soon will not."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bridge.cli.frame import AsJson, NotAsAsked, PolicyFile, example, run
from bridge.cli.out import Out
from bridge.cli.where import BRIDGE_FOLDER, POLICY_FILE, find_policy, read_policy
from bridge.devserver import Folder
from bridge.doctor import TIMEOUT_S, Check, Finding, Findings, Resolver, Site, Verdict, examine
from bridge.errors import BridgeError, ConfigurationError, TransportError, UsageError
from bridge.identity import ENVIRONMENT, PublicIdentity, load_keys
from bridge.member import folder_from_env
from bridge.policy import Policy, Role

_STYLES: Final = {
    Verdict.OK: "green",
    Verdict.INFO: "cyan",
    Verdict.WARNING: "yellow",
    Verdict.PROBLEM: "bold red",
    Verdict.NOT_RUN: "dim",
}

Identities = Annotated[
    list[Path] | None,
    typer.Option(
        "--identity",
        metavar="FOLDER",
        help="Connect as this identity. Again for more.",
        show_default=f"{ENVIRONMENT}, or all of .bunny",
    ),
]
Rendered = Annotated[
    Path | None,
    typer.Option("--rendered", metavar="DIR", help="What `bunny render` wrote.", show_default="rendered beside it"),
]
Pki = Annotated[
    Path | None, typer.Option("--pki", metavar="DIR", help="The certificates.", show_default="pki beside the policy")
]
BridgeDir = Annotated[
    Path | None,
    typer.Option("--dir", help="Where `bunny up` runs.", show_default=".bunny here or in a folder above"),
]
Monitors = Annotated[
    list[str] | None,
    typer.Option("--monitor", metavar="SERVER=URL", help="Its monitor, http://host:port.", show_default=False),
]
Stores = Annotated[
    list[str] | None,
    typer.Option("--store", metavar="SERVER=FOLDER", help="Its store on this machine.", show_default=False),
]
Asked = Annotated[
    str | None,
    typer.Option("--resolver", metavar="HOST:PORT", help="Ask this resolver.", show_default="as this machine does"),
]
ResolvConf = Annotated[
    Path | None,
    typer.Option("--resolv-conf", metavar="FILE", help="Search path as in this file.", show_default="/etc/resolv.conf"),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    lines = (
        "bunny doctor",
        "bunny doctor --identity /etc/bunny --timeout 2",
        "bunny doctor --monitor aws=http://127.0.0.1:8222",
    )
    app.command("doctor", epilog=example(*lines))(doctor)


def doctor(
    identity: Identities = None,
    policy: PolicyFile = None,
    rendered: Rendered = None,
    pki: Pki = None,
    folder: BridgeDir = None,
    monitor: Monitors = None,
    store: Stores = None,
    resolver: Asked = None,
    resolv_conf: ResolvConf = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for each probe.", min=0.1)] = TIMEOUT_S,
    as_json: AsJson = False,
) -> None:
    """Look at everything from names in the DNS to the policy on both sides, and say what is wrong and what to do.

    Run it where the trouble is: in a service's pod, on a server, on an operator's machine, beside a .bunny folder.
    It uses what is at hand there, changes nothing and stores nothing. What cannot be seen from there is "not run",
    which is no pass.

    Exit codes: 0 nothing is wrong, 1 warnings, 3 problems.
    """
    names = Resolver.system(resolv_conf) if resolv_conf is not None else Resolver.system()
    if resolver is not None:
        names = names.asking(*_host_and_port(resolver))
    site = _site(names, timeout, identity, policy, rendered, pki, folder, monitor or [], store or [])
    found = run(examine(site))
    out = Out(as_json)
    _show(out, found)
    counts = {verdict.value: found.count(verdict) for verdict in Verdict}
    out.result({"findings": [asdict(each) for each in found.sorted()], "counts": counts})
    problems, warnings = found.count(Verdict.PROBLEM), found.count(Verdict.WARNING)
    words = f"{_many(problems, 'problem')} and {_many(warnings, 'warning')}"
    if problems:
        raise NotAsAsked(TransportError(f"{words}; begin with the first"))
    if warnings:
        raise NotAsAsked(ConfigurationError(f"{words}; it works, and may not for long"))


# --- what is at hand -------------------------------------------------------------------------------


def _site(
    resolver: Resolver,
    timeout: float,
    given: Sequence[Path] | None,
    policy: Path | None,
    rendered: Path | None,
    pki: Path | None,
    folder: Path | None,
    monitors: Sequence[str],
    stores: Sequence[str],
) -> Site:
    in_pod = not given and folder is None and bool(os.environ.get(ENVIRONMENT))
    bridge = None if in_pod else _bridge(folder, given)
    path = find_policy(policy)
    values = read_policy(path) if policy is not None or path.exists() else None
    if bridge is not None:
        ready = _ready(bridge)
        return Site(
            resolver=resolver,
            timeout=timeout,
            identities=tuple(given or ()) or _identities(bridge, values),
            policy=values,
            keys=_keys(values, bridge.keys),
            rendered=rendered or bridge.rendered,
            pki=pki or bridge.pki,
            trust=bridge.path / "trust.json",
            monitors=_monitors(ready) | _pairs("--monitor", monitors),
            stores={
                **{each.name: each for each in sorted((bridge.path / "store").glob("*"))},
                **{name: Path(text) for name, text in _pairs("--store", stores).items()},
            },
            logs={each.stem: each for each in sorted((bridge.path / "logs").glob("*.log"))},
        )
    identities = tuple(given or ()) or ((folder_from_env(),) if in_pod else ())
    if not identities and values is None and not monitors:
        raise ConfigurationError(
            f"nothing to look at: name an identity folder with --identity (or {ENVIRONMENT}), or go where "
            f"{POLICY_FILE} or {BRIDGE_FOLDER} is"
        )
    beside = path.parent
    return Site(
        resolver=resolver,
        timeout=timeout,
        identities=identities,
        policy=values,
        keys=_keys(values, beside / "keys"),
        rendered=rendered or _if_there(beside / "rendered"),
        pki=pki or _if_there(beside / "pki"),
        trust=beside / "trust.json" if values is not None else None,
        monitors=_pairs("--monitor", monitors),
        stores={name: Path(text) for name, text in _pairs("--store", stores).items()},
    )


def _bridge(given: Path | None, identities: Sequence[Path] | None) -> Folder | None:
    """The folder of ``bunny up``, whether or not it runs: it is why one asks."""
    if given is not None:
        if not given.is_dir():
            raise ConfigurationError(f"{given}: not a folder; name the one that `bunny up` runs in")
        return Folder.at(given)
    if identities:
        return None
    for place in (Path.cwd(), *Path.cwd().parents):
        if (place / BRIDGE_FOLDER / "identities").is_dir():
            return Folder.at(place / BRIDGE_FOLDER)
    return None


def _ready(bridge: Folder) -> dict[str, Any]:
    try:
        return dict(bridge.read_ready()["clouds"])
    except BridgeError:
        return {}


def _monitors(ready: Mapping[str, Any]) -> dict[str, str]:
    """The monitor of every server by the server's name: its cloud's, or in a cluster that and a number."""
    found = {}
    for name, each in ready.items():
        servers = each.get("servers")
        if servers is None:
            found[name] = each["monitor"]
        else:
            found |= {f"{name}.{n}": server["monitor"] for n, server in enumerate(servers, 1)}
    return found


def _identities(bridge: Folder, policy: Policy | None) -> tuple[Path, ...]:
    """Every identity that connects: not the link's, and none that a former policy had."""
    folders = sorted(path.parent for path in bridge.path.glob("identities/*/connection.yaml"))
    if policy is None:
        return tuple(folders)
    known = {name for name, entry in policy.identities.items() if entry.role is not Role.LINK}
    return tuple(each for each in folders if each.name in known)


def _keys(policy: Policy | None, folder: Path) -> dict[str, PublicIdentity] | None:
    if policy is None or not folder.is_dir():
        return None
    try:
        return load_keys(folder, policy.accepted)
    except ConfigurationError:
        return None


def _if_there(folder: Path) -> Path | None:
    return folder if folder.is_dir() else None


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option}: {text[:40]!r} is not SERVER=VALUE")
        found[name] = value
    return found


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if ":" in text else (text, "", "53")
    if not host or not port.isdigit():
        raise UsageError(f"--resolver: {text[:40]!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


# --- what is said ----------------------------------------------------------------------------------


def _show(out: Out, found: Findings) -> None:
    findings = found.sorted()
    for check in Check:
        here = [each for each in findings if each.check is check]
        if not here:
            here = [Finding(check, "", Verdict.NOT_RUN, "nothing at hand to look at it with")]
        out.say(str(check), "bold")
        for each in here:
            _show_one(out, each)
    told = ", ".join(f"{found.count(verdict)} {verdict.value}" for verdict in Verdict if found.count(verdict))
    out.say()
    out.say(told)


def _show_one(out: Out, each: Finding) -> None:
    name = f"{each.trap}: " if each.trap else ""
    about = f"{each.about}: " if each.about else ""
    out.say(f"  {each.verdict.value:8} {about}{name}{each.seen}", _STYLES[each.verdict])
    if each.trap:
        out.say(f"           means: {each.means}")
        out.say(f"           do:    {each.do}")


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
