"""What a command prints: text and tables for people, or one JSON object for machines."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH: Final = 1000
"""Columns where there is no terminal: more than any table needs."""

_LAST_MS: Final = 253_402_300_799_000
"""The end of the year 9999."""


class Out:
    """Where a command prints. With ``as_json`` only `result` prints, so that stdout is one JSON object.

    Args:
        as_json: Whether ``--json`` was given.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        # No markup, no emoji: a name in square brackets is a name, and `:smile:` in a result is what was sent. Into a
        # pipe nothing is folded: lines are for grep there.
        width = None if sys.stdout.isatty() else PIPE_WIDTH
        self.console = Console(highlight=False, markup=False, emoji=False, quiet=as_json, width=width)

    def say(self, text: str = "", style: str = "") -> None:
        """Print lines for people. They are not wrapped: a path must stay one word."""
        self.console.print(printable(text), style=style or None, soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table for people. Cells are folded, never cut."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(str(cell))) for cell in row))
        self.console.print(table)
        self.console.print()

    def result(self, value: Mapping[str, Any]) -> None:
        """Print the JSON object, on one line, if that was asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, default=str) + "\n")
            sys.stdout.flush()


def printable(text: str) -> str:
    """The text without control characters: a file that someone else wrote must not drive the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def when(time_ms: int) -> str:
    """A time for people, to the minute: ``2026-03-01 12:30 UTC``."""
    return f"{moment(time_ms):%Y-%m-%d %H:%M} UTC"


def moment(time_ms: int) -> dt.datetime:
    """A time that someone else wrote; the last there is where it is beyond any calendar."""
    return dt.datetime.fromtimestamp(min(time_ms, _LAST_MS) / 1000, dt.UTC)
