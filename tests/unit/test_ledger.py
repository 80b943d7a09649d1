"""The worker's ledger: what is answered never runs again, and what cannot be written is not begun."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridge.clock import now_ms
from bridge.envelope import Draft
from bridge.errors import ConfigurationError, JobFailed, KeyConflict, UsageError
from bridge.job import INLINE_LIMIT, Content
from bridge.memory.consumer import Consumer
from bridge.memory.store import Stored
from bridge.transport import Delivery, Message
from consumers import Job, Reject, Retry, Snooze, Worker, ledger
from consumers.execute import TROUBLE_DELAY_S
from consumers.ledger import LEAST_LIMIT, OVERHEAD
from consumers.ledgerfile import FILE
from producers import Handle, Producer
from tests.fleet import Fleet, policy, until
from tests.unit.test_ledger_file import filled, opened
from tests.unit.test_replays import letters, operating

JOBS, RESULTS, DEAD, REFUSED = (f"{name}_thumbs" for name in ("JOBS", "RESULTS", "DEAD", "REFUSED"))


def counting(data: Path | None, **more: Any) -> tuple[Worker, list[int]]:  # noqa: ANN401  # of Worker
    """A worker with a ledger, and what it ran."""
    worker, calls = Worker(data=data, **more), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> int:
        calls.append(width)
        return width + 1

    return worker, calls


async def submitted(fleet: Fleet, relay: Producer, width: int = 1) -> tuple[Handle[Any], Message]:
    handle = await relay.submit("thumbs", "resize", width)
    return handle, fleet.held("aws", JOBS)[-1]


async def done(fleet: Fleet) -> None:
    await until(lambda: not fleet.held("aws", JOBS))


def wipe(fleet: Fleet, *names: str) -> None:
    """What a broker can do: forget what it stored, in both clouds."""
    for cloud in ("aws", "azure"):
        for name in names:
            if (stream := fleet.bridge.cloud(cloud).streams.get(name)) is not None:
                for stored in list(stream.after(0)):
                    stream.remove(stored.sequence)


def rows(data: Path) -> list[tuple[Any, ...]]:
    """What a ledger that nobody keeps open holds."""
    with contextlib.closing(sqlite3.connect(data / FILE)) as db:
        return db.execute("SELECT job, attempt, result FROM jobs ORDER BY job").fetchall()


def damage(data: Path) -> None:
    """Make rubbish of all that a ledger has written, where SQLite will read it next."""
    for path in (data / FILE, data / f"{FILE}-wal"):
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(100)
            file.write(b"\xff" * (size - 100))


# --- replays -----------------------------------------------------------------------------------------


async def test_a_replay_that_is_passed_off_as_new_is_answered_by_what_stands(tmp_path: Path) -> None:
    fleet = Fleet.make(policy())
    worker, calls = counting(tmp_path)
    async with fleet.transport("relay") as broker, fleet.producer() as relay, fleet.working(worker):
        handle, job = await submitted(fleet, relay)
        assert await handle.result(int) == 2
        before = fleet.held("azure", RESULTS)
        await done(fleet)
        await broker.publish(JOBS, job.subject, job.data)
        await done(fleet)
    assert calls == [1]
    assert fleet.held("azure", RESULTS) == before
    assert not fleet.held("azure", DEAD)


async def test_a_result_that_is_gone_is_published_again_byte_for_byte_by_a_later_process(tmp_path: Path) -> None:
    fleet = Fleet.make(policy())
    async with fleet.transport("relay") as broker, fleet.producer() as relay:
        worker, first = counting(tmp_path)
        async with fleet.working(worker):
            handle, job = await submitted(fleet, relay)
            assert await handle.result(int) == 2
            await done(fleet)
        (before,) = fleet.held("azure", RESULTS)
        wipe(fleet, RESULTS)
        worker, second = counting(tmp_path)
        async with fleet.working(worker):
            await broker.publish(JOBS, job.subject, job.data)
            await done(fleet)
        (after,) = fleet.held("azure", RESULTS)
        assert await (await relay.attach(handle.token)).result(int) == 2
    assert (after.subject, after.data) == (before.subject, before.data)
    assert (first, second) == ([1], [])


@pytest.mark.parametrize("how", ["fails", "expires", "cancelled"])
async def test_what_ended_badly_is_remembered_as_well(how: str, tmp_path: Path) -> None:
    fleet = Fleet.make(policy(max_attempts=1))
    worker, calls = Worker(data=tmp_path), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> None:
        calls.append(args)
        raise Reject("no")

    async with fleet.transport("relay") as broker, fleet.producer() as relay:
        deadline = 0.001 if how == "expires" else 60
        handle = await relay.submit("thumbs", "resize", 1, deadline=deadline)
        (job,) = fleet.held("aws", JOBS)
        if how == "cancelled":
            await handle.cancel("no longer wanted")
        elif how == "expires":
            await asyncio.sleep(0.01)
        async with fleet.working(worker):
            await done(fleet)
            (before,) = fleet.held("azure", RESULTS)
            wipe(fleet, RESULTS, "CONTROL_thumbs")
            await broker.publish(JOBS, job.subject, job.data)
            await done(fleet)
            assert [message.data for message in fleet.held("azure", RESULTS)] == [before.data]
    assert len(calls) == (how == "fails")


async def test_a_job_that_goes_on_failing_has_no_more_attempts_for_being_replayed(tmp_path: Path) -> None:
    fleet = Fleet.make(policy(max_attempts=3))
    worker, calls = Worker(data=tmp_path), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> None:
        calls.append(job.attempt)
        raise Retry(after=3600)

    async with fleet.transport("relay") as broker, fleet.producer() as relay, fleet.working(worker):
        handle, job = await submitted(fleet, relay)
        for n in range(3):
            await until(partial(lambda n: len(calls) == n + 1 and not worker.busy, n))
            wipe(fleet, JOBS, "STARTS_thumbs", RESULTS)
            await broker.publish(JOBS, job.subject, job.data)
        with pytest.raises(JobFailed, match="Retry"):
            await handle.result()
    assert calls == [1, 2, 3]


async def test_a_snooze_costs_no_attempt_here_either(tmp_path: Path) -> None:
    fleet = Fleet.make(policy(max_attempts=2))
    worker, calls = Worker(data=tmp_path), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> int:
        calls.append(job.attempt)
        if len(calls) < 4:
            raise Snooze(after=0)
        return job.attempt

    async with fleet.producer() as relay, fleet.working(worker):
        handle, _ = await submitted(fleet, relay)
        assert await handle.result(int) <= 2
    assert len(calls) == 4


async def test_what_runs_is_not_begun_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease knows what it holds of one consumer, and a broker may deliver a job by another one too."""
    fleet = Fleet.make(policy())
    worker, calls, go = Worker(data=tmp_path), list[int](), asyncio.Event()
    put_off, honest, postpone = list[float | None](), Consumer._delivery, Consumer.postpone

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> int:
        calls.append(width)
        await go.wait()
        return width

    async with fleet.producer() as relay, fleet.working(worker):
        handle, job = await submitted(fleet, relay)
        await until(lambda: bool(calls))

        def lying(self: Consumer, message: Stored, delivered: int) -> Delivery:
            return replace(honest(self, message, delivered), message=job)

        def noting(self: Consumer, sequence: int, seconds: float | None) -> None:
            put_off.append(seconds)
            postpone(self, sequence, seconds)

        monkeypatch.setattr(Consumer, "_delivery", lying)
        monkeypatch.setattr(Consumer, "postpone", noting)
        await relay.submit("thumbs", "resize", 2, priority="low")
        await until(lambda: TROUBLE_DELAY_S in put_off)
        go.set()
        assert await handle.result(int) == 1
    assert calls == [1]


# --- other bytes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["answered", "begun"])
async def test_h32_another_job_of_the_same_id_is_refused(when: str, tmp_path: Path) -> None:
    fleet = Fleet.make(policy())
    worker, calls = Worker(data=tmp_path), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> int:
        calls.append(width)
        if when == "begun":
            raise Snooze(3600)
        return width

    async with fleet.transport("relay") as broker, fleet.producer() as relay, fleet.working(worker):
        _, job = await submitted(fleet, relay)
        await until(lambda: bool(calls) and not worker.busy)
        wipe(fleet, JOBS)
        draft = Draft(
            fleet.opener("bunny").authenticate(job.data, now_ms()).core,
            (fleet.trust.peer("bunny").kem_key(now_ms()),),
            Content("application/json", b"2"),
        )
        await broker.publish(JOBS, job.subject, fleet.sealer("relay").seal(draft, now_ms()).data)
        await until(lambda: bool(fleet.held("azure", REFUSED)))
        await done(fleet)
    assert calls == [1]
    assert [message.headers["Bunny-Cause"] for message in fleet.held("azure", REFUSED)] == ["IdReused"]


async def test_a_key_with_the_same_arguments_is_the_same_job_and_with_others_it_is_told(tmp_path: Path) -> None:
    fleet = Fleet.make(policy())
    worker, calls = counting(tmp_path)
    async with fleet.working(worker):
        async with fleet.producer() as relay:
            assert await (await relay.submit("thumbs", "resize", 1, key="order-42")).result(int) == 2
            await done(fleet)
        wipe(fleet, RESULTS)
        async with fleet.producer() as relay:  # which knows nothing, as the broker wants it
            again = await relay.submit("thumbs", "resize", 1, key="order-42")
            assert await again.result(int) == 2
            await done(fleet)
        wipe(fleet, RESULTS)
        async with fleet.producer() as relay:
            other = await relay.submit("thumbs", "resize", 7, key="order-42")
            with pytest.raises(KeyConflict):
                await other.result(int)
            await done(fleet)
    assert calls == [1]


async def test_a_later_run_of_a_key_and_a_replay_are_jobs_of_their_own(tmp_path: Path) -> None:
    fleet = Fleet.make(policy())
    worker, runs = Worker(data=tmp_path), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(args: None, job: Job) -> int:
        runs.append(job.generation)
        if job.generation < 2:
            raise Reject("no such photo", type="NoPhoto")
        return job.generation

    async with fleet.producer() as relay, fleet.working(worker), operating(fleet) as boss:
        first = await relay.submit("thumbs", "resize", None, key="order-42")
        with pytest.raises(JobFailed):
            await first.result()
        await done(fleet)
        second = await relay.submit("thumbs", "resize", None, key="order-42", retry_failed=True)
        with pytest.raises(JobFailed):
            await second.result()
        await done(fleet)
        (letter,) = await letters(boss)
        assert await (await relay.attach(await boss.replay(letter))).result() == 2
        await until(lambda: not fleet.held("azure", "REPLAY_thumbs"))
    assert runs == [0, 1, 2]
    assert [(name.rpartition(".")[2], attempt) for name, attempt, _ in rows(tmp_path)] == [("0", 1), ("1", 1), ("2", 1)]


# --- when it cannot be relied on ---------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Milliseconds by which the ledger's clock is ahead; its looks follow each other fast."""
    ahead = [0]
    monkeypatch.setattr(ledger, "TICK_S", 0.01)
    monkeypatch.setattr(ledger, "now_ms", lambda: now_ms() + ahead[0])
    return ahead


async def test_h37_a_full_ledger_takes_no_work_and_works_again_once_old_jobs_are_over(
    tmp_path: Path, quick: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet.make(policy(max_payload=INLINE_LIMIT))
    worker, calls = Worker(data=tmp_path, ledger_limit=LEAST_LIMIT, concurrency=2, prefetch=4), list[int]()
    handed_back, postpone = list[float | None](), Consumer.postpone

    def noting(self: Consumer, sequence: int, seconds: float | None) -> None:
        handed_back.append(seconds)
        postpone(self, sequence, seconds)

    monkeypatch.setattr(Consumer, "postpone", noting)

    @worker.handler("thumbs", "resize")
    async def resize(n: int) -> bytes:
        calls.append(n)
        return bytes(INLINE_LIMIT)

    with structlog.testing.capture_logs() as logs:
        async with fleet.producer() as relay, fleet.working(worker):
            handles = [await relay.submit("thumbs", "resize", n) for n in range(100)]
            await until(lambda: worker.refusing == "full" and not worker.busy)
            ran = len(calls)
            assert LEAST_LIMIT // (INLINE_LIMIT + OVERHEAD) - 3 <= ran < LEAST_LIMIT // INLINE_LIMIT
            assert len(fleet.held("aws", JOBS)) == 100 - ran  # nothing of what is not begun is acked
            assert len(fleet.held("azure", RESULTS)) == ran  # and what was begun found room for its answer
            for _ in range(1000):  # in which a worker that pulls what it hands back would turn over and over
                await asyncio.sleep(0)
            assert handed_back.count(0) <= 6  # what it had asked for before
            for handle in handles[:3]:
                assert len(await handle.result(bytes)) == INLINE_LIMIT
            quick[0] = 2 * 86_400_000
            await until(lambda: len(calls) == 100 or (worker.refusing == "full" and len(calls) > ran))
            while len(calls) < 100:
                quick[0] += 2 * 86_400_000
                await asyncio.sleep(0.01)
            await done(fleet)
    assert sorted(calls) == list(range(100))
    assert {"ledger_refuses_work", "ledger_works_again"} <= {entry["event"] for entry in logs}
    assert (tmp_path / FILE).stat().st_size <= LEAST_LIMIT


async def test_what_was_answered_is_still_acked_while_it_is_full(tmp_path: Path, quick: list[int]) -> None:
    fleet = Fleet.make(policy())
    worker, calls = counting(tmp_path)
    async with fleet.transport("relay") as broker, fleet.producer() as relay, fleet.working(worker):
        handle, job = await submitted(fleet, relay)
        await handle.result(int)
        await done(fleet)
        worker._ledger._refuse("full", "a test says so")  # type: ignore[attr-defined]
        worker._ledger._file.limit = 0  # type: ignore[attr-defined]
        wipe(fleet, RESULTS)
        await broker.publish(JOBS, job.subject, job.data)
        await done(fleet)
        assert len(fleet.held("azure", RESULTS)) == 1
        assert worker.refusing == "full"
    assert calls == [1]


@contextlib.contextmanager
def disk_full(data: Path) -> Iterator[None]:
    """Let the system refuse every byte by which a file would become larger than the ledger's log is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((data / f"{FILE}-wal").stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_h37_what_cannot_be_written_down_does_not_start(tmp_path: Path, quick: list[int]) -> None:
    fleet = Fleet.make(policy())
    worker, calls = counting(tmp_path)
    async with fleet.producer() as relay, fleet.working(worker):
        await (await relay.submit("thumbs", "resize", 0)).result()
        await done(fleet)
        with disk_full(tmp_path):
            handle = await relay.submit("thumbs", "resize", 1)
            await until(lambda: worker.refusing == "disk" and not worker.busy)
            assert calls == [0]
            assert len(fleet.held("aws", JOBS)) == 1
        assert await handle.result(int) == 2
    assert calls == [0, 1]


async def test_h37_a_disk_that_is_full_amid_the_work_delays_it_and_loses_nothing(
    tmp_path: Path, quick: list[int]
) -> None:
    fleet, disk = Fleet.make(policy()), contextlib.ExitStack()
    worker, calls = Worker(data=tmp_path), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> int:
        calls.append(width)
        if width == 1:
            disk.enter_context(disk_full(tmp_path))
        return width

    with disk:
        async with fleet.producer() as relay, fleet.working(worker):
            first = await relay.submit("thumbs", "resize", 1)
            await until(lambda: worker.refusing == "disk")
            second = await relay.submit("thumbs", "resize", 2)
            assert not fleet.held("azure", RESULTS)
            assert len(fleet.held("aws", JOBS)) == 2
            disk.close()
            assert await first.result(int) == 1
            assert await second.result(int) == 2
            assert worker.refusing == ""
    assert calls == [1, 2]
    assert [result is not None for _, _, result in rows(tmp_path)] == [True, True]


async def test_h37_damage_that_is_met_while_it_runs_ends_the_worker_and_answers_what_was_done(tmp_path: Path) -> None:
    fleet = Fleet.make(policy())
    worker, calls = Worker(data=tmp_path), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> int:
        calls.append(width)
        damage(tmp_path)
        worker._ledger._file._db.execute("PRAGMA shrink_memory")  # type: ignore[attr-defined]
        return width

    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        other = await relay.submit("thumbs", "resize", 2)
        with pytest.raises(ConfigurationError, match="damaged"):
            async with fleet.working(worker) as serving:
                await asyncio.wait([serving])
        assert await handle.result(int) == 1
        assert not other.done()
    assert calls == [1]


@pytest.mark.parametrize("how", ["cut short", "rubbish", "holes", "text"])
async def test_h37_a_damaged_ledger_ends_a_worker_before_it_takes_anything(how: str, tmp_path: Path) -> None:
    path = filled(tmp_path)
    whole = path.read_bytes()
    worse = {
        "cut short": whole[: len(whole) // 2],
        "rubbish": bytes(len(whole)),
        "holes": whole[:100_000] + b"\xff" * 10_000 + whole[110_000:],
        "text": b"not a database at all, but a text of some length\n" * 100,
    }
    path.write_bytes(worse[how])
    fleet = Fleet.make(policy())
    worker, calls = counting(tmp_path)
    async with fleet.producer() as relay:
        await relay.submit("thumbs", "resize", 1)
        with pytest.raises(ConfigurationError) as error:
            async with fleet.working(worker):
                pass
    assert str(path) in str(error.value)
    assert "move it away" in str(error.value) or "another program's" in str(error.value)
    assert "\n" not in str(error.value)
    assert calls == []
    assert path.read_bytes() == worse[how]  # evidence is left as it was found


async def test_two_workers_do_not_share_a_folder(tmp_path: Path) -> None:
    fleet = Fleet.make(policy())
    async with fleet.working(counting(tmp_path)[0]):
        with pytest.raises(ConfigurationError, match="a data folder of its own"):
            async with fleet.working(counting(tmp_path)[0]):
                pass
    with opened(tmp_path):
        pass


def test_what_a_worker_is_given_wrongly_is_told_before_it_runs() -> None:
    with pytest.raises(UsageError, match="ledger_limit=1; pass a whole number from 16777216"):
        Worker(ledger_limit=1)


async def test_a_worker_without_a_folder_says_once_that_it_remembers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet.make(policy())
    with structlog.testing.capture_logs() as logs:
        async with fleet.working(counting(None)[0]):
            pass
    assert [entry["event"] for entry in logs].count("ledger_off") == 1
    monkeypatch.setenv("BUNNY_DATA", str(tmp_path / "data"))
    with structlog.testing.capture_logs() as logs:
        async with fleet.working(counting(None)[0]):
            assert (tmp_path / "data" / FILE).exists()
    assert "ledger_off" not in [entry["event"] for entry in logs]
