"""Where measurements go: nowhere, unless something is listening. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from bridge.signals.metrics import Metric

Sample: TypeAlias = tuple[Metric, tuple[str, ...], float]
"""A value that is read when it is asked for: metric, its labels' values in order, and what it is now."""

Reader: TypeAlias = Callable[[], Iterable[Sample]]


class Meter:
    """Takes measurements and forgets them: what producers and workers hold while nobody listens.

    Label values are given in the order of `Metric.labels`.
    """

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Add to a counter."""

    def time(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Add a duration to a histogram."""

    def watch(self, reader: Reader) -> Callable[[], None]:
        """Read gauges, and counters that are kept elsewhere, whenever the metrics are asked for.

        Returns:
            What ends it.
        """
        return _nothing


def _nothing() -> None:
    pass


NO_METER = Meter()
