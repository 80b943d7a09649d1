"""The checks of one listener, from its name to its ``INFO``; each that fails spares the rest, which are not run."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bridge import pki
from bridge.clock import now_ms
from bridge.devserver import read_handshake
from bridge.doctor import dial
from bridge.doctor.catalogue import Check
from bridge.doctor.dns import Resolver
from bridge.doctor.finding import Findings
from bridge.doctor.holder import holder
from bridge.doctor.names import find_address
from bridge.errors import ConfigurationError, TransportError
from bridge.jetstream.credentials import tls_context

_STEPS: Final = (Check.DNS, Check.ROUTE, Check.TCP, Check.TLS)

_VERIFY: Final = {
    9: "certificate-early",
    10: "certificate-expired",
    18: "other-ca",
    19: "other-ca",
    20: "other-ca",
    21: "other-ca",
    26: "wrong-usage",
    47: "wrong-name",
    62: "wrong-name",
    64: "wrong-name",
}
"""OpenSSL's ``X509_V_ERR_*`` by what it comes to; a chain that fails otherwise is none of an authority trusted here."""

_TLS_RECORDS: Final = range(20, 24)


@dataclass(frozen=True, slots=True)
class Door:
    """A listener to look at.

    Args:
        about: What people call it.
        url: ``tls://host:port``.
        ca_file: The authorities that may vouch for it.
        shown: Certificate and key to show, at the link's listener.
    """

    about: str
    url: str
    ca_file: Path
    shown: tuple[Path, Path] | None = None

    @property
    def host(self) -> str:
        """As it is written, with a trailing dot if it has one."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port."""
        return urlsplit(self.url).port or 0

    @property
    def name(self) -> str:
        """What its certificate must name."""
        return self.host.rstrip(".")

    def context(self) -> ssl.SSLContext:
        """What services dial it with."""
        context = tls_context(self.ca_file)
        if self.shown is not None:
            try:
                context.load_cert_chain(*self.shown)
            except (OSError, ssl.SSLError):
                raise ConfigurationError(f"{self.shown[0]}: no certificate with its key") from None
        return context


@dataclass(frozen=True, slots=True)
class Opened:
    """A listener that stood every check.

    Args:
        door: Which.
        address: Where it was found.
        info: What it said of itself.
    """

    door: Door
    address: str
    info: dict[str, Any]


async def look(found: Findings, door: Door, resolver: Resolver, timeout: float) -> Opened | None:
    """Run the checks of one listener.

    Returns:
        The listener if all is well, None if one of them failed.
    """
    before = len(found.all)
    opened = await _look(found, door, resolver, timeout)
    if opened is None:
        failed = next((each for each in reversed(found.all[before:]) if each.trap), found.all[-1])
        for step in _STEPS[_STEPS.index(failed.check) + 1 :]:
            found.not_run(step, door.about, f"{failed.check} failed ({failed.trap})")
    return opened


async def _look(found: Findings, door: Door, resolver: Resolver, timeout: float) -> Opened | None:
    address = await find_address(found, door.about, door.host, resolver, timeout)
    if address is None or not _route(found, door, address) or not await _tcp(found, door, address, timeout):
        return None
    try:
        context = door.context()
    except ConfigurationError as error:
        found.trap("certificate-file", door.about, str(error))
        return None
    info = await _tls(found, door, address, context, timeout)
    return None if info is None else Opened(door, address, info)


def _route(found: Findings, door: Door, address: str) -> bool:
    try:
        mine = dial.local_address(address, door.port)
    except OSError as error:
        found.trap("no-route", door.about, f"{address}: {error.strerror}")
        return False
    found.ok(Check.ROUTE, door.about, f"{address} is reached from {mine}")
    return True


async def _tcp(found: Findings, door: Door, address: str, timeout: float) -> bool:
    where = f"{address}:{door.port}"
    try:
        async with asyncio.timeout(timeout):
            seconds = await dial.tcp_time(address, door.port)
    except TimeoutError:
        found.trap("filtered", door.about, f"{where}: no answer in {timeout:g} s")
    except OSError as error:
        name = "no-route" if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH) else "refused"
        found.trap(name, door.about, f"{where}: {os.strerror(error.errno or 0)}")
    else:
        found.ok(Check.TCP, door.about, f"{where} answers in {seconds * 1000:.1f} ms")
        return True
    return False


async def _tls(
    found: Findings, door: Door, address: str, context: ssl.SSLContext, timeout: float
) -> dict[str, Any] | None:
    heard = bytearray()
    try:
        async with asyncio.timeout(timeout), dial.dialled(address, door.port, context, door.name) as tls:
            heard = tls.heard
            await tls.handshake()
            certificate = tls.certificate
            try:
                info = await tls.read_info()
            except (OSError, TransportError) as error:  # with TLS 1.3 a certificate is judged after the handshake
                name = "port-held" if door.shown is None else "link-certificate-refused"
                found.trap(name, door.about, f"after the handshake: {_words(error)}")
                return None
    except ssl.SSLCertVerificationError as error:
        found.trap(
            _VERIFY.get(error.verify_code, "other-ca"),
            door.about,
            f"{error.verify_message.rstrip('.')}; {await _shown(door, address, timeout)}",
        )
    except (OSError, TransportError) as error:  # a timeout and what TLS raises are OSErrors
        _judge_breakdown(found, door, address, bytes(heard), error, timeout)
    else:
        _judge_certificate(found, door, certificate, bytes(heard))
        return info
    return None


def _judge_breakdown(found: Findings, door: Door, address: str, heard: bytes, error: Exception, timeout: float) -> None:
    where = f"{address}:{door.port}"
    process = holder(address, door.port)
    held = f"; {process} holds the port" if process is not None else ""
    if heard.startswith(b"INFO "):
        found.trap("info-in-clear", door.about, f"{where} sent its INFO before TLS")
    elif heard and heard[0] not in _TLS_RECORDS:
        found.trap("port-held", door.about, f"{where} answers with something that is no TLS{held}")
    elif isinstance(error, TimeoutError):
        found.trap("tls-silent", door.about, f"{where}: no answer to the handshake in {timeout:g} s{held}")
    else:
        found.trap("tls-refused", door.about, f"{where}: {_words(error)}{held}")


def _judge_certificate(found: Findings, door: Door, certificate: bytes, heard: bytes) -> None:
    shown = pki.read_presented(certificate)
    if shown is None:
        return
    left = (shown.not_after_ms - now_ms()) / 86_400_000
    if shown.renew:
        found.trap("certificate-expiring", door.about, f"{left:.1f} days left; issued by {shown.issuer}")
        return
    handshake = read_handshake(heard)
    words = f"{handshake.version}, {handshake.group}, " if handshake is not None else ""
    found.ok(Check.TLS, door.about, f"{words}certificate by {shown.issuer}, {left:.1f} days left")


async def _shown(door: Door, address: str, timeout: float) -> str:
    """What the server's certificate says, for a finding."""
    try:
        async with asyncio.timeout(timeout):
            shown = pki.read_presented(await dial.shown_certificate(address, door.port, door.name, door.shown))
    except (OSError, TransportError):
        shown = None
    if shown is None:
        return "the certificate could not be read"
    left = (shown.not_after_ms - now_ms()) / 86_400_000
    ends = f"{left:.1f} days left" if left > 0 else f"ended {-left:.1f} days ago"
    names, usages = ", ".join(shown.names) or "no name", ", ".join(shown.usages) or "any use"
    return f"it is for {names} ({usages}), by {shown.issuer}, {ends}"


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS ended with {error.reason}"
    return str(error) or "nothing came in time"
