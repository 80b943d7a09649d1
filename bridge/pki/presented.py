"""Describes a certificate that a server showed: not a file of ours, so only what it says is known."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from bridge.pki.report import describe_names, describe_usages, is_due


@dataclass(frozen=True, slots=True)
class Presented:
    """What a certificate says.

    Args:
        names: Subject alternative names.
        usages: Extended key usages by name.
        issuer: Common name of its issuer.
        not_before_ms: Start of validity, Unix milliseconds.
        not_after_ms: End of validity, Unix milliseconds.
        renew: Whether two thirds of its life have passed.
    """

    names: tuple[str, ...]
    usages: tuple[str, ...]
    issuer: str
    not_before_ms: int
    not_after_ms: int
    renew: bool


def read_presented(der: bytes) -> Presented | None:
    """Read a certificate; None if it is none."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        issuers = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        return Presented(
            names=describe_names(certificate),
            usages=describe_usages(certificate),
            issuer=str(issuers[0].value) if issuers else "an unnamed authority",
            not_before_ms=int(certificate.not_valid_before_utc.timestamp() * 1000),
            not_after_ms=int(certificate.not_valid_after_utc.timestamp() * 1000),
            renew=is_due(certificate),
        )
    except ValueError:
        return None
