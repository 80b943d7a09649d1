"""What a job is for the servers: its way there, its result's way home, two PubAcks and an ack, and nothing else."""

from __future__ import annotations

from pathlib import Path

from bench.pace import paced
from bench.policy import bench_policy
from bench.wire import per_job
from bridge.testing import embedded_bridge
from consumers import Worker

JOBS = 400


async def test_a_job_is_no_more_messages_than_its_way_and_that_of_its_result(tmp_path: Path) -> None:
    worker = Worker(concurrency=16, prefetch=64)

    @worker.handler("bench", "echo")
    async def echo(args: str) -> str:
        return args

    async with (
        embedded_bridge(bench_policy(tmp_path)) as rig,
        rig.working(worker, "pool"),
        rig.producer("producer") as producer,
    ):

        async def submit(n: int) -> None:
            handle = await producer.submit("bench", "echo", f"{n}")
            await handle.result()

        await paced(20, 20, submit)
        _, found = await per_job(rig.bridge, lambda job: paced(JOBS, 20, job), submit)
    # The hub: job, result, ack; PubAck, job, result told. The leaf: job, result, ack; PubAck, job, result and ack on
    # their way. What is more are pulls, heartbeats and looks in between, which do not grow with the number of jobs.
    expected = {"hub reads": 3, "hub writes": 3, "leaf reads": 3, "leaf writes": 4}
    assert all(most <= found[what] <= most + 0.5 for what, most in expected.items()), found
