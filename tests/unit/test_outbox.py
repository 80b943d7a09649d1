"""The outbox on disk: what it keeps, for whom, and what comes of it when the process does not."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import sys
import threading
from asyncio.subprocess import PIPE
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.errors import ConfigurationError, NotConnected, OutboxFull, QueueFull, TransportError
from bridge.memory import MemoryTransport
from bridge.signals.meter import NO_METER
from bridge.transport import PubAck
from producers.arrivals import KEYED
from producers.outboxfile import ENVIRONMENT, MAX_FILE_BYTES, FileCopies, keeping, open_file
from tests.fleet import Fleet, policy, until
from tests.unit.test_gaps import counting, jobs, producing, purge, soon, told

__all__ = ["soon"]  # a fixture


@pytest.fixture
def logs() -> Iterator[list[dict[str, object]]]:
    with capture_logs() as events:
        yield events  # type: ignore[misc]


def kept(path: Path) -> int:
    """How many jobs a file holds that nobody has open."""
    with sqlite3.connect(path) as database:
        (count,) = database.execute("SELECT count(*) FROM job").fetchone()
    database.close()
    return int(count)


def files(folder: Path) -> list[tuple[bytes, int]]:
    """What lies in a folder, and who may read it."""
    return [(each.read_bytes(), stat.S_IMODE(each.stat().st_mode)) for each in folder.iterdir()]


def outbox(fleet: Fleet, path: Path, name: str = "relay", limit: int = MAX_FILE_BYTES) -> FileCopies:
    return open_file(path, fleet.connection(name), limit=limit)


async def end(copies: FileCopies) -> None:
    """As if the process were killed: what was not synced is not written any more."""
    copies._writer.cancel()
    await asyncio.wait([copies._writer])
    copies._database.close()
    copies._thread.shutdown()


async def test_an_answer_amid_the_last_write_does_not_keep_it_from_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, path = Fleet.make(policy()), tmp_path / "outbox"
    copies = outbox(fleet, path)
    relay, writing, go_on = producing(fleet, NO_METER, copies), threading.Event(), threading.Event()
    first, second = [await relay.submit("thumbs", "resize", width) for width in (1, 2)]
    commit = copies._commit

    def slowly(*work: Sequence[Any]) -> None:
        writing.set()
        assert go_on.wait(20)
        commit(*work)

    monkeypatch.setattr(copies, "_commit", slowly)
    copies.forget(first.key)
    closing = asyncio.create_task(copies.close())
    assert await asyncio.to_thread(writing.wait, 20)
    copies.forget(second.key)
    go_on.set()
    await asyncio.wait_for(closing, 20)
    assert kept(path) == 0
    await relay.close()


class Silent(MemoryTransport):
    """A server that takes nothing, and does not say so."""

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
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_job_whose_process_ended_before_it_was_sent_is_sent_by_the_next_one(
    tmp_path: Path, logs: list[dict[str, object]]
) -> None:
    fleet, (worker, calls), path = Fleet.make(policy()), counting(), tmp_path / "outbox"
    copies = outbox(fleet, path)
    relay = producing(fleet, NO_METER, copies)
    relay._outbox._transport = Silent(fleet.bridge, fleet.bridge.cloud("aws"))
    async with relay:
        submitting = asyncio.create_task(relay.submit("thumbs", "resize", 7))
        await until(lambda: len(copies) == 1 and not copies._work.waiting)
        await until(lambda: copies._wake.is_set() is False)
        await copies.read(next(iter(copies)))  # the thread that writes is idle again
        await end(copies)
        submitting.cancel()
        await asyncio.wait([submitting])
        copies._closing = True  # nothing is left of it
    assert kept(path) == 1
    assert not fleet.held("aws", "JOBS_thumbs")
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay, fleet.working(worker):
        (handle,) = await relay.recovered()
        assert await handle.result() == 7
    assert calls == [7]
    assert kept(path) == 0
    assert [each["count"] for each in told(logs, "outbox_taken_over")] == [1]
    assert len(told(logs, "job_sent_after_restart")) == 1
    assert not told(logs, "job_missing"), "it was never stored, and so not lost"


async def test_what_is_stored_or_answered_meanwhile_is_not_sent_again_after_a_restart(
    tmp_path: Path, logs: list[dict[str, object]]
) -> None:
    fleet, (worker, calls), path = Fleet.make(policy()), counting(), tmp_path / "outbox"
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay:
        tokens = [(await relay.submit("thumbs", "resize", n, key=key)).token for n, key in ((1, None), (2, "order-2"))]
    assert kept(path) == 2
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay:
        handles = await relay.recovered()
        assert [handle.token for handle in handles] == tokens
        await until(lambda: all(copy.stored for copy in relay._copies))
    async with fleet.working(worker):
        await until(lambda: len(fleet.held("aws", "RESULTS_thumbs")) == 2)
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay:
        assert [await handle.result() for handle in await relay.recovered()] == [1, 2]
    assert sorted(calls) == [1, 2]
    assert kept(path) == 0
    assert not told(logs, "job_sent_after_restart")
    assert not told(logs, "job_missing")


async def test_what_was_lost_while_no_process_ran_is_sent_again(tmp_path: Path) -> None:
    fleet, (worker, calls), path = Fleet.make(policy()), counting(), tmp_path / "outbox"
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay:
        handles = await relay.submit_many("thumbs", "resize", range(50))
        assert len(handles) == 50
    before = fleet.held("aws", "JOBS_thumbs")
    purge(jobs(fleet))
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay, fleet.working(worker):
        assert [await handle.result() for handle in await relay.recovered()] == list(range(50))
    assert sorted(calls) == list(range(50))
    assert before


async def test_what_is_too_late_is_neither_sent_nor_kept(tmp_path: Path) -> None:
    fleet, path = Fleet.make(policy()), tmp_path / "outbox"
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay:
        await relay.submit("thumbs", "resize", 1, deadline=0.01)
        purge(jobs(fleet))
    await asyncio.sleep(0.02)  # the deadline is by the clock of the machine
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay:
        assert await relay.recovered() == []
    assert kept(path) == 0


async def test_it_refuses_what_it_cannot_keep_before_it_is_sent(tmp_path: Path) -> None:
    fleet, path = Fleet.make(policy()), tmp_path / "outbox"
    async with producing(fleet, NO_METER, outbox(fleet, path, limit=5000)) as relay:
        outcomes = await relay.submit_many("thumbs", "resize", range(5))
        stored = len(fleet.held("aws", "JOBS_thumbs"))
        refused = [each for each in outcomes if isinstance(each, OutboxFull)]
        assert 0 < stored == 5 - len(refused) < 5
        with pytest.raises(QueueFull, match=r"nothing was sent"):
            await relay.submit("thumbs", "resize", 6)


async def test_a_disk_that_takes_nothing_is_an_error_and_nothing_is_sent(tmp_path: Path) -> None:
    fleet, (worker, _), path = Fleet.make(policy()), counting(), tmp_path / "outbox"
    copies = outbox(fleet, path)
    async with producing(fleet, NO_METER, copies) as relay, fleet.working(worker):
        copies._database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(TransportError, match=r"cannot be written .*full.*nothing was sent"):
            await relay.submit("thumbs", "resize", bytes(100_000))
        assert len(copies) == 0
        copies._database.execute("PRAGMA max_page_count = 1000000")
        assert await (await relay.submit("thumbs", "resize", 2)).result() == 2, "and it goes on afterwards"


async def test_what_is_submitted_once_it_is_closed_is_refused(tmp_path: Path) -> None:
    fleet = Fleet.make(policy())
    copies = outbox(fleet, tmp_path / "outbox")
    async with producing(fleet, NO_METER, copies) as relay:
        await copies.close()
        with pytest.raises(NotConnected, match="nothing was sent"):
            await relay.submit("thumbs", "resize", 1)
    assert not fleet.held("aws", "JOBS_thumbs")


async def test_one_file_is_one_process_s_and_one_identity_s(tmp_path: Path) -> None:
    fleet, path = Fleet.make(policy()), tmp_path / "outbox"
    first = outbox(fleet, path)
    with pytest.raises(ConfigurationError, match=r"another process uses it"):
        outbox(fleet, path)
    await first.close()
    with pytest.raises(ConfigurationError, match=r"of relay in bridge acme; name a file of other's own"):
        outbox(fleet, path, "other")
    await outbox(fleet, path).close()


async def test_a_second_producer_of_a_process_that_is_refused_lets_no_other_process_in(tmp_path: Path) -> None:
    fleet, path = Fleet.make(policy()), tmp_path / "outbox"
    first = outbox(fleet, path)
    with pytest.raises(ConfigurationError, match=r"another process uses it"):
        outbox(fleet, path)
    read = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT * FROM owner')"
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", read, path, stderr=PIPE)
    _, said = await other.communicate()
    assert b"database is locked" in said
    await first.close()


async def test_keyed_jobs_that_were_left_are_heard_together(tmp_path: Path) -> None:
    fleet, (worker, _), path = Fleet.make(policy()), counting(), tmp_path / "outbox"
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay:
        for n in range(5):
            await relay.submit("thumbs", "resize", n, key=f"order-{n}")
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay, fleet.working(worker):
        await until(lambda: len(relay._copies) == 0)
        assert relay._arrivals._listening == {("thumbs", KEYED)}
    assert kept(path) == 0


async def test_jobs_of_a_queue_that_was_taken_away_wait_in_the_file_and_hold_up_no_other(
    tmp_path: Path, logs: list[dict[str, object]]
) -> None:
    fleet, (worker, calls), path = Fleet.make(policy()), counting(), tmp_path / "outbox"
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay:
        await relay.submit("thumbs", "resize", 1)
    gone = fleet.connection("relay").model_copy(update={"queues": {}})
    without = open_file(path, gone)
    assert without.recovered == ()
    await without.close()
    assert [each["count"] for each in told(logs, "outbox_has_jobs_of_no_queue")] == [1]
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay, fleet.working(worker):
        assert [await handle.result() for handle in await relay.recovered()] == [1]
    assert calls == [1]


async def test_a_disk_that_cannot_be_read_does_not_end_the_care_for_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, object]]
) -> None:
    fleet, (worker, calls), path = Fleet.make(policy()), counting(), tmp_path / "outbox"
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        with monkeypatch.context() as broken:
            broken.setattr(FileCopies, "_select", unreadable)
            purge(jobs(fleet))
            await until(lambda: bool(told(logs, "resend_failed")))
        async with fleet.working(worker):
            assert await handle.result() == 1
    assert calls == [1]


def unreadable(*_: object) -> bytes:
    raise sqlite3.OperationalError("disk I/O error")


async def test_what_is_no_outbox_of_ours_alone_is_refused(tmp_path: Path) -> None:
    fleet, path = Fleet.make(policy()), tmp_path / "outbox"
    with pytest.raises(ConfigurationError, match=r"No such file"):
        outbox(fleet, tmp_path / "nowhere" / "outbox")
    await outbox(fleet, path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match=r"mode 0640 lets others in"):
        outbox(fleet, path)
    path.write_bytes(b"rubbish " * 1000)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"not a database.*move it away"):
        outbox(fleet, path)
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE another (x)")
    database.close()
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"no outbox"):
        outbox(fleet, path)


async def test_it_holds_sealed_bytes_alone(tmp_path: Path) -> None:
    fleet, path, canary = Fleet.make(policy()), tmp_path / "outbox", "canary-2718281828"
    async with producing(fleet, NO_METER, outbox(fleet, path)) as relay:
        await relay.submit("thumbs", "resize", canary, key=canary)
        held = files(tmp_path)
    assert any(b"resize" in data for data, _ in held)
    assert not any(canary.encode() in data for data, _ in held)
    assert {mode for _, mode in held} == {0o600}


async def test_the_environment_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, path = Fleet.make(policy()), tmp_path / "outbox"
    monkeypatch.setenv(ENVIRONMENT, str(path))
    async with keeping(None, fleet.connection("relay"), NO_METER) as copies:
        assert isinstance(copies, FileCopies)
    async with keeping("", fleet.connection("relay"), NO_METER) as copies:
        assert not isinstance(copies, FileCopies), "an agent's, whatever the environment says"
    monkeypatch.delenv(ENVIRONMENT)
    async with keeping(None, fleet.connection("relay"), NO_METER) as copies:
        assert not isinstance(copies, FileCopies)
    assert path.is_file()
