"""The ledger, gone through: what was lost, what happened twice, and what was interrupted."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.cli.drill.ledger import DISOWNED, Ledger
from bridge.cli.drill.skew import OFF_S
from bridge.cli.drill.strike import Strike
from bridge.cli.drill.worker import POISON

SUCCEEDED: Final = "succeeded"
LATE: Final = "DeadlineExceeded"
SHOWN: Final = 5


@dataclass(slots=True)
class Count:
    """What became of some jobs."""

    jobs: int = 0
    """Known to be stored: their results are owed."""
    lost: int = 0
    """Of those, without a result."""
    doubled: int = 0
    """With two results, or run once more than there were attempts really interrupted and one."""
    failed: int = 0
    """With a result that is not the right one."""
    late: int = 0
    """Refused as too late where a clock was off: that is the right one."""
    again: int = 0
    """Executions beyond the first of each job."""
    interrupted: int = 0
    """Attempts that a fault really hit: between their start and the arrival of the result."""
    unknown: int = 0
    """Jobs that the producer was told not to be stored, or not to be known to be."""
    unsent: int = 0
    """Jobs whose producer was killed before its outbox had them: they have not run, and never will."""
    longest: float = 0.0
    """Seconds from stored to answered."""
    examples: list[str] = field(default_factory=list)
    """Some of what is wrong."""

    def add(self, other: Count) -> None:
        """Count those as well."""
        for name in ("jobs", "lost", "doubled", "failed", "late", "again", "interrupted", "unknown", "unsent"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest = max(self.longest, other.longest)
        self.examples = [*self.examples, *other.examples][:SHOWN]


def audit(ledger: Ledger, strikes: Sequence[Strike]) -> list[Count]:
    """Count for each strike, and last for what was submitted before the first of them.

    An attempt was really interrupted if its process was killed, or a server or the link was away, after it had begun
    and before its result had come. A job that was struck so may run once more for each time. Where the server that
    hands out jobs was killed, one that was under way counts as struck once even if no handler had begun: a worker may
    hold it, and the server has forgotten that.
    """
    results: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for job, at, status in ledger.results():
        results[job].append((at, status))
    effects: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for job, pid, _, began, _ in ledger.effects():
        effects[job].append((pid, began))
    dead: dict[int, list[float]] = defaultdict(list)
    for pid, at in sorted(each for strike in strikes for each in strike.killed):
        dead[pid].append(at)  # in a long run the number of a process comes again
    forgot = [(strike.struck, strike.mended, strike.forgets) for strike in strikes if strike.forgets]
    away = [(strike.struck, strike.mended) for strike in strikes if strike.severed]
    skewed = [(strike.struck, strike.mended) for strike in strikes if strike.skewed]
    opened = [strike.opened for strike in strikes]
    counts = [Count() for _ in range(len(strikes) + 1)]
    for job, queue, deadline, intended, stored, refused in ledger.jobs():
        count, runs, answers = counts[bisect_right(opened, intended) - 1], effects[job], results[job]
        answered = answers[0][0] if answers else float("inf")
        interrupted = sum(_struck(pid, began, answered, dead, away) for pid, began in runs)
        forgotten = sum(
            queue in queues and intended <= mended and struck <= answered for struck, mended, queues in forgot
        )
        count.interrupted += interrupted
        count.again += max(0, len(runs) - 1)
        never = stored is None and refused == DISOWNED
        count.unsent += never
        count.unknown += stored is None and refused is not None and not never
        if stored is not None:
            count.jobs += 1
            count.lost += not answers
            count.longest = max(count.longest, answered - stored if answers else 0.0)
        too_late = deadline < OFF_S and any(intended <= mended and struck <= answered for struck, mended in skewed)
        wrong = [status for _, status in answers if not _right(queue, status, too_late)]
        if never and runs:
            wrong.append(DISOWNED)
        count.failed += bool(wrong)
        count.late += any(status == LATE for _, status in answers) and not wrong
        doubled = len(answers) > 1 or len(runs) > 1 + max(interrupted, forgotten)
        count.doubled += doubled
        if (doubled or wrong or (stored is not None and not answers)) and len(count.examples) < SHOWN:
            ended = ", ".join(status for _, status in answers) or "none"
            told = f"job {job}: {len(runs)} runs, {interrupted} interrupted, results: {ended}"
            count.examples.append(told)
    for at in ledger.unanswered():
        counts[bisect_right(opened, at) - 1].lost += 1
    return counts


def _right(queue: str, status: str, too_late: bool) -> bool:
    """Whether a job may end so: too late only where a clock was off by more than its deadline."""
    if queue == POISON.queue:
        return status != SUCCEEDED
    return status == SUCCEEDED or (too_late and status == LATE)


def _struck(
    pid: int, began: float, answered: float, dead: dict[int, list[float]], away: Sequence[tuple[float, float]]
) -> bool:
    if any(began <= died <= answered for died in dead.get(pid, ())):
        return True
    return any(began <= mended and struck <= answered for struck, mended in away)
