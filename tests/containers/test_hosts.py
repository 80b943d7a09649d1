"""Both clouds on hosts of their own: who reaches whom, and a link whose ends stop, hang, vanish, move and come back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from bridge.devserver import monitor
from bridge.testing import ContainersRig, ServerContainer, containers_bridge
from consumers import Job, Worker
from tests.containers.engine import Images, docker
from tests.load import POLICY
from tests.support import write_policy

NOTICED_S: Final = 60.0
"""A silent link is noticed after two pings without an answer, 10 s apart."""

HEALED_S: Final = 90.0
DIAL: Final = """
import socket, sys
for target in sys.argv[1:]:
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 3).close()
        print(target, "connected")
    except OSError as error:
        print(target, "refused", type(error).__name__)
"""

Trouble = Callable[[ContainersRig], contextlib.AbstractAsyncContextManager[None]]


@pytest.fixture(scope="module")
def rig(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainersRig]:
    folder = tmp_path_factory.mktemp("hosts")
    policy = write_policy(folder, POLICY)
    with asyncio.Runner() as runner:
        clouds = containers_bridge(policy, folder=folder / "bunny", image=images.nats)
        yield runner.run(_entered(clouds))
        runner.run(clouds.__aexit__(None, None, None))


async def _entered(clouds: contextlib.AbstractAsyncContextManager[ContainersRig]) -> ContainersRig:
    return await clouds.__aenter__()


def dial(image: str, network: str, *targets: str) -> dict[str, bool]:
    """Which of some addresses a container on a network can connect to."""
    said = docker("run", "--rm", "--network", network, "--entrypoint", "python3", image, "-c", DIAL, *targets)
    return {target: state == "connected" for target, state, *_ in map(str.split, said.splitlines())}


def doubling() -> Worker:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        return args * 2

    return worker


# --- who reaches whom ------------------------------------------------------------------------------


async def test_a_worker_reaches_its_own_cloud_and_not_the_hub(rig: ContainersRig, images: Images) -> None:
    hub, leaf = rig.servers["aws"], rig.servers["azure"]
    inside, listener = f"{await hub.address('aws')}:4222", f"{await hub.address('link')}:7422"
    own = f"{await leaf.address('azure')}:4222"
    published = rig.party("alpha").connection.server.rpartition(":")[2]
    gateway = json.loads(docker("network", "inspect", rig.networks["azure"]))[0]["IPAM"]["Config"][0]["Gateway"]
    hidden = [inside, listener, "hub.test:4222", "link.test:7422", f"{gateway}:{published}"]
    seen = await asyncio.to_thread(dial, images.service, rig.networks["azure"], own, "leaf.test:4222", *hidden)
    assert seen == {own: True, "leaf.test:4222": True, **dict.fromkeys(hidden, False)}
    # What was tried is there for those who stand in the right place.
    assert (await asyncio.to_thread(dial, images.service, rig.networks["aws"], inside))[inside]
    assert (await asyncio.to_thread(dial, images.service, rig.networks["link"], listener))[listener]


# --- what happens to the link ----------------------------------------------------------------------


async def links(rig: ContainersRig, server: str) -> int:
    return int((await rig.servers[server].ask("/leafz"))["leafnodes"])


async def until_noticed(rig: ContainersRig, server: str) -> float:
    """Wait until a server knows that the link is down; the seconds it took."""
    began = time.monotonic()

    async def noticed() -> bool:
        return await links(rig, server) == 0

    await monitor.until(noticed, NOTICED_S, f"{server} notices that the link is down")
    return time.monotonic() - began


@contextlib.asynccontextmanager
async def stopped(rig: ContainersRig) -> AsyncIterator[None]:
    await rig.servers["azure"].stop()
    yield
    await rig.servers["azure"].start()


@contextlib.asynccontextmanager
async def paused(rig: ContainersRig) -> AsyncIterator[None]:
    await rig.servers["azure"].pause()
    yield
    await rig.servers["azure"].unpause()


@contextlib.asynccontextmanager
async def disconnected(rig: ContainersRig) -> AsyncIterator[None]:
    await rig.cut_link()
    yield
    await rig.heal_link()


@contextlib.asynccontextmanager
async def moved(rig: ContainersRig) -> AsyncIterator[None]:
    """The hub leaves, somebody else takes its address, and it comes back elsewhere under its name."""
    hub = rig.servers["aws"]
    before = await hub.address()
    await hub.disconnect()
    sleeper = ("--entrypoint", "sleep", Images().service, "300")
    squatter = await asyncio.to_thread(docker, "run", "--detach", "--rm", "--network", rig.networks["link"], *sleeper)
    try:
        yield
        await hub.connect()
        assert await hub.address() != before
        await rig.until_flowing(HEALED_S)
    finally:
        await asyncio.to_thread(docker, "rm", "--force", squatter.strip())


TROUBLES: Final = {trouble.__name__: trouble for trouble in (stopped, paused, disconnected, moved)}


@pytest.fixture(scope="module")
def outcomes(images: Images, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | BaseException]:
    """What became of each trouble: each has clouds of its own, since most of the time is spent on noticing it."""

    async def all_of_them() -> list[str | BaseException]:
        folders = [tmp_path_factory.mktemp(name) for name in TROUBLES]
        each = (outcome(images, folder, trouble) for folder, trouble in zip(folders, TROUBLES.values(), strict=True))
        return await asyncio.gather(*each, return_exceptions=True)

    return dict(zip(TROUBLES, asyncio.run(all_of_them()), strict=True))


async def outcome(images: Images, folder: Path, trouble: Trouble) -> str:
    """Let it happen while a job waits, and tell how long it took to be noticed and to be over."""
    clouds = containers_bridge(write_policy(folder, POLICY), folder=folder / "bunny", image=images.nats)
    async with clouds as rig, rig.working(doubling(), "bunny"), rig.producer("alpha") as alpha:
        assert await (await alpha.submit("thumbs", "resize", 1)).result(int) == 2
        async with trouble(rig):
            job = await alpha.submit("thumbs", "resize", 21)  # stored where it was written, whatever the link does
            noticed = await until_noticed(rig, "aws")
            assert not job.done()
            began = time.monotonic()
        assert await job.result(int, timeout=HEALED_S) == 42
        healed = time.monotonic() - began
        await rig.until_flowing(HEALED_S)
    return f"noticed by the hub after {noticed:.1f} s; {healed:.1f} s after its end the job that waited had its result"


@pytest.mark.parametrize("trouble", TROUBLES)
def test_the_link_comes_back_by_itself_and_the_job_that_waited_is_done(
    outcomes: dict[str, str | BaseException], record_property: Callable[[str, object], None], trouble: str
) -> None:
    found = outcomes[trouble]
    if isinstance(found, BaseException):
        raise found
    record_property("measured", f"link {trouble}: {found}")


async def results(server: ServerContainer) -> int:
    """How many results a server holds."""
    accounts = (await server.ask("/jsz?accounts=1&streams=1"))["account_details"]
    streams = [stream for account in accounts for stream in account.get("stream_detail", ())]
    return sum(stream["state"]["messages"] for stream in streams if stream["name"] == "RESULTS_thumbs")


async def test_a_result_outlives_the_leafs_container_in_its_volume(rig: ContainersRig) -> None:
    started, go = asyncio.Event(), asyncio.Event()
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> int:
        started.set()
        await go.wait()
        return job.attempt

    leaf = rig.servers["azure"]
    earlier = await results(leaf)

    async def stored() -> bool:
        return await results(leaf) == earlier + 1

    async with rig.producer("alpha") as alpha:
        async with rig.working(worker, "bunny"):
            job = await alpha.submit("thumbs", "resize", 1)
            await asyncio.wait_for(started.wait(), 20)
            await rig.cut_link()
            go.set()
            await monitor.until(stored, 20, "the result in the leaf")
        before = leaf.id
        await leaf.replace()
        assert leaf.id != before
        assert not job.done()
        await rig.heal_link()
        assert await job.result(int, timeout=HEALED_S) == 1
