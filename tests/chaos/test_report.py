"""What a drill says: readable in a window of ordinary width, and what was not run is told."""

from __future__ import annotations

import pytest

from bridge.cli.drill import report as reports
from bridge.cli.drill.audit import Count
from bridge.cli.drill.command import CUTS_S
from bridge.cli.drill.faults import faults
from bridge.cli.drill.report import Report
from bridge.cli.drill.strike import Strike
from bridge.cli.out import Out

COLUMNS = 110


def strike(fault: str, at: float, owed: int = 0) -> Strike:
    return Strike(
        fault,
        at,
        struck=at,
        mended=at + 300,
        noticed=at + 29.5,
        sign="pull_interrupted",
        first=at + 300 + at / 100,
        drained=at + 300 + at / 10,
        owed=owed,
    )


def reported(*strikes: Strike) -> Report:
    counts = [Count(jobs=12_345, again=123, interrupted=1_234, late=999, longest=99.9) for _ in strikes]
    missing = {"disk-leaf": "this process may not mount a disk that can be full: Operation not permitted"}
    return reports.report(
        faults(list(CUTS_S)), strikes, [*counts, Count()], seed=1, rate=100, took=3000, missing=missing
    )


def test_it_fits_a_window_of_ordinary_width(capsys: pytest.CaptureFixture[str]) -> None:
    found = reported(*(strike(fault.name, 100.0, 2_500) for fault in faults(list(CUTS_S))))
    reports.show(Out(as_json=False), found)
    said = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, said)) <= COLUMNS, max(said, key=len)
    assert said[-1] == "nothing lost, nothing doubled"
    assert "disk-leaf: not run; this process may not mount a disk that can be full: Operation not permitted" in said
    for each in found.rows:
        assert max(len(reports.line(one)) for one in each.strikes) <= COLUMNS


def test_the_links_return_is_told_over_all_cuts_and_of_a_backlog_apart(capsys: pytest.CaptureFixture[str]) -> None:
    cuts = (strike("cut-1s", 100, 1_999), strike("cut-5s", 200, 2_000), strike("backlog", 400, 2_100))
    found = reported(*cuts, strike("hub", 900, 5_000))
    reports.show(Out(as_json=False), found)
    said = capsys.readouterr().out.splitlines()
    assert "The link's return, 3 cuts: 1st result 2.0 / 4.0 s, drained 20.0 / 40.0 s" in said
    assert (
        "The link's return, 2 cuts with 2,000 results owed and more: 1st result 3.0 / 4.0 s, drained 30.0 / 40.0 s"
        in said
    )
    returns = reports.as_json(found)["returns"]
    assert returns["3 cuts"] == {"first_result": [1.0, 2.0, 4.0], "drained": [10.0, 20.0, 40.0]}
    assert reports.as_json(found)["not_run"].keys() == {"disk-leaf"}
