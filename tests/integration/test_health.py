"""What probes are told of a worker, and workers whose pulls or connection went deaf: with real servers, unrestarted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge import subjects
from bridge.devserver import Bridge
from bridge.devserver.ports import free_port
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import connect
from consumers import Worker, health, intake
from consumers.leasethread import LeaseThread
from producers import Producer
from tests.integration.test_agent import fetch
from tests.integration.test_reload import BEFORE
from tests.support import running_bridge

SOON_S = 60.0


class Watched:
    """A worker that runs as `Worker.main` has it, and its pages."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.port = free_port(set())
        self.worker = Worker(bridge.identity("bunny"), metrics=f"127.0.0.1:{self.port}")
        self.worker.handler("thumbs", "resize")(same)

    async def page(self, path: str) -> tuple[int, dict[str, str]]:
        status, body = await fetch(self.port, path)
        told = json.loads(body)
        assert told["status"] == ("ok" if status == 200 else "failed")
        return status, told.get("failed", {})

    async def until(self, path: str, *failed: str) -> dict[str, str]:
        """Wait until a page names exactly these checks; what it says of them."""
        async with asyncio.timeout(SOON_S):
            while True:
                with contextlib.suppress(OSError):
                    status, told = await self.page(path)
                    if sorted(told) == sorted(failed):
                        assert status == (503 if failed else 200)
                        return told
                await asyncio.sleep(0.05)

    async def metric(self, name: str) -> float:
        _, text = await fetch(self.port, "/metrics")
        return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.worker.run())
        try:
            yield
        finally:
            if self.worker.serving:
                self.worker.stop()
            else:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def same(args: int) -> int:
    return args


async def a_job_flows(bridge: Bridge) -> None:
    async with Producer.open(bridge.identity("alpha")) as alpha:
        job = await alpha.submit("thumbs", "resize", 7)
        assert await job.result(int, timeout=SOON_S) == 7


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "INTERVAL_S", 0.2)
    monkeypatch.setattr(health, "ANSWER_S", 2.0)
    monkeypatch.setattr(intake, "DEAF_S", 5.0)  # more than the silence after which requests are issued anew


# --- probes -----------------------------------------------------------------------------------------


async def test_a_cut_link_makes_a_worker_unready_and_never_dead(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, BEFORE, relay=True) as bridge:
        watched = Watched(bridge)
        async with watched.running():
            await watched.until("/readyz")
            assert bridge.relay is not None
            await bridge.relay.cut()
            told = await watched.until("/readyz", "pulls")
            assert "queue thumbs: no answer to pulls for " in told["pulls"]
            assert await watched.page("/livez") == (200, {})
            assert await watched.metric('bunny_worker_pull_silence_seconds{queue="thumbs"}') > 2.0
            bridge.relay.heal()
            await watched.until("/readyz")
            await a_job_flows(bridge)


async def test_a_worker_answers_while_it_dials_and_dies_only_when_the_broker_is_away_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_bridge(tmp_path, BEFORE) as bridge:
        watched = Watched(bridge)
        await bridge.leaf.stop()
        async with watched.running():
            await watched.until("/readyz", "connection", "startup")
            assert await watched.page("/livez") == (200, {})
            await bridge.leaf.start()
            await watched.until("/readyz")
            await bridge.leaf.stop()
            assert "connection" in await watched.until("/readyz", "connection", "pulls")
            assert await watched.page("/livez") == (200, {})  # a broker restarts; five minutes of it kill nobody
            monkeypatch.setattr(health, "LIVE_S", 0.5)
            told = await watched.until("/livez", "broker")
            assert "no round trip through the local NATS server for " in told["broker"]
            await bridge.leaf.start()
            await watched.until("/livez")


async def test_a_thread_of_leases_that_does_not_turn_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "THREAD_S", 0.5)
    threads, ping = asyncio.Queue[LeaseThread](), LeaseThread.ping

    def pinged(thread: LeaseThread) -> None:
        threads.put_nowait(thread)
        ping(thread)

    monkeypatch.setattr(LeaseThread, "ping", pinged)
    async with running_bridge(tmp_path, BEFORE) as bridge:
        watched = Watched(bridge)
        async with watched.running():
            await watched.until("/livez")
            thread, go_on = await asyncio.wait_for(threads.get(), SOON_S), threading.Event()
            thread._inside.call_soon_threadsafe(go_on.wait, SOON_S)
            try:
                assert "does not turn" in (await watched.until("/livez", "leases"))["leases"]
            finally:
                go_on.set()
            await watched.until("/livez")


# --- deafness ---------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def administered(bridge: Bridge) -> AsyncIterator[Callable[[str], Awaitable[dict[str, Any]]]]:
    """Somebody in the account of the hub's streams who may do anything: what no policy has."""
    accounts, admin = bridge.folder.rendered / "aws" / "accounts.conf", Identity.generate("admin")
    text = accounts.read_text()
    accounts.write_text(text.replace("  RELAY: {\n", f"  RELAY: {{\n    users: [{{ nkey: {admin.nkey} }}]\n", 1))
    await bridge.hub.reload()
    folder = bridge.identity("alpha")
    connection = Connection.load(folder).model_copy(update={"identity": "admin"})
    async with await connect(connection, admin.nkey_seed, folder / CA_FILE, name="admin", timeout=SOON_S) as transport:

        async def ask(subject: str) -> dict[str, Any]:
            answer: dict[str, Any] = json.loads(await transport.request(subject, b""))
            assert "error" not in answer, answer
            return answer

        yield ask


async def lose_the_consumers(bridge: Bridge, watched: Watched) -> None:
    async with administered(bridge) as ask:
        for priority in subjects.PRIORITIES:
            await ask(subjects.api_call("CONSUMER.DELETE", "JOBS_thumbs", subjects.jobs_consumer("bunny", priority)))
        await watched.until("/readyz", "pulls")
    await bridge.provision("aws")


async def swallow(bridge: Bridge, watched: Watched) -> None:
    """Requests leave the worker's server, and nothing ever answers them: no status, no heartbeat."""
    assert bridge.relay is not None
    bridge.relay.black_hole()
    await watched.until("/readyz", "pulls")
    bridge.relay.heal()


async def restart_both(bridge: Bridge, watched: Watched) -> None:
    """Requests that wait at servers that end are answered by nobody, and are not sent again by the client."""
    await bridge.leaf.kill()
    await bridge.hub.kill()
    await watched.until("/readyz", "connection", "pulls")
    await bridge.hub.start()
    await bridge.leaf.start()


@pytest.mark.parametrize("fault", [lose_the_consumers, swallow, restart_both])
async def test_pulls_that_are_not_answered_are_issued_anew_told_and_work_again_without_a_restart(
    fault: Callable[[Bridge, Watched], Awaitable[None]], tmp_path: Path
) -> None:
    async with running_bridge(tmp_path, BEFORE, relay=True) as bridge:
        watched = Watched(bridge)
        with capture_logs() as logs:
            async with watched.running():
                await watched.until("/readyz")
                await a_job_flows(bridge)
                await fault(bridge, watched)
                await watched.until("/readyz")
                await a_job_flows(bridge)
                assert await watched.metric('bunny_worker_pulls_interrupted_total{queue="thumbs"}') >= 1
        told = [each["event"] for each in logs if each.get("stream") in (None, "JOBS_thumbs")]
        pair = ("disconnected", "reconnected") if fault is restart_both else ("pull_interrupted", "pull_restored")
        assert set(pair) <= set(told)


async def test_a_subscription_that_the_server_lost_is_found_by_the_round_trip_and_the_connection_made_anew(
    tmp_path: Path,
) -> None:
    async with running_bridge(tmp_path, BEFORE) as bridge:
        watched = Watched(bridge)
        with capture_logs() as logs:
            async with watched.running():
                await watched.until("/readyz")
                accounts = bridge.folder.rendered / "azure" / "accounts.conf"
                text = accounts.read_text()
                assert "health.bunny.*" in text
                accounts.write_text(text.replace("health.bunny.*", "health.nobody.*"))
                await bridge.leaf.reload()
                told = await watched.until("/readyz", "connection")
                assert "no round trip" in told["connection"]
                accounts.write_text(text)  # who may not hear is told nothing of it, and stays deaf when it may again
                await bridge.leaf.reload()
                await watched.until("/readyz")
                await a_job_flows(bridge)
        events = [each["event"] for each in logs]
        assert events.index("broker_silent") < events.index("connection_redialled") < events.index("reconnected")


async def test_a_worker_lives_on_servers_that_know_no_subject_of_its_own(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, BEFORE) as bridge:
        accounts = bridge.folder.rendered / "azure" / "accounts.conf"  # as releases before it rendered it
        accounts.write_text(accounts.read_text().replace("health.bunny.*", "health.nobody.*"))
        await bridge.leaf.reload()
        watched = Watched(bridge)
        with capture_logs() as logs:
            async with watched.running():
                await watched.until("/readyz")
                await a_job_flows(bridge)
                assert await watched.page("/livez") == (200, {})
        assert [each["event"] for each in logs].count("health_subject_denied") == 1
        assert "connection_redialled" not in [each["event"] for each in logs]
