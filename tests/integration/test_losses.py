"""What agents see of what an administrator makes the streams lose, and that they see nothing where jobs are worked."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from bridge.agent import losses, run
from bridge.agent.losses import Seen
from consumers import Worker
from producers import Producer
from tests.attacks.test_loss import administrator, expire
from tests.integration.test_agent import AGENTS, both, until
from tests.integration.test_jobs import serving
from tests.support import running_bridge

VANISHED = 'bunny_queue_jobs_vanished_total{cloud="aws",queue="thumbs"}'
LOST = 'bunny_results_lost{cloud="aws",queue="thumbs"}'


def went_back(stream: str, cloud: str = "aws") -> str:
    return f'bunny_stream_rollbacks_total{{cloud="{cloud}",queue="thumbs",stream="{stream}"}}'


async def test_agents_see_what_an_administrator_makes_streams_lose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "INTERVAL_S", 0.1)
    monkeypatch.setattr(losses, "WINDOW_S", 1.0)
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        return args

    async with (
        running_bridge(tmp_path, AGENTS) as bridge,
        both(bridge) as ((agent, aws), (_, azure)),
        contextlib.AsyncExitStack() as stack,
    ):

        def looks(stream: str) -> list[Seen]:
            return list(agent.state.losses._streams["thumbs", stream].looks)

        async with Producer.open(bridge.identity("alpha")) as alpha, serving(bridge, "bunny", worker):
            for handle in await alpha.submit_many("thumbs", "resize", range(300)):
                assert not isinstance(handle, Exception)
                await handle.result()
        await bridge.hub.stop()
        shutil.copytree(bridge.folder.store("aws"), tmp_path / "earlier")
        await bridge.hub.start()
        async with Producer.open(bridge.identity("alpha")) as alpha:
            for n in range(4):
                await alpha.submit("thumbs", "resize", n)
        kept = 'bunny_results_kept{cloud="azure",queue="thumbs",via="peer"}'
        seen = await until(aws, lambda m: m.get(LOST) == 0 and m.get(kept) == 300, "the results to be told")
        assert seen[VANISHED] == seen[went_back("JOBS_thumbs")] == seen[went_back("RESULTS_thumbs")] == 0
        admin = await stack.enter_async_context(administrator(bridge))  # a reload may cost a look
        await until(aws, lambda m: [s.messages for s in looks("JOBS_thumbs")] == [4] * 4, "some looks at what waits")

        await expire(admin, "JOBS_thumbs")
        await until(aws, lambda m: m.get(VANISHED) == 4, "the jobs to be missed")
        await expire(admin, "RESULTS_thumbs")
        await until(aws, lambda m: m.get(LOST) == 300, "the results to be missed")
        await stack.aclose()

        await bridge.hub.stop()
        shutil.rmtree(bridge.folder.store("aws"))
        shutil.copytree(tmp_path / "earlier", bridge.folder.store("aws"))
        await bridge.hub.start()
        seen = await until(aws, lambda m: m.get(went_back("JOBS_thumbs")) == 1, "the stream to be seen below")
        assert seen[VANISHED] == 4
        assert (await until(azure, lambda m: True, ""))[went_back("RESULTS_thumbs", "azure")] == 0
