"""``bunny schedule``: what the policy submits by the clock, and when."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import typer

from bridge.cli.frame import AsJson, PolicyFile, example, group
from bridge.cli.out import Out
from bridge.cli.where import find_policy, read_policy
from bridge.clock import now_ms
from bridge.policy import Schedule
from bridge.policy.quantities import spell_duration
from bridge.ticks import Ticks, as_text, zone

MOST: Final = 100


def register(app: typer.Typer) -> None:
    """Add the group."""
    schedule = group("Look at recurring jobs.")
    schedule.command("ls", epilog=example("bunny schedule ls", "bunny schedule ls --next 5 --json"))(ls)
    app.add_typer(schedule, name="schedule")


def ls(
    following: Annotated[int, typer.Option("--next", min=1, max=MOST, help="Ticks of each to show.")] = 3,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """List the schedules of bridge.yaml with the last tick that there was and the next ones, in their time zones.

    It asks no server: whether a tick's job was submitted is among the metrics of the agents.
    """
    out, now = Out(as_json), now_ms()
    schedules = read_policy(find_policy(policy)).schedules.values()
    rows, values = [], []
    for each in schedules:
        last, ticks = _ticks(each, now, following)
        shown = [_local(tick, each) for tick in ticks]
        rows.append((each.name, f"{each.queue}/{each.kind}", each.agent, _when(each), each.missed, "\n".join(shown)))
        values.append(
            {
                "name": each.name,
                "queue": each.queue,
                "kind": each.kind,
                "agent": each.agent,
                "cron": each.cron or None,
                "timezone": each.timezone,
                "every_ms": each.every_ms or None,
                "missed": each.missed,
                "deadline_ms": each.deadline_ms,
                "last": as_text(last) if last is not None else None,
                "next": [as_text(tick) for tick in ticks],
            }
        )
    if rows:
        out.table(("schedule", "job", "agent", "when", "missed", "next"), rows)
    else:
        out.say("no schedules; bridge.yaml declares them under schedules:")
    out.result({"schedules": values})


def _ticks(schedule: Schedule, now: int, count: int) -> tuple[int | None, list[int]]:
    ticks = Ticks(schedule.cron, schedule.timezone, schedule.every_ms)
    before = ticks.newest(max(0, schedule.since_ms - 1), now, 1)
    found: list[int] = []
    after = max(now, schedule.since_ms - 1)
    while len(found) < count and (tick := ticks.next(after)) is not None:
        found.append(tick)
        after = tick
    return (before[0] if before else None), found


def _when(schedule: Schedule) -> str:
    return f"{schedule.cron} {schedule.timezone}" if schedule.cron else f"every {spell_duration(schedule.every_ms)}"


def _local(tick: int, schedule: Schedule) -> str:
    return f"{datetime.fromtimestamp(tick / 1000, zone(schedule.timezone)):%Y-%m-%d %H:%M:%S %z}"
