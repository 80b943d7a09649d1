"""Canaries of an agent, with real servers: answered without user code or a slot, and no job of anybody's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import pytest

from bridge import subjects
from bridge.agent import canaries, watching
from bridge.cli.agent import proving
from bridge.devserver import Bridge
from bridge.errors import ConfigurationError
from bridge.job import CANARY
from producers import Producer
from tests.integration.test_agent import AGENTS, fetch, until
from tests.integration.test_health import Watched
from tests.support import connected, running_bridge

POLICY: Final = AGENTS.replace(
    "kinds: [resize, probe]", "kinds: [resize, probe]\n    canary: 5s\n    ack_wait: 3s\n    max_attempts: 1"
)
_LABELS: Final = '{cloud="aws",queue="thumbs"}'
TRIP, AGE = f"bunny_canary_round_trip_seconds{_LABELS}", f"bunny_canary_age_seconds{_LABELS}"
JOBS: Final = 'bunny_queue_jobs{cloud="aws",queue="thumbs",via="own"}'
SOON_S: Final = 60.0


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries, "queues_of", lambda _: {"thumbs": 0.5})


async def stored(bridge: Bridge, cloud: str, stream: str) -> int:
    """How many messages a stream holds, as an inspector sees it."""
    async with await connected(bridge, f"ops-{cloud}") as inspector:
        info: dict[str, Any] = json.loads(await inspector.request(subjects.api_call("STREAM.INFO", stream), b""))
        return int(info["state"]["messages"])


async def test_a_canary_goes_the_whole_way_though_every_slot_is_taken_and_is_nobodys_job(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, POLICY) as bridge:
        watched, go_on = Watched(bridge), asyncio.Event()
        watched.worker.concurrency = 1

        @watched.worker.handler("thumbs", "probe")
        async def probe(args: int) -> int:
            await go_on.wait()
            return args

        async with watched.running(), Producer.open(bridge.identity("alpha")) as alpha:
            await watched.until("/readyz")
            jobs = await alpha.submit_many("thumbs", "probe", [1, 2])
            async with watching(bridge.identity("agent-aws"), "127.0.0.1:0", proving=proving) as (_, port):
                first = await until(port, lambda now: TRIP in now, "a canary that came home")
                assert 0 < first[TRIP] < SOON_S
                go_on.set()
                for job in jobs:
                    assert not isinstance(job, Exception)
                    await job.result(int, timeout=SOON_S)
                await until(port, lambda now: now[JOBS] == 0, "no jobs")
            _, text = await fetch(watched.port, "/metrics")
            assert 'bunny_worker_outcomes_total{kind="probe",outcome="succeeded",queue="thumbs"} 2' in text
            assert CANARY not in text


async def test_a_cut_ages_canaries_and_piles_none_up(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, POLICY, relay=True) as bridge:
        watched = Watched(bridge)
        async with (
            watched.running(),
            watching(bridge.identity("agent-aws"), "127.0.0.1:0", proving=proving) as (_, port),
        ):
            await until(port, lambda now: TRIP in now, "a canary that came home")
            assert bridge.relay is not None
            await bridge.relay.cut()
            await until(port, lambda now: now[AGE] > now[TRIP] + 6, "a canary that is overdue")
            assert await stored(bridge, "aws", "JOBS_thumbs") <= 2  # though more were due; the cut may have an ack
            seen = await until(port, lambda now: JOBS in now, "the backlog")
            assert seen[JOBS] == 0  # which is of jobs alone
            bridge.relay.heal()
            await until(port, lambda now: now[AGE] < now[TRIP] + 3, "a canary after the cut")


async def test_an_agent_submits_nothing_else_and_nobody_else_sends_canaries(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, POLICY) as bridge, Producer.open(bridge.identity("agent-aws")) as agent:
        with pytest.raises(ConfigurationError, match="what its schedules say, bunny-canary"):
            await agent.submit("thumbs", "resize", 1)
        with pytest.raises(ConfigurationError, match="submits no jobs to queue 'lookup'"):
            await agent.submit("lookup", CANARY, "x")
        async with Producer.open(bridge.identity("alpha")) as alpha:
            with pytest.raises(ConfigurationError, match="no kind 'bunny-canary'"):
                await alpha.submit("thumbs", CANARY, "x")
