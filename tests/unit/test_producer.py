"""Submitting, waiting, attaching, and what a producer believes, over the transport in memory."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Draft
from bridge.errors import (
    BridgeError,
    BundleExpired,
    ConfigurationError,
    FencePoisoned,
    InvalidArguments,
    NotConnected,
    OutcomeUnknown,
    PayloadTooLarge,
    PublishTimeout,
    QueueFull,
    SubjectTaken,
    TransportError,
    UsageError,
)
from bridge.fence import RESEND_HEADER
from bridge.job import Content, JobToken, Status
from bridge.memory import MemoryTransport
from bridge.transport import Message, PubAck, Unsubscribe
from consumers import Worker
from producers import Handle, Producer, arrivals, client
from tests.fleet import Fleet, policy, until


def echoing() -> Worker:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def echo(args: object) -> object:
        return args

    return worker


# --- what may be submitted -------------------------------------------------------------------------


async def test_what_is_not_granted_is_named_beside_what_is() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        with pytest.raises(ConfigurationError, match=r"'thumbnails'.*lets it submit to thumbs"):
            await relay.submit("thumbnails", "resize", 1)
        with pytest.raises(ConfigurationError, match=r"'rezise'.*has resize, probe"):
            await relay.submit("thumbs", "rezise", 1)
        with pytest.raises(ConfigurationError, match="lets it submit to thumbs"):
            await relay.submit("lookup", "find", 1)  # it works that queue
    assert not fleet.held("aws", "JOBS_thumbs")


async def test_jobs_and_results_have_the_fewest_headers() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        (job,) = fleet.held("aws", "JOBS_thumbs")
        async with fleet.working(echoing()):
            await handle.result()
    (result,) = fleet.held("azure", "RESULTS_thumbs")
    assert job.headers["Bunny-Kind"] == "resize"  # by which a worker knows a canary before it opens it
    assert {*job.headers} == {"Bunny-Kind", "Nats-Msg-Id", "Nats-Expected-Stream"}
    assert {*result.headers} <= {"Nats-Msg-Id", "Nats-Expected-Stream", "Nats-Stream-Source"}


async def test_arguments_are_checked_before_anything_is_sent() -> None:
    fleet = Fleet.make(policy(max_payload=100))
    async with fleet.producer() as relay:
        with pytest.raises(InvalidArguments):
            await relay.submit("thumbs", "resize", object())
        with pytest.raises(PayloadTooLarge, match="max_payload"):
            await relay.submit("thumbs", "resize", bytes(101))
        for deadline in (0, -1, timedelta(days=2)):
            with pytest.raises(UsageError, match="result_ttl"):
                await relay.submit("thumbs", "resize", 1, deadline=deadline)
    assert not fleet.held("aws", "JOBS_thumbs")


async def test_an_expired_bundle_stops_submits(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        monkeypatch.setattr("producers.outbox.now_ms", lambda: fleet.trust.expires_ms + 1)
        with pytest.raises(BundleExpired):
            await relay.submit("thumbs", "resize", 1)


async def test_a_full_queue_is_told() -> None:
    fleet = Fleet.make(policy(max_pending=2))
    async with fleet.producer() as relay:
        outcomes = await relay.submit_many("thumbs", "resize", range(3))
    assert [type(o) for o in outcomes] == [Handle, Handle, QueueFull]
    assert len(fleet.held("aws", "JOBS_thumbs")) == 2


# --- many ------------------------------------------------------------------------------------------


async def test_each_of_many_has_its_place() -> None:
    fleet = Fleet.make(policy())
    values: list[object] = [1, object(), "b", bytes(300_000), *range(200)]
    async with fleet.working(echoing()), fleet.producer() as relay:
        outcomes = await relay.submit_many("thumbs", "resize", values, window=10)
        assert len(outcomes) == len(values)
        assert isinstance(outcomes[1], InvalidArguments)
        assert isinstance(outcomes[3], PayloadTooLarge)
        for value, outcome in zip(values, outcomes, strict=True):
            if isinstance(outcome, Handle):
                assert await outcome.result() == value


async def test_many_are_read_as_they_are_needed_and_no_more_are_in_flight() -> None:
    fleet = Fleet.make(policy())
    in_flight = most = read = 0

    class Counting(MemoryTransport):
        async def publish(
            self,
            stream: str,
            subject: str,
            data: bytes,
            headers: Mapping[str, str] | None = None,
            *,
            expected: int | None = None,
            timeout: float = 10.0,
        ) -> PubAck:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            assert read <= 20 + len(fleet.held("aws", "JOBS_thumbs"))
            try:
                return await super().publish(stream, subject, data, headers, expected=expected, timeout=timeout)
            finally:
                in_flight -= 1

    def values() -> Iterator[int]:
        nonlocal read
        for value in range(100):
            read += 1
            yield value

    async with fleet.producer(transport=Counting(fleet.bridge, fleet.bridge.cloud("aws"))) as relay:
        await relay.submit_many("thumbs", "resize", values(), window=10)
    assert 1 < most <= 10


async def test_open_handles_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_OPEN", 2)
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        kept = [await relay.submit("thumbs", "resize", n) for n in range(2)]
        with pytest.raises(QueueFull, match="handles are open"):
            await relay.submit("thumbs", "resize", 2, timeout=0.1)
        kept.pop()
        gc.collect()
        await relay.submit("thumbs", "resize", 3, timeout=5)  # one was dropped
        kept.append(await relay.submit("thumbs", "resize", 4, timeout=5))
        async with fleet.working(echoing()):
            await relay.submit("thumbs", "resize", 5, timeout=5)  # one is settled


async def test_all_who_wait_to_hear_results_go_on_in_one_turn() -> None:
    subscribed, known, stored = 0, asyncio.Event(), 0

    class Slow(MemoryTransport):
        async def subscribe(self, subject: str, callback: Callable[[Message], Awaitable[None]]) -> Unsubscribe:
            nonlocal subscribed
            subscribed += 1
            await known.wait()
            if subscribed == 1:
                raise TransportError("no answer in time")
            return await super().subscribe(subject, callback)

        async def publish(
            self,
            stream: str,
            subject: str,
            data: bytes,
            headers: Mapping[str, str] | None = None,
            *,
            expected: int | None = None,
            timeout: float = 10.0,
        ) -> PubAck:
            nonlocal stored
            stored += 1
            return await super().publish(stream, subject, data, headers, expected=expected, timeout=timeout)

    fleet = Fleet.make(policy())
    async with fleet.producer(transport=Slow(fleet.bridge, fleet.bridge.cloud("aws"))) as relay:
        jobs = [asyncio.create_task(relay.submit("thumbs", "resize", n)) for n in range(100)]
        await asyncio.sleep(0)
        assert subscribed == 1
        known.set()
        turns = 0
        while stored < len(jobs) - 1:
            await asyncio.sleep(0)
            turns += 1
            assert turns < len(jobs) / 2
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert subscribed == 2  # whoever was next asked in the stead of the first
    assert [type(each) for each in outcomes] == [TransportError] + [Handle] * (len(jobs) - 1)


# --- storing ---------------------------------------------------------------------------------------


class Publishes(MemoryTransport):
    """Answers publishes as its ``script`` says, the rest as they are."""

    script: list[type[BridgeError] | None]
    seen: list[tuple[bytes, bool]]

    async def publish(
        self,
        stream: str,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        expected: int | None = None,
        timeout: float = 10.0,
    ) -> PubAck:
        self.seen.append((data, RESEND_HEADER in (headers or {})))
        error = self.script.pop(0) if self.script else None
        if error is SubjectTaken:
            raise SubjectTaken("before it was stored")
        ack = await super().publish(stream, subject, data, headers, expected=expected, timeout=timeout)
        if error is not None:
            raise error("after it was stored")
        return ack


def scripted(fleet: Fleet, *script: type[BridgeError] | None) -> Publishes:
    transport = Publishes(fleet.bridge, fleet.bridge.cloud("aws"))
    transport.script, transport.seen = list(script), []
    return transport


async def test_a_puback_that_is_lost_sends_the_same_bytes_again() -> None:
    fleet = Fleet.make(policy())
    transport = scripted(fleet, PublishTimeout)
    async with fleet.producer(transport=transport) as relay, fleet.working(echoing()):
        assert await (await relay.submit("thumbs", "resize", 1)).result() == 1
    (first, was_resend), (second, is_resend) = transport.seen
    assert first == second
    assert (was_resend, is_resend) == (False, True)


async def test_a_subject_that_is_taken_at_first_is_an_error() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer(transport=scripted(fleet, SubjectTaken)) as relay:
        with pytest.raises(SubjectTaken):
            await relay.submit("thumbs", "resize", 1)


async def test_a_submit_gives_up_in_time() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer(transport=scripted(fleet, *[PublishTimeout] * 3)) as relay:
        with pytest.raises(PublishTimeout):
            await relay.submit("thumbs", "resize", 1, timeout=0)


# --- results ---------------------------------------------------------------------------------------


async def test_an_unknown_outcome_is_still_delivered_when_it_comes() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        with pytest.raises(OutcomeUnknown):
            await handle.result(timeout=0.01)
        assert not handle.done()
        async with fleet.working(echoing()):
            assert await handle.result(int) == 1
        assert handle.done()
        assert await handle.result(int) == 1


async def test_a_deadline_that_passes_without_a_result_is_no_worker_s_word_and_the_result_counts_when_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("producers.handle.GRACE_S", 0.0)
    fleet, worker, begun, go_on = Fleet.make(policy()), Worker(), asyncio.Event(), asyncio.Event()

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> int:
        begun.set()
        await go_on.wait()
        return width

    async with fleet.producer() as relay, fleet.working(worker):
        handle = await relay.submit("thumbs", "resize", 1, deadline=3)
        await begun.wait()
        fleet.bridge.link_up = False
        go_on.set()
        with pytest.raises(OutcomeUnknown):
            await handle.result()
        fleet.bridge.link_up = True
        assert await handle.result(int, timeout=20) == 1


async def test_a_result_of_another_type_is_told_and_stays() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay, fleet.working(echoing()):
        handle = await relay.submit("thumbs", "resize", 1)
        with pytest.raises(InvalidArguments):
            await handle.result(str)
        assert await handle.result(int) == 1


async def test_a_token_attaches_after_a_restart() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        before = await relay.submit("thumbs", "resize", 1)
        later = await relay.submit("thumbs", "resize", 2)
        tokens = str(before.token), str(later.token)
        assert await relay.attach(tokens[0]) is before
        waiting = asyncio.create_task(before.result())
        await asyncio.sleep(0)
    with pytest.raises(NotConnected, match="attach"):
        await waiting
    async with fleet.producer() as relay:
        first = await relay.attach(tokens[0])
        assert not first.done()
        async with fleet.working(echoing()):
            assert await first.result(int) == 1
            await until(lambda: len(fleet.held("aws", "RESULTS_thumbs")) == 2)
        second = await relay.attach(tokens[1])
        assert second.done()
        assert await second.result(int) == 2


async def test_tokens_of_others_are_refused() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer("other") as other, fleet.producer() as relay:
        handle = await other.submit("thumbs", "resize", 1)
        with pytest.raises(UsageError, match="of other"):
            await relay.attach(handle.token)
        with pytest.raises(ConfigurationError, match="no queue"):
            await other.attach(handle.token._replace(queue="gone"))
        with pytest.raises(UsageError):
            await other.attach("thumbs.other.1")


class Deaf(MemoryTransport):
    """Its client drops every result that is pushed to it."""

    async def subscribe(self, subject: str, callback: Callable[[Message], Awaitable[None]]) -> Unsubscribe:
        """Nothing ever comes."""
        return await super().subscribe("nothing", callback)


async def test_the_sweep_finds_what_the_client_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "SWEEP_S", 0.05)
    fleet = Fleet.make(policy())
    lookups = 0

    class Counting(Deaf):
        async def lookup(
            self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
        ) -> Message | None:
            nonlocal lookups
            lookups += 1
            return await super().lookup(stream, subject, cloud=cloud, timeout=timeout)

    monkeypatch.setattr(arrivals, "SWEEP_LOOKUPS", 3)
    async with fleet.producer(transport=Counting(fleet.bridge, fleet.bridge.cloud("aws"))) as relay:
        handles = [await relay.submit("thumbs", "resize", n) for n in range(7)]
        await until(lambda: lookups >= 14)  # each was asked for about twice, a few at a time
        async with fleet.working(echoing()):
            assert [await handle.result(int) for handle in handles] == list(range(7))


async def test_after_a_broken_connection_everything_open_is_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "SWEEP_S", 1000)
    fleet = Fleet.make(policy())
    back: list[Callable[[], None]] = []

    class Reconnects(Deaf):
        away = True
        asked = 0

        def on_reconnect(self, callback: Callable[[], None]) -> None:
            back.append(callback)

        async def lookup(
            self, stream: str, subject: str, *, cloud: str | None = None, timeout: float = 5.0
        ) -> Message | None:
            self.asked += 1
            if self.away:
                raise TransportError("away")
            return await super().lookup(stream, subject, cloud=cloud, timeout=timeout)

    transport = Reconnects(fleet.bridge, fleet.bridge.cloud("aws"))
    async with fleet.producer(transport=transport) as relay:
        handles = [await relay.submit("thumbs", "resize", n) for n in range(3 * arrivals.AT_ONCE + 1)]
        async with fleet.working(echoing()):
            await until(lambda: len(fleet.held("aws", "RESULTS_thumbs")) == len(handles))
        assert not any(handle.done() for handle in handles)
        (told,) = back
        told()
        await until(lambda: transport.asked > 0)
        transport.away = False
        told()
        await until(lambda: all(handle.done() for handle in handles))


async def test_the_last_look_finds_what_was_dropped() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer(transport=Deaf(fleet.bridge, fleet.bridge.cloud("aws"))) as relay:
        async with fleet.working(echoing()):
            handle = await relay.submit("thumbs", "resize", 1)
            await until(lambda: len(fleet.held("aws", "RESULTS_thumbs")) == 1)
        assert not handle.done()
        assert await handle.result(int, timeout=0) == 1


# --- forgeries -------------------------------------------------------------------------------------


def forge(fleet: Fleet, token: JobToken, signer: str = "bunny", **changes: object) -> bytes:
    now = now_ms()
    core = Core(
        type="result",
        queue="thumbs",
        kind="resize",
        job=token.key.job_id,
        generation=0,
        sender=signer,
        sender_kid=b"",
        recipient="relay",
        issued=now,
        expires=now + 60_000,
        job_digest=bytes.fromhex(token.digest),
        attempt=1,
        worker="w",
    )
    core = replace(core, **changes)  # type: ignore[arg-type]
    recipients = (fleet.trust.peer("relay").kem_key(now),)
    return (
        fleet.sealer(signer)
        .seal(Draft(core, recipients, Content("application/json", b"666"), Status.SUCCEEDED), now)
        .data
    )


FORGERIES: dict[str, Callable[[Fleet, JobToken], bytes]] = {
    "rubbish": lambda fleet, token: b"rubbish",
    "another producer": lambda fleet, token: forge(fleet, token, "other"),
    "itself": lambda fleet, token: forge(fleet, token, "relay"),
    "other bytes": lambda fleet, token: forge(fleet, token, job_digest=bytes(32)),
    "another job": lambda fleet, token: forge(fleet, token, job=f"{token.session}.{token.n + 1}"),
    "another generation": lambda fleet, token: forge(fleet, token, generation=1),
    "another author": lambda fleet, token: forge(fleet, token, "other", sender="bunny"),
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_forgery_that_arrives_is_ignored_and_one_that_stands_is_told(name: str) -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay, fleet.transport("bunny") as there:
        handle = await relay.submit("thumbs", "resize", 1)
        await there.publish("RESULTS_thumbs", subjects.result(handle.key), FORGERIES[name](fleet, handle.token))
        await until(lambda: len(fleet.held("aws", "RESULTS_thumbs")) == 1)
        await asyncio.sleep(0)
        assert not handle.done()  # it came over `done`, and proves nothing
        with pytest.raises(FencePoisoned):
            await handle.result(timeout=0)
        assert handle.done()


async def test_a_forgery_first_does_not_keep_the_true_result_out() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        fleet.bridge.cloud("aws").tell(Message(subjects.done(handle.key), forge(fleet, handle.token, "other")))
        await asyncio.sleep(0)
        async with fleet.working(echoing()):
            assert await handle.result(int) == 1


# --- the folder ------------------------------------------------------------------------------------


async def test_the_environment_must_name_an_identity_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BUNNY_IDENTITY", raising=False)
    with pytest.raises(ConfigurationError, match="BUNNY_IDENTITY is not set"):
        async with Producer.from_env():
            pass
    with pytest.raises(ConfigurationError, match="BUNNY_IDENTITY is not set"):
        await echoing().run()
    monkeypatch.setenv("BUNNY_IDENTITY", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="is not a folder"):
        async with Producer.from_env():
            pass
    monkeypatch.setenv("BUNNY_IDENTITY", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"identity\.json"):
        async with Producer.from_env():
            pass
