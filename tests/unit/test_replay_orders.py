"""Replay orders, as bytes: what one is on the wire, what it makes of its job, and what is no order at all."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bridge import replay
from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Draft
from bridge.errors import WrongSubject
from bridge.job import JSON, Content
from tests.fleet import Fleet, policy


def sealed(fleet: Fleet, type_: str, by: str, content: Content | None = None, **more: Any) -> bytes:  # noqa: ANN401
    """A message of that type about one job."""
    now = now_ms()
    core = Core(
        type=type_,
        queue="thumbs",
        kind="resize",
        job="00112233445566778899aabb.7",
        sender=by,
        sender_kid=b"",
        recipient="bunny",
        issued=now,
        expires=now + 60_000,
        **more,
    )
    return fleet.sealer(by).seal(Draft(core, (fleet.trust.peer("bunny").kem_key(now),), content), now).data


def job(fleet: Fleet) -> bytes:
    return sealed(
        fleet, "job", "relay", Content(JSON, b"null"), generation=0, priority="normal", not_before=now_ms() + 9
    )


def digest(fleet: Fleet, data: bytes) -> bytes:
    return fleet.opener("bunny").authenticate(data, now_ms()).digest


def order(fleet: Fleet, data: bytes, generation: int = 1) -> bytes:
    """To run what is in a message."""
    return sealed(fleet, "replay", "boss", generation=generation, producer="relay", job_digest=digest(fleet, data))


def cancel(fleet: Fleet, data: bytes, generation: int) -> bytes:
    """Of a job by its producer, who may send it: it has as many names of the job as an order."""
    more = {"action": "cancel", "job_digest": digest(fleet, data)}
    return sealed(fleet, "control", "relay", Content(JSON, b'""'), generation=generation, **more)


def test_the_message_is_the_orders_length_the_order_and_the_job() -> None:
    assert replay.pack(b"ab", b"cde") == bytes.fromhex("00000002") + b"abcde"
    assert replay.unpack(bytes.fromhex("00000002") + b"abcde") == (b"ab", b"cde")


def test_what_runs_is_the_job_with_generation_and_times_of_the_order() -> None:
    fleet = Fleet.make(policy())
    original = job(fleet)
    data, opener = order(fleet, original), fleet.opener("bunny")
    found = replay.authenticate(opener, replay.pack(data, original), now_ms())
    ordered, before = opener.authenticate(data, now_ms()).core, opener.authenticate(original, now_ms()).core
    assert found.job.core == dataclasses.replace(
        before, generation=1, issued=ordered.issued, expires=ordered.expires, not_before=0
    )
    assert (found.submitted, found.original) == (before.issued, original)
    assert "original" not in repr(found)


def test_a_producer_cannot_order_by_what_it_may_send() -> None:
    fleet = Fleet.make(policy())
    original = job(fleet)
    with pytest.raises(WrongSubject, match="other types"):
        replay.authenticate(fleet.opener("bunny"), replay.pack(cancel(fleet, original, 1), original), now_ms())


def test_what_is_no_job_is_not_run_whoever_orders_it() -> None:
    fleet = Fleet.make(policy())
    original = cancel(fleet, job(fleet), 0)
    with pytest.raises(WrongSubject, match="other types"):
        replay.authenticate(fleet.opener("bunny"), replay.pack(order(fleet, original), original), now_ms())


def test_of_a_long_history_the_end_is_kept() -> None:
    assert replay.safe_history("x" * 100 + "y" * 900) == "y" * 900
