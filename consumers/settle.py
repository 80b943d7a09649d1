"""Verdicts carried out: dead letter, result, PubAck, ack, in this order whatever happens in between.

Storing is tried until it is known to have happened, while the lease is kept: an ack before that would lose the job.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Callable
from typing import Final

import structlog

from bridge import frame, subjects
from bridge.batching import Batcher
from bridge.clock import now_ms
from bridge.envelope import Draft, Opener, Sealed
from bridge.errors import (
    BridgeError,
    FencePoisoned,
    KeyConflict,
    NotConnected,
    PayloadTooLarge,
    Refusal,
    SubjectTaken,
    TransportError,
)
from bridge.job import Content, Failure, Status, encode
from bridge.journal import Journal
from bridge.payload import Manifest
from bridge.signals import NO_SPAN, Operation, Signals, Span, about, metrics
from bridge.subjects import JobKey
from bridge.transport import Delivery, Transport
from consumers import replays
from consumers.case import Case
from consumers.execute import TROUBLE_DELAY_S, Judge
from consumers.failures import MAX_MESSAGE_CHARS, most
from consumers.ledger import NoLedger
from consumers.receipts import finished
from consumers.verdict import (
    Answered,
    Cancelled,
    Conflict,
    Crowded,
    Done,
    Park,
    Poisoned,
    Reject,
    Repeat,
    Retry,
    Sent,
    Snooze,
    TooLate,
    Verdict,
    Wait,
)

MAX_KEPT_BYTES: Final = 700 * 1024
"""Of a refused message: all of anything that a producer can send."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
"""Between two tries to store something."""

_OUTCOMES: Final[dict[type[Verdict], str]] = {
    Done: "succeeded",
    Reject: "failed",
    TooLate: "expired",
    Cancelled: "cancelled",
    Answered: "answered",
    Repeat: "repeated",
    Conflict: "conflict",
    Poisoned: "poisoned",
    Retry: "retried",
    Snooze: "snoozed",
    Wait: "waiting",
    Crowded: "crowded",
    Park: "parked",
}
"""As metrics and spans name them; what is refused has a metric of its own."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")
_log = structlog.get_logger(__name__)


class Settler:
    """Carries out verdicts, as one member of a pool.

    Args:
        judge: Looks at the fence when it turns out to be taken.
        batcher: Seals results.
        opener: Holds the trust bundle: whom they are sealed to.
        transport: The workers' local broker.
        ledger: Where results are recorded before they are published.
        worker: The name of this process, for people.
        signals: Where measurements and spans go.
        withdraw: Has the parts of a result pass.
        journal: Told of what deliveries came to; None where no queue leaves receipts.
    """

    def __init__(
        self,
        judge: Judge,
        batcher: Batcher,
        opener: Opener,
        transport: Transport,
        ledger: NoLedger,
        worker: str,
        signals: Signals,
        withdraw: Callable[[JobKey, Manifest], None],
        journal: Journal | None = None,
    ) -> None:
        self._withdraw, self._journal = withdraw, journal
        self._judge = judge
        self._batcher = batcher
        self._opener = opener
        self._transport = transport
        self._ledger = ledger
        self._worker = worker
        self._meter, self._tracer = signals.meter, signals.tracer

    async def refuse(self, queue: str, delivery: Delivery, refusal: Refusal) -> None:
        """Keep what failed authentication apart, and remove it from the queue."""
        _log.error("message_refused", queue=queue, refusal=refusal.name, bytes=len(delivery.message.data))
        self._meter.count(metrics.REFUSED, queue, refusal.name)
        # A name of our own making: nothing that a forger wrote chooses where it is kept.
        subject = subjects.refused(queue, secrets.token_hex(12))
        kept = delivery.message.data[:MAX_KEPT_BYTES]
        hints = {"Bunny-Queue": queue, "Bunny-Cause": refusal.name}
        await self._store(subjects.refused_stream(queue), subject, kept, hints)
        await self._transport.ack(delivery)

    async def settle(self, case: Case, verdict: Verdict) -> None:
        """Carry out a verdict.

        Raises:
            NotConnected: The transport was closed meanwhile.
        """
        if isinstance(verdict, Reject | TooLate) and case.counted:
            verdict = await self._standing(case) or verdict
        outcome = _OUTCOMES[type(verdict)]
        span = NO_SPAN
        if case.core.traceparent is not None:
            seen = about(case.queue, case.core.kind, case.core.job, {"bunny.outcome": outcome})
            span = self._tracer.start(Operation.SETTLE, f"jobs.{case.queue}", seen, parent=case.parent)
        try:
            await self._settle(case, verdict, span)
        except PayloadTooLarge as error:  # only what a handler returned can be
            span.end(type(error).__name__)
            await self.settle(case, Reject(str(error), type=type(error).__name__))
        except BaseException as error:
            span.end(type(error).__name__)
            raise
        else:
            span.end()
            self._count(metrics.OUTCOMES, case, case.core.kind, outcome)
            if self._journal is not None:
                finished(self._journal, case, outcome)

    async def _settle(self, case: Case, verdict: Verdict, span: Span) -> None:
        if isinstance(verdict, Done):  # of which nothing is told
            await self._answer(case, Status.SUCCEEDED, verdict.content, span, verdict.sent)
            return
        log = _log.bind(queue=case.queue, kind=case.core.kind, job=case.core.job, attempt=case.attempt)
        match verdict:
            case Reject():
                log.warning("job_failed", error=_word(verdict.type))
                failure = Failure(verdict.type[:MAX_MESSAGE_CHARS], verdict.reason[: most(case.settings.errors)])
                await self._bury(case, verdict.type)
                await self._answer(case, Status.FAILED, encode(failure), span)
            case TooLate():
                log.warning("job_expired")
                await self._bury(case, "Expired")
                await self._answer(case, Status.EXPIRED, encode(None), span)
            case Cancelled():
                log.info("job_cancelled")
                await self._answer(case, Status.CANCELLED, encode(verdict.reason), span)
            case Answered():
                case.result = verdict.digest
                log.info("job_answered_before")
                self._count(metrics.FENCE_HITS, case)
                await self._ack(case)
            case Repeat(result):
                log.warning("result_published_again")
                await self._publish(case, result, frame.parse(result).digest, {})
            case Conflict():
                await self._conflict(case)
            case Poisoned(refusal):
                await self._poisoned(case, refusal)
            case Retry():
                delay = verdict.after or 0.0
                log.info("job_retried", seconds=round(delay, 1))
                self._count(metrics.RETRIES, case, case.core.kind)
                await self._transport.nak(case.delivery, delay)
            case Snooze():
                log.info("job_snoozed", seconds=round(verdict.after, 1))
                with contextlib.suppress(TransportError):  # then it counts: one too many is what is promised
                    await self._judge.record_start(case, case.attempt - 1)
                    self._ledger.started(case, case.attempt - 1)
                await self._transport.nak(case.delivery, verdict.after)
            case Crowded(delay):
                # Of what was delivered before, what was recorded stands.
                if case.first_counts and not case.seen_before and not case.delivery.doubtful:
                    with contextlib.suppress(TransportError):  # then it counts: one too many is what is promised
                        await self._judge.record_start(case, 0)
                await self._transport.nak(case.delivery, delay)
            case Wait(delay):
                await self._transport.nak(case.delivery, delay)
            case Park(delay, reason):
                log.warning("job_parked", seconds=round(delay, 1), reason=reason)
                await self._transport.nak(case.delivery, delay)

    async def _answer(
        self, case: Case, status: Status, content: Content, settling: Span, sent: Sent | None = None
    ) -> None:
        """Have a result stored at the fence, then ack."""
        span, traceparent = NO_SPAN, case.core.traceparent
        if traceparent is not None:
            seen = about(case.queue, case.core.kind, case.core.job, {"bunny.status": str(status)})
            parent = settling if settling.traceparent is not None else traceparent
            span = self._tracer.start(Operation.SEND, f"results.{case.queue}", seen, parent=parent)
        ended = "CancelledError"
        try:
            ended = await self._send(case, status, content, sent, span.traceparent or traceparent)
        except BridgeError as error:
            ended = type(error).__name__
            raise
        finally:
            span.end(ended)

    async def _send(
        self, case: Case, status: Status, content: Content, sent: Sent | None, traceparent: str | None
    ) -> str:
        """As `_answer`; returns the name of what kept the result from being the one that stands."""
        now = now_ms()
        try:
            sealed = await self._seal(case, status, content, sent, now, traceparent)
        except Refusal as refusal:  # of the bundle: the producer's keys ran out, and a new bundle may have others
            _log.error("no_key_to_answer", queue=case.queue, producer=case.core.sender, refusal=refusal.name)
            await self._transport.nak(case.delivery, LONGEST_PAUSE_S)
            return refusal.name
        headers = {} if traceparent is None else {"traceparent": traceparent}  # more would cost both servers a fifth
        await self._ledger.answered(case, sealed.data, now + case.settings.result_ttl_ms)
        return await self._publish(case, sealed.data, sealed.digest, headers, sent)

    async def _publish(
        self, case: Case, data: bytes, digest: bytes, headers: dict[str, str], sent: Sent | None = None
    ) -> str:
        """Have a sealed result stored, unless one stands, then ack; returns as `_send`."""
        stream, subject = subjects.results_stream(case.queue), subjects.result(case.key)
        taken, case.result = "", digest
        while not await self._store(stream, subject, data, headers):
            # Taken: by an earlier delivery, by a try of ours whose PubAck got lost, or by a forger.
            taken = SubjectTaken.__name__
            try:
                standing = await self._judge.standing(case)
            except TransportError:
                standing = None
            if isinstance(standing, Conflict):
                self._lose(case, sent, b"")
                case.stood, case.result = _OUTCOMES[Conflict], b""
                await self._conflict(case)
                return KeyConflict.__name__
            if isinstance(standing, Poisoned):
                case.stood, case.result = _OUTCOMES[Poisoned], b""
                await self._poisoned(case, standing.refusal)
                return FencePoisoned.__name__
            if standing is not None:
                self._count(metrics.FENCE_HITS, case)
                self._lose(case, sent, standing.transfer)
                if standing.digest != digest:
                    case.stood, case.result = _OUTCOMES[Answered], standing.digest
                break
            await asyncio.sleep(TROUBLE_DELAY_S)
        await self._ack(case)
        if not taken:
            self._count(metrics.RESULT_BYTES, case, case.core.kind, by=len(data))
        return taken

    def _lose(self, case: Case, sent: Sent | None, standing: bytes) -> None:
        """Have the parts of a result pass that is not the one that stands, unless the ledger may yet publish it."""
        if sent is not None and sent.manifest.transfer != standing and not self._ledger.remembers:
            self._withdraw(case.key, sent.manifest)

    async def _seal(
        self, case: Case, status: Status, content: Content, sent: Sent | None, now: int, traceparent: str | None
    ) -> Sealed:
        limit = case.settings.max_payload
        if status is Status.SUCCEEDED and len(content.body) > limit:  # a failure is answered, however small that is
            raise PayloadTooLarge(
                f"a result of {len(content.body)} bytes; queue {case.queue} takes {limit} (max_payload)"
            )
        core = case.answer("result", case.attempt, self._worker, now, traceparent, case.core.args_tag)
        recipients = (self._opener.trust.peer(case.core.sender).kem_key(now),)
        draft = Draft(core, recipients, content, status, packing=case.settings.packing)
        draft = draft if sent is None else draft.naming(sent.manifest, sent.wrap)
        return await self._batcher.seal(draft, now)

    async def _poisoned(self, case: Case, refusal: Refusal) -> None:
        _log.error("fence_poisoned", queue=case.queue, job=case.core.job, refusal=refusal.name)
        await self._bury(case, FencePoisoned.__name__)
        await self._ack(case)

    async def _conflict(self, case: Case) -> None:
        """What stands is the answer to its key: its producer, who knows the arguments, sees that it is another's."""
        _log.error("key_conflict", queue=case.queue, job=case.core.job, producer=case.core.sender)
        await self._bury(case, KeyConflict.__name__)
        await self._ack(case)

    async def _ack(self, case: Case) -> None:
        """Ack what is answered."""
        if case.core.generation:
            await replays.retire(case, self._transport)
        await self._transport.ack(case.delivery)

    def _count(self, metric: metrics.Metric, case: Case, *labels: str, by: float = 1.0) -> None:
        if case.counted:
            self._meter.count(metric, case.queue, *labels, by=by)

    async def _standing(self, case: Case) -> Answered | Poisoned | Conflict | None:
        """What another delivery of a job that failed here came to: a dead letter would say that the job died."""
        with contextlib.suppress(TransportError):  # then storing finds out, after the letter
            return await self._judge.standing(case)
        return None

    async def _bury(self, case: Case, cause: str) -> None:
        if not case.counted:  # nobody is to look into it, or run it again
            return
        headers = {**case.hints(), **replays.history(case), "Bunny-Cause": _word(cause)}
        if await self._store(subjects.dead_stream(case.queue), subjects.dead(case.key), case.envelope, headers):
            self._meter.count(metrics.DEAD_LETTERS, case.queue, case.core.kind)

    async def _store(self, stream: str, subject: str, data: bytes, headers: dict[str, str]) -> bool:
        """Store a message, for as long as it takes; False where the subject holds one already."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                await self._transport.publish(stream, subject, data, headers)
            except SubjectTaken:
                return False
            except NotConnected:
                raise
            except TransportError as error:
                _log.warning("store_failed", stream=stream, error=type(error).__name__, seconds=round(pause, 1))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            else:
                return True


def _word(text: str) -> str:
    """A header must not carry what a handler may put into a name."""
    return _UNSAFE.sub("_", text)[:80]
