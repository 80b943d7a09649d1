"""A job's way has not become longer."""

from __future__ import annotations

from bench import guard


async def test_a_job_takes_no_more_calls_of_functions_and_signatures_than_are_written_down() -> None:
    assert guard.complaints(await guard.counted()) == []


def test_what_is_more_is_told() -> None:
    found = {**guard.LIMITS, "signatures": 4.0}
    assert guard.complaints(found) == ["signatures: 4.00 for each job, where bench/guard.py allows 0.25"]
