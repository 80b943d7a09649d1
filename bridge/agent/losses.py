"""What streams have lost, as an agent sees from one look to the next. It reads no message. No I/O.

Three things can be seen from counts. A stream whose last sequence is lower than before was put back to an earlier
state, or made anew. From a work queue nothing goes but what its consumers settled; of more that is gone, the rest
vanished. And the copy of the results holds at least what the workers' cloud says that it holds.

None is more than it says: a stream that has grown past where it was hides that it went back; on a busy queue what
vanishes hides among what is settled; and a job that is in flight, or waits for its time, is settled when it vanishes,
for all that can be seen. The producers miss every single job.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import structlog

BELOW: Final = 2
"""Looks in a row at which a sequence must be lower: a server that has just come to lead a cluster may be behind."""
WINDOW_S: Final = 20.0
"""For how long it is remembered how much a copy held: longer than a report of the other cloud is believed."""

_log = structlog.get_logger(__name__)


class Seen(NamedTuple):
    """One stream, at one look."""

    last: int
    """Its last sequence."""
    messages: int
    handed_out: int = -1
    """Deliveries by its consumers, those that were not the first included; -1 where it is no work queue."""
    held: int = 0
    """Messages delivered and not settled."""

    @property
    def gone(self) -> int:
        """How many have ever left it."""
        return self.last - self.messages


@dataclass(slots=True)
class _Stream:
    highest: int = 0
    below: int = 0
    looks: deque[Seen] = field(default_factory=lambda: deque(maxlen=4))


class Losses:
    """Remembers enough of the last looks.

    Args:
        clock: The loop's.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._copies: dict[str, deque[tuple[float, int]]] = {}
        self.rolled_back: Counter[tuple[str, str]] = Counter()
        """Times that streams went back, by queue and stream."""
        self.vanished: Counter[str] = Counter()
        """Jobs, by queue: at least so many."""

    def interrupted(self) -> None:
        """The connection was away, and so perhaps the server: what was seen before it and after does not compare."""
        for stream in self._streams.values():
            stream.looks.clear()

    def saw(self, queue: str, name: str, seen: Seen | None) -> None:
        """One stream at the look that is now; None where it did not answer."""
        stream = self._streams.setdefault((queue, name), _Stream())
        self.rolled_back[queue, name] += 0  # shown from the beginning, so that the first one is an increase
        if seen is None:
            stream.looks.clear()
            return
        if seen.last < stream.highest:
            stream.looks.clear()
            stream.below += 1
            if stream.below < BELOW:
                return
            self.rolled_back[queue, name] += 1
            _log.error("stream_rolled_back", queue=queue, stream=name, count=stream.highest - seen.last)
        stream.highest, stream.below = seen.last, 0
        if seen.handed_out >= 0:
            self.vanished[queue] += self._vanished(queue, name, stream.looks, seen)

    def _vanished(self, queue: str, name: str, looks: deque[Seen], seen: Seen) -> int:
        """What left the stream from the second last look to the last, and more than was settled around that.

        Questions of one look are answered at different moments, and what is acked leaves a little later. So what left
        between two looks is held against what was settled from the look before the first to the look after the second.
        """
        if looks and seen.handed_out < looks[-1].handed_out:
            looks.clear()  # a server that was killed forgets some of what it handed out
        looks.append(seen)
        if len(looks) < 4:
            return 0
        before, first, second, after = looks
        # At most: a delivery that was not the first, or was nak'd, settled nothing.
        settled = before.held + after.handed_out - before.handed_out - after.held
        lost = second.gone - first.gone - max(settled, 0)
        if lost <= 0:
            return 0
        _log.error("jobs_vanished", queue=queue, stream=name, count=lost)
        return lost

    def saw_copy(self, queue: str, results: int) -> None:
        """How many results the copy held, and how many were on their way."""
        copy = self._copies.setdefault(queue, deque())
        copy.append((self._clock(), results))
        while copy[0][0] < self._clock() - WINDOW_S:
            copy.popleft()

    def lost_at_home(self, queue: str, written: int) -> int | None:
        """How many results the copy lacks of those that the other cloud said it holds; None if that is not known.

        The other cloud's word is some seconds old: the most that was here meanwhile counts.
        """
        since = self._clock() - WINDOW_S
        here = [results for at, results in self._copies.get(queue, ()) if at >= since]
        return max(written - max(here), 0) if here else None
