"""Keyed jobs over real servers: one run for a key, whoever submits it, through a cut of the link and restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from consumers import Job, Worker
from producers import KeyConflict, Producer
from tests.integration.test_jobs import SHORT, held, serving, until_empty
from tests.support import running_bridge


async def test_a_key_is_one_job_through_a_cut_and_restarts(tmp_path: Path) -> None:
    worker, calls = Worker(), list[int]()
    go = asyncio.Event()

    @worker.handler("thumbs", "resize")
    async def resize(args: dict[str, int], job: Job) -> int:
        calls.append(args["width"])
        await go.wait()
        return args["width"]

    async with running_bridge(tmp_path, SHORT, relay=True) as bridge:
        assert bridge.relay is not None
        alpha = bridge.identity("alpha")
        async with Producer.open(alpha) as first:
            token = (await first.submit("thumbs", "resize", {"width": 1, "height": 2}, key="order-42")).token
        async with serving(bridge, "bunny", worker), Producer.open(alpha) as one, Producer.open(alpha) as two:
            waiting = [
                await each.submit("thumbs", "resize", {"height": 2, "width": 1}, key="order-42") for each in (one, two)
            ]
            assert {handle.token for handle in waiting} == {token}
            with pytest.raises(KeyConflict, match="order-42"):
                await one.submit("thumbs", "resize", {"width": 2}, key="order-42")
            while not calls:  # noqa: ASYNC110  the handler tells nobody
                await asyncio.sleep(0.01)
            await bridge.relay.cut()
            go.set()
            while not await held(bridge, "ops-azure", "RESULTS_thumbs"):
                pass
            again = await two.submit("thumbs", "resize", {"width": 1, "height": 2}, key="order-42")
            assert not again.done()
            bridge.relay.heal()
            assert [await handle.result(int, timeout=30) for handle in (*waiting, again)] == [1, 1, 1]
            await until_empty(bridge, "ops-aws", "JOBS_thumbs")
        async with Producer.open(alpha) as last:
            done = await last.submit("thumbs", "resize", {"width": 1, "height": 2}, key="order-42")
            assert done.done()
            assert await done.result(int) == 1
            with pytest.raises(KeyConflict, match="order-42"):
                await last.submit("thumbs", "probe", {"width": 1, "height": 2}, key="order-42")
            assert await (await last.attach(token)).result(int) == 1
        assert calls == [1]
        assert await held(bridge, "ops-azure", "RESULTS_thumbs") == 1
