"""Where jobs go out: checked, sealed, kept, and stored in the local cloud."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from bridge import frame
from bridge.batching import Batcher
from bridge.clock import now_ms
from bridge.core import Core
from bridge.crypto import KemPublicKey
from bridge.envelope import Draft, Opener, Sealed, Sealer
from bridge.errors import (
    BridgeError,
    ConfigurationError,
    Denied,
    PublishTimeout,
    QueueFull,
    SubjectTaken,
)
from bridge.fence import RESEND_HEADER
from bridge.identity import Connection, QueueSettings
from bridge.job import Content, Kind
from bridge.journal import journal_of
from bridge.payload import Manifest
from bridge.signals import NO_SPAN, Operation, Signals, Span, about, metrics
from bridge.subjects import JobKey
from bridge.transfer import Withdrawals
from bridge.transfer.fields import Large, pack, unpack
from bridge.transfer.outgoing import Told
from bridge.transport import Transport
from bridge.values import value
from producers.copies import Copies, Copy, address, headers_of
from producers.sequences import Sequences
from producers.terms import Terms, Times
from producers.uploads import Upload, Uploads, check, too_large

if TYPE_CHECKING:
    from producers.keyed import Keyed

PUBLISH_TIMEOUT_S: Final = 5.0
"""How long one PubAck is waited for before the same bytes are sent again."""

_E = TypeVar("_E", bound=BaseException)
_log = structlog.get_logger(__name__)


@value(frozen=True, slots=True)
class Parcel:
    """A sealed job, and the span of its sending, which whoever stores it ends."""

    sealed: Sealed
    span: Span = NO_SPAN


class Outbox:
    """Seals and stores the jobs of one process.

    Args:
        opener: Holds the producer's keys, and the trust bundle: whom jobs are sealed to, and what is allowed.
        connection: The queues.
        transport: The producer's local broker.
        copies: Keeps what was sent until it is answered.
        withdrawals: Of the parts of jobs that are not stored.
        signals: Where measurements and spans go.
    """

    def __init__(
        self,
        opener: Opener,
        connection: Connection,
        transport: Transport,
        copies: Copies,
        withdrawals: Withdrawals,
        signals: Signals,
    ) -> None:
        identity = opener.ring.identity
        self._name, self._secret = identity.name, identity.dedup_secret
        self._opener = opener
        self._connection = connection
        self._transport = transport
        self._copies, self._uploads = copies, Uploads(transport, withdrawals)
        self._sequences = Sequences()
        self.on_rolled_back: Callable[[str], None] = lambda _: None
        """Told of a stream that lost what it had stored."""
        self._sealer = Sealer(opener.ring)
        self._batcher = Batcher(self._sealer)
        self._meter, self._tracer = signals.meter, signals.tracer
        self.session: Final = secrets.token_hex(12)
        """96 random bits: nobody can guess, and so take, a job's subject before it is sent."""
        self._counters: dict[str, int] = {}
        self.journal: Final = journal_of(opener.ring, connection, transport, signals.meter)
        """The receipts of this process; None where no queue leaves any."""

    def settings(self, kind: Kind[Any, Any]) -> QueueSettings:
        """The settings of a kind's queue.

        Raises:
            ConfigurationError: This identity submits no such jobs; names those it does.
        """
        settings = self._connection.queues.get(kind.queue)
        if settings is not None and kind.name in settings.kinds and self._connection.identity in settings.producers:
            return settings  # as nearly always
        kinds = self._connection.submits(kind.queue)
        if settings is None or not kinds:
            mine = sorted(name for name in self._connection.queues if self._connection.submits(name))
            raise ConfigurationError(
                f"{self._name} submits no jobs to queue {kind.queue!r}; "
                f"bridge.yaml lets it submit to {', '.join(mine) or 'none'}"
            )
        if kind.name not in (*settings.kinds, *kinds):
            raise ConfigurationError(
                f"queue {kind.queue!r} has no kind {kind.name!r}; bridge.yaml has {', '.join(settings.kinds)}"
            )
        if kind.name not in kinds:
            raise ConfigurationError(
                f"{self._name} submits to queue {kind.queue!r} what its schedules say, {', '.join(sorted(kinds))}"
            )
        return settings

    async def seal(
        self, kind: Kind[Any, Any], batch: Sequence[Content], terms: Terms, keyed: Keyed | None = None
    ) -> list[Parcel | BridgeError]:
        """Seal one job for each of ``batch``; what cannot be sealed is its error, in its place.

        They share a signature with whatever else is sealed in this turn of the loop. A keyed job is a batch of its own.

        Raises:
            ConfigurationError, UsageError, TrustError, Refusal: What holds for all of them.
        """
        settings, now = self.settings(kind), now_ms()
        recipients = self._recipients(kind, settings, now)
        when = terms.times(now, settings)
        mark = terms.mark(self._secret, self._name, kind.queue, settings)
        outcomes: list[Parcel | BridgeError] = []
        sealed: list[tuple[int, asyncio.Future[Sealed], Span]] = []
        for content in batch:
            span = NO_SPAN
            try:
                _check(content, kind, settings)
                core, span = self._begin(kind, settings, now, when, terms.priority, mark, keyed)
                draft = Draft(core, recipients, content, packing=settings.packing)
                sealed.append((len(outcomes), self._batcher.seal(draft, now), span))
            except BridgeError as error:
                outcomes.append(self._refused(kind.queue, kind.name, span, error))
            else:
                outcomes.append(_PENDING)
        for place, signed, span in sealed:
            outcomes[place] = Parcel(await signed, span)
        return outcomes

    async def seal_one(self, kind: Kind[Any, Any], args: Content, terms: Terms, keyed: Keyed | None = None) -> Parcel:
        """As `seal`, of one job alone; raises what it came to."""
        (parcel,) = await self.seal(kind, [args], terms, keyed)
        if isinstance(parcel, BridgeError):
            raise parcel
        return parcel

    async def seal_any(
        self, kind: Kind[Any, Any], args: Content | Large, terms: Terms, told: Told | None = None
    ) -> Parcel:
        """As `seal_one`, of what may have to be stored in parts before."""
        if isinstance(args, Content):
            return await self.seal_one(kind, args, terms)
        return await self.seal_upload(kind, await self.upload(kind, args, terms, told), terms)

    async def pack(self, kind: Kind[Any, Any], args: object, *, tagged: bool = False) -> Content | Large:
        """Arguments as they travel.

        Raises:
            InvalidArguments, UsageError: They are none.
        """
        try:
            return await pack(args, tagged=tagged)
        except BridgeError as error:
            raise self._refused(kind.queue, kind.name, NO_SPAN, error) from None

    def check(self, kind: Kind[Any, Any], args: Content | Large) -> None:
        """Check arguments, before anything of them is sent.

        Raises:
            InvalidArguments, PayloadTooLarge: They are none of such a job.
        """
        try:
            _check(args, kind, self.settings(kind))
        except BridgeError as error:
            raise self._refused(kind.queue, kind.name, NO_SPAN, error) from None

    async def upload(
        self, kind: Kind[Any, Any], large: Large, terms: Terms, told: Told | None = None, key: JobKey | None = None
    ) -> Upload:
        """Store a payload's parts, for `seal_upload`, or else `withdraw`; ``key`` is that of a keyed job.

        Raises:
            ConfigurationError, UsageError, TrustError, Refusal: As `seal`; nothing was stored.
            PayloadTooLarge: It has more bytes than the queue takes; what was stored is withdrawn.
            TransportError: It could not be stored, and is withdrawn.
        """
        settings, now = self.settings(kind), now_ms()
        recipients = self._recipients(kind, settings, now)
        terms.times(now, settings)  # what is wrong with them is said before anything is stored
        terms.mark(self._secret, self._name, kind.queue, settings)
        self.check(kind, large)
        key = key or JobKey(kind.queue, self._name, self.session, self._next(kind.queue))
        try:
            return await self._uploads.store(large, key, self._sealer.wrap(recipients, now), settings, told)
        except BridgeError as error:
            raise self._refused(kind.queue, kind.name, NO_SPAN, error) from None

    async def seal_upload(
        self, kind: Kind[Any, Any], upload: Upload, terms: Terms, keyed: Keyed | None = None
    ) -> Parcel:
        """Seal the job that names a payload; raises as `seal`, and then has the parts of an unkeyed one pass."""
        settings, now = self.settings(kind), now_ms()  # its times count from here
        span = NO_SPAN
        try:
            recipients = self._recipients(kind, settings, now)
            mark = terms.mark(self._secret, self._name, kind.queue, settings)
            when, job = terms.times(now, settings), upload.key.job_id
            core, span = self._begin(kind, settings, now, when, terms.priority, mark, keyed, job)
            draft = Draft(core, recipients, upload.content).naming(upload.manifest, upload.wrap)
            return Parcel(await self._batcher.seal(draft, now), span)
        except BaseException as error:
            if keyed is None:
                self.withdraw(upload)
            self._refused(kind.queue, kind.name, span, error)
            raise

    def withdraw(self, upload: Upload) -> None:
        """Have the parts pass of a job that is not stored, nor will be."""
        self._uploads.withdraw(upload.key, upload.manifest)

    def _recipients(self, kind: Kind[Any, Any], settings: QueueSettings, now: int) -> tuple[KemPublicKey, ...]:
        """Whom jobs of a kind are sealed to, if they may be sent at all."""
        trust = self._opener.trust
        self._opener.check_mine(now)
        trust.authorise("job", kind.queue, kind.name, self._name, settings.workers)
        return (trust.peer(settings.workers).kem_key(now),)

    def _next(self, queue: str) -> int:
        n = self._counters[queue] = self._counters.get(queue, 0) + 1
        return n

    async def store(self, parcel: Parcel, timeout: float) -> None:
        """Have the local server store a job, sending the same bytes again until it is known to.

        From before it is sent until it is answered the job is kept; what raises is not. Parts of a job that is known
        not to be stored are withdrawn.

        Raises:
            OutboxFull: Nothing was sent, since it cannot be kept.
            TransportError: Nothing was stored; with `PublishTimeout` it may be.
        """
        sealed, core = parcel.sealed, parcel.sealed.core
        key = core.key
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            try:
                await self._copies.keep(sealed)
            except BaseException:  # nothing was sent
                self._uploads.withdraw(key, Manifest.of(core))
                raise
            await self._store(sealed, key, clock, begun + timeout)
        except BaseException as error:
            self._copies.forget(key)
            self._refused(core.queue, core.kind, parcel.span, error)
            raise
        self._copies.stored(key)
        if self.journal is not None:
            self.journal.submitted(core, sealed.digest)
        parcel.span.end()
        self._meter.count(metrics.SUBMITTED, core.queue, core.kind)
        self._meter.count(metrics.SUBMITTED_BYTES, core.queue, core.kind, by=len(sealed.data))
        self._meter.time(metrics.SUBMIT, clock() - begun, core.queue, core.kind)

    def kept(self, key: JobKey) -> Copy | None:
        """A job that was sent and is not answered."""
        return self._copies.get(key)

    async def found(self, parcel: Parcel) -> None:
        """Keep a job that was stored, as it turned out."""
        await self._copies.keep(parcel.sealed)
        self._copies.stored(parcel.sealed.core.key)
        if self.journal is not None:
            self.journal.submitted(parcel.sealed.core, parcel.sealed.digest)

    async def send_again(self, copy: Copy) -> None:
        """Have a job stored again that is neither stored nor answered: the same bytes, and whoever gets them looks.

        Raises:
            TransportError: It is not known to be stored.
        """
        data = await self._copies.read(copy)
        if self._copies.get(copy.key) is not copy:
            return  # answered meanwhile
        core = frame.parse(data).core
        headers = {**headers_of(core), RESEND_HEADER: "1"}
        if core.length:  # sealed anew they would be others than were signed: if they are lost too, its worker says so
            _log.warning("job_sent_again_without_parts", queue=core.queue, job=core.job, bytes=core.length)
        with contextlib.suppress(SubjectTaken):  # then it is there
            await self._publish(copy.stream, copy.subject, data, headers, PUBLISH_TIMEOUT_S)
        if self.journal is not None and not copy.stored:  # as far as this process, or an earlier one, was told
            self.journal.submitted(core, bytes.fromhex(copy.token.digest))
        self._copies.stored(copy.key)

    async def _store(self, sealed: Sealed, key: JobKey, clock: Callable[[], float], give_up: float) -> None:
        core = sealed.core
        stream, subject = address(core, key)
        headers = headers_of(core)
        while True:
            patience = min(PUBLISH_TIMEOUT_S, give_up - clock())
            try:
                await self._publish(stream, subject, sealed.data, headers, max(patience, 0.001))
            except SubjectTaken:
                if RESEND_HEADER not in headers or core.args_tag:
                    raise
                return  # by these bytes: the subject is this process's own, and unguessable
            except (QueueFull, Denied):
                if RESEND_HEADER not in headers:  # else an earlier try may have stored it
                    self._uploads.withdraw(key, Manifest.of(core))
                raise
            except PublishTimeout:
                if clock() >= give_up:
                    raise
                # The first one may have been stored, worked and removed: then this is the same job a second time,
                # and whoever gets it must look at the fence before it runs.
                headers[RESEND_HEADER] = "1"
            else:
                return

    async def _publish(
        self, stream: str, subject: str, data: bytes, headers: Mapping[str, str], timeout: float
    ) -> None:
        before = self._sequences.before(stream)
        ack = await self._transport.publish(stream, subject, data, headers, timeout=timeout)
        if self._sequences.went_back(stream, ack.sequence, before):
            queue = subject.split(".")[1]
            _log.error("stream_rolled_back", queue=queue, stream=stream)
            self._meter.count(metrics.ROLLED_BACK, queue)
            self.on_rolled_back(stream)

    def _refused(self, queue: str, kind: str, span: Span, error: _E) -> _E:
        name = type(error).__name__
        span.end(name)
        self._meter.count(metrics.NOT_SUBMITTED, queue, kind, name)
        return error

    def _begin(
        self,
        kind: Kind[Any, Any],
        settings: QueueSettings,
        issued: int,
        when: Times,
        priority: str,
        mark: bytes,
        keyed: Keyed | None,
        job: str = "",
    ) -> tuple[Core, Span]:
        job = job or (keyed.job.job_id if keyed is not None else f"{self.session}.{self._next(kind.queue)}")
        span = self._tracer.start(Operation.SEND, f"jobs.{kind.queue}", about(kind.queue, kind.name, job))
        core = Core(
            type="job",
            queue=kind.queue,
            kind=kind.name,
            job=job,
            generation=keyed.job.generation if keyed is not None else 0,
            sender=self._name,
            sender_kid=b"",
            recipient=settings.workers,
            issued=issued,
            expires=when.expires,
            not_before=when.not_before,
            priority=priority,
            concurrency_key=mark,
            traceparent=span.traceparent,
            args_tag=keyed.tag.args_tag if keyed is not None else b"",
        )
        return core, span


_PENDING: Final = BridgeError("not sealed yet")


def _check(args: Content | Large, kind: Kind[Any, Any], settings: QueueSettings) -> None:
    if isinstance(args, Large):
        check(args, kind, settings)
        return
    if kind.args is not object:
        unpack(args, kind.args)  # as the worker will: what it would refuse is not sent
    if len(args.body) > settings.max_payload:
        raise too_large(kind.queue, len(args.body), settings)
