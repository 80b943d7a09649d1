"""An identity that is not accepted any more: who runs as it ends, or tells its callers, and storms no server."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge import bundle, follow
from bridge.agent import run as agents
from bridge.agent import watching
from bridge.clock import now_ms
from bridge.devserver import Bridge
from bridge.errors import IdentityRefused, IdentityRevoked, NotConnected
from bridge.files import write_file
from bridge.identity import CA_FILE, TRUST_FILE, Connection, Identity, load_keys
from bridge.jetstream import connect, connection, refusals
from bridge.roots import load_roots
from consumers import Worker
from producers import Producer
from tests.integration.test_agent import AGENTS
from tests.integration.test_reload import BEFORE
from tests.support import running_bridge

ROOT = Path(__file__).resolve().parents[2]
SOON_S = 30.0

WORKER = """
from bridge.jetstream import refusals
refusals.LEAST, refusals.LEAST_S = 4, 0.5
from tests.integration.worker_process import worker
worker.main()
"""
"""A worker as a process, that gives up sooner."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "LEAST", 4)
    monkeypatch.setattr(refusals, "LEAST_S", 0.5)
    monkeypatch.setattr(connection, "REFUSED_WAIT_S", 2.0)
    monkeypatch.setattr(follow, "LOOK_S", 0.02)
    monkeypatch.setattr(agents, "RELOAD_S", 0.1)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not holds():  # noqa: ASYNC110 - neither a log nor a property tells
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def without(bridge: Bridge, *names: str) -> AsyncIterator[None]:
    """Take identities away from the servers of their clouds, by SIGHUP, until the block ends."""
    servers = {bridge.policy.identities[name].cloud for name in names}
    before = {cloud: bridge.folder.rendered / cloud / "accounts.conf" for cloud in servers}
    text = {path: path.read_text() for path in before.values()}
    for name in names:
        path = before[bridge.policy.identities[name].cloud]
        nkey = Identity.load(bridge.identity(name)).nkey
        path.write_text(path.read_text().replace(nkey, Identity.generate("x").nkey))
    for cloud in servers:
        await bridge.of(cloud)[0].reload()
    try:
        yield
    finally:
        for path, was in text.items():
            path.write_text(was)
        for cloud in servers:
            await bridge.of(cloud)[0].reload()


def refused(bridge: Bridge, cloud: str) -> int:
    """How many connections a server has refused so far, by its log."""
    return bridge.folder.log(cloud).read_text().count("authentication error")


def hand_out(bridge: Bridge, revoked: str, *, expired: bool = False) -> None:
    """Deliver a newer bundle to everybody, in which an identity signs with another key, or its time is over."""
    policy = bridge.policy
    keys = load_keys(bridge.folder.keys, policy.identities)
    now = int(bundle.read_payload((bridge.folder.path / TRUST_FILE).read_bytes())["version"])
    if expired:
        payload = bundle.build_payload(policy, keys, now + 1, now_ms())
        mine = keys[revoked].sign[0].kid.hex()
        head, found, tail = payload.decode().partition(f'"kid":"{mine}"')
        assert found
        life = tail.partition('"not_after":')[2].partition(",")[0].partition("}")[0]
        payload = (head + found + tail.replace(life, str(now_ms() - 1), 1)).encode()
    else:
        keys[revoked] = Identity.generate(revoked).public()
        payload = bundle.build_payload(policy, keys, now + 1, now_ms())
    signed = bundle.sign_payload(payload, load_roots(bridge.folder.roots))
    for name in policy.identities:
        if (bridge.identity(name) / TRUST_FILE).exists():
            write_file(bridge.identity(name) / TRUST_FILE, signed)


async def watched(bridge: Bridge, name: str) -> asyncio.Task[None]:
    """An agent that watches, and what ends it."""
    watching_now = asyncio.Event()

    async def watch() -> None:
        async with watching(bridge.identity(name), "127.0.0.1:0") as (agent, _):
            watching_now.set()
            await agent.ended.wait()

    task = asyncio.create_task(watch())
    await watching_now.wait()
    return task


# --- by the servers ---------------------------------------------------------------------------------


async def test_a_worker_that_the_server_no_longer_accepts_ends_with_its_code_and_one_line(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        environment = {"BUNNY_IDENTITY": str(bridge.identity("bunny")), "PATH": "/usr/bin:/bin"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE
        )
        assert process.stdout is not None
        assert (await process.stdout.readline()).strip() == b"ready"
        async with without(bridge, "bunny"):
            _, said = await asyncio.wait_for(process.communicate(), 60)
            attempts = refused(bridge, "azure")
        assert process.returncode == 6
        last = said.decode().splitlines()[-1]
        assert re.match("bunny: tls://.* does not accept this identity, ", last)
        # Its two connections were closed, and then refused as often as they may be before it is believed. Each was
        # then put off for longer than the other one took to say so.
        assert 4 <= attempts <= 2 * 4 + 2


async def test_a_service_that_starts_as_nobody_ends_though_it_would_wait_for_ever(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        alpha, bunny = bridge.identity("alpha"), bridge.identity("bunny")
        mine, stranger = Connection.load(alpha), Identity.generate("alpha").nkey_seed
        async with asyncio.timeout(SOON_S):
            with pytest.raises(IdentityRefused, match=r"does not accept this identity, \d+ refusals in"):
                await connect(mine, stranger, alpha / CA_FILE, name="alpha")
            assert refused(bridge, "aws") == 4
            with pytest.raises(NotConnected, match=r"certificate is not accepted.*compare ca\.pem") as told:
                await connect(mine, Identity.load(alpha).nkey_seed, bunny / CA_FILE, name="alpha")
        assert not isinstance(told.value, IdentityRefused)


async def test_callers_of_a_producer_are_told_at_once_until_it_is_accepted_again(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        with capture_logs() as logs:
            async with Producer.open(bridge.identity("alpha")) as alpha:
                await alpha.submit("thumbs", "resize", 1)
                async with without(bridge, "alpha"):
                    with pytest.raises(IdentityRefused, match="ask the bridge's owners"):  # though it may wait for long
                        await alpha.submit("thumbs", "resize", 2, timeout=SOON_S)
                    begun = asyncio.get_running_loop().time()
                    with pytest.raises(IdentityRefused):
                        await alpha.submit("thumbs", "resize", 3, timeout=SOON_S)
                    assert asyncio.get_running_loop().time() - begun < SOON_S / 2
                await until(lambda: any(each["event"] == "reconnected" for each in logs))
                await alpha.submit("thumbs", "resize", 4)
        assert [each["event"] for each in logs].count("connection_refused") == 1


async def test_an_agent_that_the_server_no_longer_accepts_ends(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, AGENTS) as bridge, asyncio.timeout(SOON_S):
        watch = await watched(bridge, "agent-aws")
        async with without(bridge, "agent-aws"):
            with pytest.raises(IdentityRefused):
                await watch


async def test_a_moment_of_refusals_ends_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "LEAST_S", SOON_S)  # as a reload of a server's configuration is shorter than that
    async with running_bridge(tmp_path, BEFORE) as bridge:
        worker = Worker(bridge.identity("bunny"))

        @worker.handler("thumbs", "resize")
        async def resize(args: int) -> int:
            return args

        with capture_logs() as logs:
            running = asyncio.create_task(worker.run())
            await until(lambda: worker.serving)
            async with without(bridge, "bunny"):
                await until(lambda: [each["event"] for each in logs].count("connect_failed") >= 6)
            async with Producer.open(bridge.identity("alpha")) as alpha:
                job = await alpha.submit("thumbs", "resize", 5)
                assert await job.result(int, timeout=SOON_S) == 5
            worker.stop()
            await running


# --- by the trust bundle ----------------------------------------------------------------------------


@pytest.mark.parametrize("expired", [False, True], ids=["revoked", "expired"])
async def test_a_worker_whose_key_left_the_bundle_finishes_what_runs_and_ends(expired: bool, tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        begun, go, ended = asyncio.Event(), asyncio.Event(), []
        worker = Worker(bridge.identity("bunny"))

        @worker.handler("thumbs", "resize")
        async def resize(args: int) -> int:
            begun.set()
            await go.wait()
            ended.append(args)
            return args

        running = asyncio.create_task(worker.run())
        async with asyncio.timeout(SOON_S), Producer.open(bridge.identity("alpha")) as alpha:
            await alpha.submit("thumbs", "resize", 6)
            await begun.wait()
            with capture_logs() as logs:
                hand_out(bridge, "bunny", expired=expired)
                await until(lambda: any(each["event"] == "worker_draining" for each in logs))
            go.set()
            with pytest.raises(IdentityRevoked, match="it has expired" if expired else "it is revoked"):
                await running
        assert ended == [6]
        assert IdentityRevoked.exit_code == 6
        with pytest.raises(IdentityRevoked):  # nor does it start again
            await worker.run()


async def test_a_producer_whose_key_left_the_bundle_tells_its_callers_before_anything_is_sent(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        with capture_logs() as logs:
            hand_out(bridge, "alpha")
            await until(lambda: any(each["event"] == "trust_reloaded" for each in logs))
        with pytest.raises(IdentityRevoked, match="ask the bridge's owners"):
            await alpha.submit("thumbs", "resize", 1)
        (outcome,) = await alpha.submit_many("thumbs", "resize", [1])
        assert isinstance(outcome, IdentityRevoked)


async def test_an_agent_whose_key_left_the_bundle_ends(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, AGENTS) as bridge, asyncio.timeout(SOON_S):
        watch = await watched(bridge, "agent-azure")
        hand_out(bridge, "agent-azure")
        with pytest.raises(IdentityRevoked):
            await watch
