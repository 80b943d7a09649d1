"""Waits between attempts: doubled each time up to a limit, with jitter so that many clients do not come in step."""

from __future__ import annotations

import random


class Pauses:
    """One sequence of waits.

    Args:
        first: Seconds of the first wait.
        longest: Seconds that no wait exceeds.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest, self._next = first, longest, first

    def next(self) -> float:
        """Seconds to wait now: between half of the step and all of it."""
        pause = self._next * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret
        self._next = min(self._longest, self._next * 2)
        return pause

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._next = self._first
