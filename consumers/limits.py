"""How often and how long a handler is tried. No I/O."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from bridge.durations import seconds
from bridge.errors import ConfigurationError
from bridge.identity import QueueSettings


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait before another attempt: ``initial * factor ** (attempt - 1)``, at most ``longest``, +- ``jitter``.

    Args:
        initial: Seconds before the second attempt.
        factor: By how much each wait is longer than the one before, from 1.
        longest: Seconds of the longest wait.
        jitter: A share of the wait, 0 to 1, by which it is shortened or lengthened at random.
    """

    initial: float = 1.0
    factor: float = 2.0
    longest: float = 300.0
    jitter: float = 0.2

    @classmethod
    def of(cls, settings: QueueSettings) -> Self:
        """The queue's."""
        return cls(
            settings.backoff_initial_ms / 1000,
            settings.backoff_factor,
            settings.backoff_max_ms / 1000,
            settings.backoff_jitter,
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """What a handler has of its own; None, or nothing, is what the queue has.

    Raises:
        ConfigurationError: A limit that cannot be.
    """

    max_attempts: int | None = None
    backoff: Backoff | None = None
    timeout: float | timedelta | None = None
    final: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if self.max_attempts is not None and not 1 <= self.max_attempts <= 1000:
            raise ConfigurationError(f"max_attempts={self.max_attempts}; say one from 1 to 1000")
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise ConfigurationError(f"timeout={self.timeout_s:g} s; say how many seconds an attempt may take")
        b = self.backoff
        if b is not None and not (0 <= b.initial <= b.longest and b.factor >= 1 and 0 <= b.jitter <= 1):
            raise ConfigurationError("backoff: say 0 <= initial <= longest, factor >= 1 and jitter from 0 to 1")

    @property
    def timeout_s(self) -> float | None:
        """Seconds from the start of an attempt to its end."""
        return None if self.timeout is None else seconds("timeout", self.timeout)


def backoff(wait: Backoff, attempt: int) -> float:
    """Seconds to wait after the given attempt failed, with jitter."""
    # The exponent is bounded, since a float overflows where the maximum has long been reached.
    seconds = min(wait.initial * wait.factor ** min(attempt - 1, 64), wait.longest)
    return seconds * random.uniform(1 - wait.jitter, 1 + wait.jitter)  # noqa: S311  # spreads load; nothing secret
