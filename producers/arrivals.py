"""Where results come in: the ``done`` subjects of this process, and a slow sweep for what was dropped there.

What came home while the connection was broken was told to nobody, so after that all that is open is looked up at once.

A result that arrives on a core subject proves nothing by arriving: one that does not verify is logged and
ignored. One that *stands* in the stream and does not verify keeps the true one out for ever, so it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from itertools import islice
from typing import Any, Final
from weakref import WeakValueDictionary

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.envelope import Authenticated, Opened, Opener
from bridge.errors import (
    BridgeError,
    FencePoisoned,
    KeyConflict,
    PublishTimeout,
    QueueFull,
    Refusal,
    TransportError,
    UsageError,
)
from bridge.fence import OtherBytes, Tag, authenticate_answer
from bridge.identity import Connection
from bridge.job import JobToken
from bridge.journal import Journal
from bridge.signals import Signals, metrics
from bridge.subjects import JobKey
from bridge.transport import Message, Transport
from producers.copies import Copies, Copy
from producers.handle import Handle
from producers.outcome import open_result
from producers.payloads import Payloads

SWEEP_S: Final = 5.0
"""Seconds between sweeps, give or take a fifth, so that a fleet of producers does not sweep in step."""
SWEEP_LOOKUPS: Final = 64
"""Most look-ups per sweep: a direct get costs the server up to 0.9 ms, so a sweep takes about 1 % of its time."""
AT_ONCE: Final = 16
"""Look-ups under way at once after a broken connection: each producer's share of a server to which all come back."""

ROOM_POLL_S: Final = 0.25
"""Between looks at how many handles are open, while there are too many."""
KEYED: Final = ""
"""In place of a session: all keyed jobs."""

_log = structlog.get_logger(__name__)


def session_of(token: JobToken) -> str:
    """What to listen to for the result of a job."""
    return token.session if token.n else KEYED


class Arrivals:
    """The open handles of a producer, and what settles them.

    Args:
        connection: Names the producer and its queues.
        transport: The producer's local broker.
        opener: Verifies and opens results.
        copies: What was sent and is not answered, whether or not a handle is open.
        payloads: Told of what is answered.
        signals: Where measurements and spans go.
        journal: Told of what was answered; None where no queue leaves receipts.
    """

    def __init__(
        self,
        connection: Connection,
        transport: Transport,
        opener: Opener,
        copies: Copies,
        payloads: Payloads,
        signals: Signals,
        journal: Journal | None = None,
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._opener = opener
        self._copies, self._payloads, self._journal = copies, payloads, journal
        self._meter, self._tracer = signals.meter, signals.tracer
        # Ordered by when each was last looked up. Weak: who drops a handle no longer asks for its result.
        self._open: WeakValueDictionary[JobKey, Handle[Any]] = WeakValueDictionary()
        self._listening: set[tuple[str, str]] = set()
        self._asking: dict[tuple[str, str], asyncio.Event] = {}
        """What is about to be heard, and what tells that it is known whether it is."""
        self._missed = asyncio.Event()
        transport.on_reconnect(self._missed.set)
        self._settled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: JobKey) -> Handle[Any] | None:
        """The open handle of a job, if there is one."""
        return self._open.get(key)

    async def ready(self, queue: str, session: str, most: int, timeout: float) -> float:
        """Wait until results of a session are heard and there is room for one more open handle.

        Returns:
            What is left of ``timeout``.

        Raises:
            PublishTimeout: They are not heard in ``timeout`` seconds; nothing was sent.
            QueueFull: As `room`.
        """
        if (queue, session) in self._listening and len(self) < most:
            return timeout  # as nearly always: two timers for each job are dear
        clock = asyncio.get_running_loop().time
        give_up = clock() + timeout
        try:
            async with asyncio.timeout_at(give_up) as limit:
                await self.listen(queue, session)
        except TimeoutError:
            if not limit.expired():
                raise
            raise PublishTimeout(f"{queue}: no answer of the local server in {timeout:g} s; nothing was sent") from None
        await self.room(most, give_up - clock())
        return max(give_up - clock(), 0.0)

    async def room(self, most: int, timeout: float) -> None:
        """Wait until fewer handles are open than there may be.

        Raises:
            QueueFull: None was settled in ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while len(self) >= most:
                    self._settled.clear()
                    # Looked at now and then as well: a handle that is dropped tells nobody.
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._settled.wait(), ROOM_POLL_S)
        except TimeoutError:
            raise QueueFull(f"{most} handles are open, none was settled; await their results, or drop them") from None

    def expect(self, handle: Handle[Any]) -> None:
        """Settle ``handle`` when its result comes."""
        self._open[handle.key] = handle

    async def listen(self, queue: str, session: str = KEYED) -> None:
        """Subscribe to a session's results on a queue, once; returns when the server knows.

        Those of keyed jobs, each of which is a session of its own, are heard together.
        """
        what = queue, session
        while what not in self._listening:
            # Not a lock: that lets one of those who wait go on in each turn of the loop, and a thousand take as many.
            if (asking := self._asking.get(what)) is not None:
                await asking.wait()
                continue
            self._asking[what] = asyncio.Event()
            try:
                me = self._connection.identity
                keyed = subjects.done_of_keyed(queue, me)
                subject = keyed if session == KEYED else subjects.done_of_session(queue, me, session)
                await self._transport.subscribe(subject, self._arrived)
                await self._transport.flush()
                self._listening.add(what)
            finally:
                self._asking.pop(what).set()

    async def ask(self, handle: Handle[Any]) -> None:
        """Look a job's result up in the local copy of the stream, and settle the handle if it stands."""
        key = handle.key
        handle.asked_at = asyncio.get_running_loop().time()
        message = await self._look_up(key)
        if message is None:
            return
        try:
            self._settle(handle, message)
        except KeyConflict as conflict:
            self._conflict(handle, conflict)
        except Refusal as refusal:
            if isinstance(refusal, OtherBytes) and handle.stored_at is None:  # the digest is all that a token says
                self._close(
                    handle,
                    UsageError(
                        f"the token's digest does not match: job {key.job_id} on {key.queue} has an answer that "
                        "verifies, to a job of another digest; take the token as submit gave it"
                    ),
                )
                return
            self._poisoned(key, refusal)
            self._close(
                handle,
                FencePoisoned(
                    f"job {key.job_id} on {key.queue}: a result stands that does not verify ({refusal.name})"
                ),
            )

    async def answered(self, copy: Copy) -> bool:
        """Look up the result of a job that is kept; once it stands it is kept no more."""
        handle = self._open.get(copy.key)
        if handle is not None and handle.token == copy.token:
            await self.ask(handle)
        elif (message := await self._look_up(copy.key)) is not None:
            try:
                self._unheard(copy, message)
            except KeyConflict:
                pass  # the key's answer, all the same
            except Refusal as refusal:
                self._poisoned(copy.key, refusal)
            self._copies.forget(copy.key)
        return self._copies.get(copy.key) is not copy

    async def sweep(self) -> None:
        """Look up the results of handles that have been open for long, a few at a time, until cancelled.

        After a broken connection those of all of them.
        """
        behind = False
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._missed.wait(),
                    SWEEP_S * random.uniform(0.8, 1.2),  # noqa: S311  # spreads load; nothing secret
                )
            behind = behind or self._missed.is_set()
            self._missed.clear()
            handles = list(self._open.values()) if behind else self._overdue()
            behind = not await self._ask_all(handles, AT_ONCE if behind else 1) and behind

    async def _ask_all(self, handles: list[Handle[Any]], at_once: int) -> bool:
        """Look all of them up; False if the server does not answer."""
        for first in range(0, len(handles), at_once):
            asked = map(self.ask, handles[first : first + at_once])
            for error in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(error, TransportError):
                    _log.warning("sweep_failed", error=type(error).__name__)
                    return False
                if isinstance(error, BridgeError):
                    _log.error("sweep_refused", error=type(error).__name__)
                    return False
                if error is not None:
                    raise error
        return True

    def abandon(self, reason: BridgeError) -> None:
        """Settle every open handle with an error: nothing will come any more."""
        for handle in list(self._open.values()):
            self._open.pop(handle.key, None)
            handle.settle(reason)
        self._settled.set()

    def _overdue(self) -> list[Handle[Any]]:
        before = asyncio.get_running_loop().time() - SWEEP_S
        handles = [h for h in islice(list(self._open.values()), SWEEP_LOOKUPS) if h.asked_at <= before]
        for handle in handles:  # to the end of the line
            self._open.pop(handle.key, None)
            self._open[handle.key] = handle
        return handles

    async def _arrived(self, message: Message) -> None:
        key = subjects.parse_result(message.subject)
        if key is None:
            return
        handle, copy = self._open.get(key), self._copies.get(key)
        try:
            if handle is not None:
                self._settle(handle, message)
            elif copy is not None:  # nobody waits for it any more
                self._unheard(copy, message)
        except KeyConflict as conflict:
            if handle is not None:
                self._conflict(handle, conflict)
        except BridgeError as error:
            cause = error.name if isinstance(error, Refusal) else type(error).__name__
            _log.warning("result_ignored", queue=key.queue, job=key.job_id, cause=cause)
            self._meter.count(metrics.RESULTS_REFUSED, key.queue, cause)

    async def _look_up(self, key: JobKey) -> Message | None:
        return await self._transport.lookup(subjects.results_stream(key.queue), subjects.result(key))

    def _authenticate(self, key: JobKey, token: JobToken, tag: Tag | None, message: Message) -> Authenticated:
        workers, digest = self._connection.queues[key.queue].workers, bytes.fromhex(token.digest)
        return authenticate_answer(self._opener, message.data, "result", key, digest, workers, now_ms(), tag)

    def _unheard(self, copy: Copy, message: Message) -> None:
        answer = self._authenticate(copy.key, copy.token, copy.tag, message)
        self._copies.forget(copy.key)
        self._payloads.answered(copy.key, lambda: self._opener.open(answer).status)
        if self._journal is not None:
            self._journal.received(copy.token, self._opener.open(answer))

    def _poisoned(self, key: JobKey, refusal: Refusal) -> None:
        _log.error("fence_poisoned", queue=key.queue, job=key.job_id, cause=refusal.name)
        self._meter.count(metrics.RESULTS_REFUSED, key.queue, refusal.name)

    def _conflict(self, handle: Handle[Any], conflict: KeyConflict) -> None:
        self._close(handle, handle.keyed.conflict() if handle.keyed is not None and handle.keyed.key else conflict)

    def _settle(self, handle: Handle[Any], message: Message) -> None:
        tag = handle.keyed.tag if handle.keyed is not None else None
        result = self._authenticate(handle.key, handle.token, tag, message)
        if handle.done():
            return
        core, opened = result.core, open_result(self._opener, self._tracer, result, len(message.data))
        self._meter.count(metrics.RESULTS, core.queue, core.kind, str(opened.status))
        if self._journal is not None:
            self._journal.received(handle.token, opened)
        if handle.stored_at is not None:
            waited = asyncio.get_running_loop().time() - handle.stored_at
            self._meter.time(metrics.ROUND_TRIP, waited, core.queue, core.kind)
        self._close(handle, opened)

    def _close(self, handle: Handle[Any], outcome: Opened | BridgeError) -> None:
        self._open.pop(handle.key, None)
        self._copies.forget(handle.key)
        handle.settle(outcome)
        self._payloads.answered(handle.key, lambda: handle.status)
        self._settled.set()
