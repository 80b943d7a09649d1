"""How many parts may be under way: what the path takes, and no more; less where somebody else has to wait for them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from bridge.payload import SEALED_PART
from bridge.transport import Transport

RECENT_S: Final = 0.1
"""For how long a message says that there are others: a job that takes longer waits for its handler."""
LEAST_BYTES: Final = 4 * SEALED_PART
"""Keeps a short path full where there are no others: 1 MiB."""
_BESIDE_OTHERS: Final = 0.75
"""Of the window, what is under way beside others. Half of the window is what the path holds, and the other half waits:
with that half alone it could not be told that the path holds more."""
MOST_BYTES: Final = 32 * 1024 * 1024
"""Memory that one transfer may take for what is under way: 1 Gbit/s over 250 ms."""
LEAST_SAMPLE_S: Final = 0.02
"""A rate is taken over a round trip, and so long at least: what came in less may be one burst."""
_MOST_GROWTH: Final = 2.0
_MOST_LOSS: Final = 0.85
"""What a window may become of what it was, in one step: what came in one round trip may be what the last one kept."""
LEAST_PATIENCE_S: Final = 2.0
"""So long an answer may take that is not lost: servers pause."""


class Others:
    """Whether anybody else's messages go and come beside the parts of a transfer, since it began.

    Whatever is under way of it has its share of processors, sockets and the link, which theirs then wait for.

    Args:
        transport: The connection of both.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport, self._began = transport, time.monotonic()

    def there(self) -> bool:
        """Whether one came or went within the last tenth of a second; that of the transfer's own job is none."""
        return self._transport.moved > max(self._began, time.monotonic() - RECENT_S)


class Window:
    """Parts that may be asked for at once: twice what the path holds, by its rate and the least round trip seen.

    So it doubles each round trip until the path is full, and stays small where the path is short: what waits in the
    servers' queues before a small job's message is bounded by it.

    Args:
        others: Whether anybody else's messages may wait behind them now.
    """

    def __init__(self, others: Callable[[], bool]) -> None:
        self.bytes = float(SEALED_PART)
        self._others = others
        self._round_trip, self._slowest = math.inf, 0.0
        self._began = math.nan
        self._taken = 0

    @property
    def parts(self) -> int:
        """How many may be under way: at least four, or one beside others."""
        if self._others():
            return math.ceil(_BESIDE_OTHERS * self.bytes / SEALED_PART)
        return int(max(self.bytes, LEAST_BYTES)) // SEALED_PART

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
        wanted = min(max(wanted, _MOST_LOSS * self.bytes), _MOST_GROWTH * max(self.bytes, LEAST_BYTES))
        self.bytes = min(max(wanted, SEALED_PART), MOST_BYTES)
        self._began, self._taken = now, 0
