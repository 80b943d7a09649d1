"""When certificates expire: all that whoever watches them must know."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from bridge.pki.report import read_chain


def file_expiry(path: Path) -> int:
    """When the first certificate of a PEM file to expire does, in milliseconds UTC.

    Raises:
        ConfigurationError: The file is missing or holds none.
    """
    return min(_expiry(certificate) for certificate in read_chain(path))


def shown_expiry(der: bytes) -> int | None:
    """When a certificate that a server showed expires, in milliseconds UTC; None if it is none."""
    try:
        return _expiry(x509.load_der_x509_certificate(der))
    except ValueError:
        return None


def _expiry(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp() * 1000)
