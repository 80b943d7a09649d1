"""What the drill counts: a ledger in which something is wrong must not pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from bridge.cli.drill.audit import SUCCEEDED, Count, audit
from bridge.cli.drill.faults import Strike
from bridge.cli.drill.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger.sqlite")
    yield made
    made.close()


def stored(ledger: Ledger, queue: str = "work") -> int:
    (job,) = ledger.intend(queue)
    ledger.stored(job, f"token-{job}")
    return job


def run(ledger: Ledger, job: int, pid: int = 1, attempt: int = 1) -> None:
    ledger.end(ledger.begin(job, pid, attempt))


def counted(ledger: Ledger, *strikes: Strike) -> Count:
    total = Count()
    for count in audit(ledger, strikes):
        total.add(count)
    return total


def test_a_job_that_ran_once_and_was_answered_is_right(ledger: Ledger) -> None:
    job = stored(ledger)
    run(ledger, job)
    ledger.result(job, SUCCEEDED)
    count = counted(ledger)
    assert (count.jobs, count.lost, count.doubled, count.failed, count.again) == (1, 0, 0, 0, 0)
    assert not count.examples


def test_a_stored_job_without_a_result_is_lost(ledger: Ledger) -> None:
    run(ledger, stored(ledger))
    count = counted(ledger)
    assert (count.jobs, count.lost) == (1, 1)
    assert len(count.examples) == 1


def test_what_the_producer_does_not_know_to_be_stored_is_not_owed(ledger: Ledger) -> None:
    ledger.intend("work")
    ledger.disowned()
    count = counted(ledger)
    assert (count.jobs, count.lost, count.unknown) == (0, 0, 1)


def test_two_results_are_one_too_many(ledger: Ledger) -> None:
    job = stored(ledger)
    run(ledger, job)
    ledger.result(job, SUCCEEDED)
    ledger.result(job, SUCCEEDED)
    assert counted(ledger).doubled == 1


def test_a_second_run_is_doubled_unless_the_first_was_interrupted(ledger: Ledger) -> None:
    opened, job = monotonic(), stored(ledger)
    ledger.begin(job, 1, 1)
    killed = monotonic()
    run(ledger, job, pid=2, attempt=2)
    ledger.result(job, SUCCEEDED)
    assert counted(ledger).doubled == 1
    count = counted(ledger, Strike("a", opened, killed=[(1, killed)]))
    assert (count.doubled, count.interrupted, count.again) == (0, 1, 1)
    assert counted(ledger, Strike("a", opened, killed=[(2, monotonic())])).doubled == 1  # that one had been answered


def test_one_interruption_allows_one_run_more_and_no_other(ledger: Ledger) -> None:
    opened, job = monotonic(), stored(ledger)
    ledger.begin(job, 1, 1)
    struck = monotonic()
    severed = Strike("a", opened, struck=struck, mended=monotonic(), severed=True)
    for pid in (2, 3):
        run(ledger, job, pid)
    ledger.result(job, SUCCEEDED)
    count = counted(ledger, severed)
    assert (count.interrupted, count.again, count.doubled) == (1, 2, 1)


def test_a_server_that_forgets_allows_one_run_more_of_what_was_under_way(ledger: Ledger) -> None:
    opened, job = monotonic(), stored(ledger)
    struck = monotonic()
    mended = monotonic()
    for pid in (1, 2):
        run(ledger, job, pid)
    ledger.result(job, SUCCEEDED)
    assert counted(ledger, Strike("a", opened, struck=struck, mended=mended, severed=True)).doubled == 1
    forgot = Strike("a", opened, struck=struck, mended=mended, severed=True, forgets=True)
    assert counted(ledger, forgot).doubled == 0
    later = monotonic()
    after = Strike("a", opened, struck=later, mended=monotonic(), severed=True, forgets=True)
    assert counted(ledger, after).doubled == 1  # it had been answered


def test_a_wrong_result_is_no_result_to_be_content_with(ledger: Ledger) -> None:
    right, wrong = stored(ledger, "poison"), stored(ledger)
    for job in (right, wrong):
        run(ledger, job)
        ledger.result(job, "AttemptsExhausted")
    count = counted(ledger)
    assert (count.failed, count.lost) == (1, 0)


def test_jobs_are_counted_with_the_fault_that_was_open(ledger: Ledger) -> None:
    before = stored(ledger)
    first = Strike("a", monotonic())
    jobs = [stored(ledger), stored(ledger)]
    second = Strike("b", monotonic())
    for job in (before, *jobs):
        run(ledger, job)
        ledger.result(job, SUCCEEDED)
    a, b, rest = audit(ledger, [first, second])
    assert (a.jobs, b.jobs, rest.jobs) == (2, 0, 1)
