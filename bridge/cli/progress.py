"""A progress bar for payloads: how far, how fast, how long yet. On standard error, and for people alone."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

Told = Callable[[int], None]


@contextlib.contextmanager
def bar(what: str, total: Callable[[], int | None], *, shown: bool = True) -> Iterator[Told]:
    """A bar, to be told how many bytes there are so far.

    Args:
        what: A word before it.
        total: All of them, if they are known.
        shown: Whether there is one; there is none where standard error is no terminal.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(
        *columns, TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done: progress.update(task, completed=done, total=total())
