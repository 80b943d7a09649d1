"""What a worker's receipt says of a delivery that is settled."""

from __future__ import annotations

from typing import Final

from bridge.job import Status
from bridge.journal import Journal
from consumers.case import Case

_STATUSES: Final = tuple(map(str, Status))
_ENDED: Final = (*_STATUSES, "answered", "repeated", "conflict", "poisoned")
"""Outcomes after which a delivery does not come again."""


def finished(journal: Journal, case: Case, outcome: str) -> None:
    """Note what a delivery came to; one that was put off before it began leaves no receipt.

    Args:
        journal: Takes it.
        case: What was settled.
        outcome: Of its verdict, as metrics name it.
    """
    outcome = case.stood or outcome
    if outcome in _STATUSES and not case.result:
        outcome = "parked"  # no key to answer with, for now: it comes again
    if case.accepted or outcome in _ENDED:
        journal.finished(case.core, case.job.digest, case.attempt, outcome, case.result)
