"""One screen of ``bunny top``: what was learnt, and how fast it moves, in at most 80 columns. No I/O."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bridge import subjects
from bridge.cli.out import printable
from bridge.cli.queuestate import Clouds, QueueState

UNKNOWN: Final = "?"
SILENT_S: Final = 5.0
"""The longest without a word of the copy's source that still counts as a link that is up: it speaks every second."""


@dataclass(slots=True)
class Rates:
    """How fast numbers grow, from one look to the next."""

    _before: dict[str, tuple[float, int]] = field(default_factory=dict)

    def of(self, name: str, value: int | None, now: float) -> float | None:
        """Per second since the last look; None at the first one, or where it is unknown now."""
        before = self._before.get(name)
        if value is None:
            self._before.pop(name, None)
            return None
        self._before[name] = (now, value)
        if before is None or now <= before[0] or value < before[1]:
            return None
        return (value - before[1]) / (now - before[0])


def snapshot(clouds: Clouds, rates: Rates, now: float, clock: dt.datetime) -> dict[str, Any]:
    """Everything a screen shows, for machines too; null is unknown.

    Args:
        clouds: What the inspectors learnt.
        rates: Of the looks before.
        now: Seconds of a clock that only goes forward.
        clock: The time of day, UTC.
    """
    states = clouds.queues()
    names = sorted({cloud for s in states for cloud in (s.settings.home, s.settings.work)})
    return {
        "time": clock.isoformat(timespec="seconds"),
        "clouds": {name: _cloud(name, clouds) for name in names},
        "links": _links(states),
        "queues": [_queue(state, rates, now, clock) for state in states],
    }


def screen(bridge: str, seen: dict[str, Any]) -> RenderableType:
    """A screen for people."""
    lines = [Text.assemble((bridge, "bold"), f"  {seen['time'][11:19]} UTC")]
    for name, cloud in seen["clouds"].items():
        state = Text("up", style="green") if cloud["up"] else Text(_why(cloud), style="red")
        size = "" if cloud["bytes"] is None else f"  {_size(cloud['bytes'])} stored"
        lines.append(Text.assemble(f"{name}: ", state, size))
    for link in seen["links"]:
        lines.append(Text.assemble(f"results {link['from']} -> {link['to']}: ", _heard(link["silent_s"])))
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold", expand=False)
    table.add_column("queue", max_width=16, overflow="ellipsis", no_wrap=True)
    for column in ("waiting", "oldest", "run", "pulls", "jobs/s", "lag", "dead", "refused"):
        table.add_column(column, justify="right", no_wrap=True)
    for queue in seen["queues"]:
        table.add_row(
            printable(queue["queue"]),
            _count(queue["waiting"]),
            _age(queue["oldest_s"]),
            _count(queue["in_flight"]),
            _count(queue["pulls"]),
            UNKNOWN if queue["results_per_s"] is None else f"{queue['results_per_s']:.0f}",
            _count(queue["lag"]),
            _count(queue["dead"], "red"),
            _count(queue["refused"], "red"),
        )
    return Group(*lines, Text(), table, Text(), Text("? unknown, which is not 0 · Ctrl-C ends", style="dim"))


def _cloud(name: str, clouds: Clouds) -> dict[str, Any]:
    infos = [info for (cloud, asset), info in clouds.answers.items() if cloud == name and "/" not in asset]
    up = name in clouds.asked and name not in clouds.problems
    return {
        "up": up,
        "problem": clouds.missing.get(name),
        "bytes": sum(info["state"]["bytes"] for info in infos) if up else None,
    }


def _links(states: list[QueueState]) -> list[dict[str, Any]]:
    """What the copies of results tell of the link: how long ago they last heard from the other cloud."""
    found: dict[tuple[str, str], float | None] = {}
    for state in states:
        way = (state.settings.work, state.settings.home)
        info = state.answers.get((state.settings.home, subjects.results_stream(state.name)))
        active = next((source.get("active", -1) for source in (info or {}).get("sources") or ()), None)
        silent = None if active is None else (float("inf") if active < 0 else active / 1e9)
        known = [each for each in (found.get(way), silent) if each is not None]
        found[way] = min(known) if known else None
    return [{"from": a, "to": b, "silent_s": silent} for (a, b), silent in sorted(found.items())]


def _queue(state: QueueState, rates: Rates, now: float, clock: dt.datetime) -> dict[str, Any]:
    home, work = state.settings.home, state.settings.work
    jobs = state.answers.get((home, subjects.jobs_stream(state.name)), {})
    written = state.answers.get((work, subjects.results_stream(state.name)), {}).get("state", {}).get("last_seq")
    copy = state.answers.get((home, subjects.results_stream(state.name)), {})
    return {
        "queue": state.name,
        "waiting": state.count("pending"),
        "delayed": state.count("delayed"),
        "oldest_s": _oldest(jobs.get("state"), clock),
        "in_flight": state.count("in_flight"),
        "pulls": state.count("pulls"),
        "results_per_s": rates.of(state.name, written, now),
        "lag": next((source.get("lag") for source in copy.get("sources") or ()), None),
        "dead": state.count("dead"),
        "refused": state.count("refused"),
    }


def _oldest(state: dict[str, Any] | None, clock: dt.datetime) -> float | None:
    """The age in seconds of the oldest job that is not done; 0 where there is none."""
    if state is None:
        return None
    if not state["messages"]:
        return 0.0
    # Nanoseconds are more than a datetime holds.
    first = dt.datetime.fromisoformat(state["first_ts"][:19]).replace(tzinfo=dt.UTC)
    return max((clock - first).total_seconds(), 0.0)


def _why(cloud: dict[str, Any]) -> str:
    return printable(str(cloud["problem"]))[:70]


def _heard(silent: float | None) -> Text:
    if silent is None:
        return Text("unknown", style="yellow")
    if silent > SILENT_S:
        return Text("silent" if silent == float("inf") else f"silent for {_age(silent)}", style="red")
    return Text(f"heard {silent:.1f} s ago", style="green")


def _count(number: int | None, alarm: str = "") -> Text:
    if number is None:
        return Text(UNKNOWN, style="yellow")
    if number >= 100_000:
        return Text(f"{number / 1e6:.1f}M" if number >= 1_000_000 else f"{number // 1000}k", style=alarm)
    return Text(str(number), style=alarm if number else "")


def _age(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _size(size: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size} {unit}"
        size //= 1024
    return f"{size} GiB"
