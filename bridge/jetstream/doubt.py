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
        self.highest = 0
        """The highest number of a delivery so far, or the first after they went back."""
        self.number = 0
        """That of the last delivery that could be read."""
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

    def about(self, ack_subject: str, after: int | None = None) -> bool:
        """Whether a delivery that is called the first may be none. It takes note of the delivery.

        Args:
            ack_subject: What says which delivery it is.
            after: What the numbers of the request that it answers must go on from: the highest when that was sent, or
                the one before. Requests that overlap may be read out of turn. None is the highest of all.
        """
        found = place(ack_subject)
        if found is None:
            return True
        number, stored_ms = found
        self.number = number
        self._ahead = max(self._ahead, stored_ms - now_ms())
        if delivered(ack_subject) == 1:
            self._sent = max(self._sent, time.monotonic() - (now_ms() + self._ahead - stored_ms) / 1000)
        if number <= (self.highest if after is None else after):
            self.arise()
            self.highest = number
        else:
            self.highest = max(self.highest, number)
        return stored_ms <= self._until
