"""As many queues as do not fit into what a server says in one line by default."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from bridge.provision import Outcome
from consumers import Worker
from producers import Producer
from tests.integration.test_jobs import serving
from tests.support import POLICY, connected, running_bridge

NAMES = [f"{n:02}-of-many-queues-with-names-of-some-length" for n in range(64)]
MANY = POLICY[: POLICY.index("  thumbs:")] + "".join(
    f"  {name}: {{producers: [alpha], workers: bunny, kinds: [probe], max_bytes: 16MiB}}\n" for name in NAMES
)


async def test_many_queues_come_up_and_a_worker_takes_jobs_of_each(tmp_path: Path) -> None:
    worker = Worker(concurrency=16)
    for name in NAMES:

        async def probe(args: str, queue: str = name) -> str:
            return f"{queue} {args}"

        worker.handler(name, "probe")(probe)
    async with running_bridge(tmp_path, MANY) as bridge, serving(bridge, "bunny", worker):
        async with Producer.open(bridge.identity("alpha")) as alpha:
            handles = [await alpha.submit(name, "probe", "there") for name in NAMES]
            results = await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
        assert results == [f"{name} there" for name in NAMES]
        for cloud in ("aws", "azure"):  # what a server lists in several pages
            again = await bridge.provision(cloud)
            assert {change.outcome for change in again.changes} == {Outcome.UNCHANGED}
            assert not again.extra


async def test_what_one_cloud_refuses_keeps_the_other_as_it_is(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge, await connected(bridge, "alpha") as producer:
        for n in (1, 2, 3):
            subject = f"jobs.thumbs.normal.alpha.0123456789abcdef01234567.{n}"
            await producer.publish("JOBS_thumbs", subject, b"sealed")
    smaller = POLICY.replace("kinds: [resize, probe]\n", "kinds: [resize, probe]\n    max_pending: 2\n")
    smaller += "  more: {producers: [alpha], workers: bunny, kinds: [probe]}\n"
    with pytest.raises(ConfigurationError, match="nothing was changed"):
        async with running_bridge(tmp_path, smaller):
            pass
    async with running_bridge(tmp_path) as bridge:
        for cloud in ("aws", "azure"):
            assert not (await bridge.provision(cloud, dry_run=True)).extra
