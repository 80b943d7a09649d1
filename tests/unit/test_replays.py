"""Dead letters that run again: who may order it, what is verified, and what becomes of letter, result and order."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bridge import replay, subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.deadletters import DeadLetters, Filter, Letter
from bridge.envelope import Draft
from bridge.errors import ConfigurationError, JobFailed, OutcomeUnknown, Refusal, TransportError, UsageError
from bridge.memory import MemoryTransport
from bridge.rotation.leftover import left
from bridge.transport import PubAck
from consumers import Job, Reject, Worker
from producers import Handle
from tests.fleet import Fleet, policy, until

DEAD, ORDERS, RESULTS, REFUSED = "DEAD_thumbs", "REPLAY_thumbs", "RESULTS_thumbs", "REFUSED_thumbs"


@contextlib.asynccontextmanager
async def operating(fleet: Fleet, name: str = "boss") -> AsyncIterator[DeadLetters]:
    async with fleet.transport(name) as transport:
        yield DeadLetters(fleet.identities[name], fleet.trust, fleet.connection(name), transport)


def worker_of(function: Any) -> Worker:  # noqa: ANN401
    worker = Worker()
    worker.handler("thumbs", "resize")(function)
    return worker


async def rejects(args: Any) -> None:  # noqa: ANN401
    raise Reject("no such photo", type="NoPhoto")


async def died(fleet: Fleet, args: object = None, count: int = 1) -> list[Handle[Any]]:
    """Jobs that were rejected."""
    async with fleet.producer() as relay, fleet.working(worker_of(rejects)):
        handles = [await relay.submit("thumbs", "resize", args) for _ in range(count)]
        for handle in handles:
            with pytest.raises(JobFailed):
                await handle.result()
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    return handles


async def letters(boss: DeadLetters, wanted: Filter | None = None) -> list[Letter]:
    return [letter async for letter in boss.search("thumbs", wanted or Filter())]


def order(fleet: Fleet, letter: Letter, by: str = "boss", **changes: Any) -> bytes:  # noqa: ANN401
    """A replay order, not quite as it should be."""
    now = now_ms()
    core = Core(
        type="replay",
        queue="thumbs",
        kind="resize",
        job=letter.key.job_id,
        generation=1,
        sender=by,
        sender_kid=b"",
        recipient="bunny",
        issued=now,
        expires=now + 60_000,
        job_digest=bytes.fromhex(letter.digest),
        producer="relay",
    )
    draft = Draft(dataclasses.replace(core, **changes), (fleet.trust.peer("bunny").kem_key(now),))
    return fleet.sealer(by).seal(draft, now).data


async def stored(fleet: Fleet, letter: Letter, data: bytes, generation: int = 1) -> None:
    async with fleet.transport("boss") as boss:
        await boss.publish(ORDERS, subjects.replay(letter.key._replace(generation=generation)), data)


# --- what holds -------------------------------------------------------------------------------------


async def test_a_replay_is_the_same_job_a_generation_later_and_its_letter_goes() -> None:
    fleet = Fleet.make(policy())
    seen: list[Job] = []

    async def resize(args: dict[str, int], job: Job) -> int:
        seen.append(job)
        return args["width"]

    (handle,) = await died(fleet, {"width": 320})
    async with operating(fleet) as boss, fleet.producer() as relay:
        (letter,) = await letters(boss)
        token = await boss.replay(letter)
        assert token == handle.token._replace(generation=1)
        assert await letters(boss) == [letter]  # until it is answered
        again = await relay.attach(token)
        async with fleet.working(worker_of(resize)):
            assert await again.result() == 320
            await until(lambda: not fleet.held("azure", ORDERS))
        assert await letters(boss) == []
        first = await relay.attach(handle.token, generation=0)
        with pytest.raises(JobFailed, match="NoPhoto"):
            await first.result()
    (job,) = seen
    assert (job.id, job.generation, job.attempt, job.producer) == (handle.id, 1, 1, "relay")
    assert job.issued < job.deadline
    assert len(fleet.held("azure", RESULTS)) == 2
    assert not fleet.held("azure", REFUSED)


async def test_a_replay_that_fails_leaves_one_letter_with_its_history() -> None:
    fleet = Fleet.make(policy())
    (handle,) = await died(fleet)

    async def resize(args: None) -> None:
        raise Reject("still none", type="StillNone")

    async with operating(fleet) as boss, fleet.producer() as relay:
        for generation in (1, 2):
            (letter,) = await letters(boss)
            await boss.replay(letter)
            again = await relay.attach(handle.token, generation=generation)
            async with fleet.working(worker_of(resize)):
                with pytest.raises(JobFailed, match="StillNone"):
                    await again.result()
                await until(lambda: not fleet.held("azure", ORDERS))
        (letter,) = await letters(boss)
        assert (letter.key.generation, letter.cause, letter.attempt) == (2, "StillNone", "1")
        assert letter.history == "0 NoPhoto 1, 1 StillNone 1"
        assert boss.verify(letter).digest.hex() == handle.token.digest  # the producer's own bytes


async def test_a_job_is_ordered_once_for_each_letter() -> None:
    fleet = Fleet.make(policy())
    await died(fleet)
    async with operating(fleet) as boss:
        (letter,) = await letters(boss)
        await boss.replay(letter)
        with pytest.raises(UsageError, match="ordered already"):
            await boss.replay(letter)
        async with fleet.working(worker_of(_returns)):
            await until(lambda: not fleet.held("azure", ORDERS))
        with pytest.raises(UsageError, match="answered already"):
            await boss.replay(letter)
    assert not fleet.held("azure", ORDERS)


async def _returns(args: Any) -> int:  # noqa: ANN401
    return 1


async def test_keys_that_an_order_needs_are_seen_to_be_needed() -> None:
    fleet = Fleet.make(policy())
    await died(fleet)
    async with operating(fleet) as boss, fleet.transport("ops") as inspector:
        (letter,) = await letters(boss)
        await boss.replay(letter)
        ordered, submitted, sealed = (
            fleet.identities["boss"].sign[-1].kid,
            fleet.identities["relay"].sign[-1].kid,
            fleet.identities["bunny"].kem[-1].kid,
        )
        found = await left(inspector, fleet.policy, "azure", [ordered, submitted, sealed])
        assert found[ordered].stream == ORDERS
        await boss.drop(letter)
        found = await left(inspector, fleet.policy, "azure", [ordered, submitted, sealed])
    assert {kid: each.stream for kid, each in found.items()} == dict.fromkeys((ordered, submitted, sealed), ORDERS)


async def test_an_order_that_is_stored_again_does_not_run_again() -> None:
    fleet = Fleet.make(policy())
    await died(fleet)
    calls = []

    async def resize(args: None) -> None:
        calls.append(1)

    async with operating(fleet) as boss:
        (letter,) = await letters(boss)
        data = replay.pack(order(fleet, letter), letter.data)
        async with fleet.working(worker_of(resize)):
            for _ in range(3):
                await stored(fleet, letter, data)
                await until(lambda: not fleet.held("azure", ORDERS))
    assert calls == [1]


async def test_a_replay_that_is_killed_counts_its_attempts_and_no_generations() -> None:
    fleet = Fleet.make(policy())
    await died(fleet)
    attempts: list[tuple[int, int]] = []

    async def resize(args: None, job: Job) -> None:
        attempts.append((job.generation, job.attempt))
        if len(attempts) == 1:
            raise OSError

    async with operating(fleet) as boss, fleet.working(worker_of(resize)):
        (letter,) = await letters(boss)
        await boss.replay(letter)
        await until(lambda: not fleet.held("azure", ORDERS))
    assert attempts == [(1, 1), (1, 2)]


async def test_an_order_that_comes_too_late_is_a_letter_again() -> None:
    fleet = Fleet.make(policy())
    await died(fleet)
    async with operating(fleet) as boss:
        (letter,) = await letters(boss)
        await boss.replay(letter, lifetime_ms=1)
        await asyncio.sleep(0.005)  # its time passes
        async with fleet.working(worker_of(_returns)):
            await until(lambda: not fleet.held("azure", ORDERS))
        (late,) = await letters(boss)
        assert (late.key.generation, late.cause) == (1, "Expired")


async def test_a_jobs_own_expiry_does_not_count() -> None:
    fleet = Fleet.make(policy())
    never = asyncio.Event()

    async def resize(args: None) -> None:
        await never.wait()

    async with fleet.producer() as relay, fleet.working(worker_of(resize)):
        handle = await relay.submit("thumbs", "resize", None, deadline=0.05)
        await until(lambda: bool(fleet.held("azure", RESULTS)))
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
        async with operating(fleet) as boss:
            (letter,) = await letters(boss)
            assert letter.cause == "Expired"
            never.set()
            again = await relay.attach(await boss.replay(letter))
            assert await again.result() is None
        assert handle.token.generation == 0


async def test_a_worker_that_stops_between_result_and_ack_takes_the_letter_off_later() -> None:
    fleet = Fleet.make(policy(ack_wait_ms=50))
    await died(fleet)

    class LosesTheRest(MemoryTransport):
        """Stores a result, and then nothing more."""

        answered = False

        async def publish(self, stream: str, *rest: Any, **more: Any) -> PubAck:  # noqa: ANN401
            if self.answered:
                raise TransportError("away")
            ack = await super().publish(stream, *rest, **more)
            self.answered = stream == RESULTS
            return ack

        async def ack(self, delivery: Any) -> None:  # noqa: ANN401
            raise TransportError("away")

    async with operating(fleet) as boss:
        (letter,) = await letters(boss)
        await boss.replay(letter)
        failing = LosesTheRest(fleet.bridge, fleet.bridge.cloud("azure"))
        async with fleet.working(worker_of(_returns), transport=failing):
            await until(lambda: len(fleet.held("azure", RESULTS)) == 2)
        assert await letters(boss) == [letter]
        async with fleet.working(worker_of(rejects)):  # which is not asked
            await until(lambda: not fleet.held("azure", ORDERS))
        assert await letters(boss) == []


async def test_the_newest_answer_is_what_a_token_attaches_to() -> None:
    fleet = Fleet.make(policy())
    (handle,) = await died(fleet)
    async with operating(fleet) as boss, fleet.producer() as relay:
        assert (await relay.attach(handle.token)).token == handle.token
        (letter,) = await letters(boss)
        await boss.replay(letter)
        pending = await relay.attach(handle.token)
        assert pending.token.generation == 0
        assert pending.done()
        waiting = await relay.attach(handle.token, generation=1)
        with pytest.raises(OutcomeUnknown):
            await waiting.result(timeout=0.01)
        async with fleet.working(worker_of(_returns)):
            assert await waiting.result() == 1
        newest = await relay.attach(str(handle.token))
        assert newest.token.generation == 1
        assert await newest.result() == 1


async def test_letters_are_found_filtered_and_dropped() -> None:
    fleet = Fleet.make(policy())
    first, second, third = await died(fleet, count=3)
    async with operating(fleet) as boss:
        found = await letters(boss)
        assert [letter.key for letter in found] == [each.key for each in (first, second, third)]
        assert await letters(boss, Filter(kind="probe")) == []
        assert await letters(boss, Filter(cause="NoPhoto", kind="resize", producer="relay")) == found
        assert await letters(boss, Filter(producer="other")) == []
        assert await letters(boss, Filter(since=now_ms() + 60_000)) == []
        assert await letters(boss, Filter(since=now_ms() - 60_000)) == found
        assert await boss.of_job(second.token) == found[1]
        assert await boss.get("thumbs", found[2].sequence) == found[2]
        await boss.drop(found[1])
        assert await letters(boss) == [found[0], found[2]]
        for gone in (boss.drop(found[1]), boss.get("thumbs", found[1].sequence), boss.of_job(second.token)):
            with pytest.raises(UsageError):
                await gone
        with pytest.raises(UsageError, match="cannot name"):
            await letters(boss, Filter(producer="*"))
        with pytest.raises(ConfigurationError, match="lookup"):
            await boss.get("lookup", 1)


# --- what is refused ----------------------------------------------------------------------------------

FORGERIES: dict[str, Callable[[Fleet, Letter, Letter], tuple[bytes, str]]] = {
    "by its producer": lambda f, a, _: (replay.pack(order(f, a, by="relay"), a.data), "NotAuthorised"),
    "by its workers": lambda f, a, _: (replay.pack(order(f, a, by="bunny"), a.data), "NotAuthorised"),
    "by an inspector": lambda f, a, _: (replay.pack(order(f, a, by="ops"), a.data), "NotAuthorised"),
    "by an operator of the other cloud": lambda f, a, _: (
        replay.pack(order(f, a, by="boss-aws"), a.data),
        "NotAuthorised",
    ),
    "of another job": lambda f, a, b: (replay.pack(order(f, a), b.data), "WrongSubject"),
    "of other bytes": lambda f, a, _: (replay.pack(order(f, a, job_digest=bytes(32)), a.data), "WrongSubject"),
    "of another kind": lambda f, a, _: (replay.pack(order(f, a, kind="probe"), a.data), "WrongSubject"),
    "of another producer": lambda f, a, _: (replay.pack(order(f, a, producer="other"), a.data), "WrongSubject"),
    "of the first generation": lambda f, a, _: (replay.pack(order(f, a, generation=0), a.data), "WrongSubject"),
    "of another generation than its subject": lambda f, a, _: (
        replay.pack(order(f, a, generation=2), a.data),
        "WrongSubject",
    ),
    "that is a job": lambda f, a, _: (replay.pack(a.data, a.data), "WrongSubject"),
    "without a job": lambda f, a, _: (replay.pack(order(f, a), b""), "BadFrame"),
    "without an order": lambda f, a, _: (replay.pack(b"", a.data), "BadFrame"),
    "with a longer order": lambda f, a, _: ((2**32 - 1).to_bytes(4) + order(f, a) + a.data, "BadFrame"),
    "that is empty": lambda f, a, _: (b"", "BadFrame"),
    "with a job that was changed": lambda f, a, _: (
        replay.pack(order(f, a), a.data[:-1] + bytes([a.data[-1] ^ 1])),
        "BadSignature",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_an_order_is_refused(name: str) -> None:
    fleet = Fleet.make(policy())
    await died(fleet, count=2)
    async with operating(fleet) as boss:
        first, second = await letters(boss)
        data, refusal = FORGERIES[name](fleet, first, second)
        await stored(fleet, first, data, generation=0 if "first generation" in name else 1)
        async with fleet.working(worker_of(_returns)):
            await until(lambda: not fleet.held("azure", ORDERS))
        assert await letters(boss) == [first, second]
    (refused,) = fleet.held("azure", REFUSED)
    assert (refused.headers["Bunny-Cause"], refused.data) == (refusal, data)
    assert len(fleet.held("azure", RESULTS)) == 2


async def test_only_an_operator_of_the_workers_cloud_may_order_or_drop() -> None:
    fleet = Fleet.make(policy())
    await died(fleet)
    async with operating(fleet) as boss, operating(fleet, "ops") as inspector, operating(fleet, "boss-aws") as other:
        (letter,) = await letters(inspector)
        for act in (inspector.replay(letter), inspector.drop(letter), other.replay(letter)):
            with pytest.raises(ConfigurationError):
                await act
        assert await letters(boss) == [letter]
    assert not fleet.held("azure", ORDERS)


async def test_what_lies_there_and_is_no_job_is_not_ordered() -> None:
    fleet = Fleet.make(policy())
    (handle,) = await died(fleet)
    key = handle.key._replace(n=handle.key.n + 1)
    async with operating(fleet) as boss, fleet.transport("bunny") as bunny:
        (letter,) = await letters(boss)
        await bunny.publish(DEAD, subjects.dead(key), letter.data)
        await bunny.publish(DEAD, subjects.dead(key._replace(n=key.n + 1)), b"rubbish")
        for wrong in (await letters(boss))[1:]:
            with pytest.raises(Refusal):
                await boss.replay(wrong)
    assert not fleet.held("azure", ORDERS)


def test_a_history_cannot_carry_what_a_header_must_not() -> None:
    text = replay.safe_history("0 Bad\r\nNats-Rollup: all\x00" + "x" * 5_000)
    assert "\r" not in text
    assert "\n" not in text
    assert len(text) <= replay.MAX_HISTORY_CHARS
