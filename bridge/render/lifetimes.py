"""How long what is stored may be needed: the parts of payloads, and the private keys that open anything. No I/O.

All of it follows from what the policy says, so no policy can have parts or keys go before what needs them: there is no
setting to get wrong.
"""

from __future__ import annotations

from typing import Final

from bridge.core import MAX_LIFETIME_MS
from bridge.policy import Policy, Queue

DEAD_AGE_S: Final = 30 * 86_400
"""How long a dead letter waits for somebody to look at it."""

RECEIPTS_AGE_S: Final = 90 * 86_400
"""How long receipts wait to be exported: a quarter."""

SENDING_S: Final = 86_400
"""The longest that the parts of one payload may take to be stored, before the message that names them."""


def job_ms(queue: Queue, max_outage_ms: int) -> int:
    """The longest that a job may be needed after it was issued.

    It lives until it expires, and is laid aside an outage later at most; on the last day of its letter it may be
    ordered to run again, within less than ``result_ttl``.
    """
    return MAX_LIFETIME_MS + max_outage_ms + DEAD_AGE_S * 1000 + queue.result_ttl_ms


def result_ms(queue: Queue, max_outage_ms: int) -> int:
    """The longest that a result may be needed after it was signed: it stands as long from when it came home."""
    return queue.result_ttl_ms + max_outage_ms


def parts_ms(queue: Queue, max_outage_ms: int, *, job: bool) -> int:
    """How long parts are kept, of jobs or of results."""
    return SENDING_S * 1000 + (job_ms if job else result_ms)(queue, max_outage_ms)


def keys_ms(policy: Policy) -> int:
    """How long a private key must be kept after the last message was sealed to it."""
    return max((job_ms(queue, policy.max_outage_ms) for queue in policy.queues.values()), default=MAX_LIFETIME_MS)
