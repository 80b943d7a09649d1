"""The ledger, gone through: what was lost, what happened twice, and what was interrupted."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.cli.drill.faults import Strike
from bridge.cli.drill.ledger import Ledger
from bridge.cli.drill.worker import POISON

SUCCEEDED: Final = "succeeded"
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
    again: int = 0
    """Executions beyond the first of each job."""
    interrupted: int = 0
    """Attempts that a fault really hit: between their start and the arrival of the result."""
    unknown: int = 0
    """Jobs that the producer does not know to be stored: it was killed, or was told so."""
    longest: float = 0.0
    """Seconds from stored to answered."""
    examples: list[str] = field(default_factory=list)
    """Some of what is wrong."""

    def add(self, other: Count) -> None:
        """Count those as well."""
        for name in ("jobs", "lost", "doubled", "failed", "again", "interrupted", "unknown"):
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
    killed = Counter(pid for strike in strikes for pid, _ in strike.killed)
    dead = {pid: at for strike in strikes for pid, at in strike.killed}
    forgot = [(strike.struck, strike.mended) for strike in strikes if strike.forgets]
    away = [(strike.struck, strike.mended) for strike in strikes if strike.severed]
    opened = [strike.opened for strike in strikes]
    counts = [Count() for _ in range(len(strikes) + 1)]
    assert all(times == 1 for times in killed.values())  # noqa: S101  # a process dies once
    for job, queue, intended, stored, refused in ledger.jobs():
        count, runs, answers = counts[bisect_right(opened, intended) - 1], effects[job], results[job]
        answered = answers[0][0] if answers else float("inf")
        interrupted = sum(_struck(pid, began, answered, dead, away) for pid, began in runs)
        forgotten = sum(intended <= mended and struck <= answered for struck, mended in forgot)
        count.interrupted += interrupted
        count.again += max(0, len(runs) - 1)
        count.unknown += stored is None and refused is not None
        if stored is not None:
            count.jobs += 1
            count.lost += not answers
            count.longest = max(count.longest, answered - stored if answers else 0.0)
        wrong = [status for _, status in answers if (status != SUCCEEDED) != (queue == POISON.queue)]
        count.failed += bool(wrong)
        doubled = len(answers) > 1 or len(runs) > 1 + max(interrupted, forgotten)
        count.doubled += doubled
        if (doubled or wrong or (stored is not None and not answers)) and len(count.examples) < SHOWN:
            ended = ", ".join(status for _, status in answers) or "none"
            told = f"job {job}: {len(runs)} runs, {interrupted} interrupted, results: {ended}"
            count.examples.append(told)
    return counts


def _struck(
    pid: int, began: float, answered: float, dead: dict[int, float], away: Sequence[tuple[float, float]]
) -> bool:
    died = dead.get(pid)
    if died is not None and began <= died <= answered:
        return True
    return any(began <= mended and struck <= answered for struck, mended in away)
