"""How many parts may be under way, and how long one is waited for."""

from __future__ import annotations

import math

import pytest

from bridge.payload import SEALED_PART
from bridge.transfer.window import LEAST_PATIENCE_S, MOST_BYTES, Window


def fed(round_trip: float, rate: float, seconds: float) -> Window:
    """A window over a path that gives so many bytes a second."""
    window, now = Window(), 0.0
    while now < seconds:
        now += SEALED_PART / rate
        window.took(round_trip, SEALED_PART, now)
    return window


def test_a_short_path_has_few_parts_under_way_for_a_small_job_waits_behind_them() -> None:
    assert Window().parts == fed(0.001, 200e6, 2).parts == 4


@pytest.mark.parametrize(("rate", "most"), [(100e6, 2 * 100e6 * 0.07), (1e9, MOST_BYTES)])
def test_a_long_path_has_twice_what_it_holds_and_no_more_than_the_limit(rate: float, most: float) -> None:
    assert fed(0.07, rate, 2).bytes == pytest.approx(most, rel=0.1)


def test_what_may_be_lost_is_waited_for_by_what_answers_took() -> None:
    assert Window().patience == math.inf  # nothing is known yet
    assert fed(0.01, 100e6, 1).patience == LEAST_PATIENCE_S
    assert fed(1.5, 1e6, 1).patience == 6.0


def test_a_pause_and_the_burst_after_it_change_it_by_little() -> None:
    window, now = fed(0.07, 100e6, 2), 2.0
    before = window.bytes
    window.took(0.07, SEALED_PART, now := now + 0.3)  # nothing came for four round trips
    assert window.bytes == pytest.approx(0.85 * before, rel=0.01)
    for _ in range(int(before) // SEALED_PART * 3):  # and then three windows within one
        window.took(0.07, SEALED_PART, now := now + 0.07 / (before / SEALED_PART * 3))
    assert window.bytes <= 2 * before
