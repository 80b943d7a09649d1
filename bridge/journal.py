"""The receipts of one producer or worker, on their way to its local broker: noted at once, stored beside the work.

Noting one never waits and never fails. A page is written when it is full, or a moment after its first receipt; what is
noted while the broker is away waits, up to a limit. Beyond that it is lost, which is counted, and its numbers are
missing from the chain: that too is seen by whoever verifies it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import secrets
from collections import deque
from collections.abc import AsyncIterator
from itertools import islice
from typing import Final

import structlog

from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Opened
from bridge.errors import SubjectTaken, TransportError
from bridge.identity import Connection
from bridge.job import CANARY, JobToken
from bridge.keyring import Keyring
from bridge.receipt import MAX_RECEIPTS, NOTHING_BEFORE, Event, Page, Receipt, receipts_stream, subject, write
from bridge.signals import metrics
from bridge.signals.meter import Meter
from bridge.transport import Transport

LINGER_S: Final = 1.0
"""From the first receipt of a page to its signature, unless it is full before: what a process that is killed loses."""
MAX_WAITING: Final = 10_000
"""Receipts of a queue that wait to be stored: some 5 MiB of memory, and seconds of work at full speed."""
PUBLISH_TIMEOUT_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
"""Between two tries to store a page."""
CLOSE_S: Final = 5.0
"""How long a process that ends waits for its last page to be stored."""

_log = structlog.get_logger(__name__)


class Journal:
    """The chains of one process, one for each queue that leaves receipts.

    Args:
        ring: Whose they are; its newest key signs.
        connection: The queues.
        transport: The local broker of whoever signs.
        meter: Where measurements go.
    """

    def __init__(self, ring: Keyring, connection: Connection, transport: Transport, meter: Meter) -> None:
        session = secrets.token_hex(12)
        self._chains = {
            queue: _Chain(ring, connection.bridge, queue, session, transport, meter)
            for queue, settings in connection.queues.items()
            if settings.receipts
        }

    async def close(self) -> None:
        """End the chains, and wait for their last pages, for `CLOSE_S` at most."""
        writers = [writer for chain in self._chains.values() if (writer := chain.end()) is not None]
        if not writers:
            return
        _, late = await asyncio.wait(writers, timeout=CLOSE_S)
        for writer in late:
            writer.cancel()
        if late:
            await asyncio.wait(late)
        for chain in self._chains.values():
            chain.abandon()
        for writer in writers:
            if not writer.cancelled():
                writer.result()  # raises what ended it

    def submitted(self, core: Core, digest: bytes) -> None:
        """The local server has stored a job of this producer."""
        if core.kind != CANARY and (chain := self._chains.get(core.queue)) is not None:
            chain.note(Event.SUBMITTED, core.job, core.generation, core.kind, core.recipient, digest)

    def accepted(self, core: Core, digest: bytes, attempt: int) -> None:
        """A job's handler is about to run here."""
        if core.kind != CANARY and (chain := self._chains.get(core.queue)) is not None:
            chain.note(Event.ACCEPTED, core.job, core.generation, core.kind, core.sender, digest, attempt)

    def finished(self, core: Core, digest: bytes, attempt: int, outcome: str, result: bytes) -> None:
        """A delivery of a job has come to something here; ``result`` stands then, unless it is empty."""
        if core.kind != CANARY and (chain := self._chains.get(core.queue)) is not None:
            about = (core.job, core.generation, core.kind, core.sender, digest)
            chain.note(Event.FINISHED, *about, attempt, outcome, result)

    def received(self, job: JobToken, answer: Opened) -> None:
        """The answer to a job of this producer has come home, and verifies."""
        core = answer.core
        if core.kind != CANARY and (chain := self._chains.get(job.queue)) is not None:
            about = (job.key.job_id, job.generation, core.kind, core.sender, bytes.fromhex(job.digest))
            chain.note(Event.RECEIVED, *about, 0, str(answer.status), answer.digest)


class _Chain:
    """The receipts of one process about one queue: those that wait, and how far they are stored."""

    def __init__(
        self, ring: Keyring, bridge: str, queue: str, session: str, transport: Transport, meter: Meter
    ) -> None:
        self._ring, self._bridge, self._queue, self._session = ring, bridge, queue, session
        self._transport, self._meter = transport, meter
        self._waiting: deque[tuple[int, Receipt]] = deque()
        self._number = 0
        """Of the next receipt."""
        self._pages, self._previous = 0, NOTHING_BEFORE
        self._some, self._full, self._ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def note(
        self,
        event: Event,
        job: str,
        generation: int,
        kind: str,
        peer: str,
        digest: bytes,
        attempt: int = 0,
        outcome: str = "",
        result: bytes = b"",
    ) -> None:
        """Have a receipt stored some time."""
        if self._ended.is_set():
            self._meter.count(metrics.RECEIPTS_LOST, self._queue)
            return
        now = now_ms()
        if self._writer is None:
            # It outlives whose receipt is the first, and is to log and trace nothing in that one's name.
            alone, name = contextvars.Context(), f"receipts-{self._queue}"
            self._writer = asyncio.create_task(self._write(), name=name, context=alone)
            self._add(Receipt(Event.OPENED, now))
        self._add(Receipt(event, now, job, generation, kind, peer, digest, attempt, outcome, result))

    def end(self) -> asyncio.Task[None] | None:
        """Have the last receipt stored; nothing is noted after it. What is returned ends then; None if none was."""
        if not self._ended.is_set():
            self._ended.set()
            if self._writer is not None:
                self._waiting.append((self._number, Receipt(Event.CLOSED, now_ms())))
                self._some.set()
                self._full.set()
        return self._writer

    def abandon(self) -> None:
        """Count what is not stored, and is not going to be."""
        if self._waiting:
            _log.error("receipts_lost", queue=self._queue, count=len(self._waiting))
            self._meter.count(metrics.RECEIPTS_LOST, self._queue, by=len(self._waiting))
            self._waiting.clear()

    async def _write(self) -> None:
        """Store page after page, until the chain has ended and all of it is stored."""
        while True:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), LINGER_S)
            self._full.clear()
            await self._store()
            while len(self._waiting) >= (1 if self._ended.is_set() else MAX_RECEIPTS):
                await self._store()
            if self._ended.is_set():
                return
            if not self._waiting:
                self._some.clear()

    def _add(self, receipt: Receipt) -> None:
        number, waiting = self._number, self._waiting
        self._number = number + 1
        if len(waiting) >= MAX_WAITING:
            self._meter.count(metrics.RECEIPTS_LOST, self._queue)
            return
        waiting.append((number, receipt))
        if len(waiting) == 1:
            self._some.set()
        elif len(waiting) == MAX_RECEIPTS:
            self._full.set()

    async def _store(self) -> None:
        """Have the next page stored, if there is one, trying until it is: the same bytes, where one message stands."""
        if not self._waiting:
            return
        first, count = self._waiting[0][0], 0
        for number, _ in islice(self._waiting, MAX_RECEIPTS):
            if number != first + count:
                break  # some in between are lost: each page's receipts follow one another
            count += 1
        receipts = tuple(receipt for _, receipt in islice(self._waiting, count))
        me, session = self._ring.identity.name, self._session
        page = Page(
            bridge=self._bridge,
            queue=self._queue,
            signer=me,
            session=session,
            page=self._pages,
            first=first,
            previous=self._previous,
            time=now_ms(),
            receipts=receipts,
        )
        line, digest = write(page, self._ring.identity.sign[-1])
        await self._publish(subject(self._queue, me, session, self._pages), line)
        for _ in receipts:
            self._waiting.popleft()
        self._pages, self._previous = self._pages + 1, digest
        self._meter.count(metrics.RECEIPTS, self._queue, by=count)

    async def _publish(self, name: str, line: bytes) -> None:
        stream, pause = receipts_stream(self._queue), FIRST_PAUSE_S
        while True:
            try:
                await self._transport.publish(stream, name, line, timeout=PUBLISH_TIMEOUT_S)
                return
            except SubjectTaken:
                return  # by an earlier try: the session is this process's own, and unguessable
            except TransportError as error:
                _log.warning("receipts_wait", queue=self._queue, error=type(error).__name__, seconds=pause)
            if self._ended.is_set():
                await asyncio.sleep(FIRST_PAUSE_S)
            else:
                with contextlib.suppress(TimeoutError):  # whoever ends it is not to wait for long
                    await asyncio.wait_for(self._ended.wait(), pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)


@contextlib.asynccontextmanager
async def keeping(
    ring: Keyring, connection: Connection, transport: Transport, meter: Meter
) -> AsyncIterator[Journal | None]:
    """The journal of a process, ended with the block; None where none of its queues leaves receipts."""
    journal = journal_of(ring, connection, transport, meter)
    if journal is None:
        yield None
        return
    try:
        yield journal
    finally:
        await journal.close()


def journal_of(ring: Keyring, connection: Connection, transport: Transport, meter: Meter) -> Journal | None:
    """The journal of a process; None where none of its queues leaves receipts."""
    if any(settings.receipts for settings in connection.queues.values()):
        return Journal(ring, connection, transport, meter)
    return None
