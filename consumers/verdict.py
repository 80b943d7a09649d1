"""Verdicts: what becomes of one delivery, as values. No I/O.

`consumers.execute` comes to one verdict for each delivery, and `consumers.settle` carries it out, always in the
order dead letter, result, PubAck, ack:

==========  ===========  =================  ========================
verdict     dead letter  result             the delivery is then
==========  ===========  =================  ========================
`Done`      no           succeeded          acked
`Reject`    yes          failed             acked
`TooLate`   yes          expired            acked
`Cancelled` no           cancelled          acked
`Answered`  no           one stands         acked
`Repeat`    no           the one recorded   acked
`Poisoned`  yes          a forgery stands   acked
`Refused`   no           none, ever         acked; kept in REFUSED
`Retry`     no           none yet           nak'd; counts
`Snooze`    no           none yet           nak'd; does not count
`Wait`      no           none yet           nak'd until its time
`Crowded`   no           none yet           nak'd; does not count
`Park`      no           none yet           nak'd; does not count
==========  ===========  =================  ========================

`Retry`, `Snooze`, `Reject` and `Cancelled` are exceptions too, so that a handler can raise them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from bridge.envelope import Wrap
from bridge.errors import Refusal
from bridge.job import Content
from bridge.payload import Manifest
from bridge.values import value


class Retry(Exception):
    """Later, and it counts: raise it in a handler to choose the delay.

    Args:
        after: Seconds until the next attempt; None takes the queue's backoff.
        reason: For the producer, sealed to it, should this have been the last attempt.
    """

    def __init__(self, after: float | timedelta | None = None, reason: str = "the handler asked to be retried") -> None:
        self.after = after.total_seconds() if isinstance(after, timedelta) else after
        self.reason = reason
        super().__init__(reason)


class Snooze(Exception):
    """Later, and it does not count: raise it in a handler that cannot work now through no fault of the job.

    Args:
        after: Seconds until the same attempt is made again.
    """

    def __init__(self, after: float | timedelta) -> None:
        self.after = after.total_seconds() if isinstance(after, timedelta) else after
        super().__init__(f"in {self.after:g} s")


class Reject(Exception):
    """Final: the job failed and is not tried again. Raise it in a handler.

    Args:
        reason: For the producer, sealed to it: the message of its `JobFailed`.
        type: The type of its `JobFailed`: a name, which brokers and operators read as the cause of the dead letter.
    """

    def __init__(self, reason: str, *, type: str = "Reject") -> None:
        self.reason, self.type = reason, type
        super().__init__(reason)


class Cancelled(Exception):
    """Final: the producer asked for it. `Job.raise_if_cancelled` raises it; a handler need not catch it.

    Args:
        reason: The producer's.
    """

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Sent:
    """A result's payload, stored, and what the result is to name it by."""

    wrap: Wrap
    manifest: Manifest


@value(frozen=True, slots=True)
class Done:
    """The handler returned this."""

    content: Content
    sent: Sent | None = None
    """Where it is in parts, stored already."""


@dataclass(frozen=True, slots=True)
class TooLate:
    """The job's signed expiry has passed."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A result stands and verifies: an earlier delivery was done."""

    transfer: bytes = b""
    """Of its payload in parts; empty where it has none."""
    digest: bytes = b""
    """Of that result."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """This worker has answered it before, says its ledger, and no result stands: the same one is published again."""

    result: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A result of another job of the same key stands and verifies."""


@dataclass(frozen=True, slots=True)
class Poisoned:
    """A result stands and does not verify."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Refused:
    """Not authenticated. Never answered: whoever can have a forgery answered can burn the fence of a true job."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Park:
    """Not now: back in ``delay`` seconds, whatever stands in the way."""

    delay: float
    reason: str = field(default="")


@dataclass(frozen=True, slots=True)
class Wait:
    """Its signed ``not_before`` has not come: back in ``delay`` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Crowded:
    """Too many of its key wait here: back in ``delay`` seconds."""

    delay: float


_Answer = Done | Reject | TooLate | Cancelled | Answered | Repeat | Conflict | Poisoned
Verdict = _Answer | Refused | Retry | Snooze | Wait | Crowded | Park
