"""Progress: what a handler tells of itself, from its thread or coroutine to who waits for the job."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Draft
from bridge.job import JobToken, Step, encode
from bridge.memory import MemoryTransport
from consumers import Job, Worker
from consumers.progress import INTERVAL_S
from producers import Progress
from producers.events import WAITING
from tests.fleet import Fleet, policy, until


def worker_of(function: Any, **limits: Any) -> Worker:  # noqa: ANN401
    """A worker of one handler."""
    worker = Worker()
    worker.handler("thumbs", "resize", **limits)(function)
    return worker


def is_event(subject: str) -> bool:
    """And no sign of life that the worker sends to itself."""
    return subject.startswith("events.")


class Tells(MemoryTransport):
    """Counts what is told of jobs, and when."""

    def __init__(self, *args: Any) -> None:  # noqa: ANN401
        super().__init__(*args)
        self.times: list[float] = []

    async def tell(self, subject: str, data: bytes) -> None:
        if is_event(subject):
            self.times.append(asyncio.get_running_loop().time())
        await super().tell(subject, data)


def tells(fleet: Fleet) -> Tells:
    return Tells(fleet.bridge, fleet.bridge.cloud("azure"))


async def settled() -> None:
    """What was told in memory has been heard."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("plain", [False, True], ids=["coroutine", "thread"])
async def test_what_a_handler_tells_is_heard_until_the_job_ends(plain: bool) -> None:
    fleet, heard = Fleet.make(policy()), threading.Event()

    async def coroutine(args: None, job: Job) -> str:
        while not heard.is_set():
            await job.progress(0.25, "pages")
            await asyncio.sleep(0.01)
        return "done"

    def thread(args: None, job: Job) -> str:
        while not heard.wait(0.01):
            job.progress(0.25, "pages")
        return "done"

    async with fleet.producer() as relay, fleet.working(worker_of(thread if plain else coroutine)):
        handle = await relay.submit("thumbs", "resize", None)
        seen = []
        async for progress in handle.events():
            seen.append(progress)
            heard.set()
        assert handle.done()
        assert await handle.result() == "done"
    assert {(each.fraction, each.text, each.attempt) for each in seen} == {(0.25, "pages", 1)}
    assert abs(seen[0].at - datetime.now(UTC)) < timedelta(minutes=1)
    assert "pages" not in repr(seen[0])


async def test_of_many_words_the_last_is_sent_and_no_more_than_some_a_second() -> None:
    fleet, go = Fleet.make(policy()), asyncio.Event()
    transport = tells(fleet)

    async def resize(args: None, job: Job) -> None:
        for n in range(1001):
            await job.progress(n / 1000)
        await go.wait()

    async with fleet.producer() as relay, fleet.working(worker_of(resize), transport=transport):
        handle = await relay.submit("thumbs", "resize", None)
        last = 0.0
        async for progress in handle.events():
            assert progress.fraction > last or last == 0
            last = progress.fraction
            if last == 1:
                go.set()
        await handle.result()
    assert last == 1
    assert len(transport.times) < 200
    gaps = [after - before for before, after in zip(transport.times, transport.times[1:], strict=False)]
    assert min(gaps) >= INTERVAL_S


async def test_the_last_word_before_the_end_is_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.progress.INTERVAL_S", 3600.0)
    fleet = Fleet.make(policy())
    transport = tells(fleet)

    async def resize(args: None, job: Job) -> None:
        job.progress(0.5)
        await asyncio.sleep(0)
        await until(lambda: len(transport.times) == 1)
        job.progress(1.0)

    async with fleet.producer() as relay, fleet.working(worker_of(resize), transport=transport):
        await (await relay.submit("thumbs", "resize", None)).result()
        await until(lambda: len(transport.times) == 2)


async def test_what_is_told_is_sealed_and_stays_within_bounds() -> None:
    fleet, heard = Fleet.make(policy()), asyncio.Event()
    said = [(-1.0, "a" * 500), (2.0, "b"), (math.nan, "c"), (0.5, "Blåbär")]
    seen: dict[str, float] = {}
    raw: list[bytes] = []

    async def resize(args: None, job: Job) -> None:
        while len(seen) < len(said):
            for fraction, text in said:
                await job.progress(fraction, text)
                await asyncio.sleep(1.1 * INTERVAL_S)

    async def overheard(message: Any) -> None:  # noqa: ANN401
        raw.append(message.data)

    async with fleet.transport("relay") as spy, fleet.producer() as relay, fleet.working(worker_of(resize)):
        await spy.subscribe("events.>", overheard)
        handle = await relay.submit("thumbs", "resize", None)
        async for progress in handle.events():
            seen[progress.text] = progress.fraction
        heard.set()
        await handle.result()
    assert seen == {"a" * 200: 0.0, "b": 1.0, "c": 0.0, "Blåbär": 0.5}
    assert raw
    assert not any("Blåbär".encode() in each or b"aaaa" in each for each in raw)


async def test_a_thread_that_nobody_waits_for_any_more_is_not_heard() -> None:
    fleet, left, again = Fleet.make(policy(max_attempts=1)), threading.Event(), threading.Event()
    transport = tells(fleet)

    def resize(args: None, job: Job) -> None:
        assert left.wait(10)
        for _ in range(100):
            job.progress(0.5)
        again.set()

    async with fleet.producer() as relay, fleet.working(worker_of(resize, timeout=0.05), transport=transport):
        handle = await relay.submit("thumbs", "resize", None)
        with contextlib.suppress(Exception):
            await handle.result()
        left.set()
        await until(again.is_set)
    assert not transport.times


async def test_an_event_that_cannot_be_sent_harms_no_job() -> None:
    fleet = Fleet.make(policy())

    class Broken(MemoryTransport):
        async def tell(self, subject: str, data: bytes) -> None:
            if is_event(subject):
                raise RuntimeError("a bug")
            await super().tell(subject, data)

    async def resize(args: None, job: Job) -> str:
        await job.progress(0.5)
        await asyncio.sleep(0.05)
        return "done"

    broken = Broken(fleet.bridge, fleet.bridge.cloud("azure"))
    async with fleet.producer() as relay, fleet.working(worker_of(resize), transport=broken):
        for _ in range(3):
            handle = await relay.submit("thumbs", "resize", None)
            assert [each async for each in handle.events()] == []
            assert await handle.result() == "done"


async def test_a_job_made_by_a_test_tells_nobody() -> None:
    now = datetime.now(UTC)
    job = Job("thumbs", "resize", "s.1", 0, "relay", now, now, 1, 5)
    await job.progress(0.5, "pages")
    assert not job.cancelled
    job.raise_if_cancelled()


async def test_events_of_a_job_that_is_done_end_at_once_and_a_reader_may_leave() -> None:
    fleet, left = Fleet.make(policy()), asyncio.Event()

    async def resize(args: None, job: Job) -> None:
        while not left.is_set():
            await job.progress(0.5)
            await asyncio.sleep(0.01)

    through = fleet.transport("relay")
    async with fleet.producer(transport=through) as relay, fleet.working(worker_of(resize)):
        handle = await relay.submit("thumbs", "resize", None)
        subscribed = len(through._endings)
        async with contextlib.aclosing(handle.events()) as events:
            async for _ in events:
                break
            assert len(through._endings) == subscribed + 1
        assert len(through._endings) == subscribed
        left.set()
        await handle.result()
        assert [each async for each in handle.events()] == []
        assert len(through._endings) == subscribed


# --- what arrives ------------------------------------------------------------------------------------


async def _event(fleet: Fleet, token: JobToken, step: object, signer: str = "bunny", **changes: Any) -> None:  # noqa: ANN401
    """Tell a producer something about its job."""
    core = Core(
        type="event",
        queue=token.queue,
        kind="resize",
        job=token.key.job_id,
        generation=0,
        sender=signer,
        sender_kid=b"",
        recipient=token.producer,
        issued=now_ms(),
        expires=now_ms() + 60_000,
        job_digest=bytes.fromhex(token.digest),
        attempt=1,
        worker="pod-1",
    )
    core = replace(core, **changes)
    recipients = (fleet.trust.peer(core.recipient).kem_key(now_ms()),)
    data = fleet.sealer(signer).seal(Draft(core, recipients, encode(step)), now_ms()).data
    async with fleet.transport("bunny") as transport:
        await transport.tell(subjects.event(token.key), data)


HALF = Step(0.5, "half")


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        (HALF, {"signer": "other", "recipient": "bunny"}),
        (HALF, {"signer": "relay"}),
        (HALF, {"job_digest": bytes(32)}),
        (HALF, {"recipient": "other"}),
        pytest.param(HALF, {"expires": now_ms() - 1000, "issued": now_ms() - 2000}, id="expired"),
        pytest.param(HALF, {"issued": now_ms() + 86_400_000, "expires": now_ms() + 86_500_000}, id="of tomorrow"),
        (Step(1.5, "more"), {}),
        ({"fraction": "0.5", "text": "x"}, {}),
        ("rubbish", {}),
    ],
    ids=str,
)
async def test_what_is_no_event_of_its_workers_is_ignored(step: object, changes: dict[str, Any]) -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", None)
        events = handle.events()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await _event(fleet, handle.token, step, **changes)
        await _event(fleet, handle.token, Step(0.75, "true"))
        assert (await first).text == "true"
        await events.aclose()


async def test_an_event_that_was_overtaken_is_dropped() -> None:
    fleet, now = Fleet.make(policy()), now_ms()
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", None)
        events = handle.events()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        for attempt, at, text in [(2, 10, "a"), (2, 5, "older"), (1, 20, "an attempt before"), (2, 10, "twice")]:
            await _event(fleet, handle.token, Step(0.1, text), attempt=attempt, issued=now + at)
        await _event(fleet, handle.token, Step(0.2, "b"), attempt=2, issued=now + 11)
        assert [(await first).text, (await anext(events)).text] == ["a", "b"]
        await events.aclose()


async def test_a_slow_reader_misses_the_oldest() -> None:
    fleet, now = Fleet.make(policy()), now_ms()
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", None)
        events = handle.events()
        first: asyncio.Future[Progress] = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await _event(fleet, handle.token, Step(0.0, "0"), issued=now)
        assert (await first).text == "0"
        for n in range(1, 2 * WAITING + 1):
            await _event(fleet, handle.token, Step(0.0, str(n)), issued=now + n)
        await settled()
        assert [(await anext(events)).text for _ in range(WAITING)] == [str(WAITING + n + 1) for n in range(WAITING)]
        await events.aclose()
