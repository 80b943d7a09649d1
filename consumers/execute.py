"""One delivery to one verdict: what it is, whether it may run now, and which attempt it is.

The order is the security of it: nothing private is used, and no handler runs, before author, signature, authority and
subject have been checked; and what may have run before is looked up at the fence before it runs.
"""

from __future__ import annotations

import time
from typing import Final, Literal

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import check_time
from bridge.envelope import Authenticated, Draft, Opener, Sealer
from bridge.errors import Expired, FromTheFuture, KeyConflict, Refusal, TransportError, WrongSubject
from bridge.fence import authenticate_answer
from bridge.identity import QueueSettings
from bridge.signals import metrics
from bridge.signals.meter import Meter
from bridge.transport import Delivery, Transport
from consumers import replays
from consumers.attempt import Attempts
from consumers.cancels import Cancels
from consumers.case import Case
from consumers.gates import Gates
from consumers.handlers import Handler, Handlers
from consumers.ledger import NoLedger
from consumers.limits import Backoff, backoff
from consumers.verdict import (
    Answered,
    Cancelled,
    Conflict,
    Crowded,
    Park,
    Poisoned,
    Reject,
    Repeat,
    TooLate,
    Verdict,
    Wait,
)

FUTURE_DELAY_S: Final = 60.0
"""How long a job from the future waits: clocks are put right by people, within minutes."""
TROUBLE_DELAY_S: Final = 5.0
"""How long a job waits while the local broker does not answer."""
LOOK_AGE_S: Final = 1.0
"""How old a look at the fence may be when a handler starts."""

_log = structlog.get_logger(__name__)


class Judge:
    """Comes to verdicts, as one member of a pool.

    Args:
        opener: Verifies and opens.
        sealer: Signs starts.
        transport: The workers' local broker.
        handlers: What to run.
        attempts: Runs them.
        cancels: What is not to be run.
        queues: The queues, whose limits it keeps to.
        ledger: What was begun and answered here.
        worker: The name of this process, for people.
        meter: Where measurements go.
    """

    def __init__(
        self,
        opener: Opener,
        sealer: Sealer,
        transport: Transport,
        handlers: Handlers,
        attempts: Attempts,
        cancels: Cancels,
        queues: dict[str, QueueSettings],
        ledger: NoLedger,
        worker: str,
        meter: Meter,
    ) -> None:
        self._opener = opener
        self._sealer = sealer
        self._transport = transport
        self._handlers = handlers
        self._attempts = attempts
        self._cancels = cancels
        self.gates = Gates(queues, transport, cancels, worker)
        """What may run at once, or in a time."""
        self._ledger = ledger
        self._worker = worker
        self._meter = meter

    def admit(self, queue: str, settings: QueueSettings, delivery: Delivery) -> Case:
        """Authenticate a delivery; no private key is used.

        Raises:
            Refusal: It must not be acted on.
            BundleExpired: Nothing can be said about it.
        """
        job = self._opener.authenticate(delivery.message.data, now_ms())
        core = job.core
        # A job moved to another subject would be another job, with a fence of its own.
        if (
            core.type != "job"
            or delivery.message.subject != subjects.of_job(core.key, core.priority, core.not_before > 0)
            or core.queue != queue
        ):
            raise WrongSubject("the subject is not the one that the signed core names")
        if core.recipient != settings.workers:
            raise WrongSubject("the job is addressed to other workers than the queue's")
        return Case(queue, settings, delivery, job)

    def admit_replay(self, queue: str, settings: QueueSettings, delivery: Delivery) -> Case:
        """As `admit`, of an order to run a dead letter again."""
        return replays.admit(self._opener, queue, settings, delivery)

    async def judge(self, case: Case) -> Verdict:
        """Come to a verdict. Only cancelling stops it."""
        try:
            found = await self._consider(case)
            if not isinstance(found, Handler):
                return found
            gate = self.gates.of(case.queue) if case.counted else None
            if gate is None:
                return await self._start(case, found)
            async with gate.passing(case) as passage:
                if passage.waited:
                    found = await self._consider(case)
                    if not isinstance(found, Handler):
                        return found
                if passage.delay is not None:
                    return Crowded(passage.delay)
                return await self._start(case, found)
        except TransportError as error:
            return Park(TROUBLE_DELAY_S, type(error).__name__)

    async def standing(self, case: Case) -> Answered | Poisoned | Conflict | None:
        """What stands at the fence.

        Raises:
            TransportError: The local broker does not answer.
            BundleExpired: Nothing can be said about what stands.
        """
        message = await self._transport.lookup(subjects.results_stream(case.queue), subjects.result(case.key))
        if message is None:
            return None
        try:
            answer = self._answer(case, message.data, "result")
            return Answered(answer.core.transfer, answer.digest)
        except KeyConflict:
            return Conflict()
        except Refusal as refusal:
            return Poisoned(refusal)

    async def _consider(self, case: Case) -> Verdict | Handler:
        """Whether a job may start now, and if so what runs it."""
        case.looked = time.monotonic()
        if case.remembered is not None and case.remembered.result is not None:
            self._meter.count(metrics.LEDGER_HITS, case.queue)
            case.attempt = case.remembered.attempt
        if case.must_look and (standing := await self.standing(case)) is not None:
            return standing
        if case.remembered is not None and case.remembered.result is not None:
            return self._repeat(case, case.remembered.result)
        try:
            check_time(case.core, now_ms())
        except Expired:
            return TooLate()
        except FromTheFuture:
            _log.error("job_from_the_future", queue=case.queue, job=case.core.job, producer=case.core.sender)
            return Park(FUTURE_DELAY_S, "signed ahead of this clock; check both clocks")
        if (reason := await self._cancels.asked(case)) is not None:
            return Cancelled(reason)
        if (wait := case.core.not_before - now_ms()) > 0:
            return Wait(wait / 1000)
        handler = self._handlers.get(case.queue, case.core.kind)
        if handler is None:
            return self._unknown_kind(case)
        return handler

    async def _start(self, case: Case, handler: Handler) -> Verdict:
        begun = 0 if case.remembered is None else case.remembered.attempt
        if begun or case.seen_before or case.delivery.doubtful or not case.first_counts:
            attempt = max(await self._last_start(case), begun) + 1
            most = handler.limits.max_attempts or case.settings.max_attempts
            if attempt > most:
                case.attempt = most
                return Reject("its workers stopped during the last attempt", type="AttemptsExhausted")
            if attempt > 1 or not case.first_counts:
                await self.record_start(case, attempt)
            case.attempt = attempt
            # An outage may lie between the look and the start, and another worker may have done the job meanwhile.
            if time.monotonic() - case.looked > LOOK_AGE_S and (standing := await self.standing(case)) is not None:
                return standing
        else:
            case.attempt = 1
        if not self._ledger.started(case, case.attempt):
            return Park(0, "the ledger cannot be written")
        return await self._attempts.run(case, handler)

    def _repeat(self, case: Case, result: bytes) -> Verdict:
        """What the ledger holds is believed as far as what stands: keys may have gone since, and disks forget."""
        try:
            self._answer(case, result, "result")
        except KeyConflict:
            pass  # it is the answer to the key all the same, and its producer sees that it is another's
        except Refusal as refusal:
            _log.error("recorded_result_refused", queue=case.queue, job=case.core.job, refusal=refusal.name)
            return Park(FUTURE_DELAY_S, "its recorded result does not verify any more")
        return Repeat(result)

    def _unknown_kind(self, case: Case) -> Verdict:
        # Deliveries are counted here: nothing was started, and a worker that knows the kind may be rolling out.
        if case.delivery.delivered >= case.settings.max_attempts:
            return Reject("no worker of the queue has a handler for this kind", type="UnknownKind")
        return Park(backoff(Backoff.of(case.settings), case.delivery.delivered), "no handler for its kind")

    async def _last_start(self, case: Case) -> int:
        """The attempt that was last recorded; a first delivery that counts as one records nothing."""
        message = await self._transport.lookup(subjects.starts_stream(case.queue), subjects.start(case.key))
        if message is None:
            return int(case.first_counts and case.seen_before)
        try:
            return self._answer(case, message.data, "start").core.attempt
        except Refusal as refusal:
            _log.error("start_refused", queue=case.queue, job=case.core.job, refusal=refusal.name)
            # At least one attempt is left: on a broker's word alone no job is ever signed as failed.
            return min(case.delivery.delivered, case.settings.max_attempts) - 1

    async def record_start(self, case: Case, attempt: int) -> None:
        """Say that this is the given attempt, for whoever gets the job next."""
        now = now_ms()
        core = case.answer("start", attempt, self._worker, now)
        sealed = self._sealer.seal(Draft(core), now)
        stream, headers = subjects.starts_stream(case.queue), {**case.hints(), "Bunny-Attempt": str(attempt)}
        await self._transport.publish(stream, subjects.start(case.key), sealed.data, headers)

    def _answer(self, case: Case, data: bytes, type_: Literal["result", "start"]) -> Authenticated:
        return authenticate_answer(
            self._opener, data, type_, case.key, case.job.digest, case.settings.workers, now_ms(), case.tag
        )
