"""``nats audit`` goes by the thresholds of the policy: in a cluster, which is where it can gather streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import nats.errors
from nats.aio.client import Client

from bridge.devserver import Server, monitor
from bridge.devserver.ports import free_port
from bridge.provision import provision
from bridge.render.streams import plan
from bridge.subjects import api_call
from tests.nats_cli import Nats, binary
from tests.support import POLICY, write_policy

CONFIG = """
server_name: "{name}"
listen: "127.0.0.1:{clients}"
http: "127.0.0.1:{monitor}"
jetstream {{ store_dir: "{store}", domain: azure }}
cluster {{ name: azure, listen: "127.0.0.1:{routes}", routes: [{peers}] }}
accounts {{
  BUNNY {{ jetstream: enabled, users: [{{ user: owner, password: owner }}] }}
  SYS {{ users: [{{ user: system, password: system }}] }}
}}
system_account: SYS
"""


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[list[str]]:
    """Three servers and nothing of ours but the streams to come; yields their addresses."""
    taken: set[int] = set()
    ports = [(free_port(taken), free_port(taken), free_port(taken)) for _ in range(3)]
    peers = ", ".join(f'"nats://127.0.0.1:{routes}"' for _, _, routes in ports)
    servers = []
    for n, (clients, http, routes) in enumerate(ports, 1):
        name, store, config = f"azure-{n}", folder / f"store-{n}", folder / f"{n}.conf"
        values = {
            "name": name,
            "clients": clients,
            "monitor": http,
            "routes": routes,
            "peers": peers,
            "store": store,
        }
        config.write_text(CONFIG.format(**values))
        servers.append(Server(name, config, {}, monitor_port=http, log=folder / f"{n}.log"))
    try:
        await asyncio.gather(*(server.start() for server in servers))
        yield [f"nats://127.0.0.1:{clients}" for clients, _, _ in ports]
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


class Owner:
    """A connection that may do everything, as `provision` wants one."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def request(self, subject: str, payload: bytes, timeout: float = 10.0) -> bytes:
        return (await self.client.request(subject, payload, timeout=timeout)).data

    async def led(self) -> bool:
        try:
            return "error" not in json.loads(await self.request(api_call("INFO"), b"", timeout=1.0))
        except nats.errors.Error:
            return False


async def test_the_audit_of_a_cluster_finds_what_is_beyond_the_policy(tmp_path: Path) -> None:
    binary()
    routes = ", ".join(f'"tls://bunny-nats-{n}.bunny.svc:6222"' for n in range(3))
    three = f"  azure:\n    role: leaf\n    servers: 3\n    routes: [{routes}]\n"
    text = POLICY.replace("  azure:\n    role: leaf\n", three)
    text = text.replace("kinds: [find]", "kinds: [find]\n    max_pending: 2")
    wanted = plan(write_policy(tmp_path, text), "azure")
    context = tmp_path / "nats" / "context" / "system.json"
    context.parent.mkdir(parents=True)
    async with cluster(tmp_path) as urls:
        context.write_text(json.dumps({"url": urls[0], "user": "system", "password": "system"}))
        client = await nats.connect(urls[0], user="owner", password="owner")
        owner = Owner(client)
        await monitor.until(owner.led, 30, "a leader among the servers")
        await provision(owner, wanted)
        assert (await _audit(Nats(tmp_path), tmp_path / "sound.zip")) == ("PASS", "PASS")
        for n in (1, 2):
            await client.request(f"jobs.lookup.normal.gamma.feedfacefeedfacefeedface.{n}", b"sealed", timeout=10)
        await client.request("dead.thumbs.alpha.feedfacefeedfacefeedface.1.0", b"sealed", timeout=10)
        assert (await _audit(Nats(tmp_path), tmp_path / "beyond.zip")) == ("FAIL", "FAIL")
        await client.close()


async def _audit(cli: Nats, archive: Path) -> tuple[str, str]:
    """How the checks of streams and of consumers by metadata come out."""
    gather = ("audit", "gather", "--no-server-profiles", "--no-progress", "--output", str(archive))
    await asyncio.to_thread(cli, "system", *gather)
    said = await asyncio.to_thread(cli, "system", "audit", "analyze", str(archive), code=None)
    return _outcome(said, "JETSTREAM_004"), _outcome(said, "JETSTREAM_005")


def _outcome(said: str, code: str) -> str:
    return next(line for line in said.splitlines() if f"[{code}]" in line)[1:5]
