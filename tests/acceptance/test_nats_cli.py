"""The stock ``nats`` CLI beside a running bridge: it shows what operators need, and can change nothing.

What it shows is in the main in `docs/inspect.md`, which `test_inspect_doc` types; here is what a page does not show.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.nats_writes import INSPECTOR, LOCAL, QUIET, SYSTEM, attempts, prepare, writing
from tests.acceptance.typed import bunny, environment, up
from tests.nats_cli import Nats, binary
from tests.support import POLICY, connected, running_bridge

CLOUDS = pytest.mark.parametrize("cloud", ["aws", "azure"])


@dataclass(frozen=True, slots=True)
class Inspected:
    """A bridge with a dead letter, a result and a job that waits, and the CLI for it."""

    folder: Path
    nats: Nats

    def state(self) -> dict[str, Any]:
        """Every stream and consumer of both clouds: how each is set, and how far it has come."""
        ready = json.loads((self.folder / ".bunny" / "ready.json").read_text())
        return {cloud: dict(_streams(each["monitor"])) for cloud, each in ready["clouds"].items()}

    def server(self, cloud: str) -> dict[str, str]:
        """The id of a cloud's server, where it is, and a connection that could be kicked: the link's."""
        line = self.nats(f"acme-sys-{cloud}", "server", "request", "connections", "--sort", "cid").splitlines()[0]
        answer = json.loads(line)
        return {"id": answer["server"]["id"], "cid": str(answer["data"]["connections"][0]["cid"])}


def _streams(monitor: str) -> Iterator[tuple[str, Any]]:
    with urllib.request.urlopen(f"{monitor}/jsz?streams=1&consumers=1&config=1", timeout=10) as answer:  # noqa: S310 - ours
        found = json.load(answer)
    for account in found["account_details"]:
        for stream in account["stream_detail"]:
            consumers = {
                each["name"]: (
                    each["config"],
                    *(each[key] for key in ("delivered", "ack_floor", "num_ack_pending", "num_pending")),
                    each.get("paused", False),
                )
                for each in stream.get("consumer_detail") or ()
            }
            yield stream["name"], (stream["config"], stream["state"], consumers)


@pytest.fixture(scope="module")
def inspected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspected]:
    binary()
    folder = tmp_path_factory.mktemp("inspected")
    with up("up", folder, timeout=600.0) as running:
        running.until("bunny queue ls")
        worker = subprocess.Popen(
            [sys.executable, "-m", "bridge.cli", "work", "examples.work:worker"],
            cwd=folder,
            env=environment(BUNNY_IDENTITY=str(folder / ".bunny/identities/bunny")),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            bunny("submit thumbnails resize --wait", folder, '{"width": 320, "height": 200}')
            bunny("submit thumbnails resize --wait", folder, '{"width": "wide"}', code=5)
        finally:
            worker.terminate()
            worker.wait(timeout=30)
        bunny("submit thumbnails resize", folder, '{"width": 4, "height": 4}')
        yield Inspected(folder, Nats(folder / ".bunny"))


# --- what it shows ---------------------------------------------------------------------------------


@CLOUDS
def test_an_inspector_sees_its_cloud(cloud: str, inspected: Inspected) -> None:
    nats, context = inspected.nats, f"acme-ops-{cloud}"
    expected = inspected.state()
    names = set(nats(context, "stream", "ls", "--names").split())
    assert names == set(expected[cloud])
    for name in names:
        shown = json.loads(nats(context, "stream", "info", name, "--json"))
        assert shown["state"]["messages"] == expected[cloud][name][1]["messages"]
        for consumer in nats(context, "consumer", "ls", name, "--names").split():
            assert f"Consumer {name} > {consumer} created" in nats(context, "consumer", "info", name, consumer)
    account = nats(context, "account", "info")
    assert f"JetStream Account Information for domain {cloud}" in account
    assert "Permissions Violation" not in account


@CLOUDS
@pytest.mark.parametrize(
    "report", ["jetstream", "leafnodes", "connections", "accounts", "health", "cpu", "mem", "routes", "gateways"]
)
def test_a_system_identity_gets_every_report(report: str, cloud: str, inspected: Inspected) -> None:
    said = inspected.nats(f"acme-sys-{cloud}", "server", "report", report)
    assert "iolation" not in said
    assert report in ("routes", "accounts") or f"acme-{cloud}" in said
    other = "azure" if cloud == "aws" else "aws"
    assert report in ("leafnodes", "connections") or f"acme-{other}" not in said


@CLOUDS
def test_a_system_identity_asks_the_servers(cloud: str, inspected: Inspected) -> None:
    for command in ("server list", "server ping 1", "server info", "server request variables", "server request raft"):
        said = inspected.nats(f"acme-sys-{cloud}", *command.split())
        assert f"acme-{cloud}" in said or command.endswith("raft")
        assert "iolation" not in said


def test_neither_sees_what_the_other_role_sees(inspected: Inspected) -> None:
    nats = replace(inspected.nats, patience="1s")
    assert "Permissions Violation" in nats("acme-sys-aws", "stream", "info", "JOBS_thumbnails", code=1)
    assert "Permissions Violation" in nats("acme-ops-aws", "server", "list", code=None)


# --- what it cannot do -----------------------------------------------------------------------------


def test_every_command_that_writes_is_tried(inspected: Inspected) -> None:
    assert writing() - {*INSPECTOR, *SYSTEM, *LOCAL} == set()


NOT_THERE = (
    *("bucket not found", "not clustered", "no cluster info", "not a valid counter stream", "not a pinned priority"),
    *("consumer is not paused", "requires a valid terminal", "stream MINE", "did not receive a response from the meta"),
    *("specify it using --js-domain", "stream not found", "no message found", "has no cluster information"),
    *("not a pull consumer", "consumer not found"),
)
"""What the CLI says where there is nothing of the kind to change, and it asks no further."""


def refused(command: str, said: str) -> bool:
    """Whether a command was what the CLI takes, and came to nothing."""
    if "unknown long flag" in said or "required argument" in said or "required flag" in said:
        return False
    if command.startswith(QUIET):
        return True
    return "iolation" in said or any(words in said for words in NOT_THERE)


@CLOUDS
@pytest.mark.parametrize("role", ["ops", "sys"])
def test_nothing_can_be_changed(role: str, cloud: str, inspected: Inspected, tmp_path: Path) -> None:
    before = inspected.state()
    assert before["aws"]["JOBS_thumbnails"][1]["messages"] == 1
    values = {**prepare(tmp_path), **inspected.server(cloud)}
    started = json.loads(inspected.nats(f"acme-sys-{cloud}", "server", "request", "variables").splitlines()[0])

    def attempt(words: list[str], patience: int = 1) -> str:
        nats = replace(inspected.nats, patience=f"{patience}s")
        try:
            return nats(f"acme-{role}-{cloud}", *words, code=None, timeout=7 + patience)
        except subprocess.TimeoutExpired as error:  # it waits for ever for what it was refused
            return (error.stdout or b"").decode()

    with ThreadPoolExecutor(6) as at_once:
        tried = list(attempts(INSPECTOR if role == "ops" else SYSTEM, cloud, values))
        said = dict(zip(map(" ".join, tried), at_once.map(attempt, tried), strict=True))
    for words in tried:  # of six at once a busy machine may give up one before its server has answered
        if not refused(command := " ".join(words), said[command]):
            said[command] = attempt(words, 10)
    done = [f"{command}: {each[-300:]}" for command, each in said.items() if not refused(command, each)]
    assert not done, "\n".join(done)
    assert inspected.state() == before
    after = json.loads(inspected.nats(f"acme-sys-{cloud}", "server", "request", "variables").splitlines()[0])
    for key in ("start", "config_load_time", "leafnodes"):
        assert after["data"][key] == started["data"][key]
    assert inspected.server(cloud)["cid"] == values["cid"]


# --- thresholds ------------------------------------------------------------------------------------

SHORT = POLICY.replace("identities:", "max_outage: 1m\nidentities:", 1).replace(
    "kinds: [resize, probe]", "kinds: [resize, probe]\n    max_pending: 10"
)


async def test_what_is_beyond_a_limit_of_the_policy_is_critical(tmp_path: Path) -> None:
    binary()
    async with running_bridge(tmp_path, SHORT, relay=True) as bridge:
        nats = Nats(bridge.folder.path)

        async def check(context: str, *words: str) -> tuple[str, str]:
            said = await asyncio.to_thread(nats, context, "server", "check", *words, code=None)
            return said.split()[0], said

        jobs = ("stream", "--stream", "JOBS_thumbs")
        async with await connected(bridge, "alpha") as alpha:
            for n in range(1, 9):
                await alpha.publish("JOBS_thumbs", f"jobs.thumbs.normal.alpha.{'feedface' * 3}.{n}", b"sealed")
                if expected := {1: "OK", 5: "WARNING", 8: "CRITICAL"}.get(n):
                    assert (await check("acme-ops-aws", *jobs))[0] == expected
        results = ("stream", "--stream", "RESULTS_thumbs")
        assert (await check("acme-ops-aws", *results))[0] == "OK"
        assert bridge.relay is not None
        await bridge.relay.cut()
        give_up = time.monotonic() + 30
        while (said := await check("acme-ops-aws", *results))[0] != "CRITICAL":
            assert time.monotonic() < give_up, said
        assert "1 sources are inactive" in said[1]
        bridge.relay.heal()
        await bridge.until_flowing()
        assert (await check("acme-ops-aws", *results))[0] == "OK"
