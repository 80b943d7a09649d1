"""The ledger's file: one SQLite table of jobs, written by one process (``docs/spec.md``, 7.10).

A write is one call of some 50 µs that waits for no disk: it goes to the write-ahead log, in the operating system's
memory, where a kill -9 leaves it. Bringing the log into the table waits for the disk, and is done in a thread.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from bridge.errors import ConfigurationError

FILE: Final = "ledger.sqlite"
LOCK: Final = "ledger.lock"
VERSION: Final = 1
APPLICATION: Final = 0x42424C31
"""``BBL1``, so that no other program's file is taken for a ledger."""
PAGE: Final = 2048
"""Bytes: a small result takes 2.3 KB, of which pages of 4,096 would hold one each."""
CHECKPOINT: Final = 4 << 20
"""Bytes written to the log after which it is brought into the table."""
LONGEST_LOG: Final = 32 << 20
"""Bytes of the log from which on a write waits until all of it is: a worker that never pauses would let it grow."""
BUSY_S: Final = 5.0

_CORRUPT: Final = frozenset({11, 26})
"""SQLITE_CORRUPT, SQLITE_NOTADB."""
_SCHEMA: Final = """\
CREATE TABLE jobs (
  job TEXT NOT NULL PRIMARY KEY,
  digest BLOB NOT NULL,
  tag BLOB NOT NULL,
  attempt INTEGER NOT NULL,
  until INTEGER NOT NULL,
  result BLOB
);
CREATE INDEX jobs_until ON jobs (until);
"""
_PUT: Final = """\
INSERT INTO jobs (job, digest, tag, attempt, until, result) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (job) DO UPDATE SET digest = excluded.digest, tag = excluded.tag, attempt = excluded.attempt,
  until = excluded.until, result = excluded.result"""
_FIND: Final = "SELECT digest, tag, attempt, result FROM jobs WHERE job = ? AND until > ?"
_FORGET: Final = "DELETE FROM jobs WHERE rowid IN (SELECT rowid FROM jobs WHERE until <= ? ORDER BY until LIMIT ?)"
_PROBE: Final = "probe"
"""No job has this name."""


class Row(NamedTuple):
    """What is remembered of one generation of a job."""

    digest: bytes
    """Of the producer's envelope."""
    tag: bytes
    """Kind and arguments of a keyed job; empty for others."""
    attempt: int
    """The last one started here."""
    result: bytes | None
    """As it was, or was to be, published; None while the job is not answered here."""


class LedgerTrouble(Exception):
    """The file cannot be read or written now.

    Args:
        reason: SQLite's words.
        lasting: Whether it is damaged, which no waiting mends.
    """

    def __init__(self, reason: str, *, lasting: bool) -> None:
        self.reason, self.lasting = reason, lasting
        super().__init__(reason)


class LedgerFile:
    """A ledger that is open, and this process's alone. For one thread at a time.

    Args:
        path: Of the table.
        limit: Bytes of the table.
        lock: The handle of what keeps others out; closed with it.
    """

    def __init__(self, path: Path, limit: int, lock: int) -> None:
        self.path = path
        self.limit = limit
        self._lock = lock
        self._unchecked = 0
        """Bytes written since the log was last brought in, about."""
        self._due, self._closing = threading.Event(), False
        with _told():
            self._db = _connect(path)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        self._thread = threading.Thread(target=self._bring_in, name="ledger", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, folder: Path, limit: int) -> LedgerFile:
        """Open the ledger of a data folder, or begin one; of one that is there every page is read once.

        Raises:
            ConfigurationError: The folder cannot be used, another process uses it, or the file is damaged.
        """
        path = folder / FILE
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{folder}: no ledger can be kept there ({error.strerror})") from None
        try:
            _take(lock, folder)
            _make_private(path)
            return cls(path, limit, lock)
        except LedgerTrouble as trouble:
            os.close(lock)
            if trouble.lasting:
                raise damaged(path, trouble.reason) from None
            raise ConfigurationError(f"{path}: cannot be used ({trouble.reason}); make room there") from None
        except BaseException:
            os.close(lock)
            raise

    def _prepare(self) -> None:
        application, version, tables = (
            self._one(question)
            for question in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if not (application or version or tables):
            self._db.execute(f"PRAGMA page_size = {PAGE}")
            self._db.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
            )
        elif application != APPLICATION:
            raise ConfigurationError(f"{self.path}: another program's file; name another data folder")
        elif version != VERSION:
            raise ConfigurationError(
                f"{self.path}: a ledger of version {version}, and this release keeps version {VERSION}; update it"
            )
        if (found := self._one("PRAGMA quick_check(1)")) != "ok":
            raise LedgerTrouble(" ".join(str(found).split()), lasting=True)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._page: int = self._one("PRAGMA page_size")
        self._db.execute(f"PRAGMA max_page_count = {self.limit // self._page}")

    # --- what is remembered ----------------------------------------------------------------------------

    def find(self, job: str, now: int) -> Row | None:
        """What is remembered of a job at a time.

        Raises:
            LedgerTrouble: It cannot be read.
        """
        with _told():
            found = self._db.execute(_FIND, (job, now)).fetchone()
        return None if found is None else Row(*found)

    def put(self, job: str, row: Row, until: int) -> None:
        """Remember a job until a time; once this returns, a kill -9 does not undo it.

        Raises:
            LedgerTrouble: It cannot be written.
        """
        with _told():
            self._db.execute(_PUT, (job, row.digest, row.tag, row.attempt, until, row.result))
        self._unchecked += 4 * PAGE + len(row.result or b"")
        if self._unchecked > CHECKPOINT:
            self._unchecked = 0
            self._due.set()

    def forget(self, now: int, most: int) -> int:
        """Remove jobs whose time is over, the oldest first; how many.

        Raises:
            LedgerTrouble: It cannot be written.
        """
        with _told():
            return self._db.execute(_FORGET, (now, most)).rowcount

    def probe(self, size: int) -> None:
        """Find out whether the disk takes a result of ``size`` bytes.

        Raises:
            LedgerTrouble: It does not.
        """
        self.put(_PROBE, Row(b"", b"", 0, bytes(size)), 0)
        self.forget(0, 1)

    @property
    def used(self) -> int:
        """Bytes that hold something.

        Raises:
            LedgerTrouble: It cannot be read.
        """
        with _told():
            pages: int = self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")
        return pages * self._page

    def close(self) -> None:
        """Bring in what was written, and let others have it."""
        self._closing = True
        self._due.set()
        self._thread.join()
        with contextlib.suppress(sqlite3.Error):  # then the log stays, and is read at the next start
            self._db.close()
        os.close(self._lock)

    # --- the log ---------------------------------------------------------------------------------------

    def _bring_in(self) -> None:
        """Copy the log into the table whenever it is due; on a connection of its own, so that nobody waits for it."""
        log = self.path.with_name(f"{FILE}-wal")
        while True:
            self._due.wait()
            self._due.clear()
            if self._closing:
                return
            with contextlib.suppress(sqlite3.Error, OSError), contextlib.closing(_connect(self.path)) as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                if log.stat().st_size > LONGEST_LOG:
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what came meanwhile, while the worker waits

    def _one(self, question: str) -> Any:  # whatever is asked for
        return self._db.execute(question).fetchone()[0]


def damaged(path: Path, reason: str) -> ConfigurationError:
    """What ends a worker whose ledger cannot be believed any more."""
    return ConfigurationError(
        f"{path}: damaged ({reason}); move it away to begin anew: whatever it held could then run again, if replayed"
    )


def _connect(path: Path) -> sqlite3.Connection:
    """Without a transaction around statements, nor checkpoints after them; what is read is not cached for long."""
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    # A crash of the machine may take the last moments' writes along, and never damages the file.
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    return db


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        raise LedgerTrouble(str(error), lasting=code in _CORRUPT) from None


def _take(lock: int, folder: Path) -> None:
    import fcntl  # where there is none, there is no ledger, and all else runs

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigurationError(
            f"{folder}: another worker keeps its ledger there; give each worker process a data folder of its own"
        ) from None


def _make_private(path: Path) -> None:
    """0600, whatever a mount made of it. Before SQLite opens it: closing another handle would end SQLite's locks."""
    try:
        for name in (path, path.with_name(f"{FILE}-wal"), path.with_name(f"{FILE}-shm")):
            if name == path or name.exists():
                handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                try:
                    os.fchmod(handle, 0o600)
                finally:
                    os.close(handle)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be used ({error.strerror}); it must be this user's own") from None
