"""What one drill showed: a table for people, one object for machines."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bridge.cli.drill.audit import Count
from bridge.cli.drill.strike import Fault, Strike
from bridge.cli.out import Out

BACKLOG: Final = 2_000
"""Results owed when the link returns, from which on a cut is told of apart."""


@dataclass(frozen=True, slots=True)
class Row:
    """One fault, over all its strikes."""

    fault: Fault
    strikes: Sequence[Strike]
    count: Count

    @property
    def noticed(self) -> list[float]:
        """Seconds from each strike to the first sign, of those that were noticed."""
        return [each.noticed - each.struck for each in self.strikes if each.noticed is not None]

    @property
    def first(self) -> list[float]:
        """Seconds from when it was put right to the first result."""
        return [each.first - each.mended for each in self.strikes if each.first is not None]

    @property
    def drained(self) -> list[float]:
        """Seconds from when it was put right until every job stored by then had its result."""
        return [each.drained - each.mended for each in self.strikes if each.drained is not None]

    @property
    def problems(self) -> list[str]:
        """What else went wrong."""
        return [problem for strike in self.strikes for problem in strike.problems]


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    rows: Sequence[Row]
    total: Count
    seed: int
    rate: float
    seconds: float
    missing: Mapping[str, str] = field(default_factory=dict)
    """Faults that were not run, and why."""

    @property
    def injected(self) -> int:
        """How many faults."""
        return sum(len(row.strikes) for row in self.rows)

    @property
    def problems(self) -> list[str]:
        """Everything that went wrong, of whatever sort."""
        found = [f"{row.fault.name}: {problem}" for row in self.rows for problem in row.problems]
        return found + [f"{row.fault.name}: {example}" for row in self.rows for example in row.count.examples]

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, nothing happened twice, and every fault ended as it must."""
        bad = self.total.lost + self.total.doubled + self.total.failed
        return not bad and not self.problems and self.total.jobs > 0 and self.injected > 0


def report(
    faults: Iterable[Fault],
    strikes: Sequence[Strike],
    counts: Sequence[Count],
    *,
    seed: int,
    rate: float,
    took: float,
    missing: Mapping[str, str],
) -> Report:
    """Put together what belongs to each fault."""
    rows, total = [], Count()
    for each in counts:
        total.add(each)
    for fault in faults:
        mine = [n for n, strike in enumerate(strikes) if strike.fault == fault.name]
        if not mine:
            continue
        count = Count()
        for n in mine:
            count.add(counts[n])
        rows.append(Row(fault, [strikes[n] for n in mine], count))
    return Report(rows, total, seed, rate, took, missing)


def show(out: Out, report: Report) -> None:
    """Print the table and the verdict."""
    out.say()
    rows = [
        (
            row.fault.name,
            len(row.strikes),
            _span(row.noticed),
            _span(row.first),
            _span(row.drained),
            f"{row.count.longest:.1f}",
            f"{row.count.jobs:,}",
            f"{row.count.again} of {row.count.interrupted:,}",
            row.count.lost,
            row.count.doubled,
        )
        for row in report.rows
    ]
    columns = ("fault", "times", "noticed", "1st result", "drained", "longest", "jobs", "run again", "lost", "doubled")
    out.table(columns, rows)
    out.say("Seconds, median / longest: noticed from the fault on; 1st result, and all results that were owed, from")
    out.say("when it was put right; longest is a job's time from stored to answered. Run again: executions beyond the")
    out.say("first, of the attempts that a fault interrupted.")
    out.say()
    for what, row in _returns(report):
        out.say(f"The link's return, {what}: 1st result {_span(row.first)} s, drained {_span(row.drained)} s")
    for name, why in report.missing.items():
        out.say(f"{name}: not run; {why}", style="yellow")
    total = report.total
    out.say(
        f"{report.injected} faults, {total.jobs:,} jobs in {report.seconds:.0f} s: {total.lost} lost, "
        f"{total.doubled} doubled, {total.failed} with a wrong result; seed {report.seed}"
    )
    out.say(
        f"{total.again:,} run again where {total.interrupted:,} attempts were interrupted; "
        f"{total.unknown} not known to be stored, {total.unsent} never sent"
    )
    if total.late:
        out.say(f"{total.late:,} refused as too late, rightly: a clock was off by an hour")
    for problem in report.problems:
        out.say(f"  {problem}", style="yellow")
    verdict = "nothing lost, nothing doubled" if report.holds else "NOT all of it holds"
    out.say(verdict, style="green" if report.holds else "bold red")


def _returns(report: Report) -> list[tuple[str, Row]]:
    """The cuts of the link taken together, and those that left a backlog."""
    cuts = [row for row in report.rows if row.fault.cuts]
    strikes = [strike for row in cuts for strike in row.strikes if strike.drained is not None]
    long = [strike for strike in strikes if strike.owed >= BACKLOG]
    some = [("cuts", strikes), (f"cuts with {BACKLOG:,} results owed and more", long)]
    return [(f"{len(each)} {what}", Row(cuts[0].fault, each, Count())) for what, each in some if each]


def as_json(report: Report) -> dict[str, Any]:
    """The same for machines. Times in seconds."""
    return {
        "holds": report.holds,
        "seed": report.seed,
        "rate": report.rate,
        "seconds": round(report.seconds, 1),
        "injected": report.injected,
        "not_run": dict(report.missing),
        "returns": {
            what: {"first_result": _rounded(row.first), "drained": _rounded(row.drained)}
            for what, row in _returns(report)
        },
        "total": asdict(report.total),
        "faults": [
            {
                "fault": row.fault.name,
                "about": row.fault.about,
                "times": len(row.strikes),
                "noticed": _rounded(row.noticed),
                "signs": sorted({each.sign for each in row.strikes if each.sign}),
                "first_result": _rounded(row.first),
                "drained": _rounded(row.drained),
                "problems": row.problems,
                **asdict(row.count),
            }
            for row in report.rows
        ],
    }


def line(strike: Strike) -> str:
    """One strike, while the drill goes on."""
    seen = f"noticed after {strike.noticed - strike.struck:.1f} s" if strike.noticed is not None else "noticed by none"
    if strike.first is None or strike.drained is None:
        return f"{strike.fault}: {'; '.join(strike.problems)}"
    healed = f"1st result {strike.first - strike.mended:.1f} s, all {strike.drained - strike.mended:.1f} s after"
    return f"{strike.fault}: {seen}, {healed}" + "".join(f"; {problem}" for problem in strike.problems)


def _span(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} / {max(seconds):.1f}" if seconds else "-"


def _rounded(seconds: Sequence[float]) -> list[float]:
    return [round(each, 3) for each in seconds]
