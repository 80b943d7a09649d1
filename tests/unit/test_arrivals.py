"""What settles a handle and what does not, one arrival and one look at a time; a test says what stands, and when."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from bridge import subjects
from bridge.envelope import Opened
from bridge.errors import (
    BridgeError,
    BundleExpired,
    FencePoisoned,
    KeyConflict,
    NotConnected,
    PublishTimeout,
    QueueFull,
    TransportError,
    UsageError,
)
from bridge.fence import Tag
from bridge.job import JobToken, Status
from bridge.journal import Journal
from bridge.memory import MemoryTransport
from bridge.signals import Signals
from bridge.signals.meter import Meter
from bridge.signals.metrics import RESULTS, RESULTS_REFUSED, ROUND_TRIP, Metric
from bridge.subjects import JobKey
from bridge.transport import Message, Unsubscribe
from producers import Handle, Producer, arrivals
from producers.arrivals import KEYED, Arrivals, session_of
from producers.keyed import Keyed
from tests.fleet import Fleet, policy, until
from tests.unit.test_producer import forge

SESSION = "0123456789abcdef01234567"
DIGEST = "ab" * 32
TAG = bytes(range(32))
PATIENCE_S = 5.0
"""For what comes at once, but for a mutant."""


class Local(MemoryTransport):
    """A local broker where nothing comes by itself, and stands what a test puts there."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.bridge, fleet.bridge.cloud("aws"))
        self.stands: dict[str, bytes] = {}
        self.looked: list[tuple[str, str]] = []
        self.at_once = self.most = 0
        self.heard: list[str] = []
        self.flushed = 0
        self.back: list[Callable[[], None]] = []
        self.errors: list[Exception] = []
        """Raised by what is next asked of it, one each time."""
        self.answers = asyncio.Event()
        self.answers.set()

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        self.back.append(callback)

    async def subscribe(self, subject: str, callback: Callable[[Message], Awaitable[None]]) -> Unsubscribe:
        self.heard.append(subject)
        await self.answers.wait()
        self._raise()
        return await super().subscribe("nothing", callback)

    async def flush(self, timeout: float = 5.0) -> None:
        self.flushed += 1
        await super().flush(timeout)

    async def lookup(
        self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
    ) -> Message | None:
        self.looked.append((stream, subject))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self._raise()
        return Message(subject, self.stands[subject]) if subject in self.stands else None

    def _raise(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


class Measured(Meter):
    """Holds what is measured."""

    def __init__(self) -> None:
        self.counted: list[tuple[Metric, tuple[str, ...]]] = []
        self.seconds: list[float] = []

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        if metric in (RESULTS, RESULTS_REFUSED):
            self.counted.append((metric, labels))

    def time(self, metric: Metric, seconds: float, *labels: str) -> None:
        if metric is ROUND_TRIP:
            assert labels == ("thumbs", "resize")
            self.seconds.append(seconds)


class Noted(Journal):
    """Holds what is received."""

    def __init__(self) -> None:
        self.jobs: list[JobToken] = []

    def received(self, job: JobToken, answer: Opened) -> None:
        assert answer.content.body == b"666"
        self.jobs.append(job)


@dataclass
class Here:
    """A producer whose watchers do not run."""

    fleet: Fleet
    local: Local
    meter: Measured
    journal: Noted
    relay: Producer
    answered: list[tuple[JobKey, Status | None]] = field(default_factory=list)
    """What payloads were told of."""

    @property
    def arrivals(self) -> Arrivals:
        return self.relay._arrivals

    async def submit(self, value: int = 1) -> Handle[Any]:
        return await self.relay.submit("thumbs", "resize", value)

    def attached(self, n: int = 1, keyed: Keyed | None = None) -> Handle[Any]:
        """A handle to a job that this process did not send."""
        token = JobToken("thumbs", "relay", SESSION, n, 0, DIGEST)
        handle = self.relay._desk.handle(token, 60_000, None, keyed)
        self.arrivals.expect(handle)
        return handle

    def sealed(self, token: JobToken, signer: str = "bunny", **changes: object) -> bytes:
        return forge(self.fleet, token, signer, **changes)

    def stand(self, token: JobToken, signer: str = "bunny", **changes: object) -> None:
        self.local.stands[subjects.result(token.key)] = self.sealed(token, signer, **changes)

    async def come(self, token: JobToken, signer: str = "bunny", **changes: object) -> None:
        await self.arrivals._arrived(Message(subjects.done(token.key), self.sealed(token, signer, **changes)))


@asynccontextmanager
async def producing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    fleet, meter, journal = Fleet.make(policy()), Measured(), Noted()
    local = Local(fleet)
    relay = Producer(fleet.identities["relay"], fleet.trust, fleet.connection("relay"), local, Signals(meter))
    here = Here(fleet, local, meter, journal, relay)
    monkeypatch.setattr(here.arrivals, "_journal", journal)
    told = relay._payloads.answered

    def answered(key: JobKey, status: Callable[[], Status | None]) -> None:
        here.answered.append((key, status()))
        told(key, status)

    monkeypatch.setattr(relay._payloads, "answered", answered)
    try:
        yield here
    finally:
        await relay.close()


SETTLED = (RESULTS, ("thumbs", "resize", "succeeded"))


# --- what arrives ----------------------------------------------------------------------------------


async def test_a_result_that_verifies_settles_its_handle_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handle = await here.submit()
        assert len(here.arrivals) == len(here.relay._copies) == 1
        assert here.arrivals.get(handle.key) is handle
        handle.stored_at = asyncio.get_running_loop().time() - PATIENCE_S
        for _ in range(2):
            await here.come(handle.token)
        assert await handle.result(int, timeout=0) == 666
        assert len(here.arrivals) == len(here.relay._copies) == 0
        assert here.meter.counted == [SETTLED]
        assert here.journal.jobs == [handle.token]
        assert here.answered == [(handle.key, Status.SUCCEEDED)]
        (waited,) = here.meter.seconds
        assert PATIENCE_S <= waited < PATIENCE_S + 30


async def test_a_handle_that_is_done_is_not_settled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handle = await here.submit()
        await here.come(handle.token)
        here.arrivals.expect(handle)
        await here.come(handle.token)
        assert (here.meter.counted, here.journal.jobs) == ([SETTLED], [handle.token])


async def test_of_a_job_of_another_process_the_round_trip_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handle = here.attached()
        await here.come(handle.token)
        assert (handle.status, here.meter.seconds) == (Status.SUCCEEDED, [])


async def test_without_a_journal_nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        monkeypatch.setattr(here.arrivals, "_journal", None)
        handle, dropped = await here.submit(), await here.submit()
        await here.come(handle.token)
        token = dropped.token
        del dropped
        gc.collect()
        await here.come(token)
        assert (handle.status, len(here.relay._copies)) == (Status.SUCCEEDED, 0)


async def test_what_does_not_verify_is_counted_and_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handle = await here.submit()
        await here.come(handle.token, job_digest=bytes(32))
        await here.come(handle.token, "other")
        await here.arrivals._arrived(Message(subjects.done(handle.key), b"rubbish"))
        assert not handle.done()
        names = ("WrongSubject", "NotAuthorised", "BadFrame")  # as the specification has them
        assert here.meter.counted == [(RESULTS_REFUSED, ("thumbs", name)) for name in names]
        assert (len(here.arrivals), len(here.relay._copies), here.answered, here.journal.jobs) == (1, 1, [], [])


async def test_under_a_bundle_that_has_expired_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handle = await here.submit()
        monkeypatch.setattr(arrivals, "now_ms", lambda: here.fleet.trust.expires_ms)
        await here.come(handle.token)
        assert (handle.done(), here.meter.counted) == (False, [(RESULTS_REFUSED, ("thumbs", "BundleExpired"))])


async def test_what_is_of_no_job_here_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        await here.come(JobToken("thumbs", "relay", SESSION, 9, 0, DIGEST))
        await here.arrivals._arrived(Message("done.thumbs", b"rubbish"))
        assert (here.meter.counted, here.answered, here.journal.jobs) == ([], [], [])


async def test_the_result_of_a_handle_that_was_dropped_is_known_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        token = (await here.submit()).token
        gc.collect()
        assert (len(here.arrivals), len(here.relay._copies)) == (0, 1)
        await here.come(token, job_digest=bytes(32))
        assert len(here.relay._copies) == 1
        await here.come(token)
        assert len(here.relay._copies) == 0
        assert (here.answered, here.journal.jobs) == ([(token.key, Status.SUCCEEDED)], [token])
        assert here.meter.counted == [(RESULTS_REFUSED, ("thumbs", "WrongSubject"))]


async def test_a_key_that_was_used_for_something_else_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        job = JobKey("thumbs", "relay", SESSION, 0, 0)
        tag = Tag("resize", bytes(32))
        cases: list[tuple[Keyed | None, str]] = [
            (Keyed(job, tag, "order-42"), "'order-42'"),
            (Keyed(job, tag), "its key was used before"),
            (None, "its key was answered for another submit"),
        ]
        for keyed, words in cases:
            handle = here.attached(0, keyed)
            await here.come(handle.token, job_digest=bytes(32), args_tag=TAG)
            with pytest.raises(KeyConflict, match=words):
                await handle.result(timeout=0)
        assert (here.meter.counted, len(here.arrivals)) == ([], 0)


async def test_of_a_keyed_job_a_result_may_answer_other_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handle = here.attached(0, Keyed(JobKey("thumbs", "relay", SESSION, 0, 0), Tag("resize", TAG), "order-42"))
        await here.come(handle.token, job_digest=bytes(32), args_tag=TAG)
        assert await handle.result(int, timeout=0) == 666


async def test_the_answer_to_another_submit_of_a_key_whose_handle_was_dropped_is_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with producing(monkeypatch) as here:
        token = (await here.relay.submit("thumbs", "resize", 1, key="order-42")).token
        gc.collect()
        assert len(here.arrivals) == 0
        await here.come(token, args_tag=TAG)
        assert (here.meter.counted, len(here.relay._copies)) == ([], 1)


# --- what stands -----------------------------------------------------------------------------------


async def test_a_look_settles_a_handle_by_what_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handle = await here.submit()
        handle.asked_at = -1.0
        await here.arrivals.ask(handle)
        assert (handle.done(), handle.asked_at > 0) == (False, True)
        assert here.local.looked == [("RESULTS_thumbs", subjects.result(handle.key))]
        here.stand(handle.token)
        await here.arrivals.ask(handle)
        assert await handle.result(int, timeout=0) == 666


@pytest.mark.parametrize(
    ("changes", "name"), [({"job_digest": bytes(32)}, "WrongSubject"), ({"signer": "other"}, "NotAuthorised")]
)
async def test_what_stands_and_does_not_verify_is_told(
    changes: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with producing(monkeypatch) as here:
        handle = await here.submit()
        handle.stored_at = 0.0
        here.stand(handle.token, **changes)
        await here.arrivals.ask(handle)
        with pytest.raises(FencePoisoned, match=name):
            await handle.result(timeout=0)
        assert here.meter.counted == [(RESULTS_REFUSED, ("thumbs", name))]
        assert (len(here.arrivals), len(here.relay._copies)) == (0, 0)
        assert here.answered == [(handle.key, None)]


async def test_a_token_with_another_digest_is_the_callers_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handle = here.attached()
        here.stand(handle.token, job_digest=bytes(32))
        await here.arrivals.ask(handle)
        with pytest.raises(UsageError, match="the token's digest does not match"):
            await handle.result(timeout=0)
        assert here.meter.counted == []
        forged = here.attached(2)
        here.stand(forged.token, "other")
        await here.arrivals.ask(forged)
        with pytest.raises(FencePoisoned):
            await forged.result(timeout=0)


async def test_a_look_tells_of_a_key_that_was_used_for_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handle = here.attached(0)
        here.stand(handle.token, job_digest=bytes(32), args_tag=TAG)
        await here.arrivals.ask(handle)
        assert isinstance(handle.error, KeyConflict)
        assert here.meter.counted == []


# --- what is kept ----------------------------------------------------------------------------------


async def test_a_job_that_is_kept_is_kept_until_its_result_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handle = await here.submit()
        copy = here.relay._copies.get(handle.key)
        assert copy is not None
        assert not await here.arrivals.answered(copy)
        here.stand(handle.token)
        assert await here.arrivals.answered(copy)
        assert (handle.status, len(here.relay._copies)) == (Status.SUCCEEDED, 0)


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({}, []),
        ({"job_digest": bytes(32)}, [(RESULTS_REFUSED, ("thumbs", "WrongSubject"))]),
        ({"signer": "other"}, [(RESULTS_REFUSED, ("thumbs", "NotAuthorised"))]),
    ],
    ids=["a result", "of other bytes", "forged"],
)
async def test_what_stands_for_a_job_that_nobody_waits_for_ends_its_keeping(
    changes: dict[str, Any], counted: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with producing(monkeypatch) as here:
        token = (await here.submit()).token
        gc.collect()
        copy = here.relay._copies.get(token.key)
        assert copy is not None
        assert not await here.arrivals.answered(copy)
        here.stand(token, **changes)
        assert await here.arrivals.answered(copy)
        assert (len(here.relay._copies), here.meter.counted) == (0, counted)
        assert here.journal.jobs == ([] if changes else [token])


async def test_the_answer_of_a_key_ends_the_keeping_of_another_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        token = (await here.relay.submit("thumbs", "resize", 1, key="order-42")).token
        gc.collect()
        copy = here.relay._copies.get(token.key)
        assert copy is not None
        here.stand(token, args_tag=TAG)
        assert await here.arrivals.answered(copy)
        assert (len(here.relay._copies), here.meter.counted) == (0, [])


async def test_a_handle_of_another_token_says_nothing_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        token = (await here.submit()).token
        gc.collect()
        copy = here.relay._copies.get(token.key)
        assert copy is not None
        other = here.relay._desk.handle(token._replace(digest=DIGEST), 60_000, None)
        here.arrivals.expect(other)
        here.stand(token)
        assert await here.arrivals.answered(copy)
        assert (other.done(), here.meter.counted) == (False, [])


# --- room, and being heard -------------------------------------------------------------------------


def test_keyed_jobs_are_heard_together_and_others_by_their_session() -> None:
    assert session_of(JobToken("thumbs", "relay", SESSION, 0, 0, DIGEST)) == KEYED
    assert session_of(JobToken("thumbs", "relay", SESSION, 1, 0, DIGEST)) == SESSION


async def test_each_session_is_heard_once_and_the_server_knows_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        await asyncio.gather(*(here.arrivals.listen("thumbs", SESSION) for _ in range(3)))
        assert (here.local.heard, here.local.flushed) == ([subjects.done_of_session("thumbs", "relay", SESSION)], 1)
        await here.arrivals.listen("thumbs")
        assert here.local.heard[1:] == [subjects.done_of_keyed("thumbs", "relay")]
        for session in (SESSION, KEYED):
            await here.arrivals.listen("thumbs", session)
        assert len(here.local.heard) == 2


async def test_who_waits_to_hear_asks_in_the_stead_of_one_who_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        here.local.errors.append(TransportError("no answer in time"))
        first, *others = await asyncio.gather(
            *(here.arrivals.listen("thumbs", SESSION) for _ in range(3)), return_exceptions=True
        )
        assert (type(first), others, len(here.local.heard)) == (TransportError, [None, None], 2)


async def test_there_is_time_left_once_it_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        assert 0 < await here.arrivals.ready("thumbs", SESSION, 1, 60.0) < 60.0
        assert await here.arrivals.ready("thumbs", SESSION, 1, 60.0) == 60.0  # without a look at any clock
        assert len(here.local.heard) == 1


async def test_a_server_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        here.local.answers.clear()
        with pytest.raises(PublishTimeout, match="nothing was sent"):
            await here.arrivals.ready("thumbs", SESSION, 1, 0.01)
        here.local.answers.set()
        here.local.errors.append(TimeoutError("of its own"))
        with pytest.raises(TimeoutError, match="of its own"):
            await here.arrivals.ready("thumbs", SESSION, 1, 60.0)


async def test_there_is_room_while_fewer_are_open_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        one = here.attached(1)
        await here.arrivals.ready("thumbs", SESSION, 2, 60.0)
        with pytest.raises(QueueFull, match="1 handles are open"):
            await here.arrivals.ready("thumbs", SESSION, 1, 0.01)
        assert not one.done()
        await here.arrivals.room(2, PATIENCE_S)


async def test_that_one_was_settled_makes_no_room_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "ROOM_POLL_S", 1000)
    async with producing(monkeypatch) as here:
        one, two = here.attached(1), here.attached(2)
        await here.come(two.token)
        settled, waits = here.arrivals._settled, 0
        wait = settled.wait

        async def waiting() -> bool:
            nonlocal waits
            waits += 1
            await asyncio.sleep(0)
            return await wait()

        monkeypatch.setattr(settled, "wait", waiting)
        with pytest.raises(QueueFull):
            await here.arrivals.room(1, 0.01)
        assert (waits, one.done()) == (1, False)


async def test_who_waits_for_room_goes_on_once_one_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "ROOM_POLL_S", 1000)
    async with producing(monkeypatch) as here:
        handle = here.attached()
        waiting = asyncio.create_task(here.arrivals.room(1, PATIENCE_S))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await here.come(handle.token)
        await waiting
        handle = here.attached()
        waiting = asyncio.create_task(here.arrivals.room(1, PATIENCE_S))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        here.arrivals.abandon(NotConnected("the producer was closed"))
        await waiting
        assert handle.done()


async def test_a_handle_that_is_dropped_makes_room_by_and_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "ROOM_POLL_S", 0.001)
    async with producing(monkeypatch) as here:
        handle = here.attached()
        waiting = asyncio.create_task(here.arrivals.room(1, PATIENCE_S))
        await asyncio.sleep(0)
        assert not waiting.done()
        del handle
        gc.collect()
        await waiting


async def test_nothing_comes_any_more_for_any_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handles = [here.attached(n) for n in (1, 2)]
        reason = NotConnected("the producer was closed")
        here.arrivals.abandon(reason)
        assert [handle.error for handle in handles] == [reason, reason]
        assert len(here.arrivals) == 0


# --- the sweep -------------------------------------------------------------------------------------


@asynccontextmanager
async def sweeping(here: Here) -> AsyncIterator[None]:
    task = asyncio.create_task(here.arrivals.sweep())
    await asyncio.sleep(0)  # it waits
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_what_is_overdue_is_looked_up_a_few_at_a_time_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "SWEEP_LOOKUPS", 2)
    async with producing(monkeypatch) as here:
        now = asyncio.get_running_loop().time()
        handles = [here.attached(n) for n in (1, 2, 3)]
        for handle in handles:
            handle.asked_at = now - arrivals.SWEEP_S
        assert here.arrivals._overdue() == handles[:2]
        assert here.arrivals._overdue() == [handles[2], handles[0]]
        handles[1].asked_at = asyncio.get_running_loop().time()
        assert here.arrivals._overdue() == [handles[2]]
        assert len(here.arrivals) == 3


async def test_all_are_asked_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        handles = [here.attached(n) for n in range(1, 6)]
        assert await here.arrivals._ask_all(handles, 2)
        assert [subject for _, subject in here.local.looked] == [subjects.result(handle.key) for handle in handles]
        assert here.local.most == 2
        assert await here.arrivals._ask_all([], 2)


@pytest.mark.parametrize("error", [TransportError("away"), BundleExpired("too old")], ids=lambda e: type(e).__name__)
async def test_a_server_that_does_not_answer_is_not_asked_for_the_rest(
    error: BridgeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with producing(monkeypatch) as here:
        handles = [here.attached(n) for n in range(1, 6)]
        here.local.errors.append(error)
        assert not await here.arrivals._ask_all(handles, 2)
        assert len(here.local.looked) == 2


async def test_a_mistake_of_our_own_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    async with producing(monkeypatch) as here:
        here.local.errors.append(ZeroDivisionError("a mistake"))
        with pytest.raises(ZeroDivisionError):
            await here.arrivals._ask_all([here.attached(1)], 2)


async def test_after_a_broken_connection_all_are_asked_until_the_server_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrivals, "SWEEP_S", 1000)
    monkeypatch.setattr(arrivals, "AT_ONCE", 3)
    async with producing(monkeypatch) as here:
        overdue, looks = here.arrivals._overdue, 0

        def looking() -> list[Handle[Any]]:
            nonlocal looks
            looks += 1
            return overdue()

        monkeypatch.setattr(here.arrivals, "_overdue", looking)
        handles = [here.attached(n) for n in range(1, 6)]
        for handle in handles:
            here.stand(handle.token)
            handle.asked_at = asyncio.get_running_loop().time() + 10_000  # none is overdue
        here.local.errors += [TransportError("away")] * 3
        (told,) = here.local.back
        async with sweeping(here):
            assert here.local.looked == []
            monkeypatch.setattr(arrivals, "SWEEP_S", 0.001)
            told()  # once: it is not forgotten when the server does not answer
            await until(lambda: all(handle.done() for handle in handles))
            assert (here.local.most, here.local.errors) == (3, [])
            await until(lambda: looks >= 2)  # and then a few at a time again


async def test_a_sweep_that_is_not_answered_asks_for_no_more_than_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "SWEEP_S", 0.001)
    async with producing(monkeypatch) as here:
        overdue, asked = here.attached(1), here.attached(2)
        overdue.asked_at, asked.asked_at = -1.0, asyncio.get_running_loop().time() + 10_000
        here.local.errors.append(TransportError("away"))
        async with sweeping(here):
            await until(lambda: len(here.local.looked) >= 3)
        assert {subject for _, subject in here.local.looked} == {subjects.result(overdue.key)}


async def test_the_sweep_asks_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "SWEEP_S", 0.001)
    async with producing(monkeypatch) as here:
        handles = [here.attached(n) for n in range(1, 4)]
        for handle in handles:
            handle.asked_at = -1.0
        async with sweeping(here):
            await until(lambda: len(here.local.looked) >= 6)
            for handle in handles:
                here.stand(handle.token)
            await until(lambda: all(handle.done() for handle in handles))
        assert here.local.most == 1
