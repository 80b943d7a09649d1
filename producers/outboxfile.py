"""The outbox on disk: a SQLite file of sealed jobs, which outlives the process.

A job is written, and synced to the disk, before it is sent; many that are submitted at once share a sync. It is
removed a moment after its answer is verified. Nothing in it can be read without the workers' keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.envelope import Sealed
from bridge.errors import ConfigurationError, NotConnected, OutboxFull, TransportError
from bridge.identity import Connection
from bridge.job import JobToken
from bridge.signals.meter import NO_METER, Meter
from bridge.subjects import JobKey
from producers.copies import MAX_JOBS, Copies, Copy

ENVIRONMENT: Final = "BUNNY_OUTBOX"
"""The file to keep jobs in; not set: in memory."""
MAX_FILE_BYTES: Final = 1024 * 1024 * 1024
"""Sealed bytes kept in a file, which is somewhat larger, and never shrinks."""
REMOVE_S: Final = 1.0
"""After which what was answered is removed, if nothing was written before."""

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE owner (identity TEXT NOT NULL, bridge TEXT NOT NULL);
CREATE TABLE job (
    id INTEGER PRIMARY KEY, queue TEXT NOT NULL, session TEXT NOT NULL, n INTEGER NOT NULL,
    generation INTEGER NOT NULL, digest TEXT NOT NULL, kind TEXT NOT NULL, args_tag BLOB NOT NULL,
    priority TEXT NOT NULL, later INTEGER NOT NULL, expires INTEGER NOT NULL, envelope BLOB NOT NULL
);
"""
_INSERT: Final = "INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ALL: Final = (
    "SELECT id, queue, session, n, generation, digest, kind, args_tag, priority, later, expires, length(envelope) "
    "FROM job ORDER BY id"
)

_log = structlog.get_logger(__name__)
_Row = tuple[object, ...]


@dataclass(slots=True)
class _Work:
    """What is to be written next."""

    rows: list[_Row] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class FileCopies(Copies):
    """The jobs of one producer that are not answered, in a file. Made by `open_file`.

    Args:
        path: The file.
        database: It, open and locked.
        connection: Names the producer, and its queues: jobs of others stay in the file and are not sent.
        meter: Where measurements go.
        limit: Sealed bytes.
        most: Jobs.
    """

    def __init__(
        self,
        path: Path,
        database: sqlite3.Connection,
        connection: Connection,
        meter: Meter = NO_METER,
        *,
        limit: int = MAX_FILE_BYTES,
        most: int = MAX_JOBS,
    ) -> None:
        super().__init__(meter, limit=limit, most=most)
        self._path, self._database = path, database
        self._thread = ThreadPoolExecutor(1, "outbox")
        self._work, self._wake = _Work(), asyncio.Event()
        self._soon: asyncio.TimerHandle | None = None
        self._ids: dict[JobKey, int] = {}
        self._last = 0
        self._closing = False
        self._load(connection)
        self._writer = asyncio.create_task(self._write(), name="producer-outbox")

    async def keep(self, sealed: Sealed) -> None:
        """Write a job that is about to be sent; returns once it is on the disk.

        Raises:
            OutboxFull: There is no room for it.
            NotConnected: The producer was closed.
            TransportError: It cannot be written.
        """
        if self._closing:
            raise NotConnected("the producer was closed; nothing was sent")
        copy = self._keep(sealed)
        if copy is None:
            raise OutboxFull(
                f"outbox {self._path}: {len(self)} jobs wait for their answers, and no more are kept; "
                "nothing was sent; wait until some are answered"
            )
        copy.data = b""
        self._last += 1
        self._ids[copy.key] = self._last
        core, key = sealed.core, copy.key
        place = (key.queue, key.session, key.n, key.generation, copy.token.digest)
        terms = (core.kind, core.args_tag, core.priority, int(core.not_before > 0), core.expires)
        self._work.rows.append((self._last, *place, *terms, sealed.data))
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._work.waiting.append(written)
        self._wake.set()
        await written

    async def read(self, copy: Copy) -> bytes:
        """See `Copies.read`.

        Raises:
            NotConnected: The producer was closed.
            TransportError: It cannot be read.
        """
        if self._closing:
            raise NotConnected("the producer was closed; nothing was sent")
        number = self._ids.get(copy.key, 0)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._select, number)
        except sqlite3.Error as error:
            raise TransportError(f"outbox {self._path}: cannot be read ({error}); nothing was sent") from None

    def forget(self, key: JobKey) -> Copy | None:
        """See `Copies.forget`; the file follows within a second."""
        copy = super().forget(key)
        if copy is not None and (number := self._ids.pop(key, None)) is not None:
            self._work.removed.append(number)
            if self._closing:
                self._wake.set()  # what came amid the last write is written too: there is no other occasion
            elif self._soon is None:
                self._soon = asyncio.get_running_loop().call_later(REMOVE_S, self._wake.set)
        return copy

    async def close(self) -> None:
        """Write what is left, and let the next process have the file."""
        if self._closing:
            return
        self._closing = True
        self._wake.set()
        try:
            await self._writer
        finally:
            await super().close()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
            self._thread.shutdown(wait=False)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while not (self._closing and not self._work.rows and not self._work.removed):
            await self._wake.wait()
            self._wake.clear()
            if self._soon is not None:
                self._soon.cancel()
                self._soon = None
            work, self._work = self._work, _Work()
            try:
                await loop.run_in_executor(self._thread, self._commit, work.rows, work.removed)
            except sqlite3.Error as error:
                _log.error("outbox_failed", error=type(error).__name__, reason=str(error))
                refused = TransportError(f"outbox {self._path}: cannot be written ({error}); nothing was sent")
                for waiting in work.waiting:
                    if not waiting.done():
                        waiting.set_exception(refused)
                if self._closing:
                    return
                self._work.removed[:0] = work.removed  # at the next occasion; until then it is found answered
            else:
                for waiting in work.waiting:
                    if not waiting.done():
                        waiting.set_result(None)

    def _commit(self, rows: Sequence[_Row], removed: Sequence[int]) -> None:
        with self._database:
            self._database.executemany(_INSERT, rows)
            self._database.executemany("DELETE FROM job WHERE id = ?", [(number,) for number in removed])

    def _select(self, number: int) -> bytes:
        found = self._database.execute("SELECT envelope FROM job WHERE id = ?", (number,)).fetchone()
        return bytes(found[0]) if found is not None else b""

    def _load(self, connection: Connection) -> None:
        now, elsewhere = now_ms(), 0
        for (
            number,
            queue,
            session,
            n,
            generation,
            digest,
            kind,
            tag,
            priority,
            later,
            expires,
            size,
        ) in self._database.execute(_ALL).fetchall():
            self._last = number
            if queue not in connection.queues and expires > now:
                elsewhere += 1  # of a queue that was taken away, and may come back: nobody here may ask for them
                continue
            key = JobKey(queue, connection.identity, session, n, generation)
            stream = subjects.delayed_stream(queue) if later else subjects.jobs_stream(queue)
            subject = subjects.of_job(key, priority, bool(later))
            token = JobToken(*key, digest)
            self._ids[key] = number
            self._add(Copy(key, token, kind, tag, expires, stream, subject, size, b""))
            if expires <= now:
                self.forget(key)
        self.recovered = tuple(self)
        if self.recovered:
            _log.warning("outbox_taken_over", count=len(self))
        if elsewhere:
            _log.error("outbox_has_jobs_of_no_queue", count=elsewhere)


@contextlib.asynccontextmanager
async def keeping(path: Path | str | None, connection: Connection, meter: Meter) -> AsyncIterator[Copies]:
    """The copies of a producer: in the file given, or for None that ``BUNNY_OUTBOX`` names, or else in memory.

    Raises:
        ConfigurationError: The file is another's, is in use, or cannot be used.
    """
    place = os.environ.get(ENVIRONMENT) if path is None else path
    copies = open_file(Path(place), connection, meter) if place else Copies(meter)
    try:
        yield copies
    finally:
        await copies.close()


def open_file(
    path: Path, connection: Connection, meter: Meter = NO_METER, *, limit: int = MAX_FILE_BYTES
) -> FileCopies:
    """Open an outbox, or make it, until it is closed or the process ends.

    Args:
        path: The file; made 0600 where there is none.
        connection: Names the producer and the bridge that it belongs to.
        meter: Where measurements go.
        limit: Sealed bytes.

    Raises:
        ConfigurationError: It is another identity's, another process's, readable by others, or no outbox.
    """
    _make(path)
    database = None
    try:
        # One thread at a time uses it: this one now, and one of its own from then on.
        database = sqlite3.connect(path, timeout=0, check_same_thread=False)
        _prepare(database, path, (connection.identity, connection.bridge))
        return FileCopies(path, database, connection, meter, limit=limit)
    except sqlite3.Error as error:
        _close(database)
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            problem = "another process uses it; give each process a file of its own"
        elif code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            problem = f"{error}; move it away: what it held may never have been sent"
        else:
            problem = f"cannot be used ({error})"
        raise ConfigurationError(f"outbox {path}: {problem}") from None
    except BaseException:
        _close(database)
        raise


def _make(path: Path) -> None:
    """Make sure that there is a file, and that nobody else can read it."""
    try:
        # One that is there is not opened: to close it would end the locks by which this process may have it open.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigurationError(f"outbox {path}: cannot be opened ({error.strerror})") from None
    if mode & 0o077:
        raise ConfigurationError(f"outbox {path}: mode {mode:04o} lets others in; run chmod 600 on it")


def _prepare(database: sqlite3.Connection, path: Path, owner: tuple[str, str]) -> None:
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")  # WAL and FULL: every commit is synced before it returns
    with database:
        database.execute("BEGIN EXCLUSIVE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0 and not database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute("INSERT INTO owner VALUES (?, ?)", owner)
            database.execute(f"PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            raise ConfigurationError(
                f"outbox {path}: no outbox, or one of version {version}; this release reads {_VERSION}"
            )
        found = database.execute("SELECT identity, bridge FROM owner").fetchone()
    if found != owner:
        raise ConfigurationError(f"outbox {path}: of {found[0]} in bridge {found[1]}; name a file of {owner[0]}'s own")


def _close(database: sqlite3.Connection | None) -> None:
    if database is not None:
        database.close()
