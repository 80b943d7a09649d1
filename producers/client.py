"""The producer: submits jobs in the local cloud, and hands out handles to their results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

from bridge import observe
from bridge.clock import now_ms
from bridge.durations import seconds
from bridge.envelope import Opener
from bridge.errors import BridgeError, NotConnected, UsageError
from bridge.follow import following
from bridge.identity import Connection, Identity
from bridge.job import JobToken, Kind
from bridge.keyring import Keyring
from bridge.member import Member, folder_from_env
from bridge.signals import OFF, Signals, signalling
from bridge.signals.metrics import HANDLES
from bridge.transfer import Withdrawals
from bridge.transfer.outgoing import Told
from bridge.transport import Transport
from bridge.trust import Trust
from producers.arrivals import KEYED, Arrivals
from producers.attach import Attacher
from producers.batches import in_batches
from producers.cancel import Canceller
from producers.copies import Copies
from producers.events import Events
from producers.gaps import Gaps
from producers.handle import Desk, Handle, Signed
from producers.inbox import PREFETCH, Inbox
from producers.keyed import Keys
from producers.outbox import Outbox, Parcel
from producers.outboxfile import keeping
from producers.payloads import Payloads
from producers.records import Reader
from producers.terms import Priority, Terms, contract_of

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

A = TypeVar("A")
R = TypeVar("R")

SUBMIT_TIMEOUT_S: Final = 30.0
"""How long a submit tries to have its job stored: the restart of a broker takes less."""
MAX_OPEN: Final = 100_000
"""Handles open at once; a submit beyond waits until one is settled or dropped. About 2 KiB of memory each."""
WINDOW: Final = 256
"""Jobs of one `Producer.submit_many` that await their PubAck at once."""


class Producer:
    """Submits jobs as one identity; use it as ``async with``.

    Args:
        identity: The private keys, or the keyring that holds them.
        trust: The verified trust bundle.
        connection: The queues, as rendered from the policy.
        transport: A connection to the local broker; closed with the producer.
        signals: Where measurements and spans go.
        copies: Keeps what was sent until it is answered; None does so in memory.
    """

    def __init__(
        self,
        identity: Identity | Keyring,
        trust: Trust,
        connection: Connection,
        transport: Transport,
        signals: Signals = OFF,
        copies: Copies | None = None,
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._signals = signals
        self._opener = Opener(identity, trust)
        self._copies = copies if copies is not None else Copies(signals.meter)
        self._withdrawals = Withdrawals(transport)
        self._outbox = Outbox(self._opener, connection, transport, self._copies, self._withdrawals, signals)
        self._payloads = read = Payloads(connection, transport, self._withdrawals)
        self._journal = told = self._outbox.journal
        self._arrivals = Arrivals(connection, transport, self._opener, self._copies, read, signals, told)
        self._gaps = Gaps(self._copies, self._outbox, self._arrivals, transport, signals)
        cancel = Canceller(self._opener, connection, transport).cancel
        events = Events(connection, transport, self._opener).of
        records = Reader(connection, transport, self._opener).records
        self._desk = Desk(self._arrivals.ask, cancel, events, read.read, read.stream, records)
        handle = self._desk.handle
        self._keys = Keys(self._opener, transport, self._outbox, self._arrivals, handle, read.sent)
        self._attacher = Attacher(connection, transport, self._arrivals, handle)
        self._unwatch = signals.meter.watch(lambda: [(HANDLES, (), len(self._arrivals))])
        self._watchers: list[asyncio.Task[None]] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        folder: Path | str,
        *,
        timeout: float | timedelta | None = None,
        outbox: Path | str | None = None,
        metrics: str | None = None,
        traces: TracerProvider | None = None,
    ) -> AsyncIterator[Self]:
        """Connect with the identity folder given: ``async with Producer.open(folder) as relay``.

        A newer trust bundle, and other keys, that are delivered to it are taken up while it runs.

        Args:
            folder: The identity folder.
            timeout: Seconds to try to connect; None tries for ever, and logs each attempt that failed.
            outbox: A file that keeps jobs until they are answered; None reads ``BUNNY_OUTBOX``, not set or empty is
                memory.
            metrics: ``host:port`` to serve Prometheus metrics at; None reads ``BUNNY_METRICS``, not set is nowhere.
            traces: The OpenTelemetry provider to send spans to; None takes the global one if ``BUNNY_TRACES`` is 1.

        Raises:
            ConfigurationError: The folder is not an identity's, or the outbox or the signals cannot be as asked for.
            TrustError: Its trust bundle cannot be relied on.
            NotConnected: No connection within ``timeout``; `IdentityRefused`: this identity is not accepted.
        """
        observe.quiet()
        limit = None if timeout is None else seconds("timeout", timeout)
        member = Member.load(folder)
        async with signalling(metrics, traces) as signals, keeping(outbox, member.connection, signals.meter) as copies:
            transport = await member.connect("producer", limit)
            async with (
                cls(member.keys, member.trust, member.connection, transport, signals, copies) as producer,
                following(member.folder, producer._opener),
            ):
                yield producer

    @classmethod
    @asynccontextmanager
    async def from_env(
        cls,
        *,
        timeout: float | timedelta | None = None,
        outbox: Path | str | None = None,
        metrics: str | None = None,
        traces: TracerProvider | None = None,
    ) -> AsyncIterator[Self]:
        """`open` with the identity folder that ``BUNNY_IDENTITY`` names."""
        folder = folder_from_env()
        async with cls.open(folder, timeout=timeout, outbox=outbox, metrics=metrics, traces=traces) as producer:
            yield producer

    async def __aenter__(self) -> Self:
        watches = {"producer-sweep": self._arrivals.sweep, "producer-gaps": self._gaps.watch}
        self._watchers = [asyncio.create_task(watch(), name=name) for name, watch in watches.items()]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect. Jobs that were submitted run all the same; their tokens attach new handles later."""
        try:
            for watcher in self._watchers:
                watcher.cancel()
            if self._watchers:
                await asyncio.wait(self._watchers)
            for watcher in self._watchers:
                if not watcher.cancelled():
                    watcher.result()  # raises what ended it
        finally:
            await self._withdrawals.close()
            if self._journal is not None:
                await self._journal.close()
            self._unwatch()
            await self._copies.close()
            self._arrivals.abandon(NotConnected("the producer was closed; attach the job's token to a new one"))
            await self._transport.close()

    @overload
    async def submit(
        self,
        queue: Kind[A, R],
        kind: A,
        /,
        *,
        deadline: float | timedelta | None = None,
        priority: Priority = "normal",
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        concurrency_key: str | None = None,
        key: str | None = None,
        retry_failed: bool = False,
        timeout: float = SUBMIT_TIMEOUT_S,
        progress: Told | None = None,
    ) -> Handle[R]: ...
    @overload
    async def submit(
        self,
        queue: str,
        kind: str,
        args: object,
        /,
        *,
        deadline: float | timedelta | None = None,
        priority: Priority = "normal",
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        concurrency_key: str | None = None,
        key: str | None = None,
        retry_failed: bool = False,
        timeout: float = SUBMIT_TIMEOUT_S,
        progress: Told | None = None,
    ) -> Handle[Any]: ...

    async def submit(
        self,
        queue: str | Kind[Any, Any],
        kind: object,
        args: object = None,
        /,
        *,
        deadline: float | timedelta | None = None,
        priority: Priority = "normal",
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        concurrency_key: str | None = None,
        key: str | None = None,
        retry_failed: bool = False,
        timeout: float = SUBMIT_TIMEOUT_S,
        progress: Told | None = None,
    ) -> Handle[Any]:
        """Store one job, as ``submit(queue, kind, args)`` or ``submit(Kind(...), args)``.

        Args:
            queue: The queue's name and, as ``kind``, the kind's; or the typed contract and, as ``kind``, the arguments.
            args: A pydantic model, a dataclass, a JSON value; bytes, a `Path`, a binary file, an async iterator of
                bytes, or a `Payload` of one of these. What has more than 256 KiB is stored in parts first.
            deadline: Seconds after which the job is no longer started nor let run; by default the queue's. They count
                from when it may start.
            priority: ``high`` before ``normal`` before ``low``, by weight: low never starves.
            delay: Seconds before it may start; or ``at``: when, with a time zone.
            concurrency_key: Such as ``customer-7``; of one's jobs with it at most ``concurrency_per_key`` run at once.
            key: What the job is the same by, such as ``order-42``: submitted again with the same arguments, from any
                process of this identity and while its result stands (``result_ttl``), it is the same job. Not with a
                priority or a time.
            retry_failed: Whether a keyed job that failed, or was too late, runs again, as its next generation.
            timeout: Seconds to try; the same bytes are sent again while no PubAck comes. Parts take what they take.
            progress: Told how many bytes of a payload in parts are on their way.

        Returns:
            The handle, once the local server has stored the job.

        Raises:
            ConfigurationError, KeyConflict: No such queue or kind; the key was used for another job or other arguments.
            InvalidArguments, PayloadTooLarge: The arguments do not fit; nothing was sent.
            BundleExpired, IdentityRevoked, NotAuthorised: The trust bundle does not allow it; nothing was sent.
            QueueFull, OutboxFull, Denied: Nothing was stored.
            PublishTimeout: Not known to be stored in ``timeout``.
        """
        timeout = seconds("timeout", timeout)
        contract, value = contract_of(queue, kind, args)
        self._outbox.settings(contract)
        terms = Terms(deadline, priority, delay, at, concurrency_key)
        value = await self._outbox.pack(contract, value, tagged=key is not None)
        if key is not None:
            left = await self._arrivals.ready(contract.queue, KEYED, MAX_OPEN, timeout)
            return await self._keys.submit(contract, value, key, terms, left, retry_failed, progress)
        if retry_failed:
            raise UsageError("retry_failed without a key: nothing says which job is meant")
        left = await self._arrivals.ready(contract.queue, self._outbox.session, MAX_OPEN, timeout)
        return await self._store(await self._outbox.seal_any(contract, value, terms, progress), contract, left)

    @overload
    async def submit_many(
        self,
        queue: Kind[A, R],
        kind: Iterable[A],
        /,
        *,
        deadline: float | timedelta | None = None,
        priority: Priority = "normal",
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        concurrency_key: str | None = None,
        timeout: float = SUBMIT_TIMEOUT_S,
        window: int = WINDOW,
    ) -> list[Handle[R] | BridgeError]: ...
    @overload
    async def submit_many(
        self,
        queue: str,
        kind: str,
        args: Iterable[object],
        /,
        *,
        deadline: float | timedelta | None = None,
        priority: Priority = "normal",
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        concurrency_key: str | None = None,
        timeout: float = SUBMIT_TIMEOUT_S,
        window: int = WINDOW,
    ) -> list[Handle[Any] | BridgeError]: ...

    async def submit_many(
        self,
        queue: str | Kind[Any, Any],
        kind: object,
        args: Iterable[object] = (),
        /,
        *,
        deadline: float | timedelta | None = None,
        priority: Priority = "normal",
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        concurrency_key: str | None = None,
        timeout: float = SUBMIT_TIMEOUT_S,
        window: int = WINDOW,
    ) -> list[Handle[Any] | BridgeError]:
        """Store many jobs, up to 64 under one signature and at most ``window`` in flight.

        Args:
            queue: As `submit`; so are ``kind`` and ``args``, but for an iterable of arguments, read as needed.
            deadline, priority, delay, at, concurrency_key, timeout: As `submit`, for each job.
            window: Jobs that await their PubAck at once.

        Returns:
            For each of the arguments, in order, its handle, or why it was not stored or not known to be.

        Raises:
            ConfigurationError: This identity has no such queue or kind.
        """
        timeout = seconds("timeout", timeout)
        contract, values = contract_of(queue, kind, args)
        self._outbox.settings(contract)
        terms = Terms(deadline, priority, delay, at, concurrency_key)
        ready = partial(self._arrivals.ready, contract.queue, self._outbox.session, MAX_OPEN, timeout)
        store = partial(self._store, kind=contract, timeout=timeout)
        return await in_batches(values, window, self._outbox, contract, terms, ready, store)

    async def attach(self, token: str | JobToken, *, generation: int | None = None) -> Handle[Any]:
        """A handle to a job that this identity submitted, in this process or an earlier one.

        A job that failed may have been replayed by the operators of the other cloud: each replay is a generation of
        its own, and the result of an earlier one stays what it was.

        Args:
            token: What `Handle.token` was, or its text.
            generation: Which run to wait for; by default the token's, or the newest that was answered since, unless
                the token's succeeded.

        Returns:
            The handle, done if the result stands already. Without a timeout its `Handle.result` waits for the
            queue's default deadline, since a token holds none.

        Raises:
            UsageError: It is not a token of a job of this identity.
            TransportError: The local server does not answer.
        """
        return await self._attacher.attach(token, generation)

    async def recovered(self) -> list[Handle[Any]]:
        """Handles to what an earlier process left in the outbox on disk, oldest first; none without such an outbox.

        What of it was never sent, or is stored no more, is sent now, unless it is too late.

        Raises:
            TransportError: The local server does not answer.
        """
        return await self._attacher.recovered(self._copies.recovered)

    def inbox(self, queue: str, *, prefetch: int = PREFETCH) -> Inbox:
        """This identity's results on a queue, until one of its processes has acked them: whoever submitted the jobs.

        Args:
            queue: One on which the policy gives this identity an inbox.
            prefetch: Results that this process holds at most, 1 to 1,000.

        Returns:
            What to read them from: ``async with relay.inbox("thumbnails") as inbox``, ``async for result in inbox``.

        Raises:
            ConfigurationError: The policy gives it none there.
        """
        read, journal = self._payloads.read, self._journal
        return Inbox(self._connection, queue, self._transport, self._opener, self._signals, read, prefetch, journal)

    async def _store(self, parcel: Parcel, kind: Kind[Any, Any], timeout: float) -> Handle[Any]:
        digest, core = parcel.sealed.digest, parcel.sealed.core
        handle = self._desk.handle(JobToken(*core.key, digest.hex()), core.expires - now_ms(), kind.result)
        handle.signed = Signed(digest, core.kind, core.expires)
        handle.stored_at = handle.asked_at
        self._arrivals.expect(handle)  # before it is sent: the answer may be faster than the PubAck
        await self._outbox.store(parcel, timeout)
        self._payloads.sent(handle, core)
        return handle
