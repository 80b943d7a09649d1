"""The ledger: a plain SQLite file outside the bridge, written by whoever submits and by the handler itself.

It is what the bridge is judged by, so nothing in it comes from a broker: a producer writes each job before it submits
it, when it is told that the job is stored, and when it has the result; a handler writes when it begins and ends. Times
are of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from time import monotonic
from typing import Final, Literal

ENVIRONMENT: Final = "BUNNY_DRILL_LEDGER"
FILE: Final = "ledger.sqlite"
DISOWNED: Final = "ProducerKilled"
BUSY_S: Final = 30.0
DEADLINE_S: Final = 1800.0
"""Of a job that does not say otherwise."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
  id INTEGER PRIMARY KEY, queue TEXT NOT NULL, deadline REAL NOT NULL, intended REAL NOT NULL,
  stored REAL, token TEXT, refused TEXT, answered REAL);
CREATE INDEX IF NOT EXISTS open_jobs ON jobs (stored) WHERE stored IS NOT NULL AND answered IS NULL;
CREATE INDEX IF NOT EXISTS moving_jobs ON jobs (id) WHERE answered IS NULL AND refused IS NULL;
CREATE INDEX IF NOT EXISTS jobs_token ON jobs (token);
CREATE TABLE IF NOT EXISTS recovered (token TEXT PRIMARY KEY, queue TEXT NOT NULL, at REAL NOT NULL, job INTEGER);
CREATE TABLE IF NOT EXISTS results (job INTEGER NOT NULL, at REAL NOT NULL, status TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS results_at ON results (at);
CREATE INDEX IF NOT EXISTS results_job ON results (job);
CREATE TABLE IF NOT EXISTS effects (
  id INTEGER PRIMARY KEY, job INTEGER NOT NULL, pid INTEGER NOT NULL, attempt INTEGER NOT NULL,
  began REAL NOT NULL, ended REAL);
CREATE INDEX IF NOT EXISTS effects_job ON effects (job);
CREATE INDEX IF NOT EXISTS effects_began ON effects (began);
CREATE TABLE IF NOT EXISTS said (pid INTEGER NOT NULL, word TEXT NOT NULL, at REAL NOT NULL);
"""


class Ledger:
    """One process's connection to the ledger. Each call is one transaction, durable against the process's own death.

    Args:
        path: The file.
    """

    def __init__(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")  # the machine is not what fails here
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def say(self, word: str) -> None:
        """This process has come so far."""
        self._db.execute("INSERT INTO said VALUES (?, ?, ?)", (os.getpid(), word, monotonic()))

    def said(self, pid: int, word: str, since: float = 0.0) -> bool:
        """Whether a process has come so far since then."""
        query = "SELECT 1 FROM said WHERE pid = ? AND word = ? AND at >= ?"
        return self._db.execute(query, (pid, word, since)).fetchone() is not None

    # --- the producer ------------------------------------------------------------------------------

    def intend(self, queue: str, deadlines: Sequence[float] = (DEADLINE_S,)) -> list[int]:
        """Jobs that are about to be submitted, with so many seconds each: their numbers."""
        now = monotonic()
        with self._transaction():
            insert = "INSERT INTO jobs (queue, deadline, intended) VALUES (?, ?, ?) RETURNING id"
            return [self._db.execute(insert, (queue, seconds, now)).fetchone()[0] for seconds in deadlines]

    def stored(self, job: int, token: str) -> None:
        """The producer was told that the job is stored: from now on its result is owed."""
        self._db.execute("UPDATE jobs SET stored = ?, token = ? WHERE id = ?", (monotonic(), token, job))

    def refused(self, job: int, error: str) -> None:
        """The producer was told that the job is not stored, or not known to be."""
        self._db.execute("UPDATE jobs SET refused = ? WHERE id = ?", (error, job))

    def disowned(self, queues: Collection[str]) -> None:
        """The producer is dead: what it did not know to be stored is in its outbox, or was never sent."""
        update = "UPDATE jobs SET refused = ? WHERE stored IS NULL AND refused IS NULL AND queue = ?"
        for queue in queues:
            self._db.execute(update, (DISOWNED, queue))

    def result(self, job: int, status: str) -> None:
        """The producer has a result."""
        now = monotonic()
        with self._transaction():
            self._db.execute("INSERT INTO results VALUES (?, ?, ?)", (job, now, status))
            self._db.execute("UPDATE jobs SET answered = ? WHERE id = ?", (now, job))

    def recover(self, queue: str, tokens: Collection[str]) -> list[str]:
        """The producer found these in its outbox: those that it was never told to be stored, and are owed now."""
        known = "SELECT 1 FROM jobs WHERE token = ?"
        new = [token for token in tokens if self._db.execute(known, (token,)).fetchone() is None]
        insert = "INSERT OR IGNORE INTO recovered (token, queue, at) VALUES (?, ?, ?)"
        self._db.executemany(insert, [(token, queue, monotonic()) for token in new])
        return new

    def found(self, token: str, job: int) -> None:
        """The result of a job that was recovered says which it is."""
        update = (
            "UPDATE jobs SET token = ?1, refused = NULL, stored = (SELECT at FROM recovered WHERE token = ?1) "
            "WHERE id = ?2"
        )
        with self._transaction():
            self._db.execute("UPDATE recovered SET job = ? WHERE token = ?", (job, token))
            self._db.execute(update, (token, job))

    def owed(self, queues: Collection[str]) -> list[tuple[int, str]]:
        """Jobs that were stored and have no result yet, with their tokens."""
        query = "SELECT id, token FROM jobs WHERE stored IS NOT NULL AND answered IS NULL AND queue = ? ORDER BY id"
        return [row for queue in queues for row in self._db.execute(query, (queue,)).fetchall()]

    # --- the handler -------------------------------------------------------------------------------

    def begin(self, job: int, pid: int, attempt: int) -> int:
        """A handler begins: this is the effect that is counted."""
        insert = "INSERT INTO effects (job, pid, attempt, began) VALUES (?, ?, ?, ?) RETURNING id"
        return int(self._db.execute(insert, (job, pid, attempt, monotonic())).fetchone()[0])

    def end(self, effect: int) -> None:
        """The same handler returns."""
        self._db.execute("UPDATE effects SET ended = ? WHERE id = ?", (monotonic(), effect))

    # --- what the drill waits for ------------------------------------------------------------------

    def open(self, until: float = float("inf")) -> int:
        """How many jobs stored, or recovered, by then have no result."""
        query = (
            "SELECT (SELECT count(*) FROM jobs WHERE stored IS NOT NULL AND answered IS NULL AND stored <= ?1) + "
            "(SELECT count(*) FROM recovered WHERE job IS NULL AND at <= ?1)"
        )
        return int(self._db.execute(query, (until,)).fetchone()[0])

    def results_since(self, at: float, queue: str) -> int:
        """How many results of a queue came after that."""
        query = "SELECT count(*) FROM results JOIN jobs ON jobs.id = job WHERE at > ? AND queue = ?"
        return int(self._db.execute(query, (at, queue)).fetchone()[0])

    def first_result(self, after: float, queues: Collection[str]) -> float | None:
        """When each of some queues had had a result after that; None while one of them has not."""
        query = "SELECT min(at) FROM results JOIN jobs ON jobs.id = job WHERE at > ? AND queue = ?"
        firsts = [_time(self._db.execute(query, (after, queue)).fetchone()) for queue in queues]
        came = [first for first in firsts if first is not None]
        return max(came) if len(came) == len(firsts) else None

    def first_again(self, after: float) -> float | None:
        """When the first job was started again after that."""
        query = "SELECT min(began) FROM effects WHERE began > ? AND attempt > 1"
        return _time(self._db.execute(query, (after,)).fetchone())

    def runs(self, job: int) -> list[tuple[int, float | None]]:
        """Who began the job, and when each was done."""
        return self._db.execute("SELECT pid, ended FROM effects WHERE job = ? ORDER BY id", (job,)).fetchall()

    def done_by(self, pid: int) -> int:
        """How many handlers of a process have returned."""
        query = "SELECT count(*) FROM effects WHERE pid = ? AND ended IS NOT NULL"
        return int(self._db.execute(query, (pid,)).fetchone()[0])

    def under_way(self, queue: str, until: float = float("inf")) -> int:
        """How many jobs of a queue, of those intended by then, are being submitted or owed a result."""
        query = (
            "SELECT (SELECT count(*) FROM jobs WHERE answered IS NULL AND refused IS NULL AND queue = ?1 "
            "AND intended <= ?2) + (SELECT count(*) FROM recovered WHERE job IS NULL AND queue = ?1 AND at <= ?2)"
        )
        return int(self._db.execute(query, (queue, until)).fetchone()[0])

    def refusal(self, job: int) -> str | None:
        """By what error the producer was told that a job is not stored, or not known to be."""
        found = self._db.execute("SELECT refused FROM jobs WHERE id = ?", (job,)).fetchone()
        return None if found is None else found[0]

    def is_stored(self, job: int) -> bool:
        """Whether the producer was told that the job is stored."""
        query = "SELECT 1 FROM jobs WHERE id = ? AND stored IS NOT NULL"
        return self._db.execute(query, (job,)).fetchone() is not None

    def outcomes(self, queue: str, since: float, until: float) -> list[tuple[float, str]]:
        """The deadlines of jobs that were submitted in that time, each with what it ended with."""
        query = (
            "SELECT deadline, status FROM jobs JOIN results ON job = jobs.id "
            "WHERE queue = ? AND intended > ? AND intended < ?"
        )
        return self._db.execute(query, (queue, since, until)).fetchall()

    def status(self, job: int) -> str | None:
        """What the job ended with."""
        found = self._db.execute("SELECT status FROM results WHERE job = ?", (job,)).fetchone()
        return None if found is None else str(found[0])

    def highest_attempt(self, since: float) -> int:
        """The highest attempt that a handler was told since then."""
        found = self._db.execute("SELECT max(attempt) FROM effects WHERE began > ?", (since,)).fetchone()
        return int(found[0] or 0)

    def longest(self, queue: str, since: float) -> float:
        """The longest that a job of the queue, stored since then, has waited for its result."""
        query = "SELECT max(coalesce(answered, ?) - stored) FROM jobs WHERE queue = ? AND stored >= ?"
        return float(self._db.execute(query, (monotonic(), queue, since)).fetchone()[0] or 0)

    # --- what the audit reads ----------------------------------------------------------------------

    def jobs(self) -> Sequence[tuple[int, str, float, float, float | None, str | None]]:
        """Every job: number, queue, deadline in seconds, intended, stored, refused."""
        return self._db.execute(
            "SELECT id, queue, deadline, intended, stored, refused FROM jobs ORDER BY id"
        ).fetchall()

    def unanswered(self) -> Sequence[float]:
        """When each job was recovered whose result has not come."""
        return [at for (at,) in self._db.execute("SELECT at FROM recovered WHERE job IS NULL").fetchall()]

    def results(self) -> Sequence[tuple[int, float, str]]:
        """Every result: job, when, status."""
        return self._db.execute("SELECT job, at, status FROM results ORDER BY at").fetchall()

    def effects(self) -> Sequence[tuple[int, int, int, float, float | None]]:
        """Every execution: job, process, attempt, began, ended."""
        return self._db.execute("SELECT job, pid, attempt, began, ended FROM effects ORDER BY id").fetchall()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """Takes the write lock at once: one that is upgraded later is refused where another wrote meanwhile."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, traceback: object) -> Literal[False]:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
        return False


def _time(row: tuple[float | None]) -> float | None:
    return row[0]
