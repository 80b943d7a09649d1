"""What is done with leases that are lost, or come back, over the transport in memory."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from bridge.memory import MemoryTransport
from bridge.transport import Delivery
from consumers import Job, Worker
from tests.fleet import Fleet, policy, until


class Away(MemoryTransport):
    """Says that it cannot reach the broker, and loses renewals."""

    async def in_progress(self, delivery: Delivery) -> None:
        """The connection is away."""

    @property
    def connected(self) -> bool:
        return False


async def test_a_lost_lease_cancels_the_handler_and_the_job_is_anothers() -> None:
    fleet = Fleet.make(policy(ack_wait_ms=1000))
    apart, well, ended = Worker(concurrency=1, prefetch=1), Worker(), asyncio.Event()
    begun: list[tuple[str, int, int]] = []
    settled: list[int] = []

    class Settles(Away):
        async def nak(self, delivery: Delivery, delay: float = 0.0) -> None:
            settled.append(delivery.delivered)
            await super().nak(delivery, delay)

    @apart.handler("thumbs", "resize")
    async def waits(args: int, job: Job) -> None:
        begun.append(("apart", args, job.attempt))
        try:
            await asyncio.Event().wait()
        finally:
            # Its slot is not free before the other one, whose lease may end a moment later, is lost as well.
            await until(lambda: [line["event"] for line in lines].count("lease_lost") == 2)
            ended.set()

    @well.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> int:
        begun.append(("well", args, job.attempt))
        return args

    transport = Settles(fleet.bridge, fleet.bridge.cloud("azure"))
    with capture_logs() as lines:
        async with fleet.producer() as relay, fleet.working(apart, transport=transport):
            handles = [await relay.submit("thumbs", "resize", n) for n in range(2)]  # one runs, one waits
            await until(lambda: apart.busy == 1)
            async with fleet.working(well):
                assert [await handle.result(int) for handle in handles] == [0, 1]
            await asyncio.wait_for(ended.wait(), 10)
            await until(lambda: apart.busy == 0)
    assert begun[0] == ("apart", 0, 1)
    assert {each for each in begun if each[0] == "well"} == {("well", 0, 2), ("well", 1, 2)}
    assert ("apart", 1, 1) not in begun
    assert not settled  # a nak of a job that is lost would take it from who has it now


async def test_what_is_delivered_again_while_it_runs_is_not_begun_again() -> None:
    fleet = Fleet.make(policy(ack_wait_ms=1000))
    worker, release = Worker(concurrency=2, prefetch=2), asyncio.Event()
    begun: list[int] = []
    seen: list[int] = []

    class Cut(MemoryTransport):
        """The link is away, which nobody here can know: renewals are sent, and do not arrive."""

        async def in_progress(self, delivery: Delivery) -> None:
            seen.append(delivery.delivered)

    @worker.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> int:
        begun.append(job.attempt)
        await release.wait()
        return args

    transport = Cut(fleet.bridge, fleet.bridge.cloud("azure"))
    async with fleet.producer() as relay, fleet.working(worker, transport=transport):
        handle = await relay.submit("thumbs", "resize", 7)
        await until(lambda: len(seen) > 6)  # two ack waits
        release.set()
        assert await handle.result(int) == 7
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    assert begun == [1]
