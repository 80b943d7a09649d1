"""Agents of both clouds, with real servers and a link that can be cut: what they show, and what they no longer know."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from bridge import subjects
from bridge.agent import Agent, watching
from bridge.agent import report as reports
from bridge.clock import now_ms
from bridge.devserver import Bridge, monitor
from bridge.identity import Identity
from producers import Producer
from tests.integration.plain import plain
from tests.support import POLICY, running_bridge

ROOT = Path(__file__).resolve().parents[2]
AGENTS = POLICY.replace(
    "  ops-aws:", "  agent-aws: {cloud: aws, role: agent}\n  agent-azure: {cloud: azure, role: agent}\n  ops-aws:"
).replace("    kinds: [resize, probe]\n", "    kinds: [resize, probe]\n    inbox: [alpha]\n")


async def fetch(port: int, path: str) -> tuple[int, str]:
    """Status and body of a page."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).decode().partition("\r\n\r\n")
        return int(head.split(" ")[1]), body
    finally:
        writer.close()


async def scale(port: int, queue: str) -> tuple[int, dict[str, Any]]:
    status, body = await fetch(port, f"/scale/{queue}")
    return status, json.loads(body)


async def shown(port: int) -> dict[str, float]:
    """Every sample of a page of metrics, by name and labels as written."""
    _, text = await fetch(port, "/metrics")
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


async def until(port: int, holds: Callable[[dict[str, float]], bool], what: str) -> dict[str, float]:
    """Wait until the metrics of an agent say something."""
    last: dict[str, float] = {}

    async def probe() -> bool:
        last.clear()
        last.update(await shown(port))
        return holds(last)

    await monitor.until(probe, 40, what)
    return last


@contextlib.asynccontextmanager
async def both(bridge: Bridge) -> AsyncIterator[tuple[tuple[Agent, int], tuple[Agent, int]]]:
    async with (
        watching(bridge.identity("agent-aws"), "127.0.0.1:0") as aws,
        watching(bridge.identity("agent-azure"), "127.0.0.1:0") as azure,
    ):
        yield aws, azure


def depth(queue: str, cloud: str, via: str) -> str:
    return f'bunny_queue_jobs{{cloud="{cloud}",queue="{queue}",via="{via}"}}'


AWS, AZURE = '{cloud="aws",peer="azure"}', '{cloud="azure",peer="aws"}'


async def test_agents_know_both_clouds_and_a_cut_link_reads_unknown(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, AGENTS, relay=True) as bridge, both(bridge) as ((_, aws), (_, azure)):
        async with Producer.open(bridge.identity("alpha")) as alpha:
            for number in range(3):
                await alpha.submit("thumbs", "resize", number)
        # No worker runs: what waits is known on both sides all the same.
        seen = await until(azure, lambda m: m.get(depth("thumbs", "aws", "peer")) == 3, "the backlog to be told")
        assert seen[f"bunny_peer_up{AZURE}"] == 1
        # What servers say comes apart from what the other agent does, and each tells its policy once it has heard it.
        await until(azure, lambda m: m.get(f"bunny_policy_match{AZURE}") == 1, "both clouds to be seen to agree")
        seen = await until(
            azure, lambda m: m.get(f"bunny_link_round_trip_seconds{AZURE}", 0) > 0, "the link's round trip"
        )
        assert seen[f"bunny_link_round_trip_seconds{AZURE}"] < 5
        assert seen[f"bunny_link_up{AZURE}"] == 1
        assert seen['bunny_trust_version{cloud="aws",via="peer"}'] == 1
        status, backlog = await scale(azure, "thumbs")
        assert (status, backlog["backlog"], backlog["via"]) == (200, 3, "peer")
        assert backlog["oldest_seconds"] > 0
        status, backlog = await scale(aws, "thumbs")
        assert (status, backlog["backlog"], backlog["via"]) == (200, 3, "own")
        await until(aws, lambda m: m.get(depth("lookup", "azure", "peer")) == 0, "the empty queue to be told")
        assert (await scale(aws, "lookup"))[1]["backlog"] == 0
        assert (await fetch(azure, "/scale/nothing"))[0] == 404
        here = await until(aws, lambda m: m.get(f"bunny_link_up{AWS}") == 1, "the hub's word on its link")
        assert here['bunny_queue_oldest_seconds{cloud="aws",queue="thumbs",via="own"}'] > 0
        assert here['bunny_inbox_unread{cloud="aws",producer="alpha",queue="thumbs"}'] == 0
        assert here['bunny_inbox_oldest_limit_seconds{cloud="aws",producer="alpha",queue="thumbs"}'] == 86_400
        for name in ("ca", "server"):
            expires = here[f'bunny_certificate_expiry_timestamp_seconds{{certificate="{name}",cloud="aws"}}']
            assert expires > now_ms() / 1000

        assert bridge.relay is not None
        await bridge.relay.cut()
        unknown = await until(azure, lambda m: m[f"bunny_peer_up{AZURE}"] == 0, "the other agent to be missed")
        assert depth("thumbs", "aws", "peer") not in unknown
        status, backlog = await scale(azure, "thumbs")
        assert (status, backlog["backlog"], backlog["state"]) == (503, None, "unknown")
        assert (await scale(azure, "lookup"))[0] == 200, "its own queues it still knows"
        assert (await scale(aws, "thumbs"))[1]["backlog"] == 3
        for port in (aws, azure):
            assert (await fetch(port, "/readyz"))[0] == (await fetch(port, "/livez"))[0] == 200
        await until(azure, lambda m: m[f"bunny_link_up{AZURE}"] == 0, "the leaf to see its link down")
        await until(aws, lambda m: m[f"bunny_link_up{AWS}"] == 0, "the hub to see its link down")

        bridge.relay.heal()
        await until(azure, lambda m: m.get(depth("thumbs", "aws", "peer")) == 3, "the backlog to be told again")
        assert (await scale(azure, "thumbs"))[0] == 200


async def test_a_report_that_is_forged_repeated_or_another_s_is_not_believed(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, AGENTS) as bridge:
        # What a hostile broker could do, who holds an agent's identity can: publish there.
        mine, stranger = Identity.load(bridge.identity("agent-aws")), Identity.load(bridge.identity("alpha"))
        async with (
            watching(bridge.identity("agent-azure"), "127.0.0.1:0") as (agent, port),
            plain(bridge, "agent-aws") as thief,
        ):
            await until(port, lambda m: f"bunny_peer_up{AZURE}" in m, "the agent to listen")
            good = reports.Report("acme", "agent-aws", "aws", "ab" * 12, 5, now_ms(), "", 1, 1, {"thumbs": {"jobs": 0}})
            subject, key = subjects.stats("aws", "agent-aws"), mine.sign[-1]
            data = reports.write(good, key)
            forged = data.replace(b'"jobs":0', b'"jobs":9')
            for each in (forged, b"", data[:50], reports.write(good, stranger.sign[-1]), data, data):
                await thief.client.publish(subject, each)
            old = {"issued": now_ms() - 60_000, "n": 9}
            await thief.client.publish(subject, reports.write(_with(good, **old), key))
            await thief.client.publish(subject, reports.write(_with(good, cloud="azure", n=10), key))
            await thief.settled()
            assert not thief.refused

            def told(m: dict[str, float]) -> bool:
                return sum(count for name, count in m.items() if name.startswith("bunny_peer_reports")) == 7

            seen = await until(port, told, "all of them to be judged")
            reasons = {
                re.findall(r'reason="(\w+)"', name)[0]: count for name, count in seen.items() if "reason" in name
            }
            assert reasons == {"BadSignature": 2, "BadFrame": 2, "Repeated": 1, "Expired": 1, "NotAuthorised": 1}
            assert (await scale(port, "thumbs"))[1]["backlog"] == 0, "the true one was believed"
            assert agent.state.peers["aws"].report == good


def _with(report: reports.Report, **fields: Any) -> reports.Report:  # noqa: ANN401  fields of Report
    return dataclasses.replace(report, **fields)


@contextlib.asynccontextmanager
async def typed(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``bunny agent``, as a user types it."""
    command = (sys.executable, "-m", "bridge.cli", "agent", "--listen", "127.0.0.1:0", "--json", *arguments)
    child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def test_the_command_runs_until_it_is_stopped(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, AGENTS) as bridge:
        folder, certificate = bridge.identity("agent-azure"), bridge.folder.pki / "azure/link.pem"
        async with typed("--identity", str(folder), "--certificate", str(certificate)) as child:
            assert child.stdout is not None
            told = json.loads(await asyncio.wait_for(child.stdout.readline(), 30))
            assert told["cloud"] == "azure"
            await until(told["port"], lambda m: m.get(f"bunny_link_up{AZURE}") == 1, "the link to be seen")

            async def ready() -> bool:  # its first look goes on to the streams
                return (await fetch(told["port"], "/readyz"))[0] == 200

            await monitor.until(ready, 30, "a whole look")
            names = {name for name in await shown(told["port"]) if name.startswith("bunny_certificate")}
            assert {re.findall(r'certificate="(\w+)"', name)[0] for name in names} == {"ca", "link", "server"}
            child.terminate()
            assert await asyncio.wait_for(child.wait(), 20) == 0
        async with typed("--identity", str(bridge.identity("alpha"))) as child:
            _, error = await asyncio.wait_for(child.communicate(), 30)
            assert child.returncode == 1
            assert "role: agent" in error.decode()
