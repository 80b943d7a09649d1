"""What only real servers can do to a transport: restart, refuse, freeze, and lose what was on its way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge import subjects
from bridge.devserver.link import Relay
from bridge.errors import ConfigurationError, Denied, NotConnected, PublishTimeout, TransportError
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import JetStreamTransport, connect
from bridge.transport import Delivery, Message, Pull
from tests.integration.test_transport_conformance import (
    LONG,
    answer,
    key,
    nothing_comes,
    number,
    pull,
    submit,
    take,
)
from tests.integration.worlds import ServerWorld, server_world
from tests.support import frozen

SESSION = key(1).session
SOON_S = 30.0


@contextlib.contextmanager
def logged() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


def events(entries: list[Any]) -> list[str]:
    return [entry["event"] for entry in entries]


async def until_logged(entries: list[Any], event: str, times: int = 1) -> None:
    """Wait for log entries: they are the signal that an operator would see."""
    async with asyncio.timeout(SOON_S):
        while events(entries).count(event) < times:  # noqa: ASYNC110 - a list of entries has no event to wait on
            await asyncio.sleep(0.02)


async def drain(jobs: Pull, transport: JetStreamTransport, wanted: set[int]) -> None:
    async with asyncio.timeout(SOON_S):
        while wanted:
            delivery: Delivery = await jobs.get()
            await transport.ack(delivery)
            wanted.discard(number(delivery))
            jobs.grant(1)


def address(world: ServerWorld, identity: str, port: int) -> tuple[Connection, Path]:
    """An identity's connection, by way of another port."""
    folder = world.bridge.identity(identity)
    return Connection.load(folder).model_copy(update={"server": f"tls://127.0.0.1:{port}"}), folder / CA_FILE


@contextlib.asynccontextmanager
async def through_relay(world: ServerWorld, identity: str) -> AsyncIterator[tuple[JetStreamTransport, Relay]]:
    """A service whose way to its own server can be cut and delayed."""
    cloud = world.bridge.policy.identities[identity].cloud
    async with Relay(world.bridge.ports[cloud].clients) as relay:
        connection, ca_file = address(world, identity, relay.port)
        yield await world.connect(identity, connection, ca_file), relay


# --- restarts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cloud", ["aws", "azure"])
async def test_everything_outlives_a_restart_of_a_server(cloud: str, tmp_path: Path) -> None:
    async with server_world(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        told: asyncio.Queue[Message] = asyncio.Queue()
        await alpha.subscribe(subjects.done_of_session("thumbs", "alpha", SESSION), told.put)
        jobs = pull(bunny)
        jobs.grant(3)
        await submit(alpha, [1])
        await drain(jobs, bunny, {1})
        server = world.bridge.servers[cloud]
        await server.kill()
        async with asyncio.TaskGroup() as group:
            publishing = group.create_task(submit(alpha, [2], data=b"during"))
            answering = group.create_task(answer(bunny, 1))
            await server.start()
            await asyncio.wait([publishing, answering], timeout=SOON_S)
        await submit(alpha, [3])
        await drain(jobs, bunny, {2, 3})
        async with asyncio.timeout(SOON_S):
            assert (await told.get()).subject == subjects.done(key(1))


async def test_a_publish_whose_puback_was_lost_is_stored_once(tmp_path: Path) -> None:
    async with server_world(tmp_path) as world:
        other = await world.transport("alpha")
        async with through_relay(world, "alpha") as (alpha, relay):
            relay.delay = 1.0
            subject = subjects.job(key(1), "normal")
            async with asyncio.TaskGroup() as group:
                publishing = group.create_task(alpha.publish("JOBS_thumbs", subject, b"job", timeout=SOON_S))
                while await other.lookup("JOBS_thumbs", subject) is None:
                    pass
                await relay.cut()  # its PubAck is still on the way, for a second
                relay.delay = 0.0
                relay.heal()
            assert publishing.result().duplicate
            assert publishing.result().sequence == 1


async def test_a_publish_in_time_or_not_at_all(tmp_path: Path) -> None:
    async with server_world(tmp_path) as world, through_relay(world, "alpha") as (alpha, relay):
        await relay.cut()
        for _ in range(2):
            async with asyncio.timeout(5.0):  # half of what it has where nothing is said
                with pytest.raises(PublishTimeout):
                    await alpha.publish("JOBS_thumbs", subjects.job(key(1), "normal"), b"job", timeout=0.5)
        relay.heal()
        await submit(alpha, [2])
        other = await world.transport("alpha")
        assert await other.lookup("JOBS_thumbs", subjects.job(key(1), "normal")) is None  # nothing was sent later


# --- the link ---------------------------------------------------------------------------------------


async def test_a_cut_is_told_once_and_its_end_once(tmp_path: Path) -> None:
    with logged() as entries:
        async with server_world(tmp_path) as world:
            alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
            jobs = pull(bunny)
            jobs.grant(2)
            await world.cut()
            await until_logged(entries, "pull_interrupted")
            await nothing_comes(jobs, 1.0)  # several attempts fail meanwhile
            await world.heal()
            await submit(alpha, [1])
            await drain(jobs, bunny, {1})
            assert events(entries).count("pull_interrupted") == 1
            assert events(entries).count("pull_restored") == 1


async def test_requests_that_were_given_up_and_are_served_bring_no_more_than_the_credit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.jetstream.pull.SILENCE_S", 0.5)  # gives up before a heartbeat can come
    async with server_world(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        jobs = pull(bunny, LONG)
        jobs.grant(5)
        await nothing_comes(jobs, 2.5)  # by now more requests wait than credit was granted
        others = pull(bunny, LONG)
        await submit(alpha, range(1, 31), LONG)
        taken = await take(jobs, 5)
        await nothing_comes(jobs, 0.2)
        others.grant(30)
        async with asyncio.timeout(SOON_S / 2):  # handed back, not held until the ack wait
            await drain(others, bunny, set(range(1, 31)) - {number(delivery) for delivery in taken})


async def test_a_closed_pull_does_not_swallow_jobs(tmp_path: Path) -> None:
    async with server_world(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        gone = pull(bunny, LONG)
        gone.grant(20)
        await submit(alpha, [1], LONG)
        await take(gone, 1)
        await gone.close()  # with a request for 19 more waiting in the other cloud
        jobs = pull(bunny, LONG)
        jobs.grant(20)
        await submit(alpha, range(2, 12), LONG)
        async with asyncio.timeout(SOON_S / 2):  # before the ack wait is over
            taken = await take(jobs, 10)
        assert {number(delivery) for delivery in taken} == set(range(2, 12))


# --- refusals ---------------------------------------------------------------------------------------


async def test_what_the_permissions_refuse_is_told_at_once(tmp_path: Path) -> None:
    async with server_world(tmp_path) as world:
        alpha = await world.transport("alpha")
        async with asyncio.timeout(10.0):  # half of every timeout below
            with pytest.raises(Denied, match="results"):
                await alpha.publish("RESULTS_thumbs", subjects.result(key(1)), b"forged", timeout=20.0)
            with pytest.raises(Denied):
                await alpha.lookup("JOBS_thumbs", subjects.job(key(1)._replace(producer="beta"), "normal"), timeout=20)
            with pytest.raises(Denied):
                await alpha.request("$JS.API.STREAM.DELETE.JOBS_thumbs", b"", timeout=20.0)
            with pytest.raises(Denied):
                await alpha.subscribe("done.thumbs.>", told_nobody)
        await submit(alpha, [1])


async def test_a_subscription_that_is_refused_is_never_taken_for_one_that_is_not(tmp_path: Path) -> None:
    async with server_world(tmp_path) as world:
        alpha = await world.transport("alpha")
        for number in range(200):  # one in ten passed where the server's word was asked for ahead of the subscription
            with pytest.raises(Denied):
                await alpha.subscribe(f"done.thumbs.{number}.>", told_nobody)


async def told_nobody(_: Message) -> None:
    raise AssertionError


async def test_a_pull_that_is_denied_says_so_and_goes_on_trying(tmp_path: Path) -> None:
    with logged() as entries:
        async with server_world(tmp_path) as world:
            alpha = await world.transport("alpha")
            jobs = alpha.pull("JOBS_thumbs", "bunny-normal")
            jobs.grant(1)
            await until_logged(entries, "pull_interrupted")
            [reason] = [entry["reason"] for entry in entries if entry["event"] == "pull_interrupted"]
            assert "permissions" in reason
            await nothing_comes(jobs, 1.0)


async def test_nobody_answers_for_streams_that_are_not_there(tmp_path: Path) -> None:
    async with server_world(tmp_path, provisioned=False) as world:
        alpha = await world.transport("alpha")
        with pytest.raises(PublishTimeout, match="does not answer"):
            await alpha.publish("JOBS_thumbs", subjects.job(key(1), "normal"), b"job", timeout=1.0)
        with pytest.raises(TransportError, match="nobody answers"):
            await alpha.lookup("JOBS_thumbs", subjects.job(key(1), "normal"), timeout=1.0)
        await world.bridge.provision("aws")
        await submit(alpha, [1])


# --- connecting -------------------------------------------------------------------------------------


async def test_connecting_fails_in_its_time_with_the_reason(tmp_path: Path) -> None:
    async with server_world(tmp_path) as world:
        alpha = world.bridge.identity("alpha")
        seed, connection = Identity.load(alpha).nkey_seed, Connection.load(alpha)
        stranger = Identity.generate("alpha").nkey_seed
        closed = connection.model_copy(update={"server": "tls://127.0.0.1:1"})
        ways = (connection, seed, world.bridge.identity("bunny")), (connection, stranger, alpha), (closed, seed, alpha)
        tries = [connect(to, by, folder / CA_FILE, name="alpha", timeout=3.0) for to, by, folder in ways]
        certificate, identity, port = await asyncio.gather(*tries, return_exceptions=True)
        for error, type_, reason in (
            (certificate, NotConnected, "certificate is not accepted"),
            (identity, Denied, "does not accept this identity"),
            (port, NotConnected, "refused"),
        ):
            assert isinstance(error, type_)
            assert reason in str(error)
        several = connection.model_copy(update={"server": f"{closed.server}, {connection.server}"})
        async with await connect(several, seed, alpha / CA_FILE, name="alpha", timeout=10.0) as transport:
            assert transport.connected


async def test_connecting_goes_on_for_ever_and_can_be_cancelled(tmp_path: Path) -> None:
    with logged() as entries:
        async with server_world(tmp_path) as world:
            alpha = world.bridge.identity("alpha")
            seed, connection = Identity.load(alpha).nkey_seed, Connection.load(alpha)
            await world.bridge.hub.stop()
            async with asyncio.TaskGroup() as group:
                connecting = group.create_task(connect(connection, seed, alpha / CA_FILE, name="alpha"))
                await until_logged(entries, "connect_failed", 3)
                await world.bridge.hub.start()
                async with asyncio.timeout(SOON_S):
                    await (await connecting).close()
                await world.bridge.hub.stop()
                entries.clear()
                hopeless = group.create_task(connect(connection, seed, alpha / CA_FILE, name="alpha"))
                await until_logged(entries, "connect_failed")
                hopeless.cancel()


@pytest.mark.parametrize("server", ["", "nats://127.0.0.1:4222", "tls://127.0.0.1", "127.0.0.1:4222", "tls://a:b"])
async def test_an_address_that_is_no_tls_url_is_refused(server: str, tmp_path: Path) -> None:
    connection = Connection(bridge="acme", identity="alpha", cloud="aws", role="service", server=server)
    ca_file = tmp_path / CA_FILE
    with pytest.raises(ConfigurationError):
        await connect(connection, Identity.generate("alpha").nkey_seed, ca_file, name="alpha")


async def test_an_identity_that_is_removed_dials_until_it_is_back(tmp_path: Path) -> None:
    with logged() as entries:
        async with server_world(tmp_path) as world:
            alpha = await world.transport("alpha")
            accounts = world.bridge.folder.rendered / "aws" / "accounts.conf"
            before = accounts.read_text()
            nkey = Identity.load(world.bridge.identity("alpha")).nkey
            accounts.write_text(before.replace(nkey, Identity.generate("x").nkey))
            await world.bridge.hub.reload()
            await until_logged(entries, "connect_failed", 2)
            assert not alpha.connected
            reasons = {entry["reason"] for entry in entries if entry["event"] == "connect_failed"}
            assert all("does not accept this identity" in reason for reason in reasons)
            with pytest.raises(PublishTimeout, match="does not accept this identity"):
                await alpha.publish("JOBS_thumbs", subjects.job(key(1), "normal"), b"job", timeout=0.1)
            accounts.write_text(before)
            await world.bridge.hub.reload()
            await until_logged(entries, "reconnected")
            await submit(alpha, [1])


async def test_a_connection_closed_for_good_is_told_to_all_who_wait(tmp_path: Path) -> None:
    async with server_world(tmp_path) as world:
        bunny = await world.transport("bunny")
        jobs = pull(bunny)
        jobs.grant(1)
        # A server answers a protocol error with an -ERR after which nats-py does not dial again.
        wire = bunny._wire.client._transport
        assert wire is not None
        wire.write(b"NONSENSE\r\n")
        async with asyncio.timeout(SOON_S):
            with pytest.raises(NotConnected, match="closed the connection for good"):
                await jobs.get()
        with pytest.raises(NotConnected, match="closed the connection for good"):
            await answer(bunny, 1)
        with pytest.raises(NotConnected):
            await bunny.flush()


async def test_a_frozen_server_delays_no_close(tmp_path: Path) -> None:
    async with server_world(tmp_path) as world:
        alpha = await world.transport("alpha")
        jobs = alpha.pull("JOBS_thumbs", "bunny-normal")
        jobs.grant(1)
        pid = world.bridge.hub.pid
        assert pid is not None
        with frozen(pid):
            with pytest.raises(PublishTimeout):
                await alpha.publish("JOBS_thumbs", subjects.job(key(1), "normal"), bytes(700_000), timeout=1.0)
            async with asyncio.timeout(10.0):  # a third of what it takes to give a silent server up
                await alpha.close()
