"""The commands that start or change servers: `up`, and the way to production from `init` to a job's result."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from bridge.devserver import Server, monitor
from bridge.devserver.ports import free_port
from bridge.identity import Connection
from consumers import Worker
from producers import Producer
from tests.acceptance.typed import bunny, up

# --- up --------------------------------------------------------------------------------------------


def test_up_runs_until_it_is_stopped_and_the_others_find_it(tmp_path: Path) -> None:
    with up("up", tmp_path) as running:
        said = running.until("bunny work")
        assert "There is no bridge.yaml here: running the built-in one." in said
        assert "acme is up, in .bunny; Ctrl-C stops it." in said
        assert ".bunny/identities/relay-api" in said
        below = tmp_path / "below"
        below.mkdir()
        plain = bunny("provision --dry-run", below)
        assert "stream JOBS_thumbnails" in plain.out
        report = bunny("provision --json", below).json
        assert [each["cloud"] for each in report["clouds"]] == ["aws", "azure"]
        assert {change["outcome"] for each in report["clouds"] for change in each["changes"]} == {"unchanged"}
        change(tmp_path / ".bunny/rendered/aws/plan.json", description="another")
        change(tmp_path / ".bunny/rendered/azure/plan.json", storage="memory")
        assert "storage is" in bunny("provision", below, code=1).error
        aws, azure = bunny("provision --dry-run --json", below, code=1).json["clouds"]
        assert [each["changes"][0]["outcome"] for each in (aws, azure)] == ["updated", "refused"]
        again = bunny("up", tmp_path, code=1)
        assert ".bunny: in use by process" in again.error
        assert "name another folder with --dir" in again.error
        ended = running.stop(signal.SIGINT)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.endswith("stopped; the streams are kept\n")
    assert not (tmp_path / ".bunny/ready.json").exists()
    assert (tmp_path / ".bunny/.gitignore").read_text() == "*\n"
    assert "no bridge runs here: start one with `bunny up`" in bunny("provision", tmp_path, code=1).error


def change(plan: Path, **fields: str) -> None:
    """Write other fields into a plan's first stream."""
    content = json.loads(plan.read_text())
    content["streams"][0] |= fields
    plan.write_text(json.dumps(content))


def test_two_bridges_side_by_side_and_ports_as_asked(tmp_path: Path) -> None:
    taken: set[int] = set()
    hub, leaf, link = (free_port(taken) for _ in range(3))
    with (
        up(f"up --dir one --json --hub-port {hub} --leaf-port {leaf} --link-port {link}", tmp_path) as one,
        up("up --dir two --json", tmp_path) as two,
    ):
        first, second = json.loads(one.until("version")), json.loads(two.until("version"))
        assert first["clouds"]["aws"]["clients"] == f"tls://127.0.0.1:{hub}"
        assert first["clouds"]["azure"]["clients"] == f"tls://127.0.0.1:{leaf}"
        assert first["link"]["address"] == f"tls://127.0.0.1:{link}"
        assert first == json.loads((tmp_path / "one/ready.json").read_text())
        addresses = [each["clients"] for ready in (first, second) for each in ready["clouds"].values()]
        assert len(set(addresses)) == 4
        assert bunny("provision --dir two --json", tmp_path).code == 0
        taken_port = bunny(f"up --dir three --hub-port {hub}", tmp_path, code=1)
        assert "address already in use" in taken_port.error
        ended = one.stop(signal.SIGTERM)
        assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_a_bridge_that_was_killed_is_named_and_starts_again(tmp_path: Path) -> None:
    with up("up", tmp_path) as running:
        running.until("bunny work")
        pid = json.loads((tmp_path / ".bunny/ready.json").read_text())["pid"]
        running.send(signal.SIGKILL)
        assert running.ended().code == -signal.SIGKILL
    assert f"(process {pid}) has ended; start one with `bunny up" in bunny("provision", tmp_path, code=1).error
    with up("up", tmp_path) as running:
        running.until("bunny work")
        bunny("provision", tmp_path)


def test_up_says_when_a_server_ends(tmp_path: Path) -> None:
    with up("up --json", tmp_path) as running:
        ready = json.loads(running.until("version"))
        os.kill(ready["clouds"]["azure"]["pid"], signal.SIGKILL)
        ended = running.ended()
    assert ended.code == 3
    assert "azure: the server ended (killed by signal 9); see " in ended.error


def test_interrupted_before_it_is_up_is_130(tmp_path: Path) -> None:
    (tmp_path / ".bunny").mkdir()
    with (tmp_path / ".bunny/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a server of a former run that takes its time to end
        with up("up", tmp_path) as running:
            running.until("There is no bridge.yaml here")
            running.send(signal.SIGINT)
            ended = running.ended()
    assert (ended.code, ended.err) == (130, "")


# --- the way to production -------------------------------------------------------------------------


def policy_of(ports: dict[str, int]) -> str:
    """The first policy's clouds at addresses of this machine."""
    return f"""\
version: 1
bridge: acme
clouds:
  aws:
    role: hub
    clients: "tls://127.0.0.1:{ports["hub"]}"
    leafnodes: "tls://127.0.0.1:{ports["link"]}"
    durability: process
  azure:
    role: leaf
    clients: "tls://127.0.0.1:{ports["leaf"]}"
    durability: process
identities:
  relay-api: {{cloud: aws}}
  bunny: {{cloud: azure}}
  provisioner-aws: {{cloud: aws, role: provisioner}}
  provisioner-azure: {{cloud: azure, role: provisioner}}
  azure-link: {{cloud: azure, role: link}}
trust: {{threshold: 2, expires: 30d}}
queues:
  thumbnails:
    producers: [relay-api]
    workers: bunny
    kinds: [resize]
    max_bytes: 1GiB
"""


def deliver(home: Path) -> None:
    """What a deployment does: each identity's folder gets its connection, its cloud's CA, the bundle and the roots."""
    for connection in (home / "rendered").glob("*/connections/*.yaml"):
        cloud, folder = connection.parents[1].name, home / "identities" / connection.stem
        shutil.copy(connection, folder / "connection.yaml")
        shutil.copy(home / "pki" / cloud / "ca.pem", folder)
        shutil.copy(home / "trust.json", folder)
        shutil.copy(home / "roots.json", folder)
    shutil.copy(home / "identities/azure-link/leaf-seed.conf", home / "rendered/azure")


@contextlib.asynccontextmanager
async def servers(home: Path, ports: dict[str, int]) -> AsyncIterator[None]:
    """Both servers, from the rendered files exactly as they lie there."""
    pki = home / "pki"
    hub = {
        "HUB_NAME": "hub",
        "HUB_CLIENTS": f"127.0.0.1:{ports['hub']}",
        "HUB_MONITOR": f"127.0.0.1:{ports['hub-monitor']}",
        "HUB_LEAFNODES": f"127.0.0.1:{ports['link']}",
        "HUB_CLIENT_CERT": str(pki / "aws/clients.pem"),
        "HUB_CLIENT_KEY": str(pki / "aws/clients.key"),
        "HUB_LEAF_CERT": str(pki / "aws/leafnodes.pem"),
        "HUB_LEAF_KEY": str(pki / "aws/leafnodes.key"),
        "LEAF_LINK_CA": str(pki / "azure/ca.pem"),
        "HUB_STORE": str(home / "store/aws"),
    }
    leaf = {
        "LEAF_NAME": "leaf",
        "LEAF_CLIENTS": f"127.0.0.1:{ports['leaf']}",
        "LEAF_MONITOR": f"127.0.0.1:{ports['leaf-monitor']}",
        "LEAF_CLIENT_CERT": str(pki / "azure/clients.pem"),
        "LEAF_CLIENT_KEY": str(pki / "azure/clients.key"),
        "LEAF_LINK_CERT": str(pki / "azure/link.pem"),
        "LEAF_LINK_KEY": str(pki / "azure/link.key"),
        "HUB_LINK_CA": str(pki / "aws/ca.pem"),
        "LEAF_STORE": str(home / "store/azure"),
    }
    rendered, logs = home / "rendered", home / "logs"
    pair = (
        Server("aws", rendered / "aws/hub.conf", hub, monitor_port=ports["hub-monitor"], log=logs / "aws"),
        Server("azure", rendered / "azure/leaf.conf", leaf, monitor_port=ports["leaf-monitor"], log=logs / "azure"),
    )
    async with contextlib.AsyncExitStack() as stack:
        for server in pair:
            stack.push_async_callback(server.stop)
            await server.start()
        yield


async def test_from_init_to_the_result_of_a_job(tmp_path: Path) -> None:
    taken: set[int] = set()
    ports = {name: free_port(taken) for name in ("hub", "leaf", "link", "hub-monitor", "leaf-monitor")}
    bunny("init", tmp_path)
    (tmp_path / "bridge.yaml").write_text(policy_of(ports))
    for name in ("relay-api", "bunny", "provisioner-aws", "provisioner-azure", "azure-link"):
        bunny("keys new", tmp_path, name)
    one, two, _ = bunny("trust init --roots 3 --json", tmp_path).json["private"]
    bunny("trust sign --root", tmp_path, one)
    bunny("trust sign --add --root", tmp_path, two)
    assert bunny("trust show", tmp_path).out.startswith("VALID")
    bunny("pki", tmp_path)
    bunny("pki --check pki", tmp_path)
    bunny("render --out rendered", tmp_path)
    deliver(tmp_path)
    bunny("render --out rendered --check", tmp_path)  # the seed beside them is no difference

    async def provision(cloud: str, *more: str, code: int = 0) -> str:
        line = f"provision --identity identities/provisioner-{cloud} --plan rendered/{cloud}/plan.json --timeout 20"
        said = await asyncio.to_thread(bunny, line, tmp_path, *more, code=code)
        return said.out + said.err

    async with servers(tmp_path, ports):
        assert re.search(r"stream JOBS_thumbnails +created", await provision("aws", "--dry-run"))
        for cloud in ("azure", "aws"):
            assert "created" in await provision(cloud)
            again = await provision(cloud)
            assert "unchanged" in again
            assert "created" not in again

        async def copying() -> bool:
            return all((await monitor.copies(ports["hub-monitor"])).values())

        await monitor.until(copying, 30, "results flowing home")
        await job_of(tmp_path)

        plan = tmp_path / "rendered/aws/plan.json"
        wanted = json.loads(plan.read_text())
        jobs = wanted["streams"][0]
        jobs["max_bytes"] *= 2
        jobs["metadata"]["io.nats.monitor.subjects-warn"] = "7"
        plan.write_text(json.dumps(wanted))
        dry = " ".join((await provision("aws", "--dry-run")).split())
        assert "stream JOBS_thumbnails max_bytes 1GiB 2GiB" in dry
        assert "stream JOBS_thumbnails io.nats.monitor.subjects-warn 500000 7" in dry
        assert "updated" in await provision("aws")
        assert "updated" not in await provision("aws")
        jobs["storage"] = "memory"
        plan.write_text(json.dumps(wanted))
        refused = await provision("aws", code=1)
        assert "JOBS_thumbnails: storage is" in refused
        shutil.copy(tmp_path / "rendered/azure/plan.json", plan)
        assert "the plan of azure" in await provision("aws", code=1)
        wrong = tmp_path / "identities/relay-api"
        said = await asyncio.to_thread(bunny, "provision --plan", tmp_path, plan, code=1, BUNNY_IDENTITY=str(wrong))
        assert said.error.endswith("its role is service; name the folder of a provisioner")

    refused = await provision("azure", "--timeout", "2", code=3)
    assert refused == f"bunny: tls://127.0.0.1:{ports['leaf']}: Connection refused; is the server up?\n"


async def job_of(home: Path) -> None:
    """A job from the one cloud, and its result from the other."""
    assert Connection.load(home / "identities/bunny").queues["thumbnails"].home == "aws"
    worker = Worker(home / "identities/bunny")

    @worker.handler("thumbnails", "resize")
    async def resize(args: dict[str, int]) -> int:
        return args["width"] * 2

    working = asyncio.create_task(worker.run())
    try:
        async with Producer.open(home / "identities/relay-api") as relay:
            job = await relay.submit("thumbnails", "resize", {"width": 320})
            assert await job.result(int) == 640
    finally:
        worker.stop()
        await working
