"""`bunny doctor` from names to identity: each trap is made for real, and must be named."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import ssl
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from bridge import bundle, pki
from bridge.clock import now_ms
from bridge.crypto import SigningKey
from bridge.devserver import Folder, monitor
from bridge.identity import CA_FILE, IDENTITY_FILE, TRUST_FILE, load_keys
from bridge.policy import load_policy
from bridge.roots import load_roots
from bridge.subjects import JobKey, job, jobs_stream
from tests.acceptance.typed import bunny
from tests.integration.traps import (
    DAY,
    Report,
    Zone,
    certify,
    closed_port,
    copy_of,
    doctor,
    full_listener,
    listener,
    needs,
    prepared,
    rekey,
    resolver,
)
from tests.support import POLICY, connected, running_bridge

HOST = "relay-nats.relay.svc"
LONG = "relay-leaf.bridge.internal"
POD = "search relay.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"


def as_in_a_pod(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text(POD)
    return path


# --- nothing is wrong ------------------------------------------------------------------------------


async def test_a_bridge_that_works_is_found_well_from_everywhere(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        report = await doctor(tmp_path, cwd=tmp_path)
        assert (report.code, report.names()) == (0, set())
        checks = ("DNS", "route", "TCP", "identity", "permissions", "streams", "clock", "disk", "policy")
        for check in checks:
            assert report.verdicts(check) <= {"ok", "info"}, check
        assert report.verdicts("link", "azure to aws") == {"ok"}

        # From a pod there is less to see; what is not seen is no pass.
        pod = await doctor(tmp_path, BUNNY_IDENTITY=str(bridge.identity("bunny")))
        assert (pod.code, pod.names()) == (0, set())
        assert pod.verdicts("link", "bunny") == {"ok"}
        assert pod.verdicts("disk") == {"not run"}

        # As in production: by a name with a trailing dot, which takes one question and no search path.
        async with resolver({HOST: "127.0.0.1"}) as (where, asked):
            port = bridge.ports["aws"].clients
            named = copy_of(bridge.identity("alpha"), tmp_path / "named", server=f"tls://{HOST}.:{port}")
            report = await doctor(
                tmp_path, "--identity", named, "--resolver", where, "--resolv-conf", as_in_a_pod(tmp_path)
            )
            assert (report.code, report.names(), asked) == (0, set(), [HOST])


async def test_nothing_is_left_behind_and_no_job_is_touched(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        async with await connected(bridge, "alpha") as producer:
            subject = job(JobKey("thumbs", "alpha", "0" * 24, 1), "normal")
            await producer.publish(jobs_stream("thumbs"), subject, b"sealed")
        files = {path: path.read_bytes() for path in bridge.folder.path.glob("identities/*/*")}

        async def stored() -> list[tuple[str, int, list[tuple[int, int, int]]]]:
            _, jsz = await monitor.get(bridge.hub.monitor_port, "/jsz?accounts=1&streams=1&consumers=1")
            return sorted(
                (
                    stream["name"],
                    stream["state"]["last_seq"],
                    sorted(
                        (c["num_pending"], c["num_ack_pending"], c["delivered"]["consumer_seq"])
                        for c in stream.get("consumer_detail", ())
                    ),
                )
                for stream in jsz["account_details"][0]["stream_detail"]
            )

        before = await stored()
        assert any(name == "JOBS_thumbs" and (1, 0, 0) in consumers for name, _, consumers in before)
        for _ in range(2):
            assert (await doctor(tmp_path, cwd=tmp_path)).code == 0
        assert await stored() == before
        assert {path: path.read_bytes() for path in bridge.folder.path.glob("identities/*/*")} == files
        for cloud in ("aws", "azure"):
            report = await bridge.provision(cloud, dry_run=True)
            assert not any(change.differences for change in report.changes)
            assert report.extra == ()


async def test_system_identities_see_both_sides(tmp_path: Path) -> None:
    more = "  sys-aws: {cloud: aws, role: system}\n  sys-azure: {cloud: azure, role: system}\nqueues:"
    async with running_bridge(tmp_path, POLICY.replace("queues:", more), provisioned=False) as bridge:
        both = [argument for name in ("sys-aws", "sys-azure") for argument in ("--identity", bridge.identity(name))]
        report = await doctor(tmp_path, *both)
        assert (report.code, report.names()) == (0, set())
        assert report.verdicts("link", "azure to aws") == report.verdicts("policy", "both sides") == {"ok"}


async def test_a_cluster_is_found_well_and_its_dead_server_is_named(tmp_path: Path) -> None:
    def three(name: str, port: int) -> str:
        return str([f"tls://{name}-{n}.test:{port}" for n in (1, 2, 3)]).replace("'", '"')

    single = 'clients: "tls://relay-nats.relay.svc:4222"\n    leafnodes: "tls://relay-leaf.bridge.internal:7422"'
    assert single in POLICY
    cluster = (
        f"servers: 3\n    clients: {three('nats', 4222)}\n    leafnodes: {three('leaf', 7422)}\n"
        f"    routes: {three('route', 6222)}"
    )
    async with running_bridge(tmp_path, POLICY.replace(single, cluster), provisioned=False) as bridge:
        bridge.say_ready()
        report = await doctor(tmp_path, cwd=tmp_path)
        assert report.names() == {"missing-stream", "link-unanswered"}, "which are not provisioned"
        assert report.verdicts("link", "azure to aws") == {"ok"}
        await bridge.servers["aws.2"].kill()
        report = await doctor(tmp_path, "--identity", bridge.identity("alpha"))
        assert report.names() == {"refused", "missing-stream"}
        assert report.verdicts("identity", "alpha") == {"ok"}, "the others serve"


def test_it_is_said_to_people_and_to_scripts(tmp_path: Path) -> None:
    assert "nothing to look at" in bunny("doctor", tmp_path, code=1).error
    down = copy_of(prepared(tmp_path).identity("alpha"), tmp_path / "pod", server=f"tls://127.0.0.1:{closed_port()}")
    said = bunny("doctor", tmp_path, "--identity", down, code=3)
    assert said.error.startswith("1 problem and 0 warnings")
    for words in ("refused: 127.0.0.1", "means: ", "do: ", "not run"):
        assert words in said.out
    assert "SERVER=VALUE" in bunny("doctor --monitor nonsense", tmp_path, "--identity", down, code=1).error


# --- DNS -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trap", "how", "host", "zone"),
    [
        ("missing-stub-zone", "a resolver without the zone", f"{LONG}.", {}),
        ("broken-stub-zone", "a resolver that answers SERVFAIL, as where a stub zone leads nowhere", LONG, {LONG: 2}),
        ("resolver-silent", "a resolver that does not answer", f"{LONG}.", {LONG: None}),
        ("search-path", "a name with two dots in a pod with `ndots:5`", LONG, {LONG: "127.0.0.1"}),
        (
            "search-capture",
            "the same, and a wildcard in the cluster's own domain",
            LONG,
            {LONG: "127.0.0.1", f"{LONG}.cluster.local": "127.0.0.2"},
        ),
        (
            "trailing-dot",
            "a Kubernetes service by its short name, with a trailing dot",
            "bunny-nats.bunny.svc.",
            {"bunny-nats.bunny.svc.cluster.local": "127.0.0.1"},
        ),
    ],
)
async def test_names(tmp_path: Path, trap: str, how: str, host: str, zone: Zone) -> None:
    alpha = copy_of(prepared(tmp_path).identity("alpha"), tmp_path / "pod", server=f"tls://{host}:{closed_port()}")
    async with resolver(zone) as (where, _):
        report = await doctor(
            tmp_path,
            *("--identity", alpha, "--resolver", where, "--resolv-conf", as_in_a_pod(tmp_path)),
            *(("--timeout", "1") if None in zone.values() else ()),  # of which the whole is waited for
        )
        report.told(trap, how)
        if not any(isinstance(answer, str) for answer in zone.values()) or trap == "trailing-dot":
            assert report.names() == {trap}
            for check in ("route", "TCP", "TLS", "permissions"):
                assert "ok" not in report.verdicts(check), "what depends on a failed check is no pass"


# --- route, TCP, TLS -------------------------------------------------------------------------------


async def test_no_route(tmp_path: Path) -> None:
    alone = ("unshare", "--map-root-user", "--net")
    needs(*alone, "true")
    alpha = copy_of(prepared(tmp_path).identity("alpha"), tmp_path / "pod", server="tls://203.0.113.7:4222")
    report = await doctor(tmp_path, "--identity", alpha, under=alone)
    report.told("no-route", "a network namespace without a route")


async def test_ports(tmp_path: Path) -> None:
    folder = prepared(tmp_path)

    async def at(port: int, *more: str) -> Report:
        alpha = copy_of(folder.identity("alpha"), tmp_path / "pod", server=f"tls://127.0.0.1:{port}")
        return await doctor(tmp_path, "--identity", alpha, *more)

    soon = ("--timeout", "1")  # where the whole of it is waited for

    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-other\r\n")
        await reader.read(-1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass

    (await at(closed_port())).told("refused", "a port that nothing listens on")
    with full_listener() as port:
        (await at(port, *soon)).told("filtered", "a port whose SYNs are dropped")
    async with listener(banner) as port:
        (await at(port)).told("port-held", "another program that holds the port")
    async with listener(silent) as port:
        (await at(port, *soon)).told("tls-silent", "a program that takes the connection and says nothing")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.load_cert_chain(folder.pki / "aws/clients.pem", folder.pki / "aws/clients.key")
    async with listener(silent, ssl=old) as port:
        (await at(port)).told("tls-refused", "a listener with TLS 1.2 alone")


async def test_an_old_server(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder.pki / "aws/clients.pem", folder.pki / "aws/clients.key")

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_name": "old", "version": "2.10.7", "domain": "aws", "nonce": "n", "headers": True}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")

    async with listener(server, ssl=context) as port:
        alpha = copy_of(folder.identity("alpha"), tmp_path / "pod", server=f"tls://127.0.0.1:{port}")
        report = await doctor(tmp_path, "--identity", alpha)
        report.told("old-server", "a listener whose INFO says 2.10.7")


async def test_certificates(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, provisioned=False) as bridge:
        aws = bridge.folder.pki / "aws"
        good = {name: (aws / name).read_bytes() for name in ("clients.pem", "clients.key")}
        alpha = bridge.identity("alpha")

        async def looked(trap: str, how: str) -> None:
            await bridge.hub.reload()
            (await doctor(tmp_path, "--identity", alpha)).told(trap, how)

        certify(aws, "clients", hosts=["localhost"])
        await looked("wrong-name", "a certificate for `localhost`, dialled as 127.0.0.1")
        certify(aws, "clients", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
        await looked("wrong-usage", "a listener with a clientAuth certificate")
        certify(aws, "clients", begins=-8 * DAY, ends=-DAY)
        await looked("certificate-expired", "a certificate that ended yesterday")
        certify(aws, "clients", begins=-5 * DAY, ends=2 * DAY)
        await looked("certificate-expiring", "a certificate with 2 of its 7 days left")
        certify(aws, "clients", begins=DAY)
        await looked("certificate-early", "a certificate that begins tomorrow")
        pki.issue(bridge.policy, tmp_path / "other", hosts=pki.DEVELOPMENT_HOSTS, cloud="aws")
        for name in good:
            (aws / name).write_bytes((tmp_path / "other/aws" / name).read_bytes())
        await looked("other-ca", "a certificate of another authority with the same names")
        for name, data in good.items():
            (aws / name).write_bytes(data)

        # The leaf's end of the link: the hub judges it after the handshake.
        pki.issue(bridge.policy, tmp_path / "other", hosts=pki.DEVELOPMENT_HOSTS, cloud="azure")
        for name in ("link.pem", "link.key"):
            (bridge.folder.pki / "azure" / name).write_bytes((tmp_path / "other/azure" / name).read_bytes())
        report = await doctor(tmp_path, cwd=tmp_path)
        report.told("link-certificate-refused", "a link certificate of an authority that the hub does not trust")
        report.told("certificate-file", "the same, looked at in the pki folder")


async def test_info_in_clear(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, provisioned=False) as bridge:
        conf = bridge.folder.rendered / "aws/hub.conf"
        conf.write_text(conf.read_text().replace("handshake_first: true", "handshake_first: false"))
        await bridge.hub.restart()
        report = await doctor(tmp_path, "--identity", bridge.identity("alpha"))
        report.told("info-in-clear", "a server with `handshake_first: false`")


async def test_a_python_without_the_hybrid_group(tmp_path: Path) -> None:
    alpha = copy_of(prepared(tmp_path).identity("alpha"), tmp_path / "pod", server=f"tls://127.0.0.1:{closed_port()}")
    (tmp_path / "openssl.cnf").write_text(
        "openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = all\n[all]\nGroups = X25519:P-256\n"
    )
    report = await doctor(tmp_path, "--identity", alpha, OPENSSL_CONF=str(tmp_path / "openssl.cnf"))
    report.told("no-hybrid-group", "an OpenSSL that is configured without it, or too old to have it")


# --- identity --------------------------------------------------------------------------------------


async def test_identity_folders(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    nowhere = f"tls://127.0.0.1:{closed_port()}"

    async def looked(place: Path, trap: str, how: str) -> None:
        (await doctor(tmp_path, "--identity", place)).told(trap, how)

    open_to_all = copy_of(folder.identity("alpha"), tmp_path / "mode", server=nowhere)
    (open_to_all / IDENTITY_FILE).chmod(0o644)
    await looked(open_to_all, "identity-mode", "`chmod 644 identity.json`")

    mixed = copy_of(folder.identity("alpha"), tmp_path / "mixed", server=nowhere, identity="beta")
    await looked(mixed, "identity-folder", "the connection of beta with the keys of alpha")

    fresh = rekey(copy_of(folder.identity("alpha"), tmp_path / "fresh", server=nowhere))
    await looked(fresh, "key-not-in-bundle", "new keys, and the old bundle")

    for age, trap, how in (
        (dt.timedelta(days=31), "bundle-expired", "a bundle for 30 days, signed 31 days ago"),
        (dt.timedelta(days=25), "bundle-expiring", "a bundle for 30 days, signed 25 days ago"),
    ):
        place = copy_of(folder.identity("alpha"), tmp_path / trap, server=nowhere)
        (place / TRUST_FILE).write_bytes(signed(tmp_path, folder, load_roots(folder.roots), age))
        await looked(place, trap, how)
    place = copy_of(folder.identity("alpha"), tmp_path / "forged", server=nowhere)
    (place / TRUST_FILE).write_bytes(signed(tmp_path, folder, [SigningKey.generate()], dt.timedelta()))
    await looked(place, "bundle-refused", "a bundle signed by a key that is no root")


def signed(tmp_path: Path, folder: Folder, roots: list[SigningKey], age: dt.timedelta) -> bytes:
    """A bundle that was signed some time ago."""
    policy = load_policy(tmp_path / "bridge.yaml")
    issued = now_ms() - int(age.total_seconds() * 1000)
    return bundle.sign_payload(
        bundle.build_payload(policy, load_keys(folder.keys, policy.identities), 7, issued), roots
    )


async def test_what_the_server_thinks_of_an_identity(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, provisioned=False) as bridge:
        fresh = rekey(copy_of(bridge.identity("alpha"), tmp_path / "fresh"))
        report = await doctor(tmp_path, "--identity", fresh)
        report.told("unknown-to-server", "keys that were not rendered for the server")

        port = bridge.ports["azure"].clients
        astray = copy_of(bridge.identity("alpha"), tmp_path / "astray", server=f"tls://127.0.0.1:{port}")
        (astray / CA_FILE).write_bytes((bridge.folder.pki / "azure/ca.pem").read_bytes())
        report = await doctor(tmp_path, "--identity", astray)
        report.told("wrong-domain", "an AWS service that is pointed at Azure's server")
