"""Cancelling: of what waits, what runs, what is done, and what nobody may cancel, over the transport in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Draft
from bridge.errors import JobCancelled, JobFailed, UsageError
from bridge.job import JobToken, Status, encode
from bridge.memory import MemoryTransport
from bridge.policy import Backoff as QueueBackoff
from bridge.transport import Message, Unsubscribe
from consumers import Cancelled, Job, Retry, Worker, cancels
from consumers.stop import Stop
from producers import Handle, Producer
from tests.fleet import Fleet, policy, until


def worker_of(function: Any, *, concurrency: int = 8, **limits: Any) -> Worker:  # noqa: ANN401
    """A worker of one handler."""
    worker = Worker(concurrency=concurrency)
    worker.handler("thumbs", "resize", **limits)(function)
    return worker


def waiting() -> tuple[Worker, asyncio.Event, list[str]]:
    """A worker whose handler waits until it is cancelled; whether it began, and what happened."""
    begun, seen = asyncio.Event(), list[str]()

    async def resize(args: object, job: Job) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(f"cancelled, {job.cancelled}")
            raise

    return worker_of(resize), begun, seen


class HearsNothing(MemoryTransport):
    """Its client drops every control that is told live."""

    async def subscribe(self, subject: str, callback: Any) -> Unsubscribe:  # noqa: ANN401
        return await super().subscribe("nothing", callback)


async def cancelled(handle: Handle[Any]) -> str:
    """The reason of a job that must have been cancelled."""
    with pytest.raises(JobCancelled) as told:
        await handle.result()
    return told.value.reason


def statuses(fleet: Fleet) -> list[Status | None]:
    """How the jobs of `thumbs` have ended, by their results."""
    opener = fleet.opener("relay")
    found = fleet.held("azure", "RESULTS_thumbs")
    return [opener.open(opener.authenticate(each.data, now_ms())).status for each in found]


# --- what waits --------------------------------------------------------------------------------------


async def test_a_queued_job_that_is_cancelled_never_starts() -> None:
    fleet, calls = Fleet.make(policy()), list[int]()

    async def resize(args: int) -> None:
        calls.append(args)

    async with fleet.producer() as relay:
        first, second = [await relay.submit("thumbs", "resize", n) for n in (1, 2)]
        await first.cancel("no longer wanted")
        async with fleet.working(worker_of(resize)):
            assert await cancelled(first) == "no longer wanted"
            await second.result()
            await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    assert calls == [2]
    assert sorted(map(str, statuses(fleet))) == ["cancelled", "succeeded"]
    assert not fleet.held("azure", "DEAD_thumbs")


async def test_a_job_that_is_held_is_answered_before_a_slot_is_free() -> None:
    fleet, go, calls = Fleet.make(policy()), asyncio.Event(), list[int]()

    async def resize(args: int) -> None:
        calls.append(args)
        await go.wait()

    async with fleet.producer() as relay, fleet.working(worker_of(resize, concurrency=1)):
        running = await relay.submit("thumbs", "resize", 1)
        await until(lambda: calls == [1])
        held = await relay.submit("thumbs", "resize", 2)
        await held.cancel()
        assert await cancelled(held) == ""
        last = await relay.submit("thumbs", "resize", 3)
        go.set()
        await running.result()
        await last.result()
    assert calls == [1, 3]


async def test_a_job_that_was_held_before_it_was_cancelled_is_answered_at_once_too() -> None:
    fleet, go, calls = Fleet.make(policy()), asyncio.Event(), list[int]()

    async def resize(args: int) -> None:
        calls.append(args)
        await go.wait()

    worker = worker_of(resize, concurrency=1)
    async with fleet.producer() as relay, fleet.working(worker):
        handles = [await relay.submit("thumbs", "resize", n) for n in range(4)]
        await until(lambda: worker._intake is not None and len(worker._intake._waiting) == 3)
        await handles[2].cancel()
        assert await cancelled(handles[2]) == ""
        go.set()
        for n in (0, 1, 3):
            await handles[n].result()
    assert calls == [0, 1, 3]


async def test_no_job_starts_before_the_cancels_are_read() -> None:
    fleet, gate = Fleet.make(policy()), asyncio.Event()
    worker, begun, _ = waiting()

    class Slow(HearsNothing):
        async def read(self, *args: Any, **more: Any) -> list[Message]:  # noqa: ANN401
            await gate.wait()
            return await super().read(*args, **more)

    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        await handle.cancel()
        async with fleet.working(worker, transport=Slow(fleet.bridge, fleet.bridge.cloud("azure"))):
            await until(lambda: worker.busy == 1)
            for _ in range(10):
                await asyncio.sleep(0)
            assert not begun.is_set()
            gate.set()
            await cancelled(handle)
    assert not begun.is_set()


async def test_a_delayed_job_that_is_cancelled_never_starts() -> None:
    fleet, calls = Fleet.make(policy()), list[int]()

    async def resize(args: int) -> None:
        calls.append(args)

    async with fleet.producer() as relay, fleet.working(worker_of(resize)):
        later = await relay.submit("thumbs", "resize", 1, delay=1)
        await later.cancel()
        assert await cancelled(later) == ""
    async with fleet.producer() as relay:
        much_later = await relay.submit("thumbs", "resize", 2, delay=3600)
        await much_later.cancel()
        async with fleet.working(worker_of(resize)):  # delivered before its time, and known by then
            assert await cancelled(much_later) == ""
    assert calls == []


async def test_a_job_that_waits_for_its_next_attempt_is_not_tried_again() -> None:
    fleet, attempts = Fleet.make(policy()), list[int]()
    tried = asyncio.Event()

    async def resize(args: None, job: Job) -> None:
        attempts.append(job.attempt)
        tried.set()
        raise Retry(after=1)

    async with fleet.producer() as relay, fleet.working(worker_of(resize)):
        handle = await relay.submit("thumbs", "resize", None)
        await tried.wait()
        await handle.cancel()
        assert await cancelled(handle) == ""
    assert attempts == [1]
    assert statuses(fleet) == [Status.CANCELLED]


# --- what runs ---------------------------------------------------------------------------------------


async def test_a_coroutine_is_cancelled_and_its_slot_is_free_again() -> None:
    fleet = Fleet.make(policy())
    worker, begun, seen = waiting()
    async with fleet.producer() as relay, fleet.working(worker):
        for _ in range(worker.concurrency + 1):
            handle = await relay.submit("thumbs", "resize", None)
            await begun.wait()
            begun.clear()
            await handle.cancel("enough")
            assert await cancelled(handle) == "enough"
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    assert seen == ["cancelled, True"] * (worker.concurrency + 1)
    assert set(statuses(fleet)) == {Status.CANCELLED}
    assert not fleet.held("azure", "DEAD_thumbs")


@pytest.mark.parametrize("last", ["a value", "an error", "cancelled"])
async def test_whatever_a_handler_makes_of_it_the_result_is_one_and_cancelled(last: str) -> None:
    fleet, begun = Fleet.make(policy()), asyncio.Event()

    async def resize(args: None, job: Job) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if last == "an error":
                raise OSError("while tidying up") from None
            if last == "cancelled":
                job.raise_if_cancelled()
        return last

    async with fleet.producer() as relay, fleet.working(worker_of(resize)):
        handle = await relay.submit("thumbs", "resize", None)
        await begun.wait()
        await handle.cancel()
        await cancelled(handle)
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    assert statuses(fleet) == [Status.CANCELLED]


async def test_a_plain_function_sees_the_flag_and_is_not_waited_for() -> None:
    fleet = Fleet.make(policy())
    begun, over, stopped = threading.Event(), threading.Event(), threading.Event()

    def resize(args: None, job: Job) -> str:
        begun.set()
        assert over.wait(10)  # the result stands before it has looked
        try:
            while True:
                job.raise_if_cancelled()
        except Cancelled as asked:
            if job.cancelled and asked.reason == "stop it":
                stopped.set()
        return "unheeded"

    async with fleet.producer() as relay, fleet.working(worker_of(resize, concurrency=1)):
        handle = await relay.submit("thumbs", "resize", None)
        await until(begun.is_set)
        await handle.cancel("stop it")
        assert await cancelled(handle) == "stop it"
        over.set()
        await until(stopped.is_set)


async def test_a_cancel_just_before_it_starts_is_not_missed() -> None:
    """Between the look at the cancels and the handler, a start is stored: that takes a while."""
    fleet, calls = Fleet.make(policy()), list[int]()
    handles: list[Handle[Any]] = []

    class Slow(MemoryTransport):
        async def publish(self, stream: str, *args: Any, **more: Any) -> Any:  # noqa: ANN401
            if stream == "STARTS_thumbs":
                await handles[0].cancel("just now")
                for _ in range(10):  # until it is heard
                    await asyncio.sleep(0)
            return await super().publish(stream, *args, **more)

    async def resize(args: None, job: Job) -> None:
        calls.append(job.attempt)
        raise OSError("once more")

    slow = Slow(fleet.bridge, fleet.bridge.cloud("azure"))
    async with fleet.producer() as relay:
        handles.append(await relay.submit("thumbs", "resize", None))
        async with fleet.working(worker_of(resize), transport=slow):
            assert await cancelled(handles[0]) == "just now"
    assert calls == [1]


async def test_a_handler_cannot_cancel_its_job_by_itself() -> None:
    fleet = Fleet.make(policy(max_attempts=2, errors="message"))

    async def resize(args: None, job: Job) -> None:
        job.raise_if_cancelled()
        raise Cancelled("an idea of mine")

    async with fleet.producer() as relay, fleet.working(worker_of(resize)):
        with pytest.raises(JobFailed, match="an idea of mine") as failure:
            await (await relay.submit("thumbs", "resize", None)).result()
    assert failure.value.attempts == 2


async def test_a_stop_yields_to_whoever_stops_the_task_itself() -> None:
    stop, begun = Stop(), asyncio.Event()

    async def block(swallow: bool) -> str:
        async with stop:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not swallow:
                    raise
        return "went on"

    for swallow in (False, True):
        stop = Stop()
        begun.clear()
        task = asyncio.create_task(block(swallow))
        await begun.wait()
        stop.ask("both")
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() != swallow
        assert not swallow or isinstance(task.exception(), Cancelled)


async def test_a_stop_ends_a_block_when_its_time_is_up() -> None:
    async def late(stop: Stop, then: Callable[[], object] | None = None) -> str:
        stop.limit = 0
        try:
            async with stop:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if then is None:
                        raise
                    asyncio.get_running_loop().call_soon(then)
                    await asyncio.Event().wait()
        except TimeoutError:
            return "late"
        return "in time"

    stop, current = Stop(), asyncio.current_task()
    assert current is not None
    assert await late(stop) == "late"
    assert stop.late
    assert not current.cancelling()
    stop = Stop()
    with pytest.raises(Cancelled):
        await late(stop, lambda: stop.ask("it takes its time to end"))
    assert not current.cancelling()
    task = asyncio.create_task(late(Stop(), lambda: task.cancel()))
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_stop_leaves_a_block_alone_that_ends_in_time() -> None:
    stop = Stop()
    stop.limit = 3600
    async with stop:
        await asyncio.sleep(0)
    assert not stop.late
    assert stop._timer is None
    for limit in (0, 3600):
        stop = Stop()
        stop.limit = limit
        with pytest.raises(TimeoutError, match="of its own"):
            async with stop:
                raise TimeoutError("of its own")
        assert not stop.late


async def test_a_drain_comes_before_a_cancel() -> None:
    fleet = Fleet.make(policy())
    worker, begun, seen = waiting()
    worker.drain_timeout = 0.05
    again, _, _ = waiting()
    async with fleet.producer() as relay:
        async with fleet.working(worker):
            handle = await relay.submit("thumbs", "resize", None)
            await begun.wait()
        assert seen == ["cancelled, False"]
        assert not fleet.held("azure", "RESULTS_thumbs")
        await handle.cancel()
        async with fleet.working(again):
            await cancelled(handle)


# --- what is done, and asking again --------------------------------------------------------------------


async def test_a_cancel_of_what_is_done_changes_nothing() -> None:
    fleet = Fleet.make(policy())

    async def resize(args: int) -> int:
        return args

    async with fleet.producer() as relay, fleet.working(worker_of(resize)):
        handle = await relay.submit("thumbs", "resize", 1)
        late = await relay.submit("thumbs", "resize", 2)
        assert await handle.result() == 1
        await handle.cancel()
        assert not fleet.held("aws", "CONTROL_thumbs")
        await until(lambda: len(fleet.held("azure", "RESULTS_thumbs")) == 2)
        await _control(fleet, relay, late.token)  # asked before it knew
        assert await late.result() == 2
        assert await (await relay.submit("thumbs", "resize", 3)).result() == 3
    assert statuses(fleet) == [Status.SUCCEEDED] * 3


async def test_asking_twice_is_asking_once() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        await handle.cancel("first")
        await handle.cancel("second")
        worker, begun, _ = waiting()
        async with fleet.working(worker):
            assert await cancelled(handle) == "first"
        assert not begun.is_set()
    assert len(fleet.held("aws", "CONTROL_thumbs")) == 1


async def test_a_handle_of_another_process_cancels_too() -> None:
    fleet = Fleet.make(policy())
    worker, begun, _ = waiting()
    async with fleet.producer() as relay:
        tokens = [(await relay.submit("thumbs", "resize", 1, delay=delay)).token for delay in (None, 0.2)]
    async with fleet.producer() as relay:
        handles = [await relay.attach(str(token)) for token in tokens]
        for handle in handles:
            await handle.cancel("by another")
        async with fleet.working(worker):
            assert [await cancelled(handle) for handle in handles] == ["by another"] * 2
        gone = await relay.attach(tokens[0]._replace(n=7))
        with pytest.raises(UsageError, match="not stored: its result is on its way"):
            await gone.cancel()
        other = await relay.attach((await relay.submit("thumbs", "resize", 1)).token._replace(digest="0" * 64))
        with pytest.raises(UsageError, match="not what the token speaks of"):
            await other.cancel()
    assert not begun.is_set()


async def test_a_keyed_job_is_cancelled_and_its_next_run_is_another_matter() -> None:
    fleet = Fleet.make(policy())
    worker, begun, _ = waiting()
    async with fleet.producer() as relay:
        first = await relay.submit("thumbs", "resize", {"a": 1, "b": 2}, key="k")
    worker.drain_timeout = 0
    async with fleet.producer() as relay, fleet.working(worker):
        await begun.wait()
        same = await relay.submit("thumbs", "resize", {"b": 2, "a": 1}, key="k")
        assert same.key == first.key
        await same.cancel("not this one")
        assert await cancelled(same) == "not this one"
        begun.clear()
        again = await relay.submit("thumbs", "resize", {"a": 1, "b": 2}, key="k", retry_failed=True)
        assert again.key.generation == 1
        await begun.wait()
        with pytest.raises(UsageError, match="earlier run of its key"):
            await again.cancel()


async def test_what_cannot_be_asked() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        with pytest.raises(UsageError, match="201 characters"):
            await handle.cancel("x" * 201)
        replayed = await relay.attach(handle.token, generation=1)
        with pytest.raises(UsageError, match="not what the token speaks of"):
            await replayed.cancel()
    assert not fleet.held("aws", "CONTROL_thumbs")


async def test_the_server_forgets_a_cancel_when_its_job_can_no_longer_start() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        for delay in (None, 86_400.0 * 3):
            handle = await relay.submit("thumbs", "resize", 1, deadline=60, delay=delay)
            await handle.cancel()
            told = fleet.held("aws", "CONTROL_thumbs")[-1].headers["Nats-TTL"]
            assert 0 <= 60 + (delay or 0) - int(told.removesuffix("s")) <= 2


# --- who may, and what arrives --------------------------------------------------------------------------


async def _control(fleet: Fleet, relay: Producer, token: JobToken, signer: str = "relay", **changes: Any) -> Message:  # noqa: ANN401
    """Store a control of one's own making for a job, and let it be heard."""
    core = Core(
        type="control",
        queue=token.queue,
        kind="resize",
        job=token.key.job_id,
        generation=0,
        sender=signer,
        sender_kid=b"",
        recipient="bunny",
        issued=now_ms(),
        expires=now_ms() + 60_000,
        job_digest=bytes.fromhex(token.digest),
        action="cancel",
    )
    core = replace(core, **changes)
    recipients = (fleet.trust.peer("bunny").kem_key(now_ms()),)
    data = fleet.sealer(signer).seal(Draft(core, recipients, encode("mine")), now_ms()).data
    subject = subjects.control(token.key)
    async with fleet.transport("relay") as transport:
        await transport.publish("CONTROL_thumbs", subject, data)
    return Message(subject, data)


FORGERIES: dict[str, Callable[[Fleet], dict[str, Any]]] = {
    "another producer": lambda _: {"signer": "other"},
    "the workers": lambda _: {"signer": "bunny"},
    "another digest": lambda _: {"job_digest": bytes(32)},
    "another generation": lambda _: {"generation": 1},
    "too old": lambda _: {"issued": now_ms() - 2000, "expires": now_ms() - 1000},
    "from the future": lambda _: {"issued": now_ms() + 600_000, "expires": now_ms() + 700_000},
    "another kind": lambda _: {"kind": "crop"},
}


@pytest.mark.parametrize("live", [True, False], ids=["heard", "read"])
@pytest.mark.parametrize("forgery", FORGERIES)
async def test_what_is_no_cancel_of_its_producer_s_changes_nothing(forgery: str, live: bool) -> None:
    fleet, go = Fleet.make(policy()), asyncio.Event()
    begun = asyncio.Event()

    async def resize(args: int) -> int:
        begun.set()
        await go.wait()
        return args

    changes = FORGERIES[forgery](fleet)
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        if not live:
            await _control(fleet, relay, handle.token, **changes)
        async with fleet.working(worker_of(resize)):
            await begun.wait()
            if live:
                await _control(fleet, relay, handle.token, **changes)
                marker = await relay.submit("thumbs", "resize", 2)
                await marker.cancel()  # heard after the forgery
                await cancelled(marker)
            go.set()
            assert await handle.result() == 1


async def test_a_control_that_was_moved_to_another_subject_counts_for_neither_job() -> None:
    fleet, go = Fleet.make(policy()), asyncio.Event()

    async def resize(args: int) -> int:
        await go.wait()
        return args

    async with fleet.producer() as relay:
        handles = [await relay.submit("thumbs", "resize", n) for n in range(2)]
        first, second = [handle.token for handle in handles]
        await _control(fleet, relay, second, job=first.key.job_id, job_digest=bytes.fromhex(first.digest))
        async with fleet.working(worker_of(resize)):
            marker = await relay.submit("thumbs", "resize", 2)
            await marker.cancel()
            await cancelled(marker)
            go.set()
            assert [await handle.result() for handle in handles] == [0, 1]


async def test_rubbish_among_the_controls_hides_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancels, "PAGE", 4)
    fleet = Fleet.make(policy())
    worker, begun, _ = waiting()
    async with fleet.producer() as relay, fleet.transport("relay") as transport:
        handles = [await relay.submit("thumbs", "resize", n) for n in range(10)]
        for n, handle in enumerate(handles):
            junk = subjects.control(handle.key._replace(session=f"{n:024x}"))
            await transport.publish("CONTROL_thumbs", junk, b"rubbish" * n)
            await handle.cancel()
        async with fleet.working(worker):
            assert [await cancelled(handle) for handle in handles] == [""] * 10
    assert not begun.is_set()


async def test_what_was_not_heard_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancels, "LOOK_S", 0.05)
    fleet = Fleet.make(policy())
    worker, begun, _ = waiting()
    deaf = HearsNothing(fleet.bridge, fleet.bridge.cloud("azure"))
    async with fleet.producer() as relay, fleet.working(worker, transport=deaf):
        for _ in range(3):
            handle = await relay.submit("thumbs", "resize", 1)
            await begun.wait()
            begun.clear()
            await handle.cancel()
            await cancelled(handle)


async def test_a_cancel_that_was_asked_during_a_cut_is_read_when_it_has_healed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cancels, "LOOK_S", 0.05)
    fleet = Fleet.make(policy())
    worker, begun, _ = waiting()
    async with fleet.producer() as relay, fleet.working(worker):
        handle = await relay.submit("thumbs", "resize", 1)
        await begun.wait()
        await fleet.cut_link()
        await handle.cancel("in the dark")
        assert not handle.done()
        await fleet.heal_link()
        assert await cancelled(handle) == "in the dark"


async def test_a_stream_that_was_made_anew_is_read_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancels, "LOOK_S", 0.05)
    fleet = Fleet.make(policy())
    worker, begun, _ = waiting()
    deaf = HearsNothing(fleet.bridge, fleet.bridge.cloud("azure"))
    stream = fleet.bridge.stream("aws", "CONTROL_thumbs")
    async with fleet.producer() as relay, fleet.working(worker, transport=deaf):
        for anew in (False, False, True):
            handle = await relay.submit("thumbs", "resize", 1)
            await begun.wait()
            begun.clear()
            if anew:  # restored from a backup that has nothing
                stream.__init__(stream.config)  # type: ignore[misc]  # in the place where everyone holds it
            await handle.cancel()
            await cancelled(handle)


async def test_memory_of_cancels_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancels, "MAX_REMEMBERED", 5)
    fleet = Fleet.make(policy())
    done = list[int]()

    async def resize(args: int) -> int:
        done.append(args)
        return args

    async with fleet.producer() as relay:
        handles = [await relay.submit("thumbs", "resize", n) for n in range(8)]
        for handle in handles:
            await handle.cancel()
        async with fleet.working(worker_of(resize)):
            await until(lambda: len(fleet.held("azure", "RESULTS_thumbs")) == 8)
    assert sorted(done) == [0, 1, 2]  # the oldest are forgotten first


async def test_a_job_waits_for_the_first_look_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancels, "LOOK_S", 0.2)
    fleet = Fleet.make(policy(backoff=QueueBackoff(1, 1.0, 1, 0.0)))

    class Unread(MemoryTransport):
        async def read(self, stream: str, *args: Any, **more: Any) -> list[Message]:  # noqa: ANN401
            return await super().read("NO_SUCH_STREAM", *args, **more)

    async def resize(args: int) -> int:
        return args

    unread = Unread(fleet.bridge, fleet.bridge.cloud("azure"))
    async with fleet.producer() as relay, fleet.working(worker_of(resize), transport=unread):
        assert await (await relay.submit("thumbs", "resize", 1)).result() == 1
