"""What runs come to: medians, the ratio of each pair, and a line for people."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.pace import Result


@dataclass(frozen=True, slots=True)
class Run:
    """One run, and the microseconds of processor that each process took for a job of it."""

    result: Result
    cost: Mapping[str, float]


def summary(window: int, jobs: int, runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """One window's medians, and the ratios of each pair of runs."""
    row: dict[str, Any] = {"window": window, "jobs": jobs, "repetitions": min(map(len, runs.values())), "sides": {}}
    for name, each in runs.items():
        times = sorted(t for run in each for t in run.result.times)
        row["sides"][name] = {
            "jobs_per_s": statistics.median(run.result.rate for run in each),
            "p50_ms": 1000 * times[len(times) // 2],
            "p99_ms": 1000 * times[len(times) * 99 // 100],
            "cpu_us": {who: statistics.median(run.cost[who] for run in each) for who in each[0].cost},
        }
    if "receipts" in runs and "bridge" in runs:
        row["cpu_ratios"] = {"receipts/bridge": _cost(runs["receipts"], runs["bridge"])}
    row["ratios"] = {
        f"{one}/{other}": _ratio(runs[one], runs[other])
        for one, other in (
            ("bridge", "floor"),
            ("pydantic", "floor"),
            ("bridge", "plain"),
            ("ledger", "bridge"),
            ("receipts", "bridge"),
        )
        if one in runs and other in runs
    }
    return row


def _ratio(one: Sequence[Run], other: Sequence[Run]) -> float:
    """How fast one side is, in units of the other's speed: the median over pairs that ran one after the other."""
    return statistics.median(a.result.rate / b.result.rate for a, b in zip(one, other, strict=True))


def _cost(one: Sequence[Run], other: Sequence[Run]) -> float:
    """What a job of one side takes of all processors, in units of the other's, likewise."""
    return statistics.median(sum(a.cost.values()) / sum(b.cost.values()) for a, b in zip(one, other, strict=True))


def line(row: Mapping[str, Any]) -> str:
    """A row for people."""
    lines = [f"window {row['window']}, {row['repetitions']} x {row['jobs']} jobs"]
    for name, side in row["sides"].items():
        cost = ", ".join(f"{who} {us:.0f}" for who, us in side["cpu_us"].items())
        lines.append(
            f"  {name:<9}{side['jobs_per_s']:7.0f}/s   p50 {side['p50_ms']:6.2f}   p99 {side['p99_ms']:6.2f} ms   "
            f"{sum(side['cpu_us'].values()):5.0f} us of CPU ({cost})"
        )
    lines.append("  " + "   ".join(f"{pair} {ratio:.2f}" for pair, ratio in row["ratios"].items()))
    for pair, ratio in row.get("cpu_ratios", {}).items():
        lines.append(f"  CPU a job, {pair} {ratio:.3f}")
    return "\n".join(lines)
