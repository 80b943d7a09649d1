"""What a submit asks for: which job, when it may run, and before which others. No I/O."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from bridge import keyed
from bridge.core import MAX_LIFETIME_MS
from bridge.durations import seconds
from bridge.errors import ConfigurationError, UsageError
from bridge.identity import Connection, QueueSettings
from bridge.job import JobToken, Kind
from bridge.values import value

Priority: TypeAlias = Literal["high", "normal", "low"]
PRIORITIES: Final = get_args(Priority)


class Times(NamedTuple):
    """Milliseconds UTC, as the signed core has them."""

    not_before: int
    """0 is at once."""
    expires: int


@value(frozen=True, slots=True)
class Terms:
    """What a submit asks for.

    Args:
        deadline: Seconds from when the job may start; None is the queue's.
        priority: Among the jobs that may start.
        delay: Seconds before it may start.
        at: When it may start, instead of ``delay``.
        concurrency_key: What it has in common with those of which only so many may run at once.

    Raises:
        UsageError: They do not go together.
    """

    deadline: float | timedelta | None = None
    priority: Priority = "normal"
    delay: float | timedelta | None = None
    at: datetime | None = None
    concurrency_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.at is not None and not isinstance(self.at, datetime):
            raise UsageError(f"at is {type(self.at).__name__}; pass a datetime with a time zone")
        if self.deadline is not None:
            seconds("deadline", self.deadline)
        if self.concurrency_key is not None and not isinstance(self.concurrency_key, str):
            raise UsageError(f"concurrency_key is {type(self.concurrency_key).__name__}; pass text, such as customer-7")
        if self.priority not in PRIORITIES:
            raise UsageError(f"priority {self.priority!r}; say one of {', '.join(PRIORITIES)}")
        if self.delay is not None and self.at is not None:
            raise UsageError("both delay and at; say one of them")
        if self.at is not None and self.at.tzinfo is None:
            raise UsageError("at without a time zone; say at=datetime(..., tzinfo=UTC), for example")
        if self.delay is not None and (delay := seconds("delay", self.delay)) < 0:
            raise UsageError(f"a delay of {delay:g} s; it must not be below 0")
        if self.priority != "normal" and (self.delay is not None or self.at is not None):
            raise UsageError("a job with a time has priority normal; leave the priority out")

    def mark(self, secret: bytes, producer: str, queue: str, settings: QueueSettings) -> bytes:
        """The concurrency key as the signed core has it; empty for none.

        Raises:
            UsageError: It would limit nothing, or is no such text.
        """
        if self.concurrency_key is None:
            return b""
        if settings.concurrency_per_key is None:
            raise UsageError(
                f"queue {queue!r} has no concurrency_per_key in bridge.yaml; a concurrency key limits nothing"
            )
        return keyed.concurrency_key(secret, producer, queue, self.concurrency_key)

    def times(self, now: int, settings: QueueSettings) -> Times:
        """The job's times, given the producer's clock.

        Raises:
            UsageError: Longer than an envelope or the fence lasts.
        """
        lifetime = _lifetime_ms(self.deadline, settings)
        start = now
        if self.delay is not None:
            start = now + round(seconds("delay", self.delay) * 1000)
        elif self.at is not None:
            start = max(now, round(self.at.timestamp() * 1000))
        if start + lifetime - now > MAX_LIFETIME_MS:
            raise UsageError(f"a job that ends in more than {MAX_LIFETIME_MS // 86_400_000} days; start it sooner")
        return Times(start if start > now else 0, start + lifetime)


def _lifetime_ms(deadline: float | timedelta | None, settings: QueueSettings) -> int:
    if deadline is None:
        return settings.deadline_ms
    asked = seconds("deadline", deadline)
    # Beyond the results' lifetime the fence would be gone before the job is, and it could run twice.
    limit = min(MAX_LIFETIME_MS, settings.result_ttl_ms)
    if not 0 < asked * 1000 < limit:
        raise UsageError(
            f"a deadline of {asked:g} s; it must be above 0 and below {limit // 1000} s, the queue's result_ttl"
        )
    return max(int(asked * 1000), 1)


def token_of(token: object, connection: Connection, generation: int | None) -> tuple[JobToken, QueueSettings]:
    """The token of a job of one's own, of the generation named if one is, and the settings of its queue.

    Raises:
        UsageError, ConfigurationError: It is none.
    """
    token = JobToken.parse(token) if isinstance(token, str) else token
    if not isinstance(token, JobToken):
        raise UsageError(f"a token is text, or a JobToken, and not {type(token).__name__}; pass handle.token")
    if token.producer != connection.identity:
        raise UsageError(f"the token is of a job of {token.producer}; attach it as that identity")
    settings = connection.queues.get(token.queue)
    if settings is None:
        raise ConfigurationError(
            f"{connection.identity} has no queue {token.queue!r}; render and deliver the connection again"
        )
    if generation is not None:
        if generation < 0:
            raise UsageError(f"generation {generation}; they count from 0")
        token = token._replace(generation=generation)
    return token, settings


def contract_of(queue: str | Kind[Any, Any], kind: object, args: object) -> tuple[Kind[Any, Any], object]:
    """The contract and the arguments, from either form; `object` stands for a type that nobody declared."""
    if isinstance(queue, Kind):
        return queue, kind
    if not (isinstance(queue, str) and isinstance(kind, str)):
        raise UsageError("queue and kind are named by text: submit(queue, kind, args), or submit(Kind, args)")
    return _undeclared(queue, kind), args


@lru_cache(256)
def _undeclared(queue: str, kind: str) -> Kind[Any, Any]:
    return Kind(queue, kind, object, object)
