"""When a schedule is due: the instants of a cron expression in a time zone, or of a plain interval. No clock here.

An expression is evaluated as Debian's cron does, whose rules are the ones people know. Where summer time begins, a
tick at a fixed time that the clock skips comes at the first minute after the gap; where it ends, a fixed time that
the clock shows twice has its tick at the first. An expression whose minute or hour begins with a star follows the
clock instead: no tick in a skipped hour, and those of an hour that comes twice, twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from importlib.resources import files
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

FIELDS: Final = ("minute", "hour", "day of the month", "month", "day of the week")
_RANGES: Final = ("0-59", "0-23", "1-31 or L", "1-12 or JAN-DEC", "0-7 or MON-SUN")
MAX_EXPRESSION: Final = 200
"""Characters."""

_SHIFT: Final = timedelta(hours=3)
"""More than clocks are put forward or back at once: an expression is asked from that much further away."""
_LAST_MS: Final = 2**53
_STRIDE_MS: Final = 6 * 3_600_000
_WORDS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class BadExpression(ValueError):
    """A text that is no cron expression.

    Args:
        problem: What is wrong, to follow the text.
        remedy: The nearest right thing.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy


def check_cron(text: str) -> None:
    """Check a cron expression of five fields.

    Raises:
        BadExpression: It is none, or is never due.
    """
    if len(text) > MAX_EXPRESSION:
        raise BadExpression(f"is longer than {MAX_EXPRESSION} characters", "make two schedules of it")
    if text.lower() in _WORDS:
        raise BadExpression("is not five fields", f"say {_WORDS[text.lower()]!r}")
    fields = text.split()
    if len(fields) == len(FIELDS) + 1:
        near = f"say {' '.join(fields[1:])!r}, or every: 30s"
        raise BadExpression("has six fields, and seconds are not among the five", near)
    if len(fields) != len(FIELDS):
        count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
        raise BadExpression(f"has {count} of five", f"say {', '.join(FIELDS)}, as in '*/5 * * * *'")
    for number, field in enumerate(fields):
        alone = ["*"] * len(FIELDS)
        alone[number] = field
        try:
            CronSim(" ".join(alone), datetime(2000, 1, 1, tzinfo=UTC))
        except (CronSimError, ValueError):
            remedy = f"say {_RANGES[number]}, *, a list 1,2, a range 1-3 or a step */5"
            raise BadExpression(f"has the {FIELDS[number]} {field!r}", remedy) from None
    try:
        next(CronSim(text, datetime(2000, 1, 1, tzinfo=UTC)))
    except (CronSimError, ValueError, StopIteration):
        raise BadExpression("is never due: no such day is in these months", "say a day that there is") from None


def zones() -> frozenset[str]:
    """The names of all time zones of the IANA database, as the package ``tzdata`` lists them.

    Not those of this machine: a slim image has none, and others have names of their own, such as ``localtime``.
    """
    return frozenset(files("tzdata").joinpath("zones").read_text("utf-8").split())


def zone(name: str) -> tzinfo:
    """A zone of `zones`, as the package ``tzdata`` has it.

    Not as this machine has it: where governments change their clocks, two agents with different rules would submit
    a tick at different instants, and so as two jobs.
    """
    if name == "UTC":
        return UTC  # the standard's, of which cronsim knows that its clocks are never changed
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)


class Ticks:
    """The ticks of one schedule: whole seconds for an expression, multiples of the interval since 1970 otherwise.

    Args:
        cron: An expression that `check_cron` took; empty for an interval.
        timezone: The zone that the expression is meant in.
        every_ms: The interval, where there is no expression.
    """

    def __init__(self, cron: str, timezone: str = "UTC", every_ms: int = 0) -> None:
        self._cron, self._every = cron, every_ms
        self._zone = zone(timezone)

    def next(self, after_ms: int) -> int | None:
        """The first tick after a time; None if there is none in fifty years."""
        if not self._cron:
            return (after_ms // self._every + 1) * self._every
        return next(self._between(after_ms, _LAST_MS), None)

    def newest(self, after_ms: int, until_ms: int, most: int) -> list[int]:
        """The ticks after one time and not after another, in order: the newest ``most`` of them."""
        if not self._cron:
            last = until_ms // self._every * self._every
            return list(islice(range(last, after_ms, -self._every), most))[::-1]
        # Forwards from ever further back: a year of minutes is not walked for the last of them, and what a tick is
        # does not depend on the direction.
        back = _STRIDE_MS
        while True:
            start = max(until_ms - back, after_ms)
            found = list(self._between(start, until_ms))
            if len(found) >= most or start == after_ms:
                return found[-most:]
            back *= 4

    def _between(self, after_ms: int, until_ms: int) -> Iterator[int]:
        for each in CronSim(self._cron, self._local(after_ms) - _SHIFT):
            tick = _milliseconds(each)
            if tick > until_ms:
                return
            if tick > after_ms:
                yield tick

    def _local(self, time_ms: int) -> datetime:
        return datetime.fromtimestamp(time_ms // 1000, self._zone)


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp()) * 1000


def as_text(tick_ms: int) -> str:
    """A tick as keys and logs have it: ``2026-03-29T01:00:00Z``, with milliseconds where there are any."""
    time = datetime.fromtimestamp(tick_ms / 1000, UTC)
    return time.isoformat(timespec="milliseconds" if tick_ms % 1000 else "seconds").replace("+00:00", "Z")
