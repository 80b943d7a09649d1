"""Makes and renews authorities and certificates: ECDSA P-256, a root and a constrained issuer per cloud."""

from __future__ import annotations

import datetime as dt
import ipaddress
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bridge.errors import ConfigurationError
from bridge.files import check_private, read_file, write_file
from bridge.pki.report import USAGES, describe_names, is_due, read_chain
from bridge.policy import Cloud, Policy

ROOT_LIFE: Final = dt.timedelta(days=3650)
ISSUER_LIFE: Final = dt.timedelta(days=365)
LEAF_LIFE: Final = dt.timedelta(days=7)
SKEW: Final = dt.timedelta(minutes=5)
"""Certificates are valid from a little before they are made: the two clouds' clocks differ."""

NEXT: Final = "next"
"""Where a cloud's new authority lies before it issues."""

DEVELOPMENT_HOSTS: Final = ("localhost", "127.0.0.1")


def issue(policy: Policy, folder: Path, *, hosts: Sequence[str] = (), cloud: str | None = None) -> list[Path]:
    """Make a certificate authority and the server certificates of each cloud.

    Args:
        policy: Names the clouds and the hosts their servers are dialled by.
        folder: Where a folder per cloud is made.
        hosts: Further names and addresses for the server certificates (`DEVELOPMENT_HOSTS` on one machine).
        cloud: Issue for this cloud alone, as each team does for its own.

    Returns:
        The files written.

    Raises:
        ConfigurationError: One of the files exists; nothing was written.
    """
    clouds = [_cloud(policy, cloud)] if cloud is not None else list(policy.clouds.values())
    for each in clouds:
        for name in _files(each):
            if (folder / each.name / name).exists():
                raise ConfigurationError(
                    f"{folder / each.name / name}: exists and is not overwritten; renew it, or move the folder away"
                )
    return [path for each in clouds for path in _issue(policy, folder / each.name, each, hosts)]


def renew(policy: Policy, folder: Path, cloud: str, *, hosts: Sequence[str] = ()) -> list[Path]:
    """Replace the leaf certificates of one cloud, and its issuer once two thirds of its life have passed.

    Roots stay, so nothing has to be sent to the other cloud. Servers take the files up at a SIGHUP; live
    connections keep the old ones until they redial.

    Args:
        policy: Names the hosts that the cloud's servers are dialled by.
        folder: Where the folder per cloud is.
        cloud: The cloud.
        hosts: Further names and addresses, besides those that the certificates have.

    Raises:
        ConfigurationError: The issuer's key is not here (certificates from elsewhere are renewed there), or
            a new issuer is due and the root's key is offline.
    """
    here, at = folder / cloud, _cloud(policy, cloud)
    hosts = [*_hosts(here, at), *hosts]
    root, issuer = read_chain(here / "ca.pem")[0], read_chain(here / "issuer.pem")[0]
    key = _read_key(here / "ca.key")
    written = []
    if is_due(issuer) or not _covers(issuer, _permitted(policy, at, hosts), _issued_usages(at)):
        if not (here / "root.key").exists():
            raise ConfigurationError(
                f"{here / 'issuer.pem'}: due for renewal, or does not cover the hosts or the cluster asked for; "
                f"put the offline key back at {here / 'root.key'} and renew again"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = _issuer(policy, at, key, root, _read_key(here / "root.key"), hosts)
        written = [_write_key(here / "ca.key", key), _write_chain(here / "issuer.pem", [issuer])]
    return written + _leaves(policy, here, at, issuer, key, hosts)


def begin_root(policy: Policy, folder: Path, cloud: str) -> bool:
    """Make a new root and issuer beside those of a cloud, and have ``ca.pem`` trust both roots; the old ones issue.

    Returns:
        Whether there was none yet.
    """
    here, at = folder / cloud, _cloud(policy, cloud)
    _read_key(here / "ca.key")  # certificates from elsewhere are replaced there
    made = not (here / NEXT / "issuer.pem").exists()
    if made:
        _authority(policy, here / NEXT, at, _hosts(here, at))
    (new,) = read_chain(here / NEXT / "ca.pem")
    old = read_chain(here / "ca.pem")[0]
    _write_chain(here / "ca.pem", [old, new])
    return made


def switch_root(policy: Policy, folder: Path, cloud: str) -> bool:
    """Let the new issuer issue the servers' certificates; ``ca.pem`` goes on to trust both roots.

    Whoever dials must trust the new root by then. Servers take the files up at a SIGHUP.

    Returns:
        Whether there was a new issuer.
    """
    here, at = folder / cloud, _cloud(policy, cloud)
    if not (here / NEXT / "issuer.pem").exists():
        return False
    (new,), roots = read_chain(here / NEXT / "ca.pem"), read_chain(here / "ca.pem")
    _write_chain(here / "ca.pem", [new, *(root for root in roots if root != new)])
    for name in ("root.key", "ca.key"):  # the issuer last: what was cut off before it is done again
        if (here / NEXT / name).exists():
            write_file(here / name, read_file(here / NEXT / name), private=True)
    issuer, key = read_chain(here / NEXT / "issuer.pem")[0], _read_key(here / "ca.key")
    _leaves(policy, here, at, issuer, key, _hosts(here, at))
    _write_chain(here / "issuer.pem", [issuer])
    shutil.rmtree(here / NEXT)
    return True


def finish_root(folder: Path, cloud: str) -> bool:
    """Have ``ca.pem`` trust the new root alone.

    Returns:
        Whether it trusted another.
    """
    here = folder / cloud
    roots = read_chain(here / "ca.pem")
    if (here / NEXT).exists():
        raise ConfigurationError(f"{here / NEXT}: its issuer is not in use yet; rotate without --retire first")
    _write_chain(here / "ca.pem", roots[:1])
    return len(roots) > 1


# --- making ----------------------------------------------------------------------------------------


def _issue(policy: Policy, here: Path, cloud: Cloud, hosts: Sequence[str]) -> list[Path]:
    issuer, key, written = _authority(policy, here, cloud, hosts)
    return [*written, *_leaves(policy, here, cloud, issuer, key, hosts)]


def _authority(
    policy: Policy, here: Path, cloud: Cloud, hosts: Sequence[str]
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey, list[Path]]:
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    subject = _subject(policy, f"{cloud.name} root")
    root = (
        _builder(subject, subject, root_key.public_key(), ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_AUTHORITY_USAGE, critical=True)
        .sign(root_key, hashes.SHA256())
    )
    issuer = _issuer(policy, cloud, key, root, root_key, hosts)
    written = [
        _write_key(here / "root.key", root_key),
        _write_key(here / "ca.key", key),
        _write_chain(here / "ca.pem", [root]),
        _write_chain(here / "issuer.pem", [issuer]),
    ]
    return issuer, key, written


def _issuer(
    policy: Policy,
    cloud: Cloud,
    key: ec.EllipticCurvePrivateKey,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
) -> x509.Certificate:
    """The online authority: it can name this cloud's hosts and this bridge, and no client where none dials."""
    permitted, excluded = _permitted(policy, cloud, hosts), None
    if not any(isinstance(name, x509.IPAddress) for name in permitted):
        # A kind of name that no constraint mentions is unconstrained: shut out addresses where none is meant.
        excluded = [x509.IPAddress(ipaddress.ip_network(net)) for net in ("0.0.0.0/0", "::/0")]
    return (
        _builder(_subject(policy, f"{cloud.name} issuer"), root.subject, key.public_key(), ISSUER_LIFE, root)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_AUTHORITY_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage(_issued_usages(cloud)), critical=False)
        .add_extension(x509.NameConstraints(permitted, excluded), critical=True)
        .add_extension(_authority_of(root_key), critical=False)
        .sign(root_key, hashes.SHA256())
    )


def _leaves(
    policy: Policy,
    here: Path,
    cloud: Cloud,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
) -> list[Path]:
    written = []
    for name in _leaf_names(cloud):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(_subject(policy, f"{cloud.name} {name}"), issuer.subject, key.public_key(), LEAF_LIFE, issuer)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_LEAF_USAGE, critical=True)
            .add_extension(x509.ExtendedKeyUsage(USAGES[name]), critical=False)
            .add_extension(x509.SubjectAlternativeName(_leaf_san(policy, cloud, name, hosts)), critical=False)
            .add_extension(_authority_of(issuer_key), critical=False)
            .sign(issuer_key, hashes.SHA256())
        )
        written.append(_write_key(here / f"{name}.key", key))
        written.append(_write_chain(here / f"{name}.pem", [certificate, issuer]))
    return written


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    life: dt.timedelta,
    within: x509.Certificate | None = None,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    end = now + life if within is None else min(now + life, within.not_valid_after_utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, leaf: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=leaf,
        key_cert_sign=not leaf,
        crl_sign=not leaf,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


_AUTHORITY_USAGE: Final = _usage(leaf=False)
_LEAF_USAGE: Final = _usage(leaf=True)


def _authority_of(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _subject(policy: Policy, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, policy.bridge),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
        ]
    )


# --- names and files -------------------------------------------------------------------------------


def _cloud(policy: Policy, name: str) -> Cloud:
    if name not in policy.clouds:
        raise ConfigurationError(f"{name}: no cloud of the policy; it has {', '.join(sorted(policy.clouds))}")
    return policy.clouds[name]


def _leaf_names(cloud: Cloud) -> tuple[str, ...]:
    cluster = ("cluster",) if cloud.servers > 1 else ()
    return ("clients", "leafnodes" if cloud.role == "hub" else "link", *cluster)


def _issued_usages(cloud: Cloud) -> list[x509.ObjectIdentifier]:
    """What the cloud's leaf certificates are used for, taken together."""
    return list(dict.fromkeys(usage for name in _leaf_names(cloud) for usage in USAGES[name]))


def _files(cloud: Cloud) -> list[str]:
    leaves = [f"{name}.{end}" for name in _leaf_names(cloud) for end in ("pem", "key")]
    return ["ca.pem", "root.key", "ca.key", "issuer.pem", *leaves]


def _permitted(policy: Policy, cloud: Cloud, hosts: Sequence[str]) -> list[x509.GeneralName]:
    """What the cloud's issuer may put its name to: the bridge, and the hosts that its servers are dialled by."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(policy.bridge)]
    for leaf in _leaf_names(cloud):
        for name in _leaf_san(policy, cloud, leaf, hosts):
            if isinstance(name, x509.IPAddress):
                names.append(x509.IPAddress(ipaddress.ip_network(name.value)))
            elif isinstance(name, x509.DNSName):
                names.append(name)
    return list(dict.fromkeys(names))


def _leaf_san(policy: Policy, cloud: Cloud, leaf: str, hosts: Sequence[str]) -> list[x509.GeneralName]:
    if leaf == "link":
        return [x509.UniformResourceIdentifier(f"spiffe://{policy.bridge}/{cloud.name}/link")]
    addresses = {"clients": cloud.clients, "leafnodes": cloud.leafnodes or "", "cluster": ",".join(cloud.routes)}
    dialled = [_host_of(address) for address in addresses[leaf].split(",")]
    return [_general_name(host) for host in dict.fromkeys([*dialled, *hosts])]


def _hosts(here: Path, cloud: Cloud) -> list[str]:
    """The hosts that all listeners' certificates have had: those given when they were made, whatever the policy says.

    Forgotten, they would be missed a week later, by whoever dials the server by such a name.
    """
    files = [here / f"{name}.pem" for name in _leaf_names(cloud) if name != "link"]
    named = [describe_names(read_chain(file)[0]) for file in files if file.exists()]
    return [host for host in named[0] if all(host in names for names in named)] if named else []


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _covers(issuer: x509.Certificate, names: list[x509.GeneralName], usages: Sequence[x509.ObjectIdentifier]) -> bool:
    permitted = issuer.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    allowed = issuer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return set(names) <= set(permitted or ()) and set(usages) <= set(allowed)


def _host_of(address: str) -> str:
    """The host of a ``tls://host:port`` address, without the trailing dot a resolver may want."""
    host = urlsplit(address).hostname
    if not host:
        raise ConfigurationError(f"{address}: names no host; write tls://host:port")
    return host.rstrip(".")


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_file(path, data, private=True)
    return path


def _write_chain(path: Path, chain: list[x509.Certificate]) -> Path:
    write_file(path, b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain))
    return path


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        raise ConfigurationError(f"{path}: missing; certificates from elsewhere are renewed where they were made")
    check_private(path)
    try:
        key = serialization.load_pem_private_key(read_file(path), password=None)
    except (ValueError, TypeError):
        raise ConfigurationError(f"{path}: holds no PEM private key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{path}: not an elliptic curve key, as authorities here have")
    return key
