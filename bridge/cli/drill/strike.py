"""A fault as it is injected, and what the faults of every sort share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from bridge.cli.drill.producer import SUBMIT_S
from bridge.cli.drill.stage import LOADED, WAYS, Child, Stage
from bridge.cli.drill.worker import DRAIN_S

STOP_MARGIN_S: Final = 10.0


DISKS: Final = "disks"
SKEW: Final = "skew"


@dataclass(slots=True)
class Strike:
    """One fault as it was injected. Times are of `time.monotonic`."""

    fault: str
    opened: float
    """From then on jobs are counted as this strike's."""
    struck: float = 0.0
    mended: float = 0.0
    killed: list[tuple[int, float]] = field(default_factory=list)
    """Workers, and when."""
    severed: bool = False
    """Whether whatever ran between ``struck`` and ``mended`` may have been interrupted, in any process."""
    forgets: frozenset[str] = frozenset()
    """The queues whose server was killed, and so forgets to whom it gave some jobs a moment ago."""
    skewed: bool = False
    """Whether a clock was off, so that jobs may have been too old."""
    owed: int = 0
    """Jobs without a result at ``mended``."""
    noticed: float | None = None
    sign: str = ""
    first: float | None = None
    """The first result after ``mended``."""
    drained: float | None = None
    """When every job stored by ``mended`` had its result."""
    closed: float = 0.0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that can be injected."""

    name: str
    about: str
    inject: Callable[[Stage, Strike], Awaitable[None]]
    signs: frozenset[str] = frozenset()
    again: bool = False
    """Whether a job that is started again is a sign as well."""
    needs: str = ""
    """What this machine must have for it: `DISKS` or `SKEW`."""
    rare: bool = False
    """Whether it takes so long that it comes in every fifth round, from the first on."""
    cuts: bool = False
    """Whether it is a cut of the link, from whose return on times are told."""


def must_not_wait(stage: Stage, strike: Strike) -> None:
    """Note it if a job under load waited for longer than a drain may take."""
    if (waited := max(stage.ledger.longest(queue, strike.struck) for queue in LOADED)) > DRAIN_S:
        strike.problems.append(f"a job waited for {waited:.1f} s")


def submit(stage: Stage, queue: str, seconds: float = 0, *, timeout: float = SUBMIT_S, fatal: bool = False) -> int:
    """Have a producer submit one job more: its number."""
    way = next(way for way in WAYS if queue in way.queues)
    (job,) = stage.ledger.intend(queue)
    stage.producers[way].tell("submit", job, queue, seconds, timeout, "fatal" if fatal else "harmless")
    return job


async def kill(stage: Stage, strike: Strike, child: Child) -> None:
    """Kill a worker."""
    strike.struck = monotonic()
    await child.kill()
    gone(stage, strike, child)


def gone(stage: Stage, strike: Strike, child: Child) -> None:
    """A worker has been killed."""
    strike.killed.append((child.pid, monotonic()))
    stage.workers.remove(child)
