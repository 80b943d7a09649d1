"""Dead letters that an operator has ordered to run again: how an order becomes a case, and what becomes of its letter.

A replay is the same job as a later generation, with a fence, starts and a dead letter of its own. Once its result
stands, the letter it was made from has served: either the job is done, or a letter of this generation tells why not.
"""

from __future__ import annotations

from typing import Final

import structlog

from bridge import replay, subjects
from bridge.clock import now_ms
from bridge.envelope import Opener
from bridge.errors import NotConnected, TransportError, WrongSubject
from bridge.identity import QueueSettings
from bridge.replay import HISTORY_HEADER, REPLAYED_HEADER
from bridge.transport import Delivery, Transport
from consumers.case import Case

TTL_HEADER: Final = "Nats-TTL"
"""For the server: how long it keeps this message."""
TTL: Final = "1s"
"""The shortest there is: what takes a letter's place need only have taken it."""

_log = structlog.get_logger(__name__)


def admit(opener: Opener, queue: str, settings: QueueSettings, delivery: Delivery) -> Case:
    """Authenticate an order and its job.

    Raises:
        Refusal: It must not be acted on.
        BundleExpired: Nothing can be said about it.
    """
    ordered = replay.authenticate(opener, delivery.message.data, now_ms())
    core = ordered.job.core
    if delivery.message.subject != subjects.replay(core.key) or core.queue != queue:
        raise WrongSubject("the subject is not the one that the signed order names")
    if core.recipient != settings.workers:
        raise WrongSubject("the job is addressed to other workers than the queue's")
    return Case(queue, settings, delivery, ordered.job, replay=ordered)


def history(case: Case) -> dict[str, str]:
    """What is told on a dead letter about the generations before, in the words of whoever ordered the replay."""
    told = case.delivery.message.headers.get(HISTORY_HEADER, "") if case.replay is not None else ""
    return {HISTORY_HEADER: replay.safe_history(told)} if told else {}


async def retire(case: Case, transport: Transport) -> None:
    """Take the dead letter of the generation before off the list; tried once, since it keeps nobody waiting."""
    before = subjects.dead(case.key._replace(generation=case.core.generation - 1))
    headers = {**case.hints(), REPLAYED_HEADER: str(case.core.generation), TTL_HEADER: TTL}
    try:
        await transport.publish(subjects.dead_stream(case.queue), before, b"", headers)
    except NotConnected:
        raise
    except TransportError as error:
        _log.warning("dead_letter_kept", queue=case.queue, job=case.core.job, error=type(error).__name__)
