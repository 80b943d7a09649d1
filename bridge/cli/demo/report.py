"""How the demo tells what it saw: tables for people, one object for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.text import Text

from bridge.cli.demo.evidence import Evidence
from bridge.cli.demo.files import Skipped
from bridge.cli.demo.jobs import Tally
from bridge.cli.out import Out

SHOWN: Final = 5
"""Files named for each reason; ``--json`` names all."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that one run of the demo showed."""

    tally: Tally
    began: float
    """When the command began, by `time.perf_counter`."""
    memory: dict[str, int | None]
    """Peak bytes of each process."""
    evidence: Evidence | None
    """None if no job was answered rightly: then there is nothing to give evidence of."""

    @property
    def holds(self) -> bool:
        """Whether every answer is right and all evidence holds."""
        answered = self.tally.right > 0 and self.tally.right == self.tally.jobs
        return answered and self.evidence is not None and self.evidence.holds


def show(out: Out, report: Report) -> None:
    """Print the tables and the verdict."""
    tally = report.tally
    _show_skipped(out, tally.skipped, "skipped")
    _show_skipped(out, tally.wrong, "without a right answer")
    out.say()
    first = "none" if tally.first is None else f"{tally.first - report.began:.2f} s after the command began"
    rows: list[tuple[object, object]] = [
        ("jobs", f"{tally.jobs:,}, {tally.right:,} answered rightly"),
        ("bytes", f"{tally.size:,} in the files of answered jobs"),
        ("jobs/s", f"{tally.rate:,.1f}"),
        ("p50", _ms(tally.percentile(50))),
        ("p99", _ms(tally.percentile(99))),
        ("first result", first),
        *((f"peak memory, {name}", _mib(size)) for name, size in report.memory.items()),
    ]
    out.table(["what", "measured"], rows)
    out.say()
    if report.evidence is not None:
        _show_evidence(out, report.evidence)
    verdict = "all of it holds" if report.holds else "NOT all of it holds"
    out.say(verdict, style="green" if report.holds else "bold red")


def as_json(report: Report) -> dict[str, Any]:
    """The same for machines. Times in seconds, sizes in bytes."""
    tally, evidence = report.tally, report.evidence
    return {
        "holds": report.holds,
        "jobs": tally.jobs,
        "right": tally.right,
        "bytes": tally.size,
        "jobs_per_second": round(tally.rate, 2),
        "p50": tally.percentile(50),
        "p99": tally.percentile(99),
        "first_result": None if tally.first is None else tally.first - report.began,
        "peak_memory": report.memory,
        "wrong": [asdict(each) for each in tally.wrong],
        "skipped": [asdict(each) for each in tally.skipped],
        "evidence": None if evidence is None else {"holds": evidence.holds, **asdict(evidence)},
    }


def _show_evidence(out: Out, evidence: Evidence) -> None:
    rows = []
    kinds = Counter((link.version, link.group, link.cipher, link.in_clear) for link in evidence.links)
    for (version, group, cipher, in_clear), times in kinds.items():
        seen = f"{version}, {group}, {cipher}; " + ("bytes came in clear" if in_clear else "nothing before TLS")
        rows.append((_mark(evidence.link_holds), "link, as its relay saw it", f"{seen}; connections: {times}"))
    if not kinds:
        rows.append((_mark(False), "link, as its relay saw it", "no handshake was seen"))
    for store in evidence.stores:
        where = f"store of {store.cloud}, {store.files} files, {_mib(store.size)}"
        text = f"{store.found} times any of {store.samples} samples of 32 bytes; one planted in clear: {store.planted}"
        if not store.samples:
            text = "nothing to look for: no file has 32 bytes that would not occur by chance; name larger files"
        rows.append((_mark(store.holds), where, text))
    rows.append((_mark(evidence.stored_jobs > 0), "jobs that lay stored meanwhile", str(evidence.stored_jobs)))
    for attempt in evidence.attempts:
        said = attempt.words or ("refused, but its log does not say so" if attempt.refused else "NOT refused")
        ok = attempt.refused and bool(attempt.words)
        rows.append((_mark(ok), f"refused: {attempt.identity} {attempt.act}", f"the server: {said}"))
    out.table(["holds", "evidence", "seen"], rows)
    out.say()


def _show_skipped(out: Out, files: Sequence[Skipped], what: str) -> None:
    for reason, times in Counter(each.reason for each in files).most_common():
        out.say(f"{times} {what}: {reason}", style="yellow")
        named = [each.path for each in files if each.reason == reason]
        for path in named[:SHOWN]:
            out.say(f"  {path}")
        if len(named) > SHOWN:
            out.say(f"  and {len(named) - SHOWN} more (--json names all)")


def _mark(holds: bool) -> Text:
    return Text("yes", "green") if holds else Text("NO", "bold red")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


def _mib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / (1 << 20):,.1f} MiB"
