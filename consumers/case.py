"""A delivery whose job is known: what every later step needs of it. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from bridge.core import Core
from bridge.envelope import Authenticated
from bridge.fence import RESEND_HEADER, Tag
from bridge.identity import QueueSettings
from bridge.job import CANARY
from bridge.payload import PartOpener
from bridge.replay import Replay
from bridge.signals import NO_SPAN, Span
from bridge.subjects import JobKey
from bridge.transport import Delivery
from consumers.stop import Stop

if TYPE_CHECKING:
    from consumers.ledgerfile import Row


class Place(Protocol):
    """One of the slots of a worker process, and those who wait for one."""

    lane: str
    weight: int

    async def leave(self, *, more: bool = False) -> None:
        """Let another job have it, and with ``more`` be delivered as well; nothing where it was left before."""

    async def back(self) -> bool:
        """Have one again; nothing where it was not left. False where the task was excused from having one."""

    async def free(self) -> None:
        """Let another job have it for good: its handler is done, and what is left takes no slot."""


class Nowhere:
    """A place of which there are enough."""

    lane, weight = "", 1

    async def leave(self, *, more: bool = False) -> None:
        """See `Place.leave`."""

    async def back(self) -> bool:
        """See `Place.back`."""
        return True

    async def free(self) -> None:
        """See `Place.free`."""


@dataclass(slots=True)
class Case:
    """A delivery whose job is known, and the attempt it has come to."""

    queue: str
    settings: QueueSettings
    delivery: Delivery
    job: Authenticated
    core: Core = field(init=False)
    """What the producer signed."""
    counted: bool = field(init=False)
    """Whether it is a user's job: a canary is in no metric of theirs, and leaves no dead letter."""
    seen_before: bool = field(init=False)
    """Whether the job may have run. Both hints are untrusted, and can only force look-ups."""
    attempt: int = 0
    """0 until it starts."""
    looked: float = 0.0
    """By `time.monotonic`, when it was last asked whether it may start."""
    span: Span = NO_SPAN
    """Of the attempt."""
    stop: Stop = field(default_factory=Stop)
    """What ends its handler when it is cancelled."""
    replay: Replay | None = None
    """The order that it runs by, of a job that died before; `job` has the order's generation and times then."""
    remembered: Row | None = None
    """What this worker's ledger knows of it."""
    payload: PartOpener | None = None
    """Of its arguments, where they are in parts."""
    accepted: bool = False
    """Whether its receipt says that its handler was about to run."""
    result: bytes = b""
    """The digest of the result that stands, once this delivery knows of one."""
    stood: str = ""
    """What stood in the way of a result of its own: ``answered``, ``conflict`` or ``poisoned``."""
    starts: Callable[[float], None] = lambda _: None
    """Told in how many seconds the attempt must be done, when its handler starts."""

    wanted: Callable[[], bool] = lambda: True
    """Whether no other worker may have got it."""
    place: Place = field(default_factory=Nowhere)
    """Where it runs, or waits to."""

    def __post_init__(self) -> None:
        self.core = self.job.core
        self.counted = self.core.kind != CANARY
        self.seen_before = self.delivery.delivered > 1 or RESEND_HEADER in self.delivery.message.headers

    @property
    def parent(self) -> Span | str | None:
        """What is to be the parent of what is done about it from now on."""
        return self.span if self.span.traceparent is not None else self.core.traceparent

    def answer(
        self, type: str, attempt: int, worker: str, now: int, traceparent: str | None = None, args_tag: bytes = b""
    ) -> Core:
        """The core of what the pool says of the job, to be sealed or signed.

        Args:
            type: ``start`` or ``result``.
            attempt: Which attempt it speaks of.
            worker: The name of this process, for people.
            now: Milliseconds UTC.
            traceparent: The span that says it.
            args_tag: That of a keyed job.
        """
        return Core(
            type=type,
            queue=self.queue,
            kind=self.core.kind,
            job=self.core.job,
            generation=self.core.generation,
            sender=self.settings.workers,
            sender_kid=b"",
            recipient=self.core.sender,
            issued=now,
            expires=now + self.settings.result_ttl_ms,
            job_digest=self.job.digest,
            attempt=attempt,
            worker=worker,
            traceparent=traceparent,
            args_tag=args_tag,
        )

    def hints(self) -> dict[str, str]:
        """Headers for people on what this attempt leaves behind."""
        return {
            **self.core.hints(),
            "Bunny-Digest": self.job.digest.hex(),
            "Bunny-Attempt": str(self.attempt),
        }

    @property
    def first_counts(self) -> bool:
        """Whether the first delivery counts as an attempt; a job with a time is delivered before it may start."""
        return not self.core.not_before

    @property
    def key(self) -> JobKey:
        """What names the job."""
        return self.job.core.key

    @property
    def tag(self) -> Tag | None:
        """What a result that stands must agree with, of a keyed job."""
        return Tag(self.core.kind, self.core.args_tag) if self.core.args_tag else None

    @property
    def envelope(self) -> bytes:
        """The producer's envelope: what a dead letter keeps."""
        return self.replay.original if self.replay is not None else self.delivery.message.data

    @property
    def submitted(self) -> int:
        """When the producer issued it."""
        return self.replay.submitted if self.replay is not None else self.core.issued

    @property
    def must_look(self) -> bool:
        """Whether a result may stand: orders and keyed jobs may come again once they are done, and nothing says so."""
        again = self.replay is not None or bool(self.core.args_tag) or self.remembered is not None
        return again or self.seen_before or self.delivery.doubtful
