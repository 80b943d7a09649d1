"""When schedules are due: expressions in their time zones, both changes of the clock, and intervals."""

from __future__ import annotations

import zoneinfo
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.ticks import BadExpression, Ticks, as_text, check_cron, zones

HOUR, DAY = 3_600_000, 86_400_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def following(ticks: Ticks, after: str, count: int) -> list[str]:
    found, time = [], at(after)
    for _ in range(count):
        tick = ticks.next(time)
        assert tick is not None
        time = tick
        found.append(as_text(tick))
    return found


def test_what_a_machine_takes_a_zone_for_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe" / "Berlin").write_bytes((files("tzdata") / "zoneinfo" / "Asia" / "Tokyo").read_bytes())
    before = following(Ticks("0 12 * * *", "Europe/Berlin"), "2026-03-01T00:00:00Z", 1)
    try:
        zoneinfo.reset_tzpath([str(tmp_path)])
        zoneinfo.ZoneInfo.clear_cache()
        assert following(Ticks("0 12 * * *", "Europe/Berlin"), "2026-03-01T00:00:00Z", 1) == before
    finally:
        zoneinfo.reset_tzpath()
        zoneinfo.ZoneInfo.clear_cache()
    assert before == ["2026-03-01T11:00:00Z"]


def test_an_expression_is_meant_in_its_zone() -> None:
    daily = Ticks("30 2 * * *", "Europe/Berlin")
    assert following(daily, "2026-01-10T00:00:00Z", 2) == ["2026-01-10T01:30:00Z", "2026-01-11T01:30:00Z"]
    assert following(daily, "2026-07-10T00:00:00Z", 1) == ["2026-07-10T00:30:00Z"]
    assert following(Ticks("30 2 * * *"), "2026-07-10T00:00:00Z", 1) == ["2026-07-10T02:30:00Z"]


@pytest.mark.parametrize(
    ("expression", "ticks"),
    [
        # 02:00 to 03:00 is skipped on 29 March: a fixed time comes right after, and once.
        ("30 2 * * *", ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]),
        ("0,30 2 * * *", ["2026-03-28T01:00:00Z", "2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z"]),
        # With a star in minute or hour it follows the clock: none in that hour.
        ("*/30 2 * * *", ["2026-03-28T01:00:00Z", "2026-03-28T01:30:00Z", "2026-03-30T00:00:00Z"]),
    ],
)
def test_an_hour_that_is_skipped(expression: str, ticks: list[str]) -> None:
    assert following(Ticks(expression, "Europe/Berlin"), "2026-03-28T00:00:00Z", 3) == ticks


@pytest.mark.parametrize(
    ("expression", "ticks"),
    [
        # 02:00 to 03:00 comes twice on 25 October: a fixed time has its tick the first time, and once.
        ("30 2 * * *", ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
        ("*/30 2 * * *", ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"]),
        ("0 * * * *", ["2026-10-24T23:00:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"]),
    ],
)
def test_an_hour_that_comes_twice(expression: str, ticks: list[str]) -> None:
    assert following(Ticks(expression, "Europe/Berlin"), "2026-10-24T22:30:00Z", len(ticks)) == ticks


EXPRESSIONS = ("30 2 * * *", "*/15 2 * * *", "0,59 1,2,3 * * *", "0 */2 * * *", "45 23 L * *", "17 * * * 1-5")
PLACES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll", "Africa/Cairo", "UTC")


@settings(max_examples=60)
@given(
    st.sampled_from(EXPRESSIONS), st.sampled_from(PLACES), st.integers(at("2026-01-01"), at("2027-01-01")), st.data()
)
def test_forwards_and_backwards_are_the_same_ticks(expression: str, zone: str, start: int, data: st.DataObject) -> None:
    ticks, until = Ticks(expression, zone), start + data.draw(st.integers(0, 9 * DAY))
    forwards, time = list[int](), start
    while (tick := ticks.next(time)) is not None and tick <= until:
        assert tick > time
        forwards.append(tick)
        time = tick
    most = data.draw(st.integers(1, 50))
    assert ticks.newest(start, until, most) == forwards[-most:]


@given(st.integers(1_000, 31 * DAY), st.integers(0, 2**42))
def test_an_interval_counts_from_1970(every: int, now: int) -> None:
    ticks = Ticks("", every_ms=every)
    tick = ticks.next(now)
    assert tick is not None
    assert now < tick <= now + every
    assert tick % every == 0
    assert ticks.newest(now, tick, 5) == [tick]
    assert ticks.newest(now - 3 * every, now, 2) == [tick - 2 * every, tick - every]


def test_what_no_year_has_is_no_expression() -> None:
    for expression, problem in {
        "61 * * * *": "has the minute '61'",
        "* * * *": "has 4 fields of five",
        "@daily": "is not five fields",
        "*/5 * * * * *": "has six fields",
        "0 0 30 2 *": "is never due",
        "5-1 * * * *": "has the minute '5-1'",
        "0 0 * * MONDAY": "has the day of the week 'MONDAY'",
        "1 " * 150: "is longer than 200",
    }.items():
        with pytest.raises(BadExpression, match=problem):
            check_cron(expression)
    check_cron("0 0 29 2 *")
    assert following(Ticks("0 0 29 2 *"), "2026-01-01T00:00:00Z", 1) == ["2028-02-29T00:00:00Z"]


def test_zones_are_those_of_the_database_and_not_of_this_machine() -> None:
    assert {"Europe/Berlin", "America/Argentina/Buenos_Aires", "UTC"} <= zones()
    assert not {"localtime", "posixrules", "../etc/passwd", "Europe", ""} & zones()


def test_a_tick_as_text() -> None:
    assert as_text(0) == "1970-01-01T00:00:00Z"
    assert as_text(1_500) == "1970-01-01T00:00:01.500Z"
