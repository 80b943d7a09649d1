"""Leases under handlers that let nothing else of their process run, and the thread that keeps them, cut and killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridge import observe, subjects
from bridge.devserver import Bridge, monitor
from bridge.devserver.link import Relay
from bridge.errors import NotConnected, TransportError
from bridge.identity import CA_FILE
from bridge.jetstream import JetStreamTransport, connect
from bridge.member import Member
from bridge.transport import Delivery, Transport
from consumers import Job, Worker
from consumers.leasethread import Connect
from producers import Producer
from tests import isolated
from tests.fleet import until
from tests.support import POLICY, connected, running_bridge

ROOT = Path(__file__).resolve().parents[2]
SHORT = POLICY.replace("    kinds: [resize, probe]\n", "    kinds: [resize, probe]\n    ack_wait: 1s\n")


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    before = structlog.get_config()
    observe.configure(json=True)
    yield
    structlog.configure(**before)
    assert "leases" not in {thread.name for thread in threading.enumerate()}


@contextlib.asynccontextmanager
async def serving(bridge: Bridge, worker: Worker, leases: Connect | None = None) -> AsyncIterator[asyncio.Task[None]]:
    """Run ``worker`` in this loop until the block ends."""
    member = Member.load(bridge.identity("bunny"))
    transport = await member.connect("worker")
    leases = leases or partial(member.connect, "leases")
    serve = worker.serve(member.identity, member.trust, member.connection, transport, leases=leases)
    task = asyncio.create_task(serve)
    await until(lambda: worker.serving or task.done())
    try:
        yield task
    finally:
        worker.stop()
        await task


@contextlib.contextmanager
def in_a_thread(bridge: Bridge, worker: Worker) -> Iterator[None]:
    """Run ``worker`` in a thread's loop, which a handler may block while the test goes on."""
    worker.folder = bridge.identity("bunny")
    started = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    @worker.on_startup
    def starting() -> None:
        loops.append(asyncio.get_running_loop())
        started.set()

    thread = threading.Thread(target=lambda: asyncio.run(worker.run()))
    thread.start()
    assert started.wait(20)
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(worker.stop)
        thread.join(30)
        assert not thread.is_alive()


async def deliveries(bridge: Bridge) -> tuple[int, int]:
    """How often the broker has delivered jobs of `thumbs`, and how many of them again."""
    async with await connected(bridge, "ops-aws") as transport:
        asked = f"$JS.API.CONSUMER.INFO.JOBS_thumbs.{subjects.jobs_consumer('bunny', 'normal')}"
        answer: dict[str, Any] = json.loads(await transport.request(asked, b""))
        return int(answer["delivered"]["consumer_seq"]), int(answer["num_redelivered"])


async def until_delivered(bridge: Bridge, count: int) -> None:
    async def delivered() -> bool:
        return (await deliveries(bridge))[0] == count

    await monitor.until(delivered, 20, f"{count} deliveries")


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


async def test_a_handler_that_blocks_its_loop_for_four_ack_waits_runs_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = Worker(concurrency=2, prefetch=1)
    begun: list[tuple[str, int]] = []
    all_there = asyncio.Event()

    @worker.handler("thumbs", "resize")
    async def block(args: int, job: Job) -> int:
        begun.append(("block", job.attempt))
        await all_there.wait()
        time.sleep(4)  # noqa: ASYNC251  # wrong on purpose
        return args

    @worker.handler("thumbs", "probe")
    def compute(args: int, job: Job) -> int:
        begun.append(("compute", job.attempt))
        until, rounds = time.monotonic() + 4, 0
        while time.monotonic() < until:
            rounds += 1
        return args

    async with running_bridge(tmp_path, SHORT) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        async with serving(bridge, worker):
            kinds = ["probe", "resize", "resize"]  # two run, and the third waits for a slot
            handles = [await alpha.submit("thumbs", kind, n) for n, kind in enumerate(kinds)]
            await until_delivered(bridge, len(kinds))
            all_there.set()
            assert [await handle.result(int, timeout=60) for handle in handles] == [0, 1, 2]
        assert sorted(begun) == [("block", 1), ("block", 1), ("compute", 1)]
        assert await deliveries(bridge) == (3, 0)
    assert "event_loop_blocked" in capsys.readouterr().err


async def test_a_handler_that_keeps_the_global_lock_in_a_process_runs_once(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    worker = Worker()
    worker.handler("thumbs", "resize", isolation="process")(isolated.keeps_the_lock)  # for three ack waits
    async with running_bridge(tmp_path, SHORT) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        async with serving(bridge, worker):
            handle = await alpha.submit("thumbs", "resize", str(notes))
            assert await handle.result(int, timeout=60) == 1
        assert notes.read_text() == "1\n"
        assert await deliveries(bridge) == (1, 0)


async def test_a_worker_that_is_killed_takes_its_handlers_with_it(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    async with running_bridge(tmp_path, SHORT) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        environment = {**os.environ, "BUNNY_IDENTITY": str(bridge.identity("bunny")), "PYTHONPATH": str(ROOT)}
        command = (sys.executable, "-m", "tests.isolated")  # with the event loop, and the names, of a real program
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        try:
            done = await alpha.submit("thumbs", "resize", {"width": 1})
            assert await done.result(timeout=30) == {"width": 2, "attempt": 1}
            await alpha.submit("thumbs", "probe", str(notes))
            await until(lambda: notes.exists() and notes.read_text().endswith("\n"), 30)
            child = int(notes.read_text())
            assert not isolated.gone(child)
        finally:
            process.kill()
            await process.wait()
        await until(lambda: isolated.gone(child))  # amid a call that never returns to Python


async def test_what_lay_unread_while_the_loop_was_blocked_is_left_to_who_has_it_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck, well = Worker(concurrency=1, prefetch=1), Worker(concurrency=1)
    begun: list[tuple[str, int, int]] = []
    freed, awake, go_on = threading.Event(), threading.Event(), asyncio.Event()

    @stuck.handler("thumbs", "resize")
    async def block(args: int, job: Job) -> int:
        begun.append(("stuck", args, job.attempt))
        freed.wait(30)
        asyncio.get_running_loop().call_later(1, awake.set)
        return args

    @well.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> int:
        begun.append(("well", args, job.attempt))
        await go_on.wait()
        return args

    async with running_bridge(tmp_path, SHORT) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        with in_a_thread(bridge, stuck):
            one = await alpha.submit("thumbs", "resize", 1)
            await until(lambda: bool(begun))
            two = await alpha.submit("thumbs", "resize", 2)  # delivered to a worker that does not read it
            await until_delivered(bridge, 2)
            async with serving(bridge, well):
                await until(lambda: len(begun) == 2)
                freed.set()
                assert await asyncio.to_thread(awake.wait, 10)
                go_on.set()
                assert [await one.result(int), await two.result(int)] == [1, 2]
    assert begun == [("stuck", 1, 1), ("well", 2, 2)]
    assert "delivery_ignored" in capsys.readouterr().err


async def test_a_handler_that_never_ends_does_not_keep_its_job_for_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck, well, freed = Worker(concurrency=1), Worker(concurrency=1), threading.Event()

    @stuck.handler("thumbs", "resize", timeout=1)
    async def block(args: int, job: Job) -> str:
        freed.wait(30)
        return "stuck"

    @well.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> str:
        return f"attempt {job.attempt}"

    async with running_bridge(tmp_path, SHORT) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        with in_a_thread(bridge, stuck):
            handles = [await alpha.submit("thumbs", "resize", n) for n in range(3)]  # one runs, two are held
            await until(lambda: stuck.busy == 1)
            async with serving(bridge, well):
                for handle in handles:
                    assert await handle.result(str, timeout=20) == "attempt 2"
                freed.set()
    assert "handler_stalled" in capsys.readouterr().err


async def test_the_connection_of_the_leases_is_cut_and_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = Worker()
    begun: list[int] = []
    go_on = asyncio.Event()

    @worker.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> int:
        begun.append(job.attempt)
        await go_on.wait()
        return args

    def told() -> list[str]:
        kept.extend(events(capsys.readouterr().err))
        return [each["event"] for each in kept if each.get("connection") == "leases"]

    kept: list[dict[str, Any]] = []
    policy = POLICY.replace("    kinds: [resize, probe]\n", "    kinds: [resize, probe]\n    ack_wait: 3s\n")
    async with running_bridge(tmp_path, policy) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        member = Member.load(bridge.identity("bunny"))
        port = int(member.connection.server.rpartition(":")[2])
        async with Relay(port) as relay:
            apart = member.connection.model_copy(
                update={"server": member.connection.server.replace(str(port), str(relay.port))}
            )

            async def through() -> Transport:
                return await connect(apart, member.identity.nkey_seed, member.folder / CA_FILE, name="bunny-leases")

            async with serving(bridge, worker, through):
                handle = await alpha.submit("thumbs", "resize", 1)
                await until(lambda: bool(begun))
                await relay.cut()
                await until(lambda: "disconnected" in told(), 30)
                relay.heal()
                await until(lambda: "reconnected" in told(), 30)
                await asyncio.sleep(4)  # more than an ack wait: this is what is tested
                go_on.set()
                assert await handle.result(int) == 1
        assert begun == [1]
        assert await deliveries(bridge) == (1, 0)
    assert told().count("connected") == 1


@pytest.mark.parametrize("how", [RuntimeError("a fault of our own"), NotConnected("closed for good")], ids=repr)
async def test_a_worker_whose_lease_thread_dies_stops_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: Exception
) -> None:
    worker = Worker()
    go_on = asyncio.Event()

    class Dies:
        """A transport that fails when it renews."""

        def __init__(self, transport: JetStreamTransport) -> None:
            self.close, self._transport = transport.close, transport

        @property
        def connected(self) -> bool:
            return self._transport.connected

        async def in_progress(self, delivery: Delivery) -> None:
            raise how

    @worker.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> int:
        await go_on.wait()
        return job.attempt

    async with running_bridge(tmp_path, SHORT) as bridge, Producer.open(bridge.identity("alpha")) as alpha:

        async def failing() -> Any:  # noqa: ANN401  # a part of a transport
            return Dies(await connected(bridge, "bunny"))

        with pytest.raises(TransportError):  # noqa: PT012  # what it does until then is part of it
            async with serving(bridge, worker, failing) as task:
                handle = await alpha.submit("thumbs", "resize", 1)
                await asyncio.sleep(2.5)  # it drains meanwhile, for more than two ack waits, and has kept its job
                assert not task.done()
                go_on.set()
                assert await handle.result(int) == 1
                await asyncio.wait({task}, timeout=10)
        assert await deliveries(bridge) == (1, 0)
    seen = [each["event"] for each in events(capsys.readouterr().err)]
    assert "worker_stopping" in seen
    assert ("lease_thread_failed" in seen) == isinstance(how, RuntimeError)


async def test_no_thread_is_left_of_a_worker_that_never_connects(tmp_path: Path) -> None:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        return args

    async def never() -> Transport:
        await asyncio.Event().wait()
        raise AssertionError

    async with running_bridge(tmp_path) as bridge:
        member = Member.load(bridge.identity("bunny"))
        transport = await member.connect("worker")
        serve = worker.serve(member.identity, member.trust, member.connection, transport, leases=never)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(serve, 0.5)
    assert "leases" not in {thread.name for thread in threading.enumerate()}
