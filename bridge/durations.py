"""Durations that callers give: seconds as a number, or a ``timedelta``. No I/O."""

from __future__ import annotations

import math
from datetime import timedelta

from bridge.errors import UsageError


def seconds(what: str, duration: object) -> float:
    """A duration in seconds.

    Args:
        what: The parameter's name, for the error.
        duration: What was given for it.

    Raises:
        UsageError: It is no duration.
    """
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, bool) or not isinstance(duration, int | float) or not math.isfinite(duration):
        given = repr(duration) if isinstance(duration, int | float) else type(duration).__name__
        raise UsageError(f"{what} is {given}; pass seconds, such as {what}=300, or a timedelta")
    return float(duration)
