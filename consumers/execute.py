"""One delivery to one verdict: what it is, whether it may run, and what its handler made of it.

The order is the security of it: nothing private is used, and no handler runs, before author, signature, authority and
subject have been checked; and what may have run before is looked up at the fence before it runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import random
import time
from concurrent.futures import Executor as ThreadPool
from dataclasses import dataclass
from typing import Final, Literal

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import Core, check_time
from bridge.envelope import Authenticated, Draft, Opener, Sealer
from bridge.errors import Expired, FromTheFuture, InvalidArguments, Refusal, TransportError, WrongSubject
from bridge.fence import RESEND_HEADER, authenticate_answer
from bridge.identity import QueueSettings
from bridge.job import decode, encode
from bridge.signals import NO_SPAN, Operation, Signals, Span, about, metrics
from bridge.subjects import JobKey
from bridge.transport import Delivery, Transport
from consumers.handlers import Handler, Handlers, Job, moment
from consumers.verdict import Answered, Done, Park, Poisoned, Reject, Retry, TooLate, Verdict

FUTURE_DELAY_S: Final = 60.0
"""How long a job from the future waits: clocks are put right by people, within minutes."""
TROUBLE_DELAY_S: Final = 5.0
"""How long a job waits while the local broker does not answer."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Case:
    """A delivery whose job is known, and the attempt it has come to."""

    queue: str
    settings: QueueSettings
    delivery: Delivery
    job: Authenticated
    attempt: int = 0
    """0 until it starts."""
    span: Span = NO_SPAN
    """Of the attempt."""

    @property
    def parent(self) -> Span | str | None:
        """What is to be the parent of what is done about it from now on."""
        return self.span if self.span.traceparent is not None else self.core.traceparent

    @property
    def core(self) -> Core:
        """What the producer signed."""
        return self.job.core

    def hints(self) -> dict[str, str]:
        """Headers for people on what this attempt leaves behind."""
        return {
            **self.core.hints(),
            "Bunny-Digest": self.job.digest.hex(),
            "Bunny-Attempt": str(self.attempt),
        }

    @property
    def key(self) -> JobKey:
        """What names the job."""
        return self.job.core.key

    @property
    def seen_before(self) -> bool:
        """Whether the job may have run. Both hints are untrusted, and can only force look-ups."""
        return self.delivery.delivered > 1 or RESEND_HEADER in self.delivery.message.headers


class Judge:
    """Comes to verdicts, as one member of a pool.

    Args:
        opener: Verifies and opens.
        sealer: Signs starts.
        transport: The workers' local broker.
        handlers: What to run.
        threads: Where plain functions run.
        worker: The name of this process, for people.
        signals: Where measurements and spans go.
    """

    def __init__(
        self,
        opener: Opener,
        sealer: Sealer,
        transport: Transport,
        handlers: Handlers,
        threads: ThreadPool,
        worker: str,
        signals: Signals,
    ) -> None:
        self._opener = opener
        self._sealer = sealer
        self._transport = transport
        self._handlers = handlers
        self._threads = threads
        self._worker = worker
        self._meter, self._tracer = signals.meter, signals.tracer

    def admit(self, queue: str, settings: QueueSettings, delivery: Delivery) -> Case:
        """Authenticate a delivery; no private key is used.

        Raises:
            Refusal: It must not be acted on.
            BundleExpired: Nothing can be said about it.
        """
        named = subjects.parse_job(delivery.message.subject)
        job = self._opener.authenticate(delivery.message.data, now_ms())
        core = job.core
        # A job moved to another subject would be another job, with a fence of its own.
        if core.type != "job" or named != (core.key, core.priority) or core.queue != queue:
            raise WrongSubject("the subject is not the one that the signed core names")
        if core.recipient != settings.workers:
            raise WrongSubject("the job is addressed to other workers than the queue's")
        return Case(queue, settings, delivery, job)

    async def judge(self, case: Case) -> Verdict:
        """Come to a verdict. Only cancelling stops it."""
        try:
            return await self._judge(case)
        except TransportError as error:
            return Park(TROUBLE_DELAY_S, type(error).__name__)

    async def standing(self, case: Case) -> Answered | Poisoned | None:
        """What stands at the fence.

        Raises:
            TransportError: The local broker does not answer.
            BundleExpired: Nothing can be said about what stands.
        """
        message = await self._transport.lookup(subjects.results_stream(case.queue), subjects.result(case.key))
        if message is None:
            return None
        try:
            self._answer(case, message.data, "result")
        except Refusal as refusal:
            return Poisoned(refusal)
        return Answered()

    async def _judge(self, case: Case) -> Verdict:
        if case.seen_before and (standing := await self.standing(case)) is not None:
            return standing
        try:
            check_time(case.core, now_ms())
        except Expired:
            return TooLate()
        except FromTheFuture:
            _log.error("job_from_the_future", queue=case.queue, job=case.core.job, producer=case.core.sender)
            return Park(FUTURE_DELAY_S, "signed ahead of this clock; check both clocks")
        handler = self._handlers.get(case.queue, case.core.kind)
        if handler is None:
            return self._unknown_kind(case)
        if case.seen_before:
            attempt = await self._last_start(case) + 1
            if attempt > case.settings.max_attempts:
                case.attempt = case.settings.max_attempts
                return Reject("its workers stopped during the last attempt", type="AttemptsExhausted")
            await self._record_start(case, attempt)
            case.attempt = attempt
        else:
            case.attempt = 1
        return await self._run(case, handler)

    def _unknown_kind(self, case: Case) -> Verdict:
        # Deliveries are counted here: nothing was started, and a worker that knows the kind may be rolling out.
        if case.delivery.delivered >= case.settings.max_attempts:
            return Reject("no worker of the queue has a handler for this kind", type="UnknownKind")
        return Park(backoff(case.settings, case.delivery.delivered), "no handler for its kind")

    async def _run(self, case: Case, handler: Handler) -> Verdict:
        try:
            args = decode(self._opener.open(case.job).content, handler.args)
        except Refusal as refusal:
            return Reject(str(refusal), type=refusal.name)
        except InvalidArguments as error:
            return Reject(str(error), type="InvalidArguments")
        core = case.core
        self._begin(case)
        structlog.contextvars.bind_contextvars(
            queue=case.queue,
            kind=core.kind,
            job=core.job,
            attempt=case.attempt,
            producer=core.sender,
            traceparent=case.span.traceparent or core.traceparent,
        )
        job = Job(
            queue=case.queue,
            kind=core.kind,
            id=core.job,
            generation=core.generation,
            producer=core.sender,
            issued=moment(core.issued),
            deadline=moment(core.expires),
            attempt=case.attempt,
            max_attempts=case.settings.max_attempts,
            traceparent=case.span.traceparent or core.traceparent,
        )
        begun, ended = time.monotonic(), "CancelledError"  # unless it comes to a verdict
        try:
            with case.span.current():
                verdict, ended = await self._outcome(case, handler, (args, job) if handler.takes_job else (args,))
            return verdict
        finally:
            case.span.end(ended)
            self._meter.time(metrics.RUN_TIME, time.monotonic() - begun, case.queue, core.kind)

    async def _outcome(self, case: Case, handler: Handler, arguments: tuple[object, ...]) -> tuple[Verdict, str]:
        """Run a handler: the verdict, and the name of what it raised."""
        try:
            value = await self._call(handler, arguments)
        except Reject as reject:
            return reject, "Reject"
        except Retry as retry:
            return self._again(case, retry.after, "Retry", retry.reason), "Retry"
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._again(case, None, "CancelledError", "the handler was cancelled from within"), "CancelledError"
        except (Exception, SystemExit) as error:
            _log.warning("attempt_failed", exc_info=error)
            return self._again(case, None, type(error).__name__, _text(error)), type(error).__name__
        try:
            return Done(encode(value)), ""
        except InvalidArguments as error:
            return Reject(str(error), type="InvalidResult"), "InvalidResult"

    def _begin(self, case: Case) -> None:
        """Tell how long the job has waited, and start the span of its attempt."""
        core, now = case.core, now_ms()
        issued = min(core.issued, now)  # by the producer's clock, which may be a little ahead
        self._meter.time(metrics.QUEUE_TIME, (now - issued) / 1000, case.queue, core.kind)
        if core.traceparent is None:
            return
        seen = about(
            case.queue,
            core.kind,
            core.job,
            {"bunny.attempt": case.attempt, "messaging.consumer.group.name": case.settings.workers},
        )
        destination = f"jobs.{case.queue}"
        if case.attempt == 1:  # what a later one has waited for is the backoff
            self._tracer.start(Operation.RECEIVE, destination, seen, parent=core.traceparent, start_ms=issued).end()
        case.span = self._tracer.start(Operation.PROCESS, destination, seen, parent=core.traceparent)

    async def _call(self, handler: Handler, arguments: tuple[object, ...]) -> object:
        if handler.is_async:
            value = handler.function(*arguments)
        else:
            context = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            value = await loop.run_in_executor(self._threads, context.run, handler.function, *arguments)
        return await value if inspect.isawaitable(value) else value

    def _again(self, case: Case, after: float | None, type_: str, message: str) -> Verdict:
        if case.attempt >= case.settings.max_attempts:
            return Reject(message, type=type_)
        return Retry(after if after is not None else backoff(case.settings, case.attempt))

    async def _last_start(self, case: Case) -> int:
        """The attempt that was last recorded; the first delivery counts as one and records nothing."""
        message = await self._transport.lookup(subjects.starts_stream(case.queue), subjects.start(case.key))
        if message is None:
            return 1
        try:
            return self._answer(case, message.data, "start").core.attempt
        except Refusal as refusal:
            _log.error("start_refused", queue=case.queue, job=case.core.job, refusal=refusal.name)
            return case.delivery.delivered - 1

    async def _record_start(self, case: Case, attempt: int) -> None:
        now = now_ms()
        core = Core(
            type="start",
            queue=case.queue,
            kind=case.core.kind,
            job=case.core.job,
            generation=case.core.generation,
            sender=case.settings.workers,
            sender_kid=b"",
            recipient=case.core.sender,
            issued=now,
            expires=now + case.settings.result_ttl_ms,
            job_digest=case.job.digest,
            attempt=attempt,
            worker=self._worker,
        )
        sealed = self._sealer.seal(Draft(core), now)
        stream, headers = subjects.starts_stream(case.queue), {**case.hints(), "Bunny-Attempt": str(attempt)}
        await self._transport.publish(stream, subjects.start(case.key), sealed.data, headers)

    def _answer(self, case: Case, data: bytes, type_: Literal["result", "start"]) -> Authenticated:
        return authenticate_answer(
            self._opener, data, type_, case.key, case.job.digest, case.settings.workers, now_ms()
        )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the exception is the user's own class
        return ""


def backoff(settings: QueueSettings, attempt: int) -> float:
    """Seconds to wait after the given attempt failed, with jitter."""
    # The exponent is bounded, since a float overflows where the maximum has long been reached.
    ms = min(settings.backoff_initial_ms * settings.backoff_factor ** min(attempt - 1, 64), settings.backoff_max_ms)
    spread = settings.backoff_jitter
    return ms / 1000 * random.uniform(1 - spread, 1 + spread)  # noqa: S311  # spreads load; nothing secret
