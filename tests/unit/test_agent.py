"""What an agent believes, for how long, and what it says when it does not know."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import strict_json, subjects
from bridge.agent import link, look, report
from bridge.agent.pages import pages
from bridge.agent.report import Report, read, write
from bridge.agent.samples import samples
from bridge.agent.state import MAX_SESSIONS, STALE_S, Repeated, State
from bridge.clock import now_ms
from bridge.errors import (
    BadFrame,
    BadSignature,
    BundleExpired,
    Expired,
    FromTheFuture,
    NotAuthorised,
    UnknownKey,
    WrongSubject,
)
from bridge.identity import Identity
from bridge.policy import IdentityEntry, Role
from bridge.signals.listener import Page
from tests.fleet import Fleet, policy

POLICY = dataclasses.replace(
    policy(),
    identities={
        **policy().identities,
        "eye-aws": IdentityEntry("eye-aws", "aws", Role.AGENT),
        "eye-azure": IdentityEntry("eye-azure", "azure", Role.AGENT),
    },
)
INBOXED = dataclasses.replace(POLICY, queues=policy(inbox=("relay",)).queues)
FLEET = Fleet.make(POLICY)
KEY = FLEET.identities["eye-aws"].sign[-1]
SUBJECT = subjects.stats("aws", "eye-aws")


def made(**fields: Any) -> Report:  # noqa: ANN401  fields of Report
    base = Report(
        "acme", "eye-aws", "aws", "ab" * 12, 1, now_ms(), "", 1, 1, {"thumbs": {"jobs": 3, "oldest_ms": 1500}}
    )
    return dataclasses.replace(base, **fields)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def state(cloud: str = "azure") -> State:
    return State(FLEET.connection(f"eye-{cloud}"), Clock())


# --- reports -----------------------------------------------------------------------------------------


def test_a_report_reads_as_it_was_written() -> None:
    told = made(policy="0f" * 32)
    assert read(write(told, KEY), SUBJECT, FLEET.trust, now_ms()) == told


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"issued": now_ms() - 120_000}, Expired),
        ({"issued": now_ms() + 86_400_000}, FromTheFuture),
        ({"cloud": "azure"}, NotAuthorised),
        ({"bridge": "other"}, NotAuthorised),
        ({"sender": "eye-azure"}, BadSignature),
        ({"n": -1}, BadFrame),
        ({"n": 2**53}, BadFrame),
        ({"n": True}, BadFrame),
        ({"session": "AB" * 12}, BadFrame),
        ({"policy": "x" * 64}, BadFrame),
        ({"queues": {"thumbs": {"jobs": -1}}}, BadFrame),
        ({"queues": {"thumbs": {"job": 1}}}, BadFrame),
        ({"queues": {"Thumbs": {}}}, BadFrame),
    ],
)
def test_a_report_that_says_what_it_must_not_is_refused(fields: dict[str, Any], refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        read(write(made(**fields), KEY), SUBJECT, FLEET.trust, now_ms())


def test_only_an_agents_key_in_the_bundle_speaks_for_a_cloud() -> None:
    with pytest.raises(UnknownKey):
        read(write(made(), Identity.generate("eye-aws").sign[-1]), SUBJECT, FLEET.trust, now_ms())
    service = FLEET.identities["relay"].sign[-1]
    with pytest.raises(NotAuthorised):
        read(write(made(sender="relay"), service), subjects.stats("aws", "relay"), FLEET.trust, now_ms())
    with pytest.raises(WrongSubject):
        read(write(made(), KEY), subjects.stats("aws", "eye-other"), FLEET.trust, now_ms())
    with pytest.raises(BundleExpired):
        read(write(made(), KEY), SUBJECT, FLEET.trust, FLEET.trust.expires_ms)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_no_byte_of_a_report_can_be_changed(at: int, flip: int) -> None:
    data = bytearray(write(made(), KEY))
    data[at % len(data)] ^= flip
    with pytest.raises((BadFrame, BadSignature, UnknownKey)):
        read(bytes(data), SUBJECT, FLEET.trust, now_ms())


def test_a_report_has_its_fields_and_no_other() -> None:
    good = strict_json.parse_object(write(made(), KEY)[100:])
    for changed in ({**good, "extra": 1}, {k: v for k, v in good.items() if k != "n"}, {**good, "v": 2}):
        payload = strict_json.dump(changed)
        data = b"RS1\0" + KEY.kid + KEY.sign(b"bunny-bridge/v1/stats\0" + KEY.kid + payload) + payload
        with pytest.raises(BadFrame):
            read(data, SUBJECT, FLEET.trust, now_ms())
    with pytest.raises(BadFrame):
        read(write(made(), KEY) + b" " * report.MAX_REPORT, SUBJECT, FLEET.trust, now_ms())


# --- what is known, and for how long -------------------------------------------------------------------


def test_what_was_told_is_unknown_once_it_is_old() -> None:
    azure = state()
    azure.heard(made(), now_ms())
    backlog = azure.backlog("thumbs")
    assert backlog is not None
    assert (backlog.jobs, backlog.via) == (3, "peer")
    azure.clock.now += STALE_S  # type: ignore[attr-defined]  # the test's own clock
    assert azure.backlog("thumbs") is None
    names = {metric.name: value for metric, _, value in samples(azure)}
    assert names["bunny_peer_up"] == 0
    assert "bunny_queue_jobs" not in names
    azure.heard(made(n=2), now_ms())
    assert azure.backlog("thumbs") is not None


def test_what_was_seen_is_unknown_once_it_is_old() -> None:
    aws = state("aws")
    assert aws.backlog("thumbs") is None
    aws.queues, aws.looked_at = {"thumbs": {"jobs": 0}}, aws.clock()
    backlog = aws.backlog("thumbs")
    assert backlog is not None
    assert (backlog.jobs, backlog.via) == (0, "own")
    aws.clock.now += STALE_S  # type: ignore[attr-defined]  # the test's own clock
    assert aws.backlog("thumbs") is None


def test_a_report_is_taken_once_and_an_older_one_never() -> None:
    azure, now = state(), now_ms()
    azure.heard(made(n=5, issued=now), now)
    for again in (made(n=5, issued=now), made(n=4, issued=now), made(session="cd" * 12, issued=now - 1)):
        with pytest.raises(Repeated):
            azure.heard(again, now)
    with pytest.raises(WrongSubject):
        azure.heard(made(cloud="azure"), now)
    for number in range(3 * MAX_SESSIONS):
        azure.heard(made(session=f"{number:024x}", issued=now + number), now)
    assert len(azure._sessions) == MAX_SESSIONS


# --- pages ---------------------------------------------------------------------------------------------


def answer(of: State, path: str) -> tuple[int, Any]:
    page = pages(of, lambda: Page(b"metrics"))(path)
    if page is None:
        return 404, None
    return page.status, json.loads(page.body) if page.content_type == "application/json" else page.body.decode()


def test_an_autoscaler_is_told_a_number_or_that_there_is_none() -> None:
    azure = state()
    status, told = answer(azure, "/scale/thumbs")
    assert (status, told["backlog"], told["state"]) == (503, None, "unknown")
    azure.heard(made(queues={"thumbs": {"jobs": 0}}), now_ms())
    assert answer(azure, "/scale/thumbs")[1]["backlog"] == 0
    assert answer(azure, "/scale/nothing")[0] == answer(azure, "/scale/")[0] == answer(azure, "/")[0] == 404
    azure.heard(made(n=2, queues={}), now_ms())
    assert answer(azure, "/scale/thumbs")[0] == 503, "told of, but not of this queue"


def test_ready_is_about_ones_own_cloud() -> None:
    azure = state()
    status, told = answer(azure, "/readyz")
    assert (status, told["status"], list(told["failed"])) == (503, "failed", ["connection", "streams"])
    azure.connected = True
    assert list(answer(azure, "/readyz")[1]["failed"]) == ["streams"]
    azure.looked_at = azure.clock()
    assert answer(azure, "/readyz") == answer(azure, "/livez") == (200, {"status": "ok"})


# --- what servers say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1.5ms", 0.0015), ("345µs", 0.000345), ("1m2.5s", 62.5), ("", None), ("1", None), ("ms", None), ("-1s", None)],
)
def test_durations_of_go_are_read(text: str, seconds: float | None) -> None:
    assert link.seconds(text) == (None if seconds is None else pytest.approx(seconds))


def test_only_the_links_of_the_bridge_count() -> None:
    leafs = [{"account": "BRIDGE", "rtt": "2ms"}, {"account": "BRIDGE", "rtt": "?"}, {"account": "other", "rtt": "9s"}]
    value = {"server": {"id": "S", "tags": ["x", f"policy:{'0f' * 32}"]}, "data": {"leafs": leafs}}
    found = link.read(json.dumps(value).encode(), 1.0)
    assert found == ("S", link.Server(1.0, 2, 0.002, "0f" * 32))
    for rubbish in (b"", b"[]", b"{}", b'{"server": {"id": 1}, "data": []}', b'{"server": {}, "data": {"leafs": [1]}}'):
        assert link.read(rubbish, 1.0) is None


def test_servers_that_run_different_policies_are_told_as_unknown() -> None:
    aws = state("aws")
    for name, digest in (("a", "0f" * 32), ("b", "0f" * 32)):
        aws.saw_server(name, link.Server(aws.clock(), 1, None, digest))
    assert aws.policy == "0f" * 32
    aws.saw_server("b", link.Server(aws.clock(), 1, None, "1e" * 32))
    assert aws.policy == ""
    for number in range(3 * link.MAX_SERVERS):
        aws.saw_server(str(number), link.Server(aws.clock(), 1, None, ""))
    assert len(aws.servers) == link.MAX_SERVERS


def test_counts_are_whole_and_never_below_zero() -> None:
    assert look.of_jobs({"state": {"messages": "3", "last_seq": -1}, "config": {}})["jobs"] == 0
    empty = look.of_jobs({"state": {"messages": 0, "first_ts": "0001-01-01T00:00:00Z", "last_seq": 9}})
    assert (empty["oldest_ms"], empty["stored"], empty["done"]) == (0, 9, 9)
    assert look.of_copy({"sources": [{"lag": 2, "active": -1}]}) == {"lag": 2, "results": 0}
    canary = {"messages": 1, "first_ts": "2026-01-01T00:00:00Z", "last_seq": 9, "subjects": {"jobs.q.high.a.s.1": 1}}
    alone = look.of_jobs({"state": canary})
    assert (alone["jobs"], alone["oldest_ms"], alone["done"]) == (0, 0, 8)
    assert look.of_inbox({"state": "?"}, {"num_pending": None, "ack_floor": 3}) == look.Unread(0, 0, 0)
    copy = {"state": {"messages": 7}, "sources": [{"lag": 2, "active": 1_500_000_000}]}
    assert look.of_copy(copy) == {"lag": 2, "results": 7, "silence_ms": 1500}


def ago(seconds: float) -> str:
    return datetime.fromtimestamp(now_ms() / 1000 - seconds, UTC).isoformat()


@pytest.mark.parametrize(
    ("floor", "waiting", "held", "oldest_s"),
    [(0, 100, 0, 1000), (4, 90, 6, 1000), (20, 79, 10, 500), (31, 0, 1, 0), (31, 0, 0, 0), (5000, 1, 0, 0)],
)
def test_unread_results_are_at_most_as_old_as_their_place_says(
    floor: int, waiting: int, held: int, oldest_s: int
) -> None:
    """Stored are the results 11 to 31, the first 1,000 s ago and the last just now."""
    stream = {"state": {"first_seq": 11, "last_seq": 31, "first_ts": ago(1000), "last_ts": ago(0)}}
    consumer = {"num_pending": waiting, "num_ack_pending": held, "ack_floor": {"stream_seq": floor}}
    unread = look.of_inbox(stream, consumer)
    assert (unread.unread, unread.given) == (waiting + held, held)
    assert abs(unread.oldest_ms - 1000 * oldest_s) < 60_000


def test_the_room_for_payloads_is_shown_for_as_long_as_it_is_known() -> None:
    clock = Clock()
    state = State(Fleet.make(INBOXED).connection("eye-aws"), clock)
    state.payloads, state.looked_at = {"thumbs": look.Room(300, 1000), "endless": look.Room(5, 0)}, clock()
    shown = {(metric.name, which): value for metric, which, value in samples(state) if "payload" in metric.name}
    assert shown == {
        ("bunny_payload_bytes", ("thumbs", "aws")): 300,
        ("bunny_payload_bytes_limit", ("thumbs", "aws")): 1000,
        ("bunny_payload_bytes", ("endless", "aws")): 5,
    }
    clock.now += STALE_S
    assert not [value for metric, _, value in samples(state) if "payload" in metric.name]


def test_an_inbox_is_shown_for_as_long_as_it_is_known() -> None:
    clock = Clock()
    state = State(Fleet.make(INBOXED).connection("eye-aws"), clock)
    state.inboxes, state.looked_at = {("thumbs", "relay"): look.Unread(3, 1, 1500)}, clock()
    labels = ("thumbs", "aws", "relay")
    shown = {metric.name: value for metric, which, value in samples(state) if which == labels}
    assert shown == {
        "bunny_inbox_unread": 3,
        "bunny_inbox_oldest_seconds": 1.5,
        "bunny_inbox_oldest_limit_seconds": 86_400,
    }
    clock.now += STALE_S
    assert not [value for _, which, value in samples(state) if which == labels]
