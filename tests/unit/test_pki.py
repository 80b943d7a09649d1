"""Certificates, checked by the TLS stack that will check them: handshakes in memory, no network."""

from __future__ import annotations

import datetime as dt
import shutil
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bridge import pki
from bridge.errors import ConfigurationError
from bridge.policy import Policy
from tests.support import write_policy


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return write_policy(tmp_path)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Connect both ends through memory; raises what either end raises first."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    waiting = list(ends)
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
        if not waiting:
            return ends
    raise AssertionError("the handshake does not end")


def listener(folder: Path, name: str, clients_ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    if clients_ca is not None:
        context.load_verify_locations(clients_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def dialler(ca: Path, folder: Path | None = None, name: str = "") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(ca)
    if folder is not None:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


def test_the_link_is_mutual_and_each_side_trusts_the_other_cloud_alone(policy: Policy, tmp_path: Path) -> None:
    pki.issue(policy, tmp_path)
    aws, azure = tmp_path / "aws", tmp_path / "azure"
    hub = listener(aws, "leafnodes", azure / "ca.pem")
    handshake(hub, dialler(aws / "ca.pem", azure, "link"), "relay-leaf.bridge.internal")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(hub, dialler(azure / "ca.pem", azure, "link"), "relay-leaf.bridge.internal")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(hub, dialler(aws / "ca.pem", azure, "link"), "another.bridge.internal")
    with pytest.raises(ssl.SSLError, match="certificate"):
        handshake(hub, dialler(aws / "ca.pem", aws, "leafnodes"), "relay-leaf.bridge.internal")
    with pytest.raises(ssl.SSLError):
        handshake(hub, dialler(aws / "ca.pem"), "relay-leaf.bridge.internal")


def test_a_listeners_certificate_does_not_dial_and_the_links_does_not_listen(policy: Policy, tmp_path: Path) -> None:
    pki.issue(policy, tmp_path)
    azure = tmp_path / "azure"
    hub = listener(tmp_path / "aws", "leafnodes", azure / "ca.pem")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unsuitable|purpose"):
        handshake(hub, dialler(tmp_path / "aws/ca.pem", azure, "clients"), "relay-leaf.bridge.internal")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unsuitable|purpose"):
        handshake(listener(azure, "link"), dialler(azure / "ca.pem"), "bunny-nats.bunny.svc")


def test_the_servers_of_a_cluster_know_each_other_and_nobody_else(policy: Policy, tmp_path: Path) -> None:
    routes = tuple(f"tls://n{n}.relay.svc:6222" for n in range(3))
    hub = replace(policy.hub, servers=3, routes=routes)
    grown = replace(policy, clouds={**policy.clouds, hub.name: hub})
    pki.issue(policy, tmp_path)
    aws = tmp_path / "aws"
    pki.renew(grown, tmp_path, "aws")  # a cloud grows; its root stays
    for n in range(3):
        handshake(listener(aws, "cluster", aws / "ca.pem"), dialler(aws / "ca.pem", aws, "cluster"), f"n{n}.relay.svc")
    with pytest.raises(ssl.SSLError):
        handshake(listener(aws, "cluster", aws / "ca.pem"), dialler(aws / "ca.pem", aws, "clients"), "n0.relay.svc")
    link = dialler(aws / "ca.pem", tmp_path / "azure", "link")
    with pytest.raises(ssl.SSLError):
        handshake(listener(aws, "cluster", aws / "ca.pem"), link, "n0.relay.svc")
    assert not [problem for each in pki.check(tmp_path) for problem in each.problems]
    assert not (tmp_path / "azure/cluster.pem").exists()


def test_services_reach_their_own_listener(policy: Policy, tmp_path: Path) -> None:
    pki.issue(policy, tmp_path, hosts=pki.DEVELOPMENT_HOSTS)
    for cloud, host in (("aws", "relay-nats.relay.svc"), ("azure", "bunny-nats.bunny.svc")):
        for name in (host, "localhost", "127.0.0.1"):
            handshake(listener(tmp_path / cloud, "clients"), dialler(tmp_path / cloud / "ca.pem"), name)


def test_local_names_are_there_only_when_asked(policy: Policy, tmp_path: Path) -> None:
    pki.issue(policy, tmp_path)
    names = [name for each in pki.check(tmp_path) for name in each.names]
    assert not {"localhost", "127.0.0.1"} & set(names)


def test_an_issuer_cannot_name_what_is_not_its_clouds(policy: Policy, tmp_path: Path) -> None:
    """A stolen issuer key of AWS makes a certificate for another host: no peer accepts it."""
    pki.issue(policy, tmp_path)
    aws, forged = tmp_path / "aws", tmp_path / "forged"
    issuer = x509.load_pem_x509_certificate((aws / "issuer.pem").read_bytes())
    stolen = serialization.load_pem_private_key((aws / "ca.key").read_bytes(), password=None)
    real = x509.load_pem_x509_certificate((aws / "clients.pem").read_bytes())
    assert isinstance(stolen, ec.EllipticCurvePrivateKey)
    forged.mkdir()
    shutil.copy(aws / "clients.key", forged)
    for host in ("elsewhere.example", "relay-nats.relay.svc"):
        builder = x509.CertificateBuilder(
            issuer.subject, real.subject, real.public_key(), 7, real.not_valid_before_utc, real.not_valid_after_utc
        ).add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        for kind in (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.AuthorityKeyIdentifier):
            found = real.extensions.get_extension_for_class(kind)
            builder = builder.add_extension(found.value, found.critical)
        chain = (builder.sign(stolen, hashes.SHA256()), issuer)
        (forged / "clients.pem").write_bytes(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain))
        server = listener(forged, "clients")
        if host == "elsewhere.example":
            with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
                handshake(server, dialler(aws / "ca.pem"), host)
        else:
            handshake(server, dialler(aws / "ca.pem"), host)


def test_private_keys_are_private(policy: Policy, tmp_path: Path) -> None:
    for path in pki.issue(policy, tmp_path):
        assert path.stat().st_mode & 0o777 == (0o600 if path.suffix == ".key" else 0o644)


def test_nothing_is_overwritten(policy: Policy, tmp_path: Path) -> None:
    pki.issue(policy, tmp_path, cloud="azure")
    before = {path: path.read_bytes() for path in (tmp_path / "azure").iterdir()}
    with pytest.raises(ConfigurationError, match="not overwritten"):
        pki.issue(policy, tmp_path)
    assert not (tmp_path / "aws").exists()
    assert {path: path.read_bytes() for path in (tmp_path / "azure").iterdir()} == before


def test_renewal_keeps_the_root_and_needs_the_issuers_key_alone(policy: Policy, tmp_path: Path) -> None:
    pki.issue(policy, tmp_path)
    aws = tmp_path / "aws"
    (aws / "root.key").unlink()
    before = {path.name: path.read_bytes() for path in aws.iterdir()}
    pki.renew(policy, tmp_path, "aws")
    changed = {path.name for path in aws.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"clients.pem", "clients.key", "leafnodes.pem", "leafnodes.key"}
    handshake(listener(aws, "clients"), dialler(aws / "ca.pem"), "relay-nats.relay.svc")


def test_renewal_keeps_the_names_given_at_first_and_leaves_those_that_the_policy_has_left(
    policy: Policy, tmp_path: Path
) -> None:
    pki.issue(policy, tmp_path, hosts=("nats.test", "10.0.0.1", "::1"))
    (tmp_path / "aws/root.key").unlink()
    moved = replace(policy, clouds={**policy.clouds, "aws": replace(policy.hub, clients="tls://nats.test:4222")})
    pki.renew(moved, tmp_path, "aws")
    pki.renew(moved, tmp_path, "aws")
    names = {each.path.stem: each.names for each in pki.check(tmp_path) if each.cloud == "aws"}
    assert set(names["clients"]) == {"nats.test", "10.0.0.1", "::1"}
    assert set(names["leafnodes"]) == {"relay-leaf.bridge.internal", "nats.test", "10.0.0.1", "::1"}
    for name in ("nats.test", "10.0.0.1"):
        handshake(listener(tmp_path / "aws", "clients"), dialler(tmp_path / "aws/ca.pem"), name)


def test_a_new_host_needs_a_new_issuer_and_so_the_root(policy: Policy, tmp_path: Path) -> None:
    pki.issue(policy, tmp_path)
    aws = tmp_path / "aws"
    key = (aws / "root.key").read_bytes()
    (aws / "root.key").unlink()
    with pytest.raises(ConfigurationError, match="offline key"):
        pki.renew(policy, tmp_path, "aws", hosts=pki.DEVELOPMENT_HOSTS)
    (aws / "root.key").write_bytes(key)
    (aws / "root.key").chmod(0o600)
    pki.renew(policy, tmp_path, "aws", hosts=pki.DEVELOPMENT_HOSTS)
    handshake(listener(aws, "clients"), dialler(aws / "ca.pem"), "127.0.0.1")
    assert not [problem for each in pki.check(tmp_path) for problem in each.problems]


def test_check_describes_each_certificate(policy: Policy, tmp_path: Path) -> None:
    pki.issue(policy, tmp_path)
    found = {(each.cloud, each.path.name): each for each in pki.check(tmp_path)}
    assert found["aws", "leafnodes.pem"].usages == ("serverAuth",)
    assert found["aws", "leafnodes.pem"].names == ("relay-leaf.bridge.internal",)
    assert found["azure", "link.pem"].usages == ("clientAuth",)
    assert found["azure", "link.pem"].names == ("spiffe://acme/azure/link",)
    assert found["azure", "clients.pem"].names == ("bunny-nats.bunny.svc",)
    assert not any(each.problems or each.renew for each in found.values())


def test_check_finds_what_is_wrong(policy: Policy, tmp_path: Path) -> None:
    pki.issue(policy, tmp_path)
    aws, azure = tmp_path / "aws", tmp_path / "azure"
    shutil.copy(azure / "link.pem", aws / "leafnodes.pem")
    shutil.copy(azure / "clients.pem", aws / "clients.pem")
    (azure / "link.key").chmod(0o644)
    problems = {(each.cloud, each.path.stem): " ".join(each.problems) for each in pki.check(tmp_path)}
    assert "serverAuth and nothing else" in problems["aws", "leafnodes"]
    assert "does not chain" in problems["aws", "leafnodes"]
    assert "not the certificate's key" in problems["aws", "clients"]
    assert "0644" in problems["azure", "link"]
    assert not problems["azure", "clients"]


def test_check_sees_the_end_coming(policy: Policy, tmp_path: Path) -> None:
    pki.issue(policy, tmp_path)
    now = dt.datetime.now(dt.UTC)
    soon = {each.path.stem: each for each in pki.check(tmp_path, now=now + dt.timedelta(days=5))}
    assert soon["link"].renew
    assert not soon["link"].problems
    assert not soon["ca"].renew
    late = {each.path.stem: each for each in pki.check(tmp_path, now=now + dt.timedelta(days=8))}
    assert "expired" in late["link"].problems[0]
    early = {each.path.stem: each for each in pki.check(tmp_path, now=now - dt.timedelta(hours=1))}
    assert "check the clock" in early["link"].problems[0]


def test_certificates_from_elsewhere_are_not_renewed_here(policy: Policy, tmp_path: Path) -> None:
    pki.issue(policy, tmp_path)
    (tmp_path / "aws/ca.key").unlink()
    with pytest.raises(ConfigurationError, match="renewed where they were made"):
        pki.renew(policy, tmp_path, "aws")
    (tmp_path / "aws/issuer.pem").unlink()
    assert not [problem for each in pki.check(tmp_path) for problem in each.problems]
