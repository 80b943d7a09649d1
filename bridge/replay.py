"""Replay orders: an operator's word that a job which died is to run again, and the job itself. No I/O.

The message (integers big-endian; ``docs/spec.md``, 7.4)::

    order_len u32 | order | job

The job is the producer's envelope, byte for byte, so its author's signature still holds; the order is an envelope of
its own, which names the job by digest and gives the run its generation and its times.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Final

from bridge.envelope import Authenticated, Opener
from bridge.errors import WrongSubject

HISTORY_HEADER: Final = "Bunny-History"
"""On an order and the dead letter of a replay: generation, cause and attempt of each that died before. For people."""
REPLAYED_HEADER: Final = "Bunny-Replayed"
"""On what takes the place of a dead letter whose replay was answered: the replay's generation."""
MAX_HISTORY_CHARS: Final = 900

_LEN: Final = 4
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.,: -]")


@dataclass(frozen=True, slots=True)
class Replay:
    """A job that is ordered to run again."""

    job: Authenticated
    """The job, with generation and times as ordered: what it is run and answered by."""
    submitted: int
    """When the producer issued it."""
    original: bytes = field(repr=False)
    """The producer's envelope."""


def pack(order: bytes, job: bytes) -> bytes:
    """The message that holds both."""
    return b"".join((len(order).to_bytes(_LEN), order, job))


def unpack(data: bytes) -> tuple[bytes, bytes]:
    """Order and job of a message, as far as they are there: what is cut short is no envelope."""
    end = _LEN + int.from_bytes(data[:_LEN])
    return data[_LEN:end], data[end:]


def authenticate(opener: Opener, data: bytes, now: int) -> Replay:
    """Check order and job. Nothing is opened: nothing that counts is sealed in an order.

    The job's own expiry does not count any more. Its author, key and grant do, as they are now.

    Args:
        opener: Holds the trust bundle.
        data: The message.
        now: Milliseconds UTC.

    Raises:
        Refusal: One of them does not verify, or they are not about the same job.
        BundleExpired: Nothing can be said about them.
    """
    ordering, original = unpack(data)
    order, job = opener.authenticate(ordering, now), opener.authenticate(original, now)
    if order.core.type != "replay" or job.core.type != "job":
        raise WrongSubject("what should be a replay order and its job are of other types")
    ordered = dataclasses.replace(
        job.core,
        generation=order.core.generation,
        issued=order.core.issued,
        expires=order.core.expires,
        not_before=0,
    )
    same = (ordered.key, ordered.kind, ordered.recipient) == (order.core.key, order.core.kind, order.core.recipient)
    if not same or order.core.job_digest != job.digest:
        raise WrongSubject("a replay order speaks of another job than it comes with")
    if ordered.generation <= job.core.generation:
        raise WrongSubject("a replay order names no later generation than the job's own")
    return Replay(dataclasses.replace(job, core=ordered), job.core.issued, original)


def history(before: str, generation: int, cause: str, attempt: str) -> str:
    """The history of a dead letter, with one more line: ``0 OSError 5, 1 ValueError 3``."""
    return safe_history(f"{before}, {generation} {cause} {attempt}" if before else f"{generation} {cause} {attempt}")


def safe_history(text: str) -> str:
    """A history that anyone may have written, fit for a header; of a long one the end."""
    return _UNSAFE.sub("_", text)[-MAX_HISTORY_CHARS:]
