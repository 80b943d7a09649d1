"""A cloud of three hosts, one of which loses its power under load."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from bridge.devserver import monitor
from bridge.testing import ContainersRig, ServerContainer, containers_bridge
from tests.containers.engine import Images
from tests.load import clustered, run_load
from tests.support import write_policy

RATE: Final = 500
SECONDS: Final = 9.0
HEALED_S: Final = 60.0


async def leader(rig: ContainersRig, cloud: str, stream: str) -> ServerContainer:
    """The server that leads a stream."""
    names = list[str]()

    async def led() -> bool:  # which a server of the cloud may not have heard yet
        accounts = (await rig.of(cloud)[0].ask("/jsz?accounts=1&streams=1"))["account_details"]
        found = [s for account in accounts for s in account.get("stream_detail", ()) if s["name"] == stream]
        names[:] = [s["cluster"]["leader"] for s in found if s["cluster"].get("leader")]
        return bool(names)

    await monitor.until(led, 30, f"a leader of {stream}")
    (name,) = names
    return next(s for s in rig.of(cloud) if f"{rig.policy.bridge}-{s.name.replace('.', '-')}" == name)


async def stored(rig: ContainersRig, inspector: str, stream: str) -> tuple[int, int]:
    """How many messages a stream holds, and on how many subjects."""
    async with rig.transport(inspector) as transport:
        answer = json.loads(await transport.request(f"$JS.API.STREAM.INFO.{stream}", b""))
    return answer["state"]["messages"], answer["state"]["num_subjects"]


@pytest.mark.parametrize(("cloud", "stream"), [("aws", "JOBS_thumbs"), ("azure", "RESULTS_thumbs")])
async def test_a_host_dies_under_load_and_no_job_is_lost_or_answered_twice(
    tmp_path: Path, images: Images, record_property: Callable[[str, object], None], cloud: str, stream: str
) -> None:
    policy = write_policy(tmp_path, clustered(cloud))
    async with containers_bridge(policy, folder=tmp_path / "bunny", image=images.nats) as rig:
        victim = await leader(rig, cloud, stream)
        outcome = await run_load(rig, tmp_path / "runs", victim.kill, rate=RATE, seconds=SECONDS)
        role = rig.policy.clouds[cloud].role
        record_property("measured", f"{role} of three, host that led {stream} killed: {outcome}")
        assert (outcome.lost, outcome.refused) == (0, 0)
        assert set(outcome.runs) == set(range(outcome.submitted))
        for inspector in ("ops-aws", "ops-azure"):
            assert await stored(rig, inspector, "RESULTS_thumbs") == (outcome.submitted, outcome.submitted)
        await victim.start()
        await rig.until_flowing(HEALED_S)
