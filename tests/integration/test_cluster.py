"""A cloud of three servers: one of them dies under load, and no job is lost or answered twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.devserver import monitor
from bridge.testing import EmbeddedRig, embedded_bridge
from tests.load import clustered, run_load
from tests.support import write_policy

RATE, SECONDS = 200, 6.0


async def leader(rig: EmbeddedRig, cloud: str, stream: str) -> str:
    """The name of the server that leads a stream."""
    _, body = await monitor.get(rig.bridge.of(cloud)[0].monitor_port, "/jsz?accounts=1&streams=1")
    found = [s for a in body["account_details"] for s in a.get("stream_detail", ()) if s["name"] == stream]
    name = found[0]["cluster"]["leader"]
    return next(server for server in rig.bridge.servers if f"{rig.policy.bridge}-{server.replace('.', '-')}" == name)


async def state(rig: EmbeddedRig, inspector: str, stream: str) -> dict[str, Any]:
    """What an inspector is told of a stream."""
    async with rig.transport(inspector) as transport:
        answer = json.loads(await transport.request(f"$JS.API.STREAM.INFO.{stream}", b""))
    return {"replicas": answer["config"]["num_replicas"], **answer["state"]}


@pytest.mark.parametrize(("cloud", "stream"), [("aws", "JOBS_thumbs"), ("azure", "RESULTS_thumbs")])
async def test_a_cluster_that_loses_the_leader_of_a_stream_loses_no_job(
    tmp_path: Path, cloud: str, stream: str, record_property: Callable[[str, object], None]
) -> None:
    async with embedded_bridge(write_policy(tmp_path, clustered(cloud)), folder=tmp_path / "bunny") as rig:
        killed = await leader(rig, cloud, stream)

        async def meanwhile() -> None:
            await rig.bridge.servers[killed].kill()

        outcome = await run_load(rig, tmp_path / "runs", meanwhile, rate=RATE, seconds=SECONDS)
        record_property("measured", f"{killed} of three killed, leader of {stream}: {outcome}")
        assert (outcome.lost, outcome.refused) == (0, 0)
        assert set(outcome.runs) == set(range(outcome.submitted))
        for inspector, count in (("ops-aws", outcome.submitted), ("ops-azure", outcome.submitted)):
            found = await state(rig, inspector, "RESULTS_thumbs")
            assert found["messages"] == found["num_subjects"] == count  # one result of each job, in both clouds
        assert (await state(rig, f"ops-{cloud}", "RESULTS_thumbs"))["replicas"] == 3

        await rig.bridge.restart(killed)
        await rig.until_flowing(30)
