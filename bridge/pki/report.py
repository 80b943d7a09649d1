"""Describes the certificates of a folder, wherever they came from: expiry, usage, names, chain, key."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from bridge.errors import ConfigurationError
from bridge.files import check_private, read_file

_E = TypeVar("_E", bound=x509.ExtensionType)

USAGES: Final = {
    "clients": (ExtendedKeyUsageOID.SERVER_AUTH,),
    "leafnodes": (ExtendedKeyUsageOID.SERVER_AUTH,),
    "link": (ExtendedKeyUsageOID.CLIENT_AUTH,),
    "cluster": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
}
"""The extended key usages of each leaf certificate: a listener's is no good to dial with, nor the reverse.

Only the servers of a cluster do both, and among themselves alone.
"""

_USAGE_NAMES: Final = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one certificate file says, and what is wrong with it.

    Args:
        path: The file.
        cloud: The folder it lies in.
        usages: Extended key usages by name, empty for a root.
        names: Subject alternative names.
        not_before_ms: Start of validity, Unix milliseconds.
        not_after_ms: End of validity, Unix milliseconds.
        renew: Whether two thirds of its life have passed.
        problems: One line each; empty if it can be used.
    """

    path: Path
    cloud: str
    usages: tuple[str, ...]
    names: tuple[str, ...]
    not_before_ms: int
    not_after_ms: int
    renew: bool
    problems: tuple[str, ...]


def check(folder: Path, *, now: dt.datetime | None = None) -> list[Certificate]:
    """Describe every certificate of every cloud in ``folder``: expiry, usage, names, chain, key.

    Raises:
        ConfigurationError: There is no cloud's folder, or a file is not a certificate.
    """
    at = now or dt.datetime.now(dt.UTC)
    folders = sorted(path.parent for path in folder.glob("*/ca.pem"))
    if not folders:
        raise ConfigurationError(f"{folder}: holds no <cloud>/ca.pem; run `bunny pki`, or name the right folder")
    names = ("ca", "issuer", *USAGES)
    return [_describe(here, name, at) for here in folders for name in names if (here / f"{name}.pem").exists()]


def read_chain(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file.

    Raises:
        ConfigurationError: It is missing or holds none.
    """
    try:
        return x509.load_pem_x509_certificates(read_file(path))
    except ValueError:
        raise ConfigurationError(f"{path}: holds no PEM certificate") from None


def fingerprint(path: Path) -> str:
    """The SHA-256, in hex, of the first certificate of a file, as DER: what a server shows of who has connected.

    Raises:
        ConfigurationError: The file is missing or holds none.
    """
    return read_chain(path)[0].fingerprint(hashes.SHA256()).hex()


def is_due(certificate: x509.Certificate, now: dt.datetime | None = None) -> bool:
    """Whether two thirds of its life have passed: time to renew, with a third left to notice a failure."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (now or dt.datetime.now(dt.UTC)) >= start + (end - start) * 2 / 3


def describe_usages(certificate: x509.Certificate) -> tuple[str, ...]:
    """Its extended key usages, by the names people know."""
    usages = _extension(certificate, x509.ExtendedKeyUsage) or ()
    return tuple(_USAGE_NAMES.get(oid, oid.dotted_string) for oid in usages)


def describe_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Its subject alternative names."""
    return tuple(str(item.value) for item in _extension(certificate, x509.SubjectAlternativeName) or ())


def _describe(here: Path, name: str, now: dt.datetime) -> Certificate:
    path = here / f"{name}.pem"
    chain = read_chain(path)
    certificate = chain[0]
    return Certificate(
        path=path,
        cloud=here.name,
        usages=describe_usages(certificate),
        names=describe_names(certificate),
        not_before_ms=int(certificate.not_valid_before_utc.timestamp() * 1000),
        not_after_ms=int(certificate.not_valid_after_utc.timestamp() * 1000),
        renew=is_due(certificate, now),
        problems=tuple(_problems(here, name, chain, now)),
    )


def _problems(here: Path, name: str, chain: list[x509.Certificate], now: dt.datetime) -> list[str]:
    certificate, problems = chain[0], []
    if now >= certificate.not_valid_after_utc:
        problems.append(f"expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew it")
    if now < certificate.not_valid_before_utc:
        problems.append(f"not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: check the clock")
    wanted = USAGES.get(name)
    if wanted is not None:
        if set(_extension(certificate, x509.ExtendedKeyUsage) or ()) != set(wanted):
            names = " and ".join(_USAGE_NAMES[usage] for usage in wanted)
            problems.append(f"its extended key usage must be {names} and nothing else")
        if not _extension(certificate, x509.SubjectAlternativeName):
            problems.append("it has no subject alternative name: no peer would accept it")
        problems += _key_problems(here / f"{name}.key", certificate)
    if name != "ca" and not _chains(chain, read_chain(here / "ca.pem")):
        problems.append(f"it does not chain to {here / 'ca.pem'}")
    return problems


def _key_problems(path: Path, certificate: x509.Certificate) -> list[str]:
    try:
        check_private(path)
        key = serialization.load_pem_private_key(read_file(path), password=None)
    except ConfigurationError as error:
        return [str(error)]
    except (ValueError, TypeError):
        return [f"{path}: holds no PEM private key"]
    return [] if key.public_key() == certificate.public_key() else [f"{path}: not the certificate's key"]


def _chains(chain: list[x509.Certificate], roots: list[x509.Certificate]) -> bool:
    """Whether each certificate of the file was issued by the next, and the last by a root."""

    def issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
        try:
            child.verify_directly_issued_by(parent)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    return all(issued(child, parent) for child, parent in pairwise(chain)) and any(
        issued(chain[-1], root) for root in roots
    )


def _extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
