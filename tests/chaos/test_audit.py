"""What the drill counts: a ledger in which something is wrong must not pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from bridge.cli.drill.audit import LATE, SUCCEEDED, Count, audit
from bridge.cli.drill.ledger import Ledger
from bridge.cli.drill.strike import Strike


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


def test_what_the_producer_was_told_not_to_be_stored_is_not_owed(ledger: Ledger) -> None:
    (job,) = ledger.intend("work")
    ledger.refused(job, "PublishTimeout")
    count = counted(ledger)
    assert (count.jobs, count.lost, count.unknown, count.unsent) == (0, 0, 1, 0)


def test_what_a_killed_producer_had_not_in_its_outbox_must_never_run(ledger: Ledger) -> None:
    (job,) = ledger.intend("work")
    ledger.disowned(["back"])
    assert counted(ledger).unsent == 0  # of the other producer's
    ledger.disowned(["work"])
    count = counted(ledger)
    assert (count.jobs, count.lost, count.unknown, count.unsent, count.failed) == (0, 0, 0, 1, 0)
    run(ledger, job)
    assert counted(ledger).failed == 1


def test_what_it_had_in_its_outbox_is_owed(ledger: Ledger) -> None:
    told, job = stored(ledger), ledger.intend("work")[0]
    ledger.disowned(["work"])
    assert ledger.recover("work", [f"token-{told}", "token"]) == ["token"]
    run(ledger, told)
    ledger.result(told, SUCCEEDED)
    assert (ledger.open(), ledger.under_way("work"), counted(ledger).lost) == (1, 1, 1)
    run(ledger, job)
    ledger.found("token", job)
    ledger.result(job, SUCCEEDED)
    count = counted(ledger)
    assert (ledger.open(), count.jobs, count.lost, count.unsent, count.failed) == (0, 2, 0, 0, 0)


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


def test_the_number_of_a_process_may_come_again(ledger: Ledger) -> None:
    opened, job = monotonic(), stored(ledger)
    earlier = (1, monotonic())
    ledger.begin(job, 1, 1)
    amid = (1, monotonic())
    run(ledger, job, pid=2, attempt=2)
    ledger.result(job, SUCCEEDED)
    later = (1, monotonic())
    assert counted(ledger, Strike("a", opened, killed=[earlier, amid, later])).doubled == 0
    assert counted(ledger, Strike("a", opened, killed=[earlier, later])).doubled == 1


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
    others = Strike("a", opened, struck=struck, mended=mended, severed=True, forgets=frozenset({"back"}))
    assert counted(ledger, others).doubled == 1
    forgot = Strike("a", opened, struck=struck, mended=mended, severed=True, forgets=frozenset({"work"}))
    assert counted(ledger, forgot).doubled == 0
    later = monotonic()
    after = Strike("a", opened, struck=later, mended=monotonic(), severed=True, forgets=frozenset({"work"}))
    assert counted(ledger, after).doubled == 1  # it had been answered


def test_a_wrong_result_is_no_result_to_be_content_with(ledger: Ledger) -> None:
    right, wrong = stored(ledger, "poison"), stored(ledger)
    for job in (right, wrong):
        run(ledger, job)
        ledger.result(job, "AttemptsExhausted")
    count = counted(ledger)
    assert (count.failed, count.lost) == (1, 0)


def test_too_late_is_right_only_where_a_clock_was_off_by_more_than_the_deadline(ledger: Ledger) -> None:
    opened = struck = monotonic()
    short, long = ledger.intend("work", (1800, 7200))
    for job in (short, long):
        ledger.stored(job, f"token-{job}")
        ledger.result(job, LATE)
    skewed = Strike("a", opened, struck=struck, mended=monotonic(), skewed=True)
    assert (counted(ledger).failed, counted(ledger).late) == (2, 0)
    assert (counted(ledger, skewed).failed, counted(ledger, skewed).late) == (1, 1)
    after = Strike("a", opened, struck=monotonic(), mended=monotonic(), skewed=True)
    assert counted(ledger, after).failed == 2


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
