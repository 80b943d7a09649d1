"""What a handler raises, and what becomes of a delivery, as values."""

from __future__ import annotations

from datetime import timedelta

from consumers import Reject, Retry, Snooze
from consumers.verdict import Answered, Cancelled, Repeat


def test_a_delay_is_seconds_or_a_timedelta() -> None:
    assert [Retry(after).after for after in (None, 5, timedelta(minutes=2))] == [None, 5, 120.0]
    assert [Snooze(after).after for after in (5, timedelta(minutes=2))] == [5, 120.0]


def test_what_is_raised_says_why() -> None:
    raised = (Retry(reason="busy"), Reject(reason="no such picture"), Cancelled(reason="not needed"), Snooze(after=90))
    assert [str(each) for each in raised] == ["busy", "no such picture", "not needed", "in 90 s"]
    assert (Reject("no").type, Reject("no", type="NotFound").type) == ("Reject", "NotFound")


def test_an_answer_may_have_no_parts_and_a_result_is_not_shown() -> None:
    assert (Answered().transfer, Answered().digest) == (b"", b"")
    assert "sealed" not in repr(Repeat(b"sealed"))
