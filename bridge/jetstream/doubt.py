"""Whether a broker may have forgotten what it delivered.

A server writes down what its consumers have delivered, and what was acked, a moment later. Killed in between, it
delivers once more what was done, and calls it the first time. A client sees that something was away, or that numbers
go back: from then on whatever was stored before is in doubt, and looked up before it runs. That is all it costs.
"""

from __future__ import annotations

import math
import time
from typing import Final

from bridge.clock import now_ms
from bridge.jetstream.settle import delivered, place

MARGIN_MS: Final = 5_000
"""Beyond the difference of the clocks, of which a delivery shows only that it is at least so much."""


class Doubts:
    """Of the deliveries of one consumer to one client."""

    def __init__(self) -> None:
        self._highest = 0
        self._ahead = 0
        """Milliseconds that the broker's clock is ahead of this one, at the least."""
        self._until = 0
        self._sent = -math.inf

    def arise(self) -> None:
        """The broker, or the way to it, was away: what it has stored by now it may have delivered before."""
        self._until = now_ms() + self._ahead + MARGIN_MS

    @property
    def age(self) -> float:
        """How many seconds ago what came last was sent, at the most.

        A first delivery is no older than its message, and what comes after it was sent after it.
        """
        return time.monotonic() - self._sent

    def about(self, ack_subject: str) -> bool:
        """Whether a delivery that is called the first may be none. It takes note of the delivery."""
        found = place(ack_subject)
        if found is None:
            return True
        number, stored_ms = found
        self._ahead = max(self._ahead, stored_ms - now_ms())
        if delivered(ack_subject) == 1:
            self._sent = max(self._sent, time.monotonic() - (now_ms() + self._ahead - stored_ms) / 1000)
        if number <= self._highest:
            self.arise()
        self._highest = number
        return stored_ms <= self._until
