"""Which changes of a stream or consumer are safe."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from bridge.provision.difference import consumer_differences, merged, parse_time, stream_differences

NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
STATE = {"messages": 10, "bytes": 5_000, "num_subjects": 10, "first_ts": "2026-01-01T23:00:00.123456789Z"}
HOUR_NS = 3_600_000_000_000
HAVE: dict[str, Any] = {
    "name": "JOBS_q",
    "subjects": ["jobs.q.>"],
    "retention": "workqueue",
    "storage": "file",
    "discard": "new",
    "discard_new_per_subject": True,
    "max_msgs": -1,
    "max_bytes": 10_000,
    "max_age": 0,
    "max_msgs_per_subject": 1,
    "max_msg_size": -1,
    "deny_delete": True,
    "allow_direct": True,
    "metadata": {"_nats.ver": "2"},
}


def refused(have: dict[str, Any], want: dict[str, Any], state: dict[str, Any] = STATE) -> dict[str, bool]:
    """Whether each differing field is refused."""
    return {each.field: bool(each.refused) for each in stream_differences(have, want, state, NOW)}


def test_what_is_as_planned_does_not_differ() -> None:
    assert not refused(HAVE, HAVE)
    # The server leaves out what is empty, and writes "unlimited" in two ways.
    assert not refused(
        HAVE, {"sources": [], "allow_rollup_hdrs": False, "max_msgs": 0, "max_age": -1, "description": ""}
    )
    assert not refused({"sources": [{"name": "a", "external": {"api": "x"}}]}, {"sources": [{"name": "a"}]})
    assert not refused({"subjects": ["a", "b"]}, {"subjects": ["b", "a"]})


@pytest.mark.parametrize(
    "want",
    [
        {"max_bytes": 20_000},
        {"max_bytes": -1},
        {"max_bytes": 5_000},
        {"max_msgs": 10},
        {"max_age": 2 * HOUR_NS},
        {"max_msgs_per_subject": 2},
        {"subjects": ["jobs.q.>", "more.q.>"]},
        {"description": "other"},
        {"duplicate_window": HOUR_NS},
        {"metadata": {"a": "b"}},
        {"allow_rollup_hdrs": False},
    ],
)
def test_widening_is_safe(want: dict[str, Any]) -> None:
    assert refused({**HAVE, "allow_rollup_hdrs": True}, want) == dict.fromkeys(want, False)


@pytest.mark.parametrize(
    "want",
    [
        {"max_bytes": 4_999},
        {"max_msgs": 9},
        {"max_age": HOUR_NS // 2},
        {"subjects": ["jobs.q.normal.>"]},
        {"retention": "limits"},
        {"storage": "memory"},
        {"discard": "old"},
        {"discard_new_per_subject": False},
        {"deny_delete": False},
        {"allow_rollup_hdrs": True},
        {"mirror": {"name": "OTHER"}},
    ],
)
def test_what_would_take_away_is_refused(want: dict[str, Any]) -> None:
    assert refused(HAVE, want) == dict.fromkeys(want, True)


def test_thresholds_are_the_plan_s_and_other_metadata_is_others() -> None:
    warn, critical = "io.nats.monitor.subjects-warn", "io.nats.monitor.subjects-critical"
    have = {"metadata": {"_nats.ver": "2", "team": "relay", warn: "1", critical: "2"}, "max_bytes": 1}
    assert not refused(have, {"metadata": {warn: "1", critical: "2"}})
    assert not refused(have, {"max_bytes": 1})
    assert refused(have, {"metadata": {warn: "1", critical: "3"}}) == {"metadata": False}
    assert refused(have, {"metadata": {warn: "1"}}) == {"metadata": False}
    assert merged(have, {"metadata": {warn: "5"}})["metadata"] == {"team": "relay", warn: "5"}
    assert merged(have, {"max_bytes": 2}) == {**have, "max_bytes": 2}


def test_fewer_per_subject_is_safe_only_if_none_holds_more() -> None:
    have = {**HAVE, "max_msgs_per_subject": -1}
    assert refused(have, {"max_msgs_per_subject": 1}) == {"max_msgs_per_subject": False}
    crowded = {**STATE, "num_subjects": 9}
    assert refused(have, {"max_msgs_per_subject": 1}, crowded) == {"max_msgs_per_subject": True}
    assert refused(have, {"max_msgs_per_subject": 2}, crowded) == {"max_msgs_per_subject": False}


def test_an_empty_stream_may_shrink() -> None:
    empty = {"messages": 0, "bytes": 0, "num_subjects": 0, "first_ts": "0001-01-01T00:00:00Z"}
    assert refused(HAVE, {"max_bytes": 1, "max_msgs": 1, "max_age": 1}, empty) == {
        "max_bytes": False,
        "max_msgs": False,
        "max_age": False,
    }


def test_sources_are_added_but_never_exchanged() -> None:
    source = [{"name": "RESULTS_q", "external": {"api": "$JS.azure.API"}}]
    assert refused(HAVE, {"sources": source}) == {"sources": False}
    other = [{"name": "RESULTS_q", "external": {"api": "$JS.other.API"}}]
    assert refused({**HAVE, "sources": source}, {"sources": other}) == {"sources": True}
    assert refused({**HAVE, "sources": source}, {"sources": []}) == {"sources": True}


def test_a_consumer_keeps_what_makes_it_this_consumer() -> None:
    have = {"name": "c", "ack_policy": "explicit", "ack_wait": 30, "filter_subject": "jobs.q.normal.>"}
    found = consumer_differences(have, {"ack_wait": 60, "filter_subject": "jobs.q.>", "ack_policy": "none"})
    assert {each.field: bool(each.refused) for each in found} == {
        "ack_wait": False,
        "filter_subject": True,
        "ack_policy": True,
    }
    assert not consumer_differences(have, have)


def test_times_of_the_api_are_read() -> None:
    assert parse_time("2026-01-01T23:00:00.123456789Z") == dt.datetime(2026, 1, 1, 23, 0, 0, 123456, dt.UTC)
    assert parse_time("2026-01-01T23:00:00Z").tzinfo is not None
    assert parse_time("2026-01-02T01:00:00.1+02:00") == dt.datetime(2026, 1, 1, 23, 0, 0, 100000, dt.UTC)
