"""A worker whose handlers write down when they run: ``python -m tests.integration.limited_worker FILE CONCURRENCY``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from consumers import Worker


@contextlib.contextmanager
def ledger(path: Path | str) -> Iterator[sqlite3.Connection]:
    """The file that all workers of a test write to."""
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE IF NOT EXISTS runs (pid, key, begun REAL, ended REAL, outcome)")
        yield connection
    finally:
        connection.close()


def working(path: str, concurrency: int) -> Worker:
    worker = Worker.from_env(concurrency=concurrency, drain_timeout=20)

    @worker.on_startup
    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    for kind in ("resize", "probe"):

        @worker.handler("thumbs", kind)
        async def run(args: dict[str, float | str]) -> int:
            # One clock for all processes of this machine.
            begun = time.monotonic()
            with ledger(path) as runs:
                row = runs.execute(
                    "INSERT INTO runs VALUES (?, ?, ?, NULL, NULL)", (os.getpid(), str(args["key"]), begun)
                ).lastrowid
            outcome = "stopped"
            try:
                await asyncio.sleep(float(args["seconds"]))
                outcome = "done"
            finally:
                with ledger(path) as runs:
                    changed = (time.monotonic(), outcome, row)
                    runs.execute("UPDATE runs SET ended = ?, outcome = ? WHERE rowid = ?", changed)
            return os.getpid()

    return worker


if __name__ == "__main__":
    working(sys.argv[1], int(sys.argv[2])).main()
