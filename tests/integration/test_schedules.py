"""Recurring jobs over real servers: agents come and go, a broker stops, and every tick is one job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bridge import keyed
from bridge.agent import watching
from bridge.cli.agent import producing
from bridge.clock import now_ms
from bridge.devserver import Bridge, monitor
from bridge.errors import ConfigurationError
from bridge.identity import Identity
from bridge.ticks import as_text
from consumers import Job, Worker
from producers import Producer
from tests.integration.test_agent import AGENTS, typed, until
from tests.integration.test_jobs import held, serving, until_empty
from tests.support import running_bridge

ARGS = {"face": "\U0001f600", "n": 1.5}
SCHEDULES = """\
schedules:
  often:
    agent: agent-aws
    queue: thumbs
    kind: probe
    every: 1s
    missed: all
    since: {since}
    args: {{face: "\U0001f600", n: 1.5}}
"""


def passed(time: int) -> Callable[[], Awaitable[bool]]:
    """Whether it is later than that."""

    async def probe() -> bool:
        return now_ms() > time

    return probe


def jobs_of(bridge: Bridge, first: int, last: int) -> list[str]:
    """The job of each tick: of a key that no agent chooses."""
    secret = Identity.load(bridge.identity("agent-aws")).dedup_secret
    keys = (f"schedule often {as_text(tick)}" for tick in range(first, last + 1, 1_000))
    return [keyed.session(secret, "agent-aws", "thumbs", key) + ".0" for key in keys]


async def test_a_tick_is_one_job_through_killed_agents_and_a_stopped_broker(tmp_path: Path) -> None:
    worker, runs = Worker(), list[tuple[str, int]]()
    told = asyncio.Condition()

    @worker.handler("thumbs", "probe")
    async def probe(args: dict[str, object], job: Job) -> None:
        assert args == ARGS
        async with told:
            runs.append((job.id, job.attempt))
            told.notify_all()

    async def ticks(count: int) -> None:
        """Wait for that many more."""
        wanted = len(set(runs)) + count
        async with asyncio.timeout(60), told:
            await told.wait_for(lambda: len(set(runs)) >= wanted)

    since = now_ms() // 1_000 * 1_000
    policy = AGENTS.replace("[resize, probe]", "[resize, probe]\n    ack_wait: 1s") + SCHEDULES.format(
        since=as_text(since)
    )
    async with running_bridge(tmp_path, policy) as bridge, serving(bridge, "bunny", worker):
        folder = bridge.identity("agent-aws")
        async with typed("--identity", str(folder)) as one, typed("--identity", str(folder)) as two:
            for child in (one, two):
                assert child.stdout is not None
                assert await asyncio.wait_for(child.stdout.readline(), 30)
            await ticks(3)
            one.kill()
            await ticks(3)
            await bridge.hub.kill()
            await monitor.until(passed(now_ms() + 1_500), 10, "a tick without a broker")
            await bridge.restart("aws")
            await ticks(3)
            two.kill()
        # One that starts later knows nothing of them, and makes up for what was missed meanwhile.
        async with watching(folder, "127.0.0.1:0", producing=producing) as (_, port):
            began = now_ms()
            late = 'bunny_schedule_last_tick_timestamp_seconds{cloud="aws",schedule="often"}'
            shown = await until(port, lambda m: m.get(late, 0) * 1_000 > began, "a tick of now")
            assert shown['bunny_schedule_ticks_total{cloud="aws",outcome="submitted",schedule="often"}'] > 1
        async with Producer.open(folder) as agent:
            with pytest.raises(ConfigurationError, match="what its schedules say, probe"):
                await agent.submit("thumbs", "resize", ARGS, key="mine")
        await until_empty(bridge, "ops-aws", "JOBS_thumbs")
        jobs = {job for job, _ in runs}
        expected = jobs_of(bridge, since, now_ms())
        numbers = sorted(expected.index(job) for job in jobs)
        assert numbers == [*range(numbers[0], numbers[-1] + 1)], "none left out"
        assert len(runs) == len(set(runs)), "none was started twice as the first"
        assert await held(bridge, "ops-azure", "RESULTS_thumbs") == len(jobs)
