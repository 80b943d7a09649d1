"""How many parts may be under way, and how long one is waited for."""

from __future__ import annotations

import math

import pytest

from bridge import subjects
from bridge.payload import SEALED_PART
from bridge.subjects import JobKey
from bridge.transfer import window
from bridge.transfer.window import LEAST_PATIENCE_S, MOST_BYTES, Others, Window
from tests.fleet import Fleet, policy

KEY = JobKey("thumbs", "relay", "0" * 24, 1)


def alone() -> bool:
    return False


def fed(round_trip: float, rate: float, seconds: float, of: Window | None = None) -> Window:
    """A window over a path that gives so many bytes a second."""
    filled, now = of or Window(alone), 0.0
    while now < seconds:
        now += SEALED_PART / rate
        filled.took(round_trip, SEALED_PART, now)
    return filled


def test_a_short_path_has_few_parts_under_way_for_a_small_job_waits_behind_them() -> None:
    assert Window(alone).parts == fed(0.001, 200e6, 2).parts == 4


@pytest.mark.parametrize("beside", [True, False])
def test_beside_others_a_short_path_has_one_and_a_long_one_still_more_than_it_holds(beside: bool) -> None:
    assert Window(lambda: True).parts == 1
    short, long = (fed(round_trip, 100e6, 2, Window(lambda: beside)) for round_trip in (0.001, 0.07))
    assert (short.parts, short.bytes) == (1 if beside else 4, SEALED_PART)
    assert long.parts == int((1.5 if beside else 2) * 100e6 * 0.07 / SEALED_PART + beside)


async def test_whoever_sent_or_got_a_message_since_a_transfer_began_is_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(window, "RECENT_S", math.inf)
    async with Fleet.make(policy()).bridge.transport("aws") as transport:
        await transport.publish("JOBS_thumbs", subjects.job(KEY, "normal"), b"its own")
        others = Others(transport)
        assert not others.there()
        await transport.publish("JOBS_thumbs", subjects.job(KEY._replace(n=2), "normal"), b"another")
        assert others.there()
        monkeypatch.setattr(window, "RECENT_S", 0.0)
        assert not others.there()


@pytest.mark.parametrize(("rate", "most"), [(100e6, 2 * 100e6 * 0.07), (1e9, MOST_BYTES)])
def test_a_long_path_has_twice_what_it_holds_and_no_more_than_the_limit(rate: float, most: float) -> None:
    assert fed(0.07, rate, 2).bytes == pytest.approx(most, rel=0.1)


def test_what_may_be_lost_is_waited_for_by_what_answers_took() -> None:
    assert Window(alone).patience == math.inf  # nothing is known yet
    assert fed(0.01, 100e6, 1).patience == LEAST_PATIENCE_S
    assert fed(1.5, 1e6, 1).patience == 6.0


def test_a_pause_and_the_burst_after_it_change_it_by_little() -> None:
    filled, now = fed(0.07, 100e6, 2), 2.0
    before = filled.bytes
    filled.took(0.07, SEALED_PART, now := now + 0.3)  # nothing came for four round trips
    assert filled.bytes == pytest.approx(0.85 * before, rel=0.01)
    for _ in range(int(before) // SEALED_PART * 3):  # and then three windows within one
        filled.took(0.07, SEALED_PART, now := now + 0.07 / (before / SEALED_PART * 3))
    assert filled.bytes <= 2 * before
