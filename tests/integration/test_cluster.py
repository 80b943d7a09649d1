"""A cloud of three servers: one of them dies under load, and no job is lost or answered twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.devserver import Server, monitor
from bridge.devserver.ports import free_port
from bridge.testing import EmbeddedRig, embedded_bridge
from tests.integration.test_receipts import account, pages
from tests.load import POLICY, clustered, run_load
from tests.support import write_policy

RATE, SECONDS = 200, 6.0


async def leader(rig: EmbeddedRig, cloud: str, stream: str) -> str:
    """The name of the server that leads a stream."""
    names = list[str]()

    async def led() -> bool:  # which a server of the cloud may not have heard yet
        _, body = await monitor.get(rig.bridge.of(cloud)[0].monitor_port, "/jsz?accounts=1&streams=1")
        found = [s for a in body["account_details"] for s in a.get("stream_detail", ()) if s["name"] == stream]
        names[:] = [s["cluster"]["leader"] for s in found if s["cluster"].get("leader")]
        return bool(names)

    await monitor.until(led, 30, f"a leader of {stream}")
    (name,) = names
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
    policy = clustered(cloud, POLICY.replace("ack_wait: 3s", "ack_wait: 3s, receipts: on"))
    async with embedded_bridge(write_policy(tmp_path, policy), folder=tmp_path / "bunny") as rig:
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
        assert (await state(rig, f"ops-{cloud}", "RECEIPTS_thumbs"))["replicas"] == 3
        receipts = account(rig.bridge, await pages(rig.bridge))
        assert (receipts.problems, receipts.unended, len(receipts.runs)) == ([], [], outcome.submitted)

        await rig.bridge.restart(killed)
        await rig.until_flowing(30)


@pytest.mark.parametrize(("certificate", "joins"), [("cluster", True), ("link", False), ("clients", False)])
async def test_only_a_certificate_that_names_a_route_joins_the_cluster(
    tmp_path: Path, certificate: str, joins: bool
) -> None:
    """The leaf's link certificate is of the same authority and good for dialling: it is no good for routing."""
    policy = write_policy(tmp_path, clustered("azure"))
    async with embedded_bridge(policy, folder=tmp_path / "bunny", provisioned=False) as rig:
        bridge, taken = rig.bridge, set[int]()
        pki, port = bridge.folder.pki / "azure", free_port(taken)
        config = tmp_path / "stranger.conf"
        config.write_text(
            f'server_name: stranger, listen: "127.0.0.1:{free_port(taken)}", http: "127.0.0.1:{port}"\n'
            f'cluster {{ name: "acme-azure", listen: "127.0.0.1:{free_port(taken)}", '
            f'routes: ["tls://localhost:{bridge.ports["azure.1"].routes}"], '
            f'tls {{ cert_file: "{pki / certificate}.pem", key_file: "{pki / certificate}.key", '
            f'ca_file: "{pki}/ca.pem" }} }}\n'
        )
        stranger = Server("stranger", config, {}, monitor_port=port, log=tmp_path / "stranger.log")

        async def joined() -> bool:
            _, body = await monitor.get(bridge.leaf.monitor_port, "/routez")
            return "stranger" in {route["remote_name"] for route in body["routes"]}

        async def refused() -> bool:
            return any(word in bridge.leaf.log.read_text() for word in ("authentication error", "TLS route handshake"))

        await stranger.start()
        try:
            await monitor.until(joined if joins else refused, 20, "the cluster's answer to a stranger")
            assert await joined() is joins
        finally:
            await stranger.stop()
