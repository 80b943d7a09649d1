"""``bunny provision``: make the servers' streams and consumers what the plan says."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bridge.cli.frame import AsJson, BridgeFolder, NotAsAsked, example, run
from bridge.cli.out import Out
from bridge.cli.where import find_bridge
from bridge.errors import ConfigurationError
from bridge.identity import CA_FILE, ENVIRONMENT, Connection, Identity
from bridge.jetstream import JetStreamTransport, connect
from bridge.policy import Role
from bridge.policy.quantities import spell_duration, spell_size
from bridge.provision import MONITOR, Difference, Report, compare, load_plan

_DURATIONS: Final = frozenset({"max_age", "duplicate_window", "ack_wait", "idle_heartbeat"})
_SIZES: Final = frozenset({"max_bytes", "max_msg_size"})


def register(app: typer.Typer) -> None:
    """Add the command."""
    lines = ("bunny provision --dry-run", "bunny provision --identity /etc/bunny --plan rendered/aws/plan.json")
    app.command("provision", epilog=example(*lines))(provision)


def provision(
    identity: Annotated[
        Path | None,
        typer.Option("--identity", envvar=ENVIRONMENT, help="The provisioner's folder, with --plan.", metavar="FOLDER"),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="A rendered plan.json: provision that cloud.", metavar="FILE")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to try to connect.", min=0.1)] = 30.0,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Create and update streams and consumers to match the plan; nothing is ever deleted.

    If one change would lose what is stored, it is refused by name and nothing at all is changed. Without --plan, both
    clouds of the bridge that runs here are provisioned: then nothing is changed in either.
    """
    if plan is not None:
        if identity is None:
            raise typer.BadParameter(f"needs --identity FOLDER (or {ENVIRONMENT})", param_hint="--plan")
        targets = [(identity, plan)]
    else:
        bridge = find_bridge(folder)
        targets = [
            (place, bridge.folder / "rendered" / connection.cloud / "plan.json")
            for place in bridge.identities.values()
            if (connection := Connection.load(place)).role == Role.PROVISIONER
        ]
    reports = run(_all(targets, dry_run, timeout))
    out = Out(as_json)
    for report in reports:
        _show(out, report, dry_run)
    out.result({"dry_run": dry_run, "clouds": [_values(report) for report in reports]})
    refusals = [line for report in reports for line in report.refusals]
    if refusals:
        raise NotAsAsked(ConfigurationError("\n".join(refusals)))


async def _all(targets: list[tuple[Path, Path]], dry_run: bool, timeout: float) -> list[Report]:
    """Compare all before any is changed; what is copied is made before its copies."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for place, plan_file in targets:
            server, plan = await _server(place, plan_file, timeout)
            found.append(await compare(await stack.enter_async_context(server), plan))
        if dry_run or any(each.report.refusals for each in found):
            return [each.report for each in found]
        for each in found:
            await each.make_originals()
        return [await each.make_copies() for each in found]


async def _server(place: Path, plan_file: Path, timeout: float) -> tuple[JetStreamTransport, Mapping[str, Any]]:
    connection = Connection.load(place)
    if connection.role != Role.PROVISIONER:
        raise ConfigurationError(f"{place}: its role is {connection.role}; name the folder of a provisioner")
    plan = load_plan(plan_file)
    if connection.cloud != plan["cloud"]:
        raise ConfigurationError(f"{plan_file}: the plan of {plan['cloud']}, and {place} is of {connection.cloud}")
    seed = Identity.load(place).nkey_seed
    return await connect(connection, seed, place / CA_FILE, name=connection.identity, timeout=timeout), plan


def _show(out: Out, report: Report, dry_run: bool) -> None:
    out.say(f"{report.cloud}{' (dry run)' if dry_run else ''}", "bold")
    rows = [
        (change.asset, change.outcome.value, ", ".join(d.field for d in change.differences))
        for change in report.changes
    ]
    out.table(("asset", "would be" if dry_run else "is", "fields"), rows)
    changed = [(change.asset, *row) for change in report.changes for each in change.differences for row in _rows(each)]
    if changed:
        out.table(("asset", "field", "is" if dry_run or not report.applied else "was", "plan"), changed)
    for name in report.extra:
        out.say(f"{'consumer' if '/' in name else 'stream'} {name}: not in the plan, left alone")


def _rows(difference: Difference) -> Iterator[tuple[str, str, str]]:
    """A difference as rows of field, what there is, what is planned; of metadata each key that differs."""
    name, have, want = difference.field, difference.have, difference.want
    if name == "metadata":
        before = have or {}
        for key in sorted({*want, *(key for key in before if key.startswith(MONITOR))}):
            if before.get(key) != want.get(key):
                yield key, _spelled(key, before.get(key)), _spelled(key, want.get(key))
    else:
        yield name, _spelled(name, have), _spelled(name, want)


def _spelled(name: str, value: Any) -> str:  # noqa: ANN401 - JSON
    """A value as bridge.yaml would have it, where that is known."""
    if value is None:
        return "-"
    if name in _DURATIONS and value > 0 and value % 1_000_000 == 0:
        return spell_duration(value // 1_000_000)
    if name in _SIZES and value > 0:
        return spell_size(value)
    return value if isinstance(value, str) else json.dumps(value)


def _values(report: Report) -> dict[str, Any]:
    return {
        "cloud": report.cloud,
        "applied": report.applied,
        "changes": [
            {
                "stream": change.stream,
                "consumer": change.consumer or None,
                "outcome": change.outcome.value,
                "fields": [each.field for each in change.differences],
                "differences": [
                    {"field": each.field, "have": each.have, "want": each.want} for each in change.differences
                ],
            }
            for change in report.changes
        ],
        "refusals": report.refusals,
        "left": list(report.extra),
    }
