"""Writes what was measured into ``docs/performance.md``, and draws it.

``python -m bench.report jobs.json peers.json idle.json ...``: what ``python -m bench --json`` and the other benchmarks
printed, any of them; each document says which table it is. Tables go between their marks, the drawing of jobs and peers
into ``docs/performance.svg``. The same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from bench.rows import cell

DOCS: Final = Path(__file__).parent.parent / "docs"
NAMES: Final = {
    "bridge": "the bridge, JSON",
    "pydantic": "the bridge, models",
    "floor": "nats-py, tuned",
    "plain": "nats-py, plain",
    "ledger": "the bridge, ledger",
    "celery": "Celery, Redis",
    "dramatiq": "Dramatiq, Redis",
    "arq": "arq, Redis",
    "taskiq": "taskiq, Redis",
    "faststream": "FastStream, NATS",
}
WIDTH: Final = 720
BAR: Final = 18
LABEL: Final = 150
OURS: Final = "#2f6f9f"
OTHERS: Final = "#b9bec4"


def jobs_table(document: Mapping[str, Any]) -> str:
    """Each side at each window."""
    lines = [
        f"{document['size']} bytes there and back, durability `{document['durability']}`, medians.",
        "",
        "| in flight | | jobs/s | p50 ms | p99 ms | CPU a job, µs | producer | worker | hub | leaf |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in document["rows"]:
        for name, side in row["sides"].items():
            cpu = side["cpu_us"]
            each = " | ".join(f"{cpu[who]:.0f}" for who in ("producer", "worker", "hub", "leaf"))
            lines.append(
                f"| {row['window']} | {NAMES[name]} | {side['jobs_per_s']:,.0f} | {side['p50_ms']:.1f} | "
                f"{side['p99_ms']:.1f} | {sum(cpu.values()):,.0f} | {each} |"
            )
    pairs = [f"{row['window']} in flight: {_pairs(row['ratios'])}" for row in document["rows"]]
    return "\n".join([*lines, "", "Medians of the ratios of pairs that ran one after the other:", "", *_list(pairs)])


def peers_table(document: Mapping[str, Any]) -> str:
    """Each peer at each window, and how many times as fast the bridge was beside it."""
    lines = ["| in flight | durability | | jobs/s | p50 ms | p99 ms | the bridge beside it |", "|---" * 7 + "|"]
    for row in document["rows"]:
        for name, side in row["sides"].items():
            ratio = "" if name == "bridge" else f"{side['bridge_ratio']:.2f} ×"
            lines.append(
                f"| {row['window']} | {row['durability']} | {NAMES[name]} | {side['jobs_per_s']:,.0f} | "
                f"{side['p50_ms']:.1f} | {side['p99_ms']:.1f} | {ratio} |"
            )
    return "\n".join(lines)


def drawing(documents: Iterable[Mapping[str, Any]]) -> str:
    """Bars of jobs a second, a group for each window of each document."""
    groups = [
        (f"{title}, {row['window']} in flight", {NAMES[k]: v["jobs_per_s"] for k, v in row["sides"].items()})
        for title, document in zip(("Same hub and leaf", "Other queues"), documents, strict=False)
        for row in document["rows"]
    ]
    most, y, parts = max(max(bars.values()) for _, bars in groups), 20, list[str]()
    for title, bars in groups:
        parts.append(f'<text x="0" y="{y}" font-weight="bold">{escape(title)}: jobs/s</text>')
        for name, rate in bars.items():
            y += BAR + 4
            long = max(1, round(rate / most * (WIDTH - LABEL - 70)))
            colour = OURS if "bridge" in name else OTHERS
            parts.append(
                f'<text x="{LABEL - 6}" y="{y}" text-anchor="end">{escape(name)}</text>'
                f'<rect x="{LABEL}" y="{y - BAR + 5}" width="{long}" height="{BAR - 2}" fill="{colour}"/>'
                f'<text x="{LABEL + long + 5}" y="{y}">{rate:,.0f}</text>'
            )
        y += 36
    size = f'width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def placed(text: str, name: str, table: str) -> str:
    """The document with a table between its marks."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    found, count = re.subn(f"{begin}.*?{end}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"docs/performance.md: {count} places marked for {name}, where there is to be one")
    return found


def _pairs(ratios: Mapping[str, float]) -> str:
    return ", ".join(f"{one} {ratio:.2f} × {other}" for (one, other), ratio in _named(ratios))


def _named(ratios: Mapping[str, float]) -> Iterable[tuple[Sequence[str], float]]:
    return [([NAMES[each] for each in pair.split("/")], ratio) for pair, ratio in ratios.items()]


def _list(lines: Iterable[str]) -> list[str]:
    return [f"- {each}" for each in lines]


def rows_table(document: Mapping[str, Any]) -> str:
    """Of a benchmark whose rows all have the same headings."""
    names = list(document["rows"][0])
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(cell, row.values()))} |" for row in document["rows"])])


TABLES: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {"jobs": jobs_table, "peers": peers_table}
"""By what a document says it is; of all others `rows_table`."""


def main() -> None:
    """Read them, write the document and the drawing."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="what a benchmark printed with --json")
    documents = {each["what"]: each for each in (json.loads(path.read_text()) for path in parser.parse_args().files)}
    place = DOCS / "performance.md"
    text = place.read_text()
    for what, document in documents.items():
        text = placed(text, what, TABLES.get(what, rows_table)(document))
    place.write_text(text)
    if "jobs" in documents:
        drawn = [documents[what] for what in TABLES if what in documents]
        (DOCS / "performance.svg").write_text(drawing(drawn))


if __name__ == "__main__":
    main()
