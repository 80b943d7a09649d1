"""The inbox: every result of one producer on a queue, kept until one of its processes has acked it.

A handle is of the process that made it. An inbox is the identity's: a process that submitted nothing may read it,
several may share it, and what one of them took and did not ack comes again. The consumer behind it was made from the
policy, and reads this producer's results alone; nothing here can make one.

What does not verify is kept out and never given to the application:

====================================  ==================================================================
UnknownKey, UnknownVersion,           a newer trust bundle, key or release may take it: it comes again
NotAuthorised, WrongRecipient         every `PARK_S`, and is put out after `PARKED_DELIVERIES` of these
any other refusal                     it will never verify: put out at once
====================================  ==================================================================

Put out means acked: it comes no more, and still stands in the stream for whoever looks into it. Either way it is
logged as an error and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast, overload

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.durations import seconds
from bridge.envelope import Opened, Opener
from bridge.errors import (
    BridgeError,
    ConfigurationError,
    NotAuthorised,
    NotConnected,
    Refusal,
    TransportError,
    UnknownKey,
    UnknownVersion,
    UsageError,
    WrongRecipient,
    WrongSubject,
)
from bridge.fence import authenticate_answer
from bridge.identity import Connection
from bridge.job import JobToken, Status
from bridge.journal import Journal
from bridge.signals import Signals, metrics
from bridge.transfer.aside import target
from bridge.transfer.outgoing import Told
from bridge.transport import Delivery, Pull, Transport
from producers.handle import Read
from producers.outcome import open_result, value_of

T = TypeVar("T")

PREFETCH: Final = 64
"""Results that one process holds at most: to be given out, or given out and not acked. Sealed they are 17 MiB where all
are as large as a worker sends them, and 48 MiB where a broker makes them up."""
MOST_PREFETCH: Final = 1_000
RENEWALS_PER_ACK_WAIT: Final = 3
"""Two renewals may be lost before the broker gives a result to another process."""
NAK_S: Final = 1.0
MOST_NAK_S: Final = 300.0
"""A result that its reader has no use for yet comes again after so long, doubled each time, up to so long."""
PARK_S: Final = 60.0
PARKED_DELIVERIES: Final = 60
"""About an hour: what a new trust bundle takes to reach every process."""

_PARKED: Final = (UnknownKey, UnknownVersion, NotAuthorised, WrongRecipient)
_log = structlog.get_logger(__name__)


class Result:
    """One result, verified and opened. It is this process's until `ack` or `nak`, or until nothing refers to it.

    Made by `Inbox`.
    """

    __slots__ = ("__weakref__", "_delivery", "_inbox", "_opened", "delivered", "status", "token")

    def __init__(self, inbox: Inbox, delivery: Delivery, opened: Opened) -> None:
        self._inbox, self._delivery, self._opened = inbox, delivery, opened
        core = opened.core
        self.token: Final = JobToken(*core.key, core.job_digest.hex())
        """Names the job, its run, and **the bytes that the worker says it answers**: see `answers`."""
        self.status: Final = cast(Status, opened.status)  # every result has one
        """How the job ended."""
        self.delivered: Final = delivery.delivered
        """How often the broker says it gave this result out, from 1: a hint."""

    @property
    def id(self) -> str:
        """``<session>.<n>``, as the handle and the worker had it; the same for every generation."""
        return self._opened.core.job

    @property
    def kind(self) -> str:
        """The job's kind."""
        return self._opened.core.kind

    @property
    def attempt(self) -> int:
        """Which attempt it was; 0 where the job never ran."""
        return self._opened.core.attempt or 0

    @property
    def worker(self) -> str:
        """The process that answered, for people."""
        return self._opened.core.worker

    @overload
    def value(self, type: None = None) -> Any: ...
    @overload
    def value(self, type: type[T]) -> T: ...

    def value(self, type: Any = None) -> Any:
        """What the handler returned, where it came with the result; `read` fetches what did not.

        Args:
            type: What to decode it to; None leaves that to what was sent.

        Raises:
            JobFailed, JobCancelled, DeadlineExceeded: The job did not succeed.
            InvalidArguments: The result does not fit ``type``.
            PayloadTooLarge: It is in parts.
        """
        return value_of(self._opened, type)

    @overload
    async def read(self, type: None = None, *, progress: Told | None = None) -> Any: ...
    @overload
    async def read(self, type: type[T], *, progress: Told | None = None) -> T: ...
    @overload
    async def read(self, *, to: Path | str, progress: Told | None = None) -> Path: ...

    async def read(self, type: Any = None, *, to: Path | str | None = None, progress: Told | None = None) -> Any:
        """What the handler returned, of any length, as `producers.handle.Handle.result` gives it and raises.

        The result stays this process's meanwhile.

        Args:
            type: What to decode it to; None leaves that to what was sent.
            to: A file to write its bytes to, which appears once all of them are verified and on the disk.
            progress: Told how many bytes of what is in parts are verified.
        """
        place = None if to is None else target(to)
        if self.status is not Status.SUCCEEDED:
            value_of(self._opened, None)  # raises what it stands for
        return await self._inbox._read(self.token.key, self._opened, type, place, progress)

    def answers(self, token: str | JobToken) -> bool:
        """Whether it is the answer to the very bytes of the job that ``submit`` gave this token for, in whatever run.

        This process did not send the job, so it does not know that it was sent: only a token that was kept does. A
        keyed job may have been answered for the bytes of another submit of its key: then submit it again with its key
        and arguments, and its handle compares those.

        Raises:
            UsageError: It is not a token.
        """
        kept = JobToken.parse(token) if isinstance(token, str) else token
        return kept._replace(generation=0) == self.token._replace(generation=0)

    async def ack(self) -> None:
        """It is dealt with: it comes no more. Calling it again does nothing.

        It is sent at once and not confirmed: where it gets lost, with this process or the server, the result comes
        once more.

        Raises:
            NotConnected: The producer was closed.
        """
        await self._inbox._settle(self._delivery, None)

    async def nak(self, delay: float | timedelta | None = None) -> None:
        """Have it come again, to whichever process asks.

        Args:
            delay: Seconds until then; None is one, doubled with each time that it was delivered, and at most 5 min.

        Raises:
            NotConnected: The producer was closed.
        """
        after = _delay(self.delivered) if delay is None else seconds("delay", delay)
        await self._inbox._settle(self._delivery, after)

    def __repr__(self) -> str:
        return f"<Result {self.token.queue} {self.id} {self.status}>"


class Inbox:
    """Results of one producer on one queue: ``async with relay.inbox(queue) as inbox``, ``async for result in inbox``.

    What is held is renewed, so it stays this process's for as long as it takes. A result that is dropped without an
    ack is renewed no more, and comes again when the queue's ``ack_wait`` is over.

    Args:
        connection: Names the producer and its queues.
        queue: The queue.
        transport: The producer's local broker.
        opener: Verifies and opens results.
        signals: Where measurements and spans go.
        read: Reads what came in parts.
        prefetch: Results held at most.
        journal: Told of what is given out; None where no queue leaves receipts.

    Raises:
        ConfigurationError: The policy gives this identity no inbox on the queue.
    """

    def __init__(
        self,
        connection: Connection,
        queue: str,
        transport: Transport,
        opener: Opener,
        signals: Signals,
        read: Read,
        prefetch: int = PREFETCH,
        journal: Journal | None = None,
    ) -> None:
        me, settings = connection.identity, connection.queues.get(queue)
        if settings is None or me not in settings.inbox:
            mine = sorted(name for name, each in connection.queues.items() if me in each.inbox)
            have = f"it has one on {', '.join(mine)}" if mine else "it has none"
            raise ConfigurationError(
                f"{me} has no inbox on queue {queue!r}; {have}: bridge.yaml gives it one there with inbox: [{me}]"
            )
        if type(prefetch) is not int or not 1 <= prefetch <= MOST_PREFETCH:
            raise UsageError(f"prefetch={prefetch!r}; pass how many results to hold at most, 1 to {MOST_PREFETCH}")
        self.queue: Final = queue
        self.refused = 0
        """How many results were kept out, not having verified."""
        self._me, self._workers, self._ack_wait = me, settings.workers, settings.ack_wait_ms / 1000
        self._transport, self._opener, self._read, self._prefetch = transport, opener, read, prefetch
        self._meter, self._tracer, self._journal = signals.meter, signals.tracer, journal
        self._unwatch: Callable[[], None] = lambda: None
        self._pull: Pull | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._held: dict[str, Delivery] = {}
        """By subject: what waits to be given out, and what was and is not settled."""
        self._given: dict[str, weakref.ref[Result]] = {}
        self._waiting: asyncio.Queue[Delivery | BridgeError] = asyncio.Queue()  # at most `prefetch`, and an end

    async def __aenter__(self) -> Self:
        stream, consumer = subjects.results_stream(self.queue), subjects.inbox_consumer(self._me)
        self._pull = self._transport.pull(stream, consumer)
        self._pull.grant(self._prefetch)
        self._unwatch = self._meter.watch(lambda: [(metrics.INBOX_HELD, (self.queue,), len(self._held))])
        self._tasks = [
            asyncio.create_task(self._receive(self._pull), name=f"inbox {self.queue}"),
            asyncio.create_task(self._renew(), name=f"inbox {self.queue} renews"),
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Hand back what was not given out. What was can still be acked; what is not comes again after ``ack_wait``.

        It takes up to 4 seconds, until the server can deliver nothing more to this process.
        """
        pull, self._pull = self._pull, None
        if pull is None:
            return
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._unwatch()
        left = [*(self._held[subject] for subject in self._held.keys() - self._given.keys()), *await pull.close()]
        self._held.clear()
        self._given.clear()
        with contextlib.suppress(TransportError):  # then they come again after their ack wait
            for delivery in left:
                await self._transport.nak(delivery)
        self._waiting.put_nowait(NotConnected(f"the inbox of {self.queue} was closed"))
        await pull.closed()
        for task in self._tasks:
            if not task.cancelled():
                task.result()  # raises what ended it

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        """The next result, whenever it comes.

        Raises:
            BundleExpired: The trust bundle can no longer be relied on; what is held is kept.
            NotConnected: The inbox or the producer was closed.
        """
        while True:
            delivery = await self._waiting.get()
            if isinstance(delivery, BridgeError):
                self._waiting.put_nowait(delivery)  # for the next who asks
                raise delivery.__class__(*delivery.args)
            if self._pull is None:
                continue  # handed back, and what follows says so
            try:
                return self._give(delivery)
            except Refusal as refusal:
                await self._refuse(delivery, refusal)
            except BridgeError:
                self._waiting.put_nowait(delivery)
                raise

    def _give(self, delivery: Delivery) -> Result:
        message = delivery.message
        key = subjects.parse_result(message.subject)
        if key is None or (key.queue, key.producer) != (self.queue, self._me):
            raise WrongSubject("an inbox was delivered what is no result of its producer")
        answer = authenticate_answer(self._opener, message.data, "result", key, None, self._workers, now_ms())
        opened = open_result(self._opener, self._tracer, answer, len(message.data))
        result = Result(self, delivery, opened)
        if self._journal is not None:
            self._journal.received(result.token, opened)
        loop = asyncio.get_running_loop()

        def dropped(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._release, delivery)

        self._given[message.subject] = weakref.ref(result, dropped)
        self._meter.count(metrics.INBOX_RESULTS, self.queue, result.kind, str(result.status))
        return result

    async def _refuse(self, delivery: Delivery, refusal: Refusal) -> None:
        park = isinstance(refusal, _PARKED) and delivery.delivered < PARKED_DELIVERIES
        subject = delivery.message.subject
        _log.error("inbox_refused", queue=self.queue, subject=subject, cause=refusal.name, delivered=delivery.delivered)
        self.refused += 1
        self._meter.count(metrics.RESULTS_REFUSED, self.queue, refusal.name)
        await self._settle(delivery, PARK_S if park else None)

    async def _settle(self, delivery: Delivery, delay: float | None) -> None:
        """Ack what is held, or have it come again after ``delay`` seconds; what was settled is left as it is."""
        held = self._release(delivery)
        if not held and self._pull is not None:
            return
        if delay is None:
            await self._transport.ack(delivery)
        else:
            await self._transport.nak(delivery, delay)

    def _release(self, delivery: Delivery) -> bool:
        """Hold it no more, and make room for another; False if it was not held."""
        subject = delivery.message.subject
        if self._held.get(subject) is not delivery:
            return False
        del self._held[subject]
        self._given.pop(subject, None)
        if self._pull is not None:
            self._pull.grant(1)
        return True

    async def _receive(self, pull: Pull) -> None:
        while True:
            try:
                delivery = await pull.get()
            except BridgeError as error:
                self._waiting.put_nowait(error)
                return
            if delivery.message.subject in self._held:
                # Again, since a renewal came too late: the broker takes an ack of either delivery for both.
                pull.grant(1)
                continue
            self._held[delivery.message.subject] = delivery
            self._waiting.put_nowait(delivery)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._ack_wait / RENEWALS_PER_ACK_WAIT)
            for subject, delivery in list(self._held.items()):
                if not self._transport.connected:  # it would go out too late
                    break
                if self._held.get(subject) is delivery:
                    with contextlib.suppress(TransportError):  # logged, and `_receive` is told if it is for good
                        await self._transport.in_progress(delivery)


def _delay(delivered: int) -> float:
    return min(NAK_S * 2.0 ** min(delivered - 1, 30), MOST_NAK_S)  # a broker may say any number
