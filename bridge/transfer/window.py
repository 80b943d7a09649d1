"""How many parts may be under way: what the path takes, and no more."""

from __future__ import annotations

import math
from typing import Final

from bridge.payload import SEALED_PART

LEAST_BYTES: Final = 4 * SEALED_PART
"""Keeps a short path full, and is all that a small job's message waits behind there: 1 MiB."""
MOST_BYTES: Final = 32 * 1024 * 1024
"""Memory that one transfer may take for what is under way: 1 Gbit/s over 250 ms."""
LEAST_SAMPLE_S: Final = 0.02
"""A rate is taken over a round trip, and so long at least: what came in less may be one burst."""
_MOST_GROWTH: Final = 2.0
_MOST_LOSS: Final = 0.85
"""What a window may become of what it was, in one step: what came in one round trip may be what the last one kept."""
LEAST_PATIENCE_S: Final = 2.0
"""So long an answer may take that is not lost: servers pause."""


class Window:
    """Parts that may be asked for at once: twice what the path holds, by its rate and the least round trip seen.

    So it doubles each round trip until the path is full, and stays small where the path is short: what waits in the
    servers' queues before a small job's message is bounded by it.
    """

    def __init__(self) -> None:
        self.bytes = float(LEAST_BYTES)
        self._round_trip, self._slowest = math.inf, 0.0
        self._began = math.nan
        self._taken = 0

    @property
    def parts(self) -> int:
        """How many may be under way."""
        return max(1, int(self.bytes) // SEALED_PART)

    @property
    def patience(self) -> float:
        """After how many seconds an answer may be taken for lost: four times the slowest so far, and two at least."""
        return max(LEAST_PATIENCE_S, 4 * self._slowest) if self._slowest else math.inf

    def took(self, seconds: float, size: int, now: float) -> None:
        """Learn from a part that arrived.

        Args:
            seconds: From asking to arriving.
            size: Its bytes.
            now: Of the same clock as ever.
        """
        self._round_trip, self._slowest = min(self._round_trip, seconds), max(self._slowest, seconds)
        if math.isnan(self._began):
            self._began = now
            return
        self._taken += size
        if (elapsed := now - self._began) < max(self._round_trip, LEAST_SAMPLE_S):
            return
        wanted = 2 * self._taken / elapsed * self._round_trip
        wanted = min(max(wanted, _MOST_LOSS * self.bytes), _MOST_GROWTH * self.bytes)
        self.bytes = min(max(wanted, LEAST_BYTES), MOST_BYTES)
        self._began, self._taken = now, 0
