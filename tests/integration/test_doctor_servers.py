"""`bunny doctor` from permissions to policy: each trap is made for real, and must be named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge.devserver import Bridge, monitor
from bridge.doctor import CATALOGUE
from bridge.errors import ConfigurationError
from bridge.identity import Identity, load_keys
from bridge.policy import load_policy
from bridge.render import render
from bridge.subjects import JobKey, job, jobs_stream
from tests.integration.traps import DOCUMENT, doctor, needs, prepared
from tests.support import POLICY, connected, running_bridge

SESSION = "0123456789abcdef01234567"


def conf(bridge: Bridge, cloud: str, name: str) -> Path:
    """A rendered file, as the server has it."""
    return bridge.folder.rendered / cloud / name


def change(path: Path, old: str, new: str) -> None:
    """Edit a file by hand."""
    text = path.read_text()
    assert old in text, (path, old)
    path.write_text(text.replace(old, new))


# --- permissions -----------------------------------------------------------------------------------


async def test_a_missing_permission(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        user = '"jobs.thumbs.normal.alpha.*.*"'
        accounts = conf(bridge, "aws", "accounts.conf")
        text = accounts.read_text()
        at = text.index(user, text.index("publish", text.index(Identity.load(bridge.identity("alpha")).nkey)))
        accounts.write_text(text[:at] + '"jobs.nothing"' + text[at + len(user) :])
        await bridge.hub.reload()
        report = await doctor(tmp_path, "--identity", bridge.identity("alpha"))
        report.told("missing-permission", "one `publish` of a producer taken out of accounts.conf")
        report = await doctor(tmp_path, cwd=tmp_path)
        report.told("render-stale", "an accounts.conf edited by hand, looked at from beside the rendered files")


# --- link ------------------------------------------------------------------------------------------


async def unlinked(bridge: Bridge) -> None:
    async def parted() -> bool:
        return not any([await monitor.links(server.monitor_port) for server in bridge.servers.values()])

    await monitor.until(parted, 20, "both sides to notice")


async def test_a_cut_link(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, relay=True) as bridge:
        assert bridge.relay is not None
        await bridge.relay.cut()
        await unlinked(bridge)
        report = await doctor(tmp_path, cwd=tmp_path)
        report.told("link-down", "the link cut")
        report.told("link-unanswered", "the link cut, seen by a worker")

        async def silent() -> bool:
            _, body = await monitor.get(bridge.hub.monitor_port, "/jsz?accounts=1&streams=1&config=1")
            streams = body["account_details"][0]["stream_detail"]
            heard = [source["active"] for stream in streams for source in stream.get("sources") or ()]
            return all(active > 5e9 for active in heard)

        await monitor.until(silent, 20, "the copy to fall silent")
        report = await doctor(tmp_path, "--identity", bridge.identity("ops-aws"))
        report.told("copy-silent", "the link cut, seen by an inspector after 5 s")


async def test_a_leaf_that_stopped_reconnecting(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, relay=True, provisioned=False) as bridge:
        assert bridge.relay is not None
        change(conf(bridge, "azure", "leaf.conf"), 'reconnect: "1s"', 'reconnect: "1h"')
        await bridge.leaf.restart()

        async def linked() -> bool:
            return await monitor.links(bridge.hub.monitor_port) > 0

        await monitor.until(linked, 20, "the link")
        await bridge.relay.cut()
        await unlinked(bridge)
        bridge.relay.heal()
        bridge.say_ready()
        report = await doctor(tmp_path, cwd=tmp_path)
        report.told("leaf-stopped", "a leaf that does not dial again after a cut that is over (`reconnect: 1h`)")


async def test_a_link_whose_key_the_hub_does_not_know(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, provisioned=False) as bridge:
        link = Identity.load(bridge.identity("link-azure")).nkey
        change(conf(bridge, "aws", "accounts.conf"), link, Identity.generate("other", link=True).nkey)
        await bridge.hub.restart()

        async def refused() -> bool:
            return "Authorization Violation" in bridge.leaf.log.read_text()

        await monitor.until(refused, 20, "the leaf to be refused")
        bridge.say_ready()
        report = await doctor(tmp_path, cwd=tmp_path)
        report.told("link-refused", "a hub with another key of the link in its accounts.conf")


async def test_slow_pings(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, provisioned=False) as bridge:
        file = conf(bridge, "aws", "hub.conf")
        file.write_text("\n".join(line for line in file.read_text().splitlines() if "ping_" not in line) + "\n")
        await bridge.hub.restart()
        bridge.say_ready()
        report = await doctor(tmp_path, cwd=tmp_path)
        report.told("slow-ping", "a hub without `ping_interval`")


# --- streams, disk ---------------------------------------------------------------------------------


async def test_missing_streams(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, provisioned=False) as bridge:
        bridge.say_ready()
        report = await doctor(tmp_path, cwd=tmp_path)
        report.told("missing-stream", "servers that were never provisioned")
        pod = await doctor(tmp_path, "--identity", bridge.identity("alpha"))
        assert "missing-stream" in pod.names(), "a producer sees it as well"


async def test_a_drifted_stream(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        async with await connected(bridge, "prov-aws") as provisioner:
            info = json.loads(await provisioner.request("$JS.API.STREAM.INFO.JOBS_thumbs", b""))
            body = json.dumps({**info["config"], "max_msgs": 7, "description": "mine"}).encode()
            answer = json.loads(await provisioner.request("$JS.API.STREAM.UPDATE.JOBS_thumbs", body))
            assert "error" not in answer
        report = await doctor(tmp_path, "--identity", bridge.identity("ops-aws"), "--policy", tmp_path / "bridge.yaml")
        report.told("drifted-stream", "`max_msgs` of a stream changed by hand")


async def test_a_full_stream(tmp_path: Path) -> None:
    policy = POLICY.replace("kinds: [resize, probe]", "kinds: [resize, probe]\n    max_pending: 5")
    async with running_bridge(tmp_path, policy) as bridge, await connected(bridge, "alpha") as producer:
        for n in range(1, 6):
            subject = job(JobKey("thumbs", "alpha", SESSION, n), "normal")
            await producer.publish(jobs_stream("thumbs"), subject, b"sealed")
            if n == 4:
                report = await doctor(tmp_path, "--identity", bridge.identity("ops-aws"))
                report.told("stream-filling", "4 jobs in a queue with `max_pending: 5`")
        report = await doctor(tmp_path, "--identity", bridge.identity("ops-aws"))
        report.told("stream-full", "5 jobs in a queue with `max_pending: 5`")


@pytest.mark.parametrize(("trap", "mebibytes"), [("disk-filling", 7.2), ("disk-full", 7.9)])
async def test_a_full_disk(tmp_path: Path, trap: str, mebibytes: float) -> None:
    needs("unshare", "--map-root-user", "--mount", "true")
    store = prepared(tmp_path).store("aws")
    store.mkdir(parents=True)
    script = f'mount -t tmpfs -o size=8m none {store} && head -c {int(mebibytes * 2**20)} /dev/zero > {store}/x && "$@"'
    under = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh")
    report = await doctor(tmp_path, cwd=tmp_path, under=under)
    report.told(trap, f"a store on a disk of 8 MiB, {mebibytes} MiB of it in use")


# --- clock -----------------------------------------------------------------------------------------


async def test_clocks(tmp_path: Path) -> None:
    needs("faketime", "-f", "+1m", "true")
    async with running_bridge(tmp_path) as bridge:
        for offset, trap in (("+10m", "clock-off"), ("+1m", "clock-drifting")):
            under = ("faketime", "-f", offset)
            place = bridge.identity("ops-aws")
            report = await doctor(tmp_path, "--identity", place, under=under, FAKETIME_DONT_FAKE_MONOTONIC="1")
            report.told(trap, f"this machine's clock set to {offset} (faketime)")


# --- policy ----------------------------------------------------------------------------------------


def more_kinds(bridge: Bridge, tmp_path: Path) -> dict[str, str]:
    """Another policy, and what it renders to."""
    (tmp_path / "bridge.yaml").write_text(POLICY.replace("[resize, probe]", "[resize, probe, crop]"))
    policy = load_policy(tmp_path / "bridge.yaml")
    return render(policy, load_keys(bridge.folder.keys, policy.identities))


async def test_policies(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        files = more_kinds(bridge, tmp_path)
        report = await doctor(tmp_path, cwd=tmp_path)
        assert {"render-stale", "bundle-differs"} <= report.names()
        report.told("bundle-differs", "a kind added to bridge.yaml, and the bundle not signed anew")

        for name, text in files.items():
            if not name.endswith("link.conf"):
                (bridge.folder.rendered / name).write_text(text)
        with conf(bridge, "aws", "accounts.conf").open("a") as accounts:
            accounts.write("no_such_key: 1\n")
        with pytest.raises(ConfigurationError, match="no_such_key"):
            await bridge.hub.reload()
        report = await doctor(tmp_path, cwd=tmp_path)
        report.told("policy-not-loaded", "a new policy rendered with one bad line, and SIGHUP: rejected as a whole")

        await bridge.leaf.reload()
        report = await doctor(tmp_path, cwd=tmp_path)
        report.told("sides-differ", "a policy that one side has loaded and the other has rejected")

        (bridge.folder.rendered / "aws/accounts.conf").write_text(files["aws/accounts.conf"])
        await bridge.hub.reload()
        assert not {"policy-not-loaded", "sides-differ"} & (await doctor(tmp_path, cwd=tmp_path)).names()


# --- the document ----------------------------------------------------------------------------------


def test_every_known_trap_is_made_and_documented() -> None:
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| ") and "**" in line]
    named = [line.partition("**")[2].partition("**")[0] for line in rows]
    assert named == list(CATALOGUE)
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_doctor*.py"))
    assert {name for name in CATALOGUE if f'"{name}"' not in tests} == set()
