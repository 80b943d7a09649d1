"""What a client may believe of a broker that says it delivers something for the first time."""

from __future__ import annotations

import pytest

from bridge.clock import now_ms
from bridge.jetstream.doubt import MARGIN_MS, Doubts
from bridge.jetstream.settle import place


def ack(number: int, stored_ms: int) -> str:
    return f"$JS.ACK.JOBS_q.pool-normal.1.{number}.{number}.{stored_ms}000000.0"


def test_what_goes_on_is_believed() -> None:
    doubts, now = Doubts(), now_ms()
    assert not any(doubts.about(ack(number, now - 60_000 + number)) for number in range(1, 50))


def test_after_trouble_what_was_stored_before_is_doubted_and_what_came_later_is_not() -> None:
    doubts, now = Doubts(), now_ms()
    doubts.about(ack(1, now - 10))
    doubts.arise()
    assert doubts.about(ack(2, now - 10))
    assert not doubts.about(ack(3, now + 2 * MARGIN_MS))


def test_trouble_is_counted_by_the_clock_of_a_broker_that_is_ahead() -> None:
    doubts, ahead = Doubts(), now_ms() + 3_600_000
    doubts.about(ack(1, ahead))
    doubts.arise()
    assert doubts.about(ack(2, ahead - 10))


def test_numbers_that_go_back_are_trouble() -> None:
    doubts, now = Doubts(), now_ms()
    assert not doubts.about(ack(7, now - 10))
    assert doubts.about(ack(5, now - 10))
    assert doubts.about(ack(6, now - 10))


def test_requests_that_overlap_may_be_read_out_of_turn() -> None:
    doubts, now = Doubts(), now_ms()
    assert not doubts.about(ack(1, now - 10), 0)
    assert not doubts.about(ack(7, now - 10), 1)
    assert not doubts.about(ack(2, now - 10), 1)
    assert doubts.highest == 7


def test_a_request_that_is_sent_after_a_number_was_seen_goes_on_from_there() -> None:
    doubts, now = Doubts(), now_ms()
    assert not doubts.about(ack(7, now - 10), 0)
    assert doubts.about(ack(6, now - 10), doubts.highest)
    assert doubts.about(ack(7, now - 10), doubts.number)
    assert not doubts.about(ack(8, now + 2 * MARGIN_MS), doubts.highest)


@pytest.mark.parametrize(
    "subject",
    ["$JS.ACK", "$JS.ACK.s.c.1.x.y.z.0", "$JS.ACK.s.c.1.1.1.99999999999999999999999.0", "", "$JS.ACK.s.c.1.1.²"],
)
def test_what_cannot_be_read_is_doubted(subject: str) -> None:
    assert place(subject) is None
    assert Doubts().about(subject)


def test_both_forms_are_read() -> None:
    assert place("$JS.ACK.s.c.1.22.33.4444000000.0") == (33, 4444)
    assert place("$JS.ACK.domain.hash.s.c.1.22.33.4444000000.0.token") == (33, 4444)


def test_nothing_is_older_than_the_message_of_a_first_delivery_before_it() -> None:
    doubts, now = Doubts(), now_ms()
    assert doubts.age == float("inf")
    doubts.about(ack(1, now).replace(".1.1.1.", ".2.1.1."))  # again: it may have been under way for long
    assert doubts.age == float("inf")
    doubts.about(ack(2, now - 3_000))
    assert 3 <= doubts.age < 60
    doubts.about(ack(3, now - 100_000))
    assert doubts.age < 60


def test_a_clock_that_is_ahead_makes_nothing_younger() -> None:
    doubts, now = Doubts(), now_ms()
    doubts.about(ack(1, now + 100_000))
    assert 0 <= doubts.age < 60
