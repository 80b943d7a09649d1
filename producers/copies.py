"""What the outbox keeps: the same bytes of every job that was sent and is not answered, should they be needed again.

Here they are in memory, for as long as the process lives; `producers.outboxfile` keeps them on disk.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Sealed
from bridge.fence import Tag
from bridge.job import JobToken
from bridge.signals import metrics
from bridge.signals.meter import NO_METER, Meter, Sample
from bridge.subjects import JobKey

MAX_JOBS: Final = 100_000
"""Jobs kept at most: as many as there may be open handles."""
MAX_MEMORY_BYTES: Final = 64 * 1024 * 1024
"""Sealed bytes kept in memory: some 30,000 small jobs."""
QUIET_S: Final = 60.0
"""Between two lines of the log that say it is full."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Copy:
    """One job that was sent and is not answered."""

    key: JobKey
    token: JobToken
    kind: str
    args_tag: bytes
    """Of a keyed job."""
    expires: int
    """Milliseconds UTC: from then on it is no longer sent."""
    stream: str
    subject: str
    size: int
    data: bytes = field(repr=False)
    """Empty where they are kept elsewhere."""
    looked_at: float = 0.0
    """The loop's time when it was stored, or last looked for."""
    stored: bool = False
    """Whether a server said, at any time, that it is."""
    doubts: int = 0
    """Looks in a row that found it neither stored nor answered."""
    resent: int = 0
    """How often it was sent again since it was first stored."""

    @property
    def tag(self) -> Tag | None:
        """What a result must agree with, of a keyed job."""
        return Tag(self.kind, self.args_tag) if self.args_tag else None


def address(core: Core, key: JobKey) -> tuple[str, str]:
    """The stream and the subject of a job."""
    later = core.not_before > 0
    stream = subjects.delayed_stream(core.queue) if later else subjects.jobs_stream(core.queue)
    return stream, subjects.of_job(key, core.priority, later)


def headers_of(core: Core) -> dict[str, str]:
    """What people and tools are told of a job: each header costs both servers more than a KiB of the body does."""
    headers = {"Bunny-Kind": core.kind}
    if core.traceparent is not None:
        headers["traceparent"] = core.traceparent
    return headers


class Copies:
    """The jobs of one producer that are not answered, in memory.

    What does not fit is sent all the same, and not kept: it is counted, and the log says so once.

    Args:
        meter: Where measurements go.
        limit: Sealed bytes.
        most: Jobs.
    """

    def __init__(self, meter: Meter = NO_METER, *, limit: int = MAX_MEMORY_BYTES, most: int = MAX_JOBS) -> None:
        self._meter, self._limit, self._most = meter, limit, most
        # Ordered by when each was last looked for.
        self._held: OrderedDict[JobKey, Copy] = OrderedDict()
        self._bytes = 0
        self._quiet_until = 0.0
        self.recovered: tuple[Copy, ...] = ()
        """What an earlier process left."""
        self._unwatch = meter.watch(self._now)

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Copy]:
        return iter(list(self._held.values()))

    def get(self, key: JobKey) -> Copy | None:
        """The copy of a job, while it is not answered."""
        return self._held.get(key)

    async def keep(self, sealed: Sealed) -> None:
        """Keep a job that is about to be sent.

        Raises:
            OutboxFull: It does not fit, where that is a reason not to send it.
        """
        self._keep(sealed)

    async def read(self, copy: Copy) -> bytes:
        """The bytes that were sent."""
        return copy.data

    def forget(self, key: JobKey) -> Copy | None:
        """Let a job go: it is answered, too late, or was not sent after all."""
        copy = self._held.pop(key, None)
        if copy is not None:
            self._bytes -= copy.size
            copy.data = b""  # whoever is to look for it later holds on to it, for up to an hour
        return copy

    def stored(self, key: JobKey) -> None:
        """A server has it, or says so."""
        if (copy := self._held.get(key)) is not None:
            copy.stored, copy.doubts = True, 0
            self.looked(copy)

    def looked(self, copy: Copy) -> None:
        """It was looked for just now: to the end of the line."""
        if copy.key in self._held:
            copy.looked_at = asyncio.get_running_loop().time()
            self._held.move_to_end(copy.key)

    def longest(self, before: float) -> Copy | None:
        """What has not been looked for since ``before``, the longest ago; what is in doubt has a line of its own."""
        while self._held:
            copy = next(iter(self._held.values()))
            if copy.looked_at > before:
                return None
            self.looked(copy)
            if copy.stored and not copy.doubts:
                return copy
        return None

    def forget_late(self) -> None:
        """Let those go that are too late to be sent again."""
        now = now_ms()
        for copy in self:
            if copy.expires <= now:
                self.forget(copy.key)

    async def close(self) -> None:
        """Keep nothing more; again, and it changes nothing."""
        unwatch, self._unwatch = self._unwatch, _nothing
        unwatch()

    def _keep(self, sealed: Sealed) -> Copy | None:
        core, size = sealed.core, len(sealed.data)
        if not self._fits(size):
            self._meter.count(metrics.NOT_KEPT, core.queue, core.kind)
            now = asyncio.get_running_loop().time()
            if now >= self._quiet_until:
                self._quiet_until = now + QUIET_S
                _log.warning("outbox_full", count=len(self), bytes=self._bytes)
            return None
        key = core.key
        token = JobToken(*key, sealed.digest.hex())
        copy = Copy(key, token, core.kind, core.args_tag, core.expires, *address(core, key), size, sealed.data)
        self._add(copy)
        return copy

    def _add(self, copy: Copy) -> None:
        copy.looked_at = asyncio.get_running_loop().time()
        self.forget(copy.key)
        self._held[copy.key] = copy
        self._bytes += copy.size

    def _fits(self, size: int) -> bool:
        return len(self) < self._most and self._bytes + size <= self._limit

    def _now(self) -> list[Sample]:
        return [(metrics.KEPT, (), len(self)), (metrics.KEPT_BYTES, (), self._bytes)]


def _nothing() -> None:
    pass
