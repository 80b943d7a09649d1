"""``bunny prove``: what the policy allows and what it does not, tried live."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bridge.cli.explain import Places
from bridge.cli.frame import AsJson, BridgeFolder, NotAsAsked, PolicyFile, example, run
from bridge.cli.out import Out
from bridge.cli.proofs import signing_keys, tell_reports
from bridge.cli.where import find_bridge, find_policy, read_policy
from bridge.clock import now_ms
from bridge.devserver import Folder
from bridge.doctor.site import addresses
from bridge.errors import ConfigurationError, TransportError
from bridge.explain import Ground, Verb, explain
from bridge.files import write_file
from bridge.identity import ENVIRONMENT, IDENTITY_FILE, Identity
from bridge.member import folder_from_env
from bridge.policy import Policy
from bridge.prove import NOT_AT_HAND, TIMEOUT_S, Area, Outcome, Stand, Trial, prove
from bridge.prove.report import write

SHOWN: Final = 20
"""Differences of one identity that are printed for people; ``--json`` has all."""

Identities = Annotated[
    list[Path] | None,
    typer.Option(
        "--identity",
        metavar="FOLDER",
        help="Try as this identity. Again for more.",
        show_default=f"{ENVIRONMENT}, or all of the bridge that runs here",
    ),
]
Pki = Annotated[
    Path | None,
    typer.Option("--pki", metavar="DIR", help="The certificates.", show_default="pki of the bridge, or by the policy"),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    lines = (
        "bunny prove",
        "bunny prove --identity /etc/bunny --policy bridge.yaml --report aws.proof",
        "bunny prove --merge aws.proof azure.proof --report bridge.proof",
        "bunny prove --verify bridge.proof",
    )
    app.command("prove", epilog=example(*lines))(prove_it)


def prove_it(
    reports: Annotated[
        list[Path] | None, typer.Argument(metavar="REPORT", help="With --merge: those to make one of.")
    ] = None,
    identity: Identities = None,
    policy: PolicyFile = None,
    folder: BridgeFolder = None,
    pki: Pki = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for each exchange.", min=0.1)] = TIMEOUT_S,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write what is found, signed by each identity.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Try nothing: make one --report of several.")] = False,
    verify: Annotated[
        Path | None, typer.Option("--verify", metavar="FILE", help="Try nothing: verify a report, offline.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try everything that the policy allows and a systematic set of what it does not, and compare.

    As every identity whose private half is at hand, on the servers that run: each call of JetStream's API, other
    queues, other producers, acks, inboxes, wildcards, the servers' own subjects, the other cloud, headers that a stream
    would act on, and the link's port with each wrong credential. Nothing is stored, taken, changed or deleted, however
    wide a permission is found to be. An identity that is not at hand is "not run", which is no pass.

    A report has a line for each identity, signed with its key; lines of several holders are one report. To verify it
    takes the policy and the public keys beside it.

    Exit code 0: all were run, and everything is as the policy says; 1: what was run is, and some were not; 3: something
    differs; 4: a report that must not be believed.
    """
    path = find_policy(policy)
    values, out = read_policy(path), Out(as_json)
    if merge != bool(reports) or (merge and (report is None or verify is not None)):
        raise typer.BadParameter("say bunny prove --merge REPORT REPORT --report FILE", param_hint="--merge")
    if reports or verify is not None:
        tell_reports(out, values, path, reports or [verify or path], report)
        return
    stand = _stand(values, path, identity, folder, pki, timeout)
    signers = signing_keys(stand) if report is not None else {}
    started = time.monotonic()
    found = run(prove(stand))
    seconds = time.monotonic() - started
    if report is not None:
        write_file(report, write(found, values, signers, now_ms()))
    _tell(out, values, Places(path), found, seconds, report)


# --- what is at hand -------------------------------------------------------------------------------


def _stand(
    policy: Policy, path: Path, given: Sequence[Path] | None, folder: Path | None, pki: Path | None, timeout: float
) -> Stand:
    if given or (folder is None and os.environ.get(ENVIRONMENT)):
        folders = _named(given or [folder_from_env()], policy)
        beside = path.parent / "pki"
        urls = addresses(policy.hub.leafnodes or "")
        return Stand(policy, folders, pki or (beside if beside.is_dir() else None), urls, timeout)
    running = find_bridge(folder)
    here = Folder.at(running.folder)
    places = {name: here.identity(name) for name in policy.accepted}
    folders = {name: place for name, place in places.items() if (place / IDENTITY_FILE).exists()}
    return Stand(policy, folders, pki or here.pki, addresses(running.link["address"]), timeout)


def _named(folders: Sequence[Path], policy: Policy) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for each in folders:
        if not each.is_dir():
            raise ConfigurationError(f"{each}: not a folder; let --identity name an identity folder")
        name = Identity.load(each).name
        if name not in policy.accepted:
            raise ConfigurationError(
                f"{each}: {name} is no identity of the policy, or revoked; name the right one with --policy"
            )
        found[name] = each
    return found


# --- what is said ----------------------------------------------------------------------------------


def _tell(out: Out, policy: Policy, place: Places, found: Sequence[Trial], seconds: float, report: Path | None) -> None:
    ground = Ground(policy)
    out.table(_COLUMNS, [row for trial in found for row in _rows(trial)])
    for trial in found:
        _differences(out, ground, place, trial)
    acts = [each for trial in found for each in trial.outcomes]
    differing = sum(len(trial.differing) for trial in found)
    not_run = [trial.name for trial in found if not trial.whole]
    counted = Counter(each.expected.allowed for each in acts)
    out.say(
        f"{len(acts):,} acts in {seconds:.1f} s: {counted[True]:,} that the policy allows, {counted[False]:,} that "
        f"it does not; {differing:,} found otherwise"
    )
    if report is not None:
        out.say(f"wrote {report}; signed lines: {sum(not trial.not_run for trial in found)}")
    out.result(
        {
            "policy": policy.digest,
            "acts": len(acts),
            "allowed": counted[True],
            "refused": counted[False],
            "seconds": round(seconds, 3),
            "report": str(report) if report is not None else None,
            "identities": [_value(ground, trial) for trial in found],
            "not_run": not_run,
        }
    )
    if differing:
        raise NotAsAsked(TransportError(f"{differing} of {len(acts)} acts are not as the policy says"))
    if not_run:
        names = ", ".join(not_run)
        keys = all(trial.not_run in ("", NOT_AT_HAND) for trial in found)
        remedy = "run it where their keys are" if keys else "the reasons stand beside their names"
        raise NotAsAsked(ConfigurationError(f"not run, which is no pass: {names}; {remedy}"))


_COLUMNS: Final = ("identity", "what", "allowed", "refused", "found otherwise")


def _rows(trial: Trial) -> list[tuple[object, ...]]:
    if trial.not_run:
        return [(trial.name, f"not run: {trial.not_run}", "", "", "")]
    rows: list[tuple[object, ...]] = []
    for area in Area:
        here = [each for each in trial.outcomes if each.expected.act.area is area]
        if here:
            rows.append(("" if rows else trial.name, area.value, *_counts(here)))
    return rows


def _counts(outcomes: Sequence[Outcome]) -> tuple[str, str, str]:
    """How many were allowed and refused as expected, and how many were not."""
    equal = Counter(each.expected.allowed for each in outcomes if each.equal)
    otherwise = Counter(each.found.value for each in outcomes if not each.equal)
    told = ", ".join(f"{number} {found}" for found, number in sorted(otherwise.items()))
    return f"{equal[True]:,}" if equal[True] else "", f"{equal[False]:,}" if equal[False] else "", told


def _differences(out: Out, ground: Ground, place: Places, trial: Trial) -> None:
    differing = trial.differing
    for each in differing[:SHOWN]:
        expected = "allowed" if each.expected.allowed else "refused"
        out.say(f"{trial.name}: {each.expected.act}: found {each.found}, expected {expected}", "bold red")
        out.say(f"  {_why(ground, place, trial.name, each)}")
    if len(differing) > SHOWN:
        out.say(f"{trial.name}: and {len(differing) - SHOWN} more; see all with --json")
    if differing:
        out.say()


def _why(ground: Ground, place: Places, name: str, outcome: Outcome) -> str:
    act = outcome.expected.act
    if act.area is Area.PORT:
        return "nats-server's configuration of that port: leafnodes { tls }, and the link's user in accounts.conf"
    if act.area is Area.HEADERS:
        return "the stream takes another header than it is to: `bunny provision --dry-run` says which setting differs"
    said = explain(ground, ground.policy.identities[name], Verb(act.way), act.subject)
    if outcome.expected.allowed:
        reason = said.reasons[0]
        return f"granted by {place(reason.origin.at)}{reason.origin.why}: {reason.subject}"
    wall = said.stopped
    stopped = f"{wall.name}, {wall.where}: {wall.what}" if wall is not None else "nothing"
    return f"to be stopped by {stopped}"


def _value(ground: Ground, trial: Trial) -> dict[str, Any]:
    areas = {
        area.value: Counter(
            f"{'allowed' if each.expected.allowed else 'refused'}, found {each.found}"
            for each in trial.outcomes
            if each.expected.act.area is area
        )
        for area in Area
    }
    return {
        "identity": trial.name,
        "run": not trial.not_run,
        "reason": trial.not_run,
        "acts": len(trial.outcomes),
        "seconds": round(trial.seconds, 3),
        "areas": {name: dict(counts) for name, counts in areas.items() if counts},
        "differing": [
            {
                "act": each.expected.act.way,
                "subject": each.expected.act.subject,
                "with": each.expected.act.what,
                "expected": "allowed" if each.expected.allowed else "refused",
                "found": each.found.value,
            }
            for each in trial.differing
        ],
    }
