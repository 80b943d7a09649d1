"""Keyed jobs: one run for a key, found again by whoever has the secret, whatever happened in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from bridge import keyed, subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.crypto import keyed_hash
from bridge.envelope import Draft
from bridge.errors import FencePoisoned, InvalidArguments, JobFailed, PublishTimeout, UsageError
from bridge.frame import parse
from bridge.job import Content, Status
from bridge.memory import MemoryTransport
from bridge.transport import PubAck
from consumers import Job, Reject, Worker
from producers import Handle, KeyConflict, Kind
from tests.fleet import Fleet, policy, until
from tests.unit.test_replays import letters, operating

JOBS, RESULTS, DEAD = "JOBS_thumbs", "RESULTS_thumbs", "DEAD_thumbs"


def counting(calls: list[Any]) -> Worker:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: Any, job: Job) -> int:  # noqa: ANN401
        calls.append(args)
        return len(calls)

    @worker.handler("thumbs", "probe")
    async def probe(args: Any) -> None:  # noqa: ANN401
        calls.append(args)

    return worker


# --- what makes two jobs the same ---------------------------------------------------------------------

SECRET = bytes(range(32))


def test_a_session_follows_from_secret_producer_queue_and_key_and_from_nothing_else() -> None:
    session = keyed.session(SECRET, "relay", "thumbs", "order-42")
    assert subjects.SESSION.fullmatch(session)
    assert keyed.session(SECRET, "relay", "thumbs", "order-42") == session
    others = [
        keyed.session(bytes(32), "relay", "thumbs", "order-42"),
        keyed.session(SECRET, "other", "thumbs", "order-42"),
        keyed.session(SECRET, "relay", "lookup", "order-42"),
        keyed.session(SECRET, "relay", "thumbs", "order-43"),
        keyed.session(SECRET, "relayt", "humbs", "order-42"),
        keyed.session(SECRET, "relay", "thumbsorder", "-42"),
    ]
    assert len({session, *others}) == 7


@pytest.mark.parametrize("key", ["", "x" * 1025, "\ud800"], ids=["empty", "too long", "no text"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="1 to 1024 bytes"):
        keyed.session(SECRET, "relay", "thumbs", key)


def test_a_tag_is_that_of_the_value_and_not_of_its_spelling() -> None:
    def tag(body: str, content_type: str = "application/json") -> bytes:
        return keyed.args_tag(SECRET, Content(content_type, body.encode()))

    same = tag('{"b": [1, {"y": 2, "x": "é"}], "a": null}')
    assert tag('{ "a":null,"b":[1,{"x":"\\u00e9","y":2}]}') == same
    canonical = 'application/json\0{"a":null,"b":[1,{"x":"é","y":2}]}'.encode()
    assert same == keyed_hash(SECRET, canonical)
    others = [tag('{"a":null,"b":[1,{"x":"e","y":2}]}'), tag("[]"), tag("{}"), tag('"1"'), tag("1"), tag("1.0")]
    others += [tag("1", "application/octet-stream"), tag("1", "text/plain")]
    assert len({same, *others}) == 9
    for broken in ("{", "[NaN]", "[1e400]", "\ufeff1", '"\\ud800"', "[" * 100_000):
        with pytest.raises(InvalidArguments):
            tag(broken)


# --- one run for a key ---------------------------------------------------------------------------------


async def test_a_key_is_one_job_queued_running_and_done_and_after_a_restart() -> None:
    fleet, calls = Fleet.make(policy()), list[Any]()
    async with fleet.producer() as relay:
        first = await relay.submit("thumbs", "resize", {"a": 1, "b": 2}, key="order-42")
        assert first.key.n == 0
        assert await relay.submit("thumbs", "resize", {"b": 2, "a": 1}, key="order-42") is first
    async with fleet.producer() as relay, fleet.producer() as replica:
        queued = await relay.submit("thumbs", "resize", {"a": 1, "b": 2}, key="order-42")
        elsewhere = await replica.submit("thumbs", "resize", {"a": 1, "b": 2}, key="order-42")
        assert queued.token == elsewhere.token == first.token
        assert len(fleet.held("aws", JOBS)) == 1
        async with fleet.working(counting(calls)):
            assert await queued.result() == await elsewhere.result() == 1
            await until(lambda: not fleet.held("aws", JOBS))
            done = await relay.submit("thumbs", "resize", {"a": 1, "b": 2}, key="order-42")
            assert done.done()
            assert done.token == first.token
            assert await done.result() == 1
    assert len(calls) == 1
    async with fleet.producer() as relay:
        assert await (await relay.submit("thumbs", "resize", {"a": 1, "b": 2}, key="order-42")).result() == 1
        again = await relay.attach(first.token)
        assert await again.result() == 1
        fresh = await relay.submit("thumbs", "resize", {"a": 1, "b": 2}, key="order-43")
        assert fresh.token.session != first.token.session
    assert len(fleet.held("aws", JOBS)) == 1


async def test_other_producers_with_the_same_key_have_jobs_of_their_own() -> None:
    fleet, calls = Fleet.make(policy()), list[Any]()
    async with fleet.producer() as relay, fleet.producer("other") as other, fleet.working(counting(calls)):
        handles = [await each.submit("thumbs", "resize", None, key="order-42") for each in (relay, other)]
        assert sorted([await handle.result() for handle in handles]) == [1, 2]


@pytest.mark.parametrize("state", ["open", "queued", "done"])
async def test_other_arguments_or_another_kind_are_a_conflict(state: str) -> None:
    fleet = Fleet.make(policy())
    async with contextlib.AsyncExitStack() as stack:
        relay = await stack.enter_async_context(fleet.producer())
        handle = await relay.submit("thumbs", "resize", {"width": 1}, key="order-42")
        if state == "done":
            await stack.enter_async_context(fleet.working(counting([])))
            await handle.result()
        if state == "queued":
            relay = await stack.enter_async_context(fleet.producer())
        for kind, args in (("resize", {"width": 2}), ("probe", {"width": 1}), ("resize", b'{"width": 1}')):
            with pytest.raises(KeyConflict, match="order-42"):
                await relay.submit("thumbs", kind, args, key="order-42")
        same = await relay.submit("thumbs", "resize", {"width": 1}, key="order-42")
        assert same.token == handle.token


@pytest.mark.parametrize("terms", [{"priority": "high"}, {"delay": 1}, {"priority": "low"}], ids=str)
async def test_a_keyed_job_has_no_time_and_no_priority(terms: dict[str, Any]) -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        with pytest.raises(UsageError, match="keyed"):
            await relay.submit("thumbs", "resize", None, key="order-42", **terms)
        with pytest.raises(UsageError, match="without a key"):
            await relay.submit("thumbs", "resize", None, retry_failed=True)
    assert not fleet.held("aws", JOBS)


async def test_many_who_submit_a_key_at_once_have_one_job() -> None:
    fleet, calls = Fleet.make(policy()), list[Any]()
    resize = Kind("thumbs", "resize", int, int)
    async with fleet.producer() as relay, fleet.producer() as replica, fleet.working(counting(calls)):
        for each in (relay, replica):  # which hears of keyed jobs from now on
            await each.submit("thumbs", "probe", None, key="another")
        calls.clear()
        submits = [each.submit(resize, 7, key=f"order-{n % 5}") for n in range(50) for each in (relay, replica)]
        handles = await asyncio.gather(*submits)
        async with asyncio.timeout(3):  # sooner than anything is swept up
            results = [await handle.result() for handle in handles]
        await until(lambda: not fleet.held("aws", JOBS))
    assert calls.count(7) == 5
    assert len(set(results)) == 5
    assert len(fleet.held("azure", RESULTS)) == 6


async def test_a_job_that_was_done_while_the_link_is_away_does_not_run_again() -> None:
    fleet, calls = Fleet.make(policy(ack_wait_ms=50)), list[Any]()
    go = asyncio.Event()
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: None) -> str:
        calls.append(1)
        fleet.bridge.link_up = False
        go.set()
        return "once"

    async with fleet.producer() as relay, fleet.producer() as replica:
        first = await relay.submit("thumbs", "resize", None, key="order-42")
        async with fleet.working(worker):
            await go.wait()
            await until(lambda: bool(fleet.held("azure", RESULTS)))
            second = await replica.submit("thumbs", "resize", None, key="order-42")
            assert not second.done()
            await fleet.heal_link()
            assert await first.result() == await second.result() == "once"
            await until(lambda: not fleet.held("aws", JOBS))
    assert calls == [1]


class Late(MemoryTransport):
    """Shows no result at home, as if it were still on its way."""

    blind = True

    async def lookup(self, stream: str, *rest: Any, **more: Any) -> Any:  # noqa: ANN401
        found = await super().lookup(stream, *rest, **more)
        return None if self.blind and stream == RESULTS else found

    async def subscribe(self, *rest: Any) -> Any:  # noqa: ANN401
        return lambda: asyncio.sleep(0)


@pytest.mark.parametrize("args", ["same", "other"])
async def test_a_key_that_is_stored_again_is_answered_by_what_stands(args: str) -> None:
    fleet, calls = Fleet.make(policy()), list[Any]()
    async with fleet.producer() as relay, fleet.working(counting(calls)):
        first = await relay.submit("thumbs", "resize", "same", key="order-42")
        await first.result()
        await until(lambda: not fleet.held("aws", JOBS))
        late = Late(fleet.bridge, fleet.bridge.cloud("aws"))
        async with fleet.producer(transport=late) as replica:
            second = await replica.submit("thumbs", "resize", args, key="order-42")
            assert second.token.digest != first.token.digest
            await until(lambda: not fleet.held("aws", JOBS))
            late.blind = False
            if args == "same":
                assert await second.result(timeout=0.01) == 1
            else:
                with pytest.raises(KeyConflict, match="order-42"):
                    await second.result(timeout=0.01)
        # A token knows no arguments: what answers other bytes is not taken for its result.
        with pytest.raises(KeyConflict, match="submit it with its key"):
            await (await relay.attach(second.token)).result()
    assert calls == ["same"]
    causes = [message.headers["Bunny-Cause"] for message in fleet.held("azure", DEAD)]
    assert causes == ([] if args == "same" else ["KeyConflict"])


async def test_a_puback_that_is_lost_is_no_conflict_with_oneself() -> None:
    fleet = Fleet.make(policy())

    class Deaf(MemoryTransport):
        """Stores a first job, and hears nothing of it."""

        sent = 0

        async def publish(self, *rest: Any, **more: Any) -> PubAck:  # noqa: ANN401
            ack = await super().publish(*rest, **more)
            self.sent += 1
            if self.sent == 1:
                raise PublishTimeout("away")
            return ack

    async with fleet.producer(transport=Deaf(fleet.bridge, fleet.bridge.cloud("aws"))) as relay:
        handle = await relay.submit("thumbs", "resize", None, key="order-42")
        (job,) = fleet.held("aws", JOBS)
        assert parse(job.data).digest.hex() == handle.token.digest


async def test_what_took_the_key_while_a_puback_was_awaited_is_looked_at() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as replica:

        class Overtaken(MemoryTransport):
            """Loses a first job; another process stores its own before it is sent again."""

            overtaken = False

            async def publish(self, *rest: Any, **more: Any) -> PubAck:  # noqa: ANN401
                if not self.overtaken:
                    self.overtaken = True
                    await replica.submit("thumbs", "resize", "other", key="order-42")
                    raise PublishTimeout("away")
                return await super().publish(*rest, **more)

        async with fleet.producer(transport=Overtaken(fleet.bridge, fleet.bridge.cloud("aws"))) as relay:
            with pytest.raises(KeyConflict):
                await relay.submit("thumbs", "resize", "same", key="order-42")


async def test_a_forgery_under_a_key_is_told() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay, fleet.transport("bunny") as bunny:
        handle = await relay.submit("thumbs", "resize", None, key="order-42")
        await bunny.publish(RESULTS, subjects.result(handle.key), b"rubbish")
        await until(lambda: bool(fleet.held("aws", RESULTS)))
    async with fleet.producer() as relay:
        again = await relay.submit("thumbs", "resize", None, key="order-42")
        with pytest.raises(FencePoisoned):
            await again.result()


async def test_an_answer_with_the_right_tag_and_a_wrong_author_is_no_answer() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay, fleet.transport("bunny") as bunny:
        handle = await relay.submit("thumbs", "resize", None, key="order-42")
        assert handle.keyed is not None
        now = now_ms()
        core = Core(
            type="result",
            queue="thumbs",
            kind="resize",
            job=handle.id,
            generation=0,
            sender="ops",
            sender_kid=b"",
            recipient="relay",
            issued=now,
            expires=now + 60_000,
            job_digest=bytes(32),
            attempt=1,
            worker="pod",
            args_tag=handle.keyed.tag.args_tag,
        )
        draft = Draft(core, (fleet.trust.peer("relay").kem_key(now),), Content("a/b", b""), Status.SUCCEEDED)
        await bunny.publish(RESULTS, subjects.result(handle.key), fleet.sealer("ops").seal(draft, now).data)
        await until(lambda: bool(fleet.held("aws", RESULTS)))
    async with fleet.producer() as relay:
        again = await relay.submit("thumbs", "resize", None, key="order-42")
        with pytest.raises(FencePoisoned):
            await again.result()


async def test_the_core_says_nothing_of_key_and_arguments() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        await relay.submit("thumbs", "resize", {"photo": "hare"}, key="order-42")
    (job,) = fleet.held("aws", JOBS)
    said = json.dumps(dict(job.headers)) + job.subject
    assert b"order-42" not in job.data
    assert b"hare" not in job.data
    assert "order-42" not in said


# --- and when it failed ------------------------------------------------------------------------------


def failing(attempts: list[int], until_generation: int) -> Worker:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: None, job: Job) -> int:
        attempts.append(job.generation)
        if job.generation < until_generation:
            raise Reject("no such photo", type="NoPhoto")
        return job.generation

    return worker


async def test_a_key_that_failed_stays_failed_until_it_is_asked_to_run_again() -> None:
    fleet, runs = Fleet.make(policy()), list[int]()

    async def failed(handle: Handle[Any]) -> None:
        with pytest.raises(JobFailed, match="NoPhoto"):
            await handle.result()

    async with fleet.producer() as relay, fleet.working(failing(runs, 2)):
        first = await relay.submit("thumbs", "resize", None, key="order-42")
        await failed(first)
        await failed(await relay.submit("thumbs", "resize", None, key="order-42"))
        assert runs == [0]
        await until(lambda: not fleet.held("aws", JOBS))
        second = await relay.submit("thumbs", "resize", None, key="order-42", retry_failed=True)
        assert second.token.generation == 1
        await failed(second)
        await until(lambda: not fleet.held("aws", JOBS))
        third = await relay.submit("thumbs", "resize", None, key="order-42", retry_failed=True)
        assert await third.result() == 2
        await until(lambda: not fleet.held("aws", JOBS))
        for _ in range(2):
            again = await relay.submit("thumbs", "resize", None, key="order-42", retry_failed=True)
            assert await again.result() == 2
        attached = await relay.attach(first.token)
        assert attached.token.generation == 2
        assert await attached.result() == 2
        with pytest.raises(KeyConflict):
            await relay.submit("thumbs", "resize", 1, key="order-42", retry_failed=True)
    assert runs == [0, 1, 2]
    async with operating(fleet) as boss:
        assert await letters(boss) == []  # each run took the letter of the one before


async def test_a_keyed_job_that_was_replayed_is_found_by_its_key() -> None:
    fleet, runs = Fleet.make(policy()), list[int]()
    async with fleet.producer() as relay, fleet.working(failing(runs, 1)), operating(fleet) as boss:
        first = await relay.submit("thumbs", "resize", None, key="order-42")
        with pytest.raises(JobFailed):
            await first.result()
        (letter,) = await letters(boss)
        replayed = await relay.attach(await boss.replay(letter))
        assert await replayed.result() == 1
        again = await relay.submit("thumbs", "resize", None, key="order-42")
        assert await again.result() == 1
        assert again.token.generation == 1
    assert runs == [0, 1]


async def test_a_key_is_forgotten_with_its_result() -> None:
    fleet, calls = Fleet.make(policy()), list[Any]()
    async with fleet.producer() as relay, fleet.working(counting(calls)):
        first = await relay.submit("thumbs", "resize", None, key="order-42")
        await first.result()
        await until(lambda: not fleet.held("aws", JOBS))
        for cloud in ("aws", "azure"):  # as the streams do after result_ttl
            stream = fleet.bridge.stream(cloud, RESULTS)
            stream.remove(next(stream.after(0)).sequence)
        again = await relay.submit("thumbs", "resize", None, key="order-42")
        assert await again.result() == 2
        assert again.key == first.key
