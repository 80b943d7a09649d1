"""Measurements whose result is a plain table: printed row by row, and as one document for `bench.report`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeAlias

import uvloop

from bridge.observe import configure

Row: TypeAlias = Mapping[str, str | int | float]
"""What stands under each heading."""


def run(
    what: str, parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], AsyncIterator[Row]]
) -> None:
    """Parse, measure, and print each row as it comes; with ``--json`` all of them as one document at the end.

    Args:
        what: Which table of ``docs/performance.md`` it is.
        parser: With options of its own.
        measure: Yields rows with the same headings.
    """
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args()
    configure(level="error")

    async def all_of_them() -> list[Row]:
        found = []
        async for row in measure(options):
            print(", ".join(f"{name} {cell(value)}" for name, value in row.items()), file=sys.stderr, flush=True)
            found.append(row)
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(all_of_them())
    if options.json:
        print(json.dumps({"what": what, "rows": rows}, indent=2))


def cell(value: str | float) -> str:
    """A value as it stands in a table: three figures of what is not whole."""
    if isinstance(value, str):
        return value
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
