"""Verdicts carried out: dead letter, result, PubAck, ack, in this order whatever happens in between.

Storing is tried until it is known to have happened, while the lease is kept: an ack before that would lose the job.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Final

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Draft, Sealer
from bridge.errors import (
    FencePoisoned,
    NotConnected,
    PayloadTooLarge,
    Refusal,
    SubjectTaken,
    TransportError,
)
from bridge.job import Content, Failure, Status, encode
from bridge.transport import Delivery, Transport
from bridge.trust import Trust
from consumers.execute import TROUBLE_DELAY_S, Case, Judge
from consumers.verdict import Answered, Done, Park, Poisoned, Reject, Retry, TooLate, Verdict

MAX_MESSAGE_CHARS: Final = 1000
"""Of a failure's text: enough for a sentence and a place, too little for a document that an exception quotes."""
MAX_KEPT_BYTES: Final = 700 * 1024
"""Of a refused message: all of anything that a producer can send."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
"""Between two tries to store something."""

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")
_log = structlog.get_logger(__name__)


class Settler:
    """Carries out verdicts, as one member of a pool.

    Args:
        judge: Looks at the fence when it turns out to be taken.
        sealer: Seals results.
        trust: Whom they are sealed to.
        transport: The workers' local broker.
        worker: The name of this process, for people.
    """

    def __init__(self, judge: Judge, sealer: Sealer, trust: Trust, transport: Transport, worker: str) -> None:
        self._judge = judge
        self._sealer = sealer
        self._trust = trust
        self._transport = transport
        self._worker = worker

    async def refuse(self, queue: str, delivery: Delivery, refusal: Refusal) -> None:
        """Keep what failed authentication apart, and remove it from the queue."""
        _log.error("message_refused", queue=queue, refusal=refusal.name, bytes=len(delivery.message.data))
        # A name of our own making: nothing that a forger wrote chooses where it is kept.
        subject = subjects.refused(queue, secrets.token_hex(12))
        kept = delivery.message.data[:MAX_KEPT_BYTES]
        await self._store(subjects.refused_stream(queue), subject, kept, {"Bunny-Cause": refusal.name})
        await self._transport.ack(delivery)

    async def settle(self, case: Case, verdict: Verdict) -> None:
        """Carry out a verdict.

        Raises:
            NotConnected: The transport was closed meanwhile.
        """
        log = _log.bind(queue=case.queue, kind=case.core.kind, job=case.core.job, attempt=case.attempt)
        match verdict:
            case Done(content):
                try:
                    await self._answer(case, Status.SUCCEEDED, content)
                except PayloadTooLarge as error:
                    await self.settle(case, Reject(str(error), type="PayloadTooLarge"))
            case Reject():
                log.warning("job_failed", error=_word(verdict.type))
                failure = Failure(verdict.type[:MAX_MESSAGE_CHARS], verdict.reason[:MAX_MESSAGE_CHARS])
                await self._bury(case, verdict.type)
                await self._answer(case, Status.FAILED, encode(failure))
            case TooLate():
                log.warning("job_expired")
                await self._bury(case, "Expired")
                await self._answer(case, Status.EXPIRED, encode(None))
            case Answered():
                log.info("job_answered_before")
                await self._transport.ack(case.delivery)
            case Poisoned(refusal):
                await self._poisoned(case, refusal)
            case Retry():
                delay = verdict.after or 0.0
                log.info("job_retried", seconds=round(delay, 1))
                await self._transport.nak(case.delivery, delay)
            case Park(delay, reason):
                log.warning("job_parked", seconds=round(delay, 1), reason=reason)
                await self._transport.nak(case.delivery, delay)

    async def _answer(self, case: Case, status: Status, content: Content) -> None:
        """Have a result stored at the fence, then ack."""
        now = now_ms()
        try:
            data = self._seal(case, status, content, now)
        except Refusal as refusal:  # of the bundle: the producer's keys ran out, and a new bundle may have others
            _log.error("no_key_to_answer", queue=case.queue, producer=case.core.sender, refusal=refusal.name)
            await self._transport.nak(case.delivery, LONGEST_PAUSE_S)
            return
        stream, subject = subjects.results_stream(case.queue), subjects.result(case.key)
        headers = {"Bunny-Kind": case.core.kind, "Bunny-Attempt": str(case.attempt)}
        while not await self._store(stream, subject, data, headers):
            # Taken: by an earlier delivery, by a try of ours whose PubAck got lost, or by a forger.
            try:
                standing = await self._judge.standing(case)
            except TransportError:
                standing = None
            if isinstance(standing, Poisoned):
                await self._poisoned(case, standing.refusal)
                return
            if standing is not None:
                break
            await asyncio.sleep(TROUBLE_DELAY_S)
        await self._transport.ack(case.delivery)
        _log.debug("job_answered", queue=case.queue, job=case.core.job, attempt=case.attempt, status=str(status))

    def _seal(self, case: Case, status: Status, content: Content, now: int) -> bytes:
        limit = case.settings.max_payload
        if len(content.body) > limit:
            raise PayloadTooLarge(
                f"a result of {len(content.body)} bytes; queue {case.queue} takes {limit} (max_payload)"
            )
        core = Core(
            type="result",
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
            attempt=case.attempt,
            worker=self._worker,
        )
        recipients = (self._trust.peer(case.core.sender).kem_key(now),)
        return self._sealer.seal(Draft(core, recipients, content, status), now).data

    async def _poisoned(self, case: Case, refusal: Refusal) -> None:
        _log.error("fence_poisoned", queue=case.queue, job=case.core.job, refusal=refusal.name)
        await self._bury(case, FencePoisoned.__name__)
        await self._transport.ack(case.delivery)

    async def _bury(self, case: Case, cause: str) -> None:
        headers = {
            "Bunny-Kind": case.core.kind,
            "Bunny-Cause": _word(cause),
            "Bunny-Attempt": str(case.attempt),
            "Bunny-Digest": case.job.digest.hex(),
        }
        data = case.delivery.message.data
        await self._store(subjects.dead_stream(case.queue), subjects.dead(case.key), data, headers)

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
