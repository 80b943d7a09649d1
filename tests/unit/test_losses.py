"""What an agent calls lost, and what it does not: from counts alone, one look after the other."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from structlog.testing import capture_logs

from bridge.agent import look
from bridge.agent.losses import WINDOW_S, Losses, Seen


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def vanished(looks: Iterable[Seen | None]) -> int:
    losses = Losses(Clock())
    for seen in looks:
        losses.saw("thumbs", "JOBS_thumbs", seen)
    return losses.vanished["thumbs"]


IDLE = Seen(last=10, messages=4, handed_out=6, held=0)


@pytest.mark.parametrize(
    ("looks", "lost"),
    [
        ([IDLE] * 5, 0),
        ([IDLE, IDLE, IDLE._replace(messages=0), IDLE._replace(messages=0)], 4),
        ([IDLE, IDLE, IDLE._replace(messages=3), IDLE._replace(messages=3)] * 1 + [IDLE._replace(messages=3)] * 3, 1),
        # Worked: handed out and settled, seen at once or bit by bit.
        ([IDLE, IDLE, Seen(10, 0, 10, 0), Seen(10, 0, 10, 0)], 0),
        ([IDLE, Seen(10, 4, 10, 4), Seen(10, 2, 10, 2), Seen(10, 0, 10, 0), *[Seen(10, 0, 10, 0)] * 3], 0),
        # The stream was asked a moment before its consumers, or after.
        ([IDLE, Seen(10, 4, 10, 0), Seen(10, 0, 10, 0), Seen(10, 0, 10, 0), *[Seen(10, 0, 10, 0)] * 3], 0),
        ([IDLE, Seen(10, 0, 6, 0), Seen(10, 0, 10, 0), Seen(10, 0, 10, 0), *[Seen(10, 0, 10, 0)] * 3], 0),
        # Stored and worked between two looks.
        ([IDLE, IDLE, Seen(1010, 4, 1006, 0), Seen(1010, 4, 1006, 0)], 0),
        # Purged amid work: what was settled hides as many.
        ([IDLE, IDLE, Seen(110, 0, 10, 2), Seen(110, 0, 10, 2)], 102),
        # Handed out again and again settles nothing, and may hide something, but makes nothing up.
        ([IDLE, IDLE, Seen(10, 4, 500, 4), Seen(10, 4, 900, 4)], 0),
        # A look that failed, and a server that forgot what it had handed out.
        ([IDLE, IDLE, None, IDLE._replace(messages=0), IDLE._replace(messages=0)], 0),
        ([IDLE, IDLE, IDLE._replace(messages=0, handed_out=2), IDLE._replace(messages=0, handed_out=2)], 0),
    ],
)
def test_of_a_work_queue_more_is_gone_than_was_settled(looks: list[Seen | None], lost: int) -> None:
    assert vanished(looks) == lost


def test_what_was_seen_before_the_connection_broke_is_not_compared() -> None:
    losses = Losses(Clock())
    for _ in range(3):
        losses.saw("thumbs", "JOBS_thumbs", IDLE)
    losses.interrupted()
    for _ in range(3):
        losses.saw("thumbs", "JOBS_thumbs", IDLE._replace(messages=0))
    assert losses.vanished["thumbs"] == 0


def test_a_stream_went_back_if_it_stays_below_and_is_told_once() -> None:
    losses = Losses(Clock())
    with capture_logs() as logs:
        for last in (5, 9, 8, 10, 10):  # one answer of a server that was behind
            losses.saw("thumbs", "RESULTS_thumbs", Seen(last, 1))
        assert losses.rolled_back == {("thumbs", "RESULTS_thumbs"): 0}
        for last in (3, 3, 4, 5, 20):
            losses.saw("thumbs", "RESULTS_thumbs", Seen(last, 1))
    assert losses.rolled_back == {("thumbs", "RESULTS_thumbs"): 1}
    assert [(each["event"], each["stream"], each["count"]) for each in logs] == [
        ("stream_rolled_back", "RESULTS_thumbs", 7)
    ]
    assert not losses.vanished, "it is no work queue"


def test_a_copy_lacks_what_the_other_cloud_has_and_was_not_here_lately() -> None:
    clock = Clock()
    losses = Losses(clock)
    assert losses.lost_at_home("thumbs", 5) is None
    losses.saw_copy("thumbs", 5)
    assert losses.lost_at_home("thumbs", 5) == 0
    clock.now += WINDOW_S / 2
    losses.saw_copy("thumbs", 2)
    assert losses.lost_at_home("thumbs", 5) == 0, "the other cloud's word may be from before these went for their age"
    clock.now += WINDOW_S / 2 + 1
    assert losses.lost_at_home("thumbs", 5) == 3
    clock.now += WINDOW_S
    assert losses.lost_at_home("thumbs", 5) is None


def test_what_is_not_told_of_a_stream_is_no_look_at_it() -> None:
    stream = {"state": {"last_seq": 9, "messages": 3}}
    consumer = {"delivered": {"consumer_seq": 7}, "num_ack_pending": 2}
    assert look.of_stream(stream) == Seen(9, 3)
    assert look.of_stream(stream, [consumer, consumer]) == Seen(9, 3, 14, 4)
    assert look.of_stream(stream, [consumer, None]) is None
    assert look.of_stream(None, [consumer]) is None
