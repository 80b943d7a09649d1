"""A policy that changes while jobs flow: what SIGHUP takes up, in the order of ``docs/deploy.md``."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from bridge.devserver import Bridge, monitor
from bridge.testing import EmbeddedRig
from consumers import Worker
from producers import Handle, Producer
from tests.support import POLICY, running_bridge, write_policy

BEFORE = POLICY.replace("kinds: [resize, probe]", "kinds: [resize, probe]\n    ack_wait: 3s")
"""With an ack wait that a test can wait for: what a link that is dialled again took with it comes again after that."""

GROWN = (
    BEFORE.replace("identities:\n", "identities:\n  aaron: {cloud: aws}\n  zed: {cloud: azure}\n")
    .replace("producers: [gamma]", "producers: [bunny, gamma, zed]")
    .replace("kinds: [find]", "kinds: [find, guess]")
    + """\
  forth: {producers: [aaron, beta], workers: zed, kinds: [resize]}
  back: {producers: [gamma], workers: aaron, kinds: [find]}
"""
)
"""`BEFORE`, with an identity, a producer of a queue that was there, a kind, and a queue more in each direction."""

JOBS = (
    ("bunny", "lookup", "guess", "relay"),  # was a worker only, and the kind is new
    ("zed", "lookup", "find", "relay"),  # an identity that is new, on a queue that was there
    ("beta", "forth", "resize", "zed"),
    ("aaron", "forth", "resize", "zed"),
    ("gamma", "back", "find", "aaron"),
)
"""Who may now submit what, and who works it."""


@dataclass
class Traffic:
    """Jobs of a queue that is in every policy, submitted all the time."""

    handles: list[Handle[int]] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    ended: bool = False

    async def flow(self, alpha: Producer) -> None:
        while not self.ended:
            self.handles.append(await alpha.submit("thumbs", "resize", len(self.handles)))
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def traffic(rig: EmbeddedRig) -> AsyncIterator[Traffic]:
    """Submit while the block lasts, and see every job answered after it."""
    seen, worker = Traffic(), Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        seen.runs.append(args)
        return args

    async with rig.working(worker, "bunny"), rig.producer("alpha") as alpha:
        flowing = asyncio.create_task(seen.flow(alpha))
        try:
            yield seen
        finally:
            seen.ended = True  # not in the middle of a submit, whose job would run and have no handle here
            await flowing
        async with asyncio.timeout(60):
            assert [await handle.result(int) for handle in seen.handles] == list(range(len(seen.handles)))


async def answer_all(rig: EmbeddedRig, *jobs: tuple[str, str, str, str]) -> None:
    """Submit a job of each, and see all of them answered."""
    async with contextlib.AsyncExitStack() as stack:
        for pool in sorted({pool for *_, pool in jobs}):
            worker = Worker()
            for queue, kind in sorted({(queue, kind) for _, queue, kind, its in jobs if its == pool}):
                worker.handler(queue, kind)(same)
            await stack.enter_async_context(rig.working(worker, pool))
        for name, queue, kind, _ in jobs:
            producer = await stack.enter_async_context(rig.producer(name))
            handle = await producer.submit(queue, kind, 7, timeout=10)
            assert await handle.result(int, timeout=10) == 7, (name, queue)


async def same(args: int) -> int:
    return args


async def connections(bridge: Bridge, cloud: str) -> str:
    """What a server's monitor tells of its clients."""
    _, body = await monitor.get(bridge.of(cloud)[0].monitor_port, "/connz")
    return json.dumps(body["connections"])


async def test_what_a_policy_adds_and_takes_away_needs_no_restart_and_loses_no_job(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, BEFORE, relay=True) as bridge:
        rig, before = EmbeddedRig(bridge), bridge.policy
        async with traffic(rig) as flowing:
            await bridge.take_up(write_policy(tmp_path, GROWN))
            await answer_all(rig, *JOBS)
            grown = len(flowing.handles)
            assert grown

            async with rig.transport("aaron"):
                assert "aaron-test" in await connections(bridge, "aws")
                await bridge.take_up(before)

                async def gone() -> bool:  # it goes on dialling, and a server shows who is about to be refused
                    return "aaron-test" not in await connections(bridge, "aws")

                await monitor.until(gone, 10, "the connection of an identity that is no more to be closed")
            assert len(flowing.handles) > grown
        assert sorted(set(flowing.runs)) == list(range(len(flowing.handles)))


async def test_the_link_is_dialled_again_only_where_what_may_cross_has_changed(tmp_path: Path) -> None:
    more = BEFORE.replace("identities:\n", "identities:\n  delta: {cloud: aws}\n").replace(
        "producers: [alpha, beta]", "producers: [alpha, beta, delta]"
    )
    async with running_bridge(tmp_path, BEFORE, relay=True) as bridge:
        log = bridge.folder.log("azure")
        dialled = log.read_text().count("Leafnode connection created")
        assert dialled
        await bridge.take_up(write_policy(tmp_path, more))
        await answer_all(EmbeddedRig(bridge), ("delta", "thumbs", "resize", "bunny"))
        assert log.read_text().count("Leafnode connection created") == dialled
        await bridge.take_up(write_policy(tmp_path, GROWN))
        assert log.read_text().count("Leafnode connection created") > dialled
