"""What this worker remembers of jobs, outside any broker: what it has answered never runs again, whoever delivers it.

A start is written before the handler runs, and a result, sealed, before it is published: in between a kill -9 costs an
attempt, as ever, and from then on the result is published again instead. What cannot be written is not begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import ClassVar, Final, Literal

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import MAX_SKEW_MS
from bridge.errors import BridgeError, IdReused
from bridge.job import INLINE_LIMIT
from bridge.signals import metrics
from bridge.signals.meter import Sample
from bridge.subjects import JobKey
from consumers.case import Case
from consumers.ledgerfile import LedgerFile, LedgerTrouble, Row, damaged

ENVIRONMENT: Final = "BUNNY_DATA"
"""The folder where a worker keeps its ledger; not set: it keeps none."""
LIMIT: Final = 4 << 30
"""Bytes: as much as a queue's results may take by default in the stream that keeps them as long."""
LEAST_LIMIT: Final = 16 << 20
OVERHEAD: Final = 16 << 10
"""Bytes that a job may take in the file beyond its result: envelope, row, and what stays empty of pages that split."""
MARGIN: Final = 32
"""Of a full ledger, one part in so many must be free before work is taken again: else it would stop at every job."""
TICK_S: Final = 1.0
"""Between two looks at what is over, and two tries of what failed."""
REMINDER_S: Final = 60.0
BATCH: Final = 64
"""Jobs forgotten at once: some 2 ms."""

State = Literal["", "full", "disk", "damaged"]

_log = structlog.get_logger(__name__)


class NoLedger:
    """Remembers nothing: what a worker without a data folder has."""

    refusing: State = ""
    """Why no work is taken; empty while it is."""
    remembers: ClassVar[bool] = False
    """Whether a result that was recorded may be published once more."""

    def recall(self, case: Case) -> Row | None:
        """What is remembered of a job that was delivered.

        Raises:
            IdReused: The id is that of another job.
        """
        return None

    def enter(self, case: Case) -> bool:
        """Whether a delivery may be acted on now; if so, `leave` is called when that is over."""
        return True

    def leave(self, case: Case) -> None:
        """What was done about a delivery is over."""

    def started(self, case: Case, attempt: int) -> bool:
        """Remember that an attempt starts; False where it must not."""
        return True

    async def answered(self, case: Case, result: bytes, until: int) -> None:
        """Remember a sealed result until a time; returns once it may be published."""

    async def keep(self, again: Callable[[], None], end: Callable[[BridgeError], None]) -> None:
        """Forget what is over, until cancelled.

        Args:
            again: Called when work may be taken again.
            end: Called with what cannot be mended.
        """

    def now(self) -> list[Sample]:
        """What there is to be seen of it."""
        return []


class Ledger(NoLedger):
    """A worker process's ledger. All its methods are for the event loop, and none but `answered` waits.

    Args:
        file: Where it is kept.
    """

    remembers = True

    def __init__(self, file: LedgerFile) -> None:
        self.refusing = ""
        self._file = file
        self._entered: dict[JobKey, int] = {}
        """Jobs that something is being done about, and the bytes that each may still need."""
        self._end: Callable[[BridgeError], None] = _nobody
        self._told = 0.0

    def recall(self, case: Case) -> Row | None:
        """See `NoLedger.recall`; where the file cannot be read, `enter` says no."""
        try:
            row = self._file.find(_name(case), now_ms())
        except LedgerTrouble as trouble:
            self._fail(trouble)
            return None
        if row is None or row.digest == case.job.digest or (case.tag is not None and row.tag == _tag(case)):
            return row
        if case.tag is None:
            raise IdReused("the id is that of another job, which was begun or answered here")
        # Of a key, what was answered is the answer, and what was only begun says nothing about other arguments.
        return row if row.result is not None else None

    def enter(self, case: Case) -> bool:
        """See `NoLedger.enter`. What was answered needs no room, and is settled even where there is none."""
        if case.key in self._entered or self.refusing == "damaged":
            return False
        room = 0
        if case.remembered is None or case.remembered.result is None:
            room = min(case.settings.max_payload, INLINE_LIMIT) + OVERHEAD
            if self.refusing or not self._has_room(room):
                return False
        self._entered[case.key] = room
        return True

    def leave(self, case: Case) -> None:
        """See `NoLedger.leave`."""
        self._entered.pop(case.key, None)

    def started(self, case: Case, attempt: int) -> bool:
        """See `NoLedger.started`."""
        return self._put(case, attempt, None, case.core.expires + MAX_SKEW_MS)

    async def answered(self, case: Case, result: bytes, until: int) -> None:
        """See `NoLedger.answered`. Tried until it is written, as the result then is until it is stored.

        Beside a file that is damaged it is published all the same: it is an answer to what was done, and no other work
        will be.
        """
        while not self._put(case, case.attempt, result, max(until, case.core.expires + MAX_SKEW_MS)):
            if self.refusing == "damaged":
                _log.error("result_unrecorded", queue=case.queue, job=case.core.job)
                return
            await asyncio.sleep(TICK_S)
        self._entered[case.key] = 0

    async def keep(self, again: Callable[[], None], end: Callable[[BridgeError], None]) -> None:
        """See `NoLedger.keep`."""
        self._end = end
        while True:
            over = 0
            try:
                over = self._file.forget(now_ms(), BATCH)
                if self.refusing and self._is_mended():
                    self.refusing = ""
                    _log.warning("ledger_works_again", bytes=self._file.used, limit=self._file.limit)
                    again()
            except LedgerTrouble as trouble:
                self._fail(trouble)
            await asyncio.sleep(0 if over == BATCH else TICK_S)

    def now(self) -> list[Sample]:
        """See `NoLedger.now`."""
        told: list[Sample] = [
            (metrics.LEDGER_LIMIT, (), self._file.limit),
            (metrics.LEDGER_REFUSES, (), float(bool(self.refusing))),
        ]
        with contextlib.suppress(LedgerTrouble):
            told.append((metrics.LEDGER_BYTES, (), self._file.used))
        return told

    # --- whether it can be relied on ---------------------------------------------------------------------

    def _put(self, case: Case, attempt: int, result: bytes | None, until: int) -> bool:
        try:
            self._file.put(_name(case), Row(case.job.digest, _tag(case), attempt, result), until)
        except LedgerTrouble as trouble:
            self._fail(trouble)
            return False
        return True

    def _has_room(self, more: int) -> bool:
        """Whether ``more`` bytes fit beside what is under way, whose results must find room when they come."""
        try:
            fits = self._file.used + sum(self._entered.values()) + more <= self._file.limit
        except LedgerTrouble as trouble:
            self._fail(trouble)
            return False
        if not fits:
            self._refuse("full", "no room for another result until old ones are over")
        return fits

    def _is_mended(self) -> bool:
        if self.refusing == "damaged":
            return False
        if self._file.used + sum(self._entered.values()) > self._file.limit - self._file.limit // MARGIN:
            self._refuse("full", "no room for another result until old ones are over")
            return False
        self._file.probe(INLINE_LIMIT + OVERHEAD)
        return True

    def _fail(self, trouble: LedgerTrouble) -> None:
        if not trouble.lasting:
            self._refuse("disk", trouble.reason)
        elif self.refusing != "damaged":
            self._refuse("damaged", trouble.reason)
            self._end(damaged(self._file.path, trouble.reason))

    def _refuse(self, state: State, reason: str) -> None:
        """Take no more work, and say why, now and once in a while."""
        if state != self.refusing or time.monotonic() - self._told > REMINDER_S:
            _log.error("ledger_refuses_work", status=state, reason=reason, limit=self._file.limit)
            self._told = time.monotonic()
        self.refusing = state


@contextlib.asynccontextmanager
async def remembering(data: Path | None, limit: int) -> AsyncIterator[NoLedger]:
    """The ledger of a data folder, until the block ends.

    Args:
        data: The folder; None reads ``BUNNY_DATA``, and where that is not set there is no ledger.
        limit: Bytes it may take.

    Raises:
        ConfigurationError: It cannot be used, another process uses it, or it is damaged.
    """
    folder = data or os.environ.get(ENVIRONMENT)
    if not folder:
        _log.info("ledger_off", reason=f"no {ENVIRONMENT}: a broker that lies can have a job run again")
        yield NoLedger()
        return
    file = await asyncio.to_thread(LedgerFile.open, Path(folder), limit)
    try:
        yield Ledger(file)
    finally:
        await asyncio.to_thread(file.close)


def _name(case: Case) -> str:
    return subjects.result(case.key).partition(".")[2]


def _tag(case: Case) -> bytes:
    return b"" if case.tag is None else case.tag.kind.encode() + b"\0" + case.tag.args_tag


def _nobody(error: BridgeError) -> None:
    """Told as long as nobody wants to know."""
