"""The identity check: the folder's files first, then whether the server knows whose they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridge import bundle
from bridge.clock import now_ms
from bridge.doctor import dial
from bridge.doctor.catalogue import Check
from bridge.doctor.door import Opened
from bridge.doctor.finding import Findings
from bridge.doctor.session import NotAccepted, Session
from bridge.errors import BridgeError, BundleExpired, ConfigurationError, TransportError, TrustError
from bridge.files import check_private, read_file
from bridge.identity import IDENTITY_FILE, ROOTS_FILE, TRUST_FILE, Connection, Identity
from bridge.policy import Role
from bridge.trust import Trust, least_version

LEAST_SERVER: Final = (2, 15, 1)


@dataclass(frozen=True, slots=True)
class Patient:
    """An identity folder, as far as it could be read.

    Args:
        folder: The folder.
        connection: Its ``connection.yaml``.
        identity: Its private half; None if it cannot be used.
        trust: Its trust bundle; None if it cannot be relied on.
    """

    folder: Path
    connection: Connection
    identity: Identity | None
    trust: Trust | None

    @property
    def name(self) -> str:
        """Who it is."""
        return self.connection.identity


def read_patient(found: Findings, folder: Path) -> Patient | None:
    """Check the files of an identity folder, as the service that starts with them would."""
    try:
        connection = Connection.load(folder)
    except ConfigurationError as error:
        found.trap("identity-folder", folder.name, str(error))
        return None
    before = len(found.all)
    identity, trust = _identity(found, folder, connection), _trust(found, folder, connection)
    if identity is not None and trust is not None:
        _belonging(found, connection, identity, trust)
    if len(found.all) == before and trust is not None:
        days = (trust.expires_ms - now_ms()) / 86_400_000
        found.ok(
            Check.IDENTITY,
            connection.identity,
            f"keys, connection and trust bundle {trust.version} belong together; {days:.0f} days left",
        )
    return Patient(folder, connection, identity, trust)


def _identity(found: Findings, folder: Path, connection: Connection) -> Identity | None:
    path = folder / IDENTITY_FILE
    try:
        if path.exists():
            check_private(path)
    except ConfigurationError as error:
        found.trap("identity-mode", connection.identity, str(error).partition(";")[0])
        return None
    try:
        identity = Identity.load(folder)
    except ConfigurationError as error:
        found.trap("identity-folder", connection.identity, str(error))
        return None
    if identity.name != connection.identity:
        found.trap("identity-folder", connection.identity, f"{folder}: the keys are {identity.name}'s")
        return None
    return identity


def _trust(found: Findings, folder: Path, connection: Connection) -> Trust | None:
    now, name = now_ms(), connection.identity
    try:
        # Not `Trust.load`: that remembers the version, and who looks must leave no trace.
        signed, roots = read_file(folder / TRUST_FILE), read_file(folder / ROOTS_FILE)
        trust = Trust.verify(signed, roots, now, least_version(folder))
    except BundleExpired as error:
        expires = bundle.read_payload(signed).get("expires", 0)
        found.trap("bundle-expired" if expires <= now else "clock-off", name, str(error).partition(";")[0])
        return None
    except TrustError as error:
        found.trap("bundle-refused", name, f"{type(error).__name__}: {error}")
        return None
    except ConfigurationError as error:
        found.trap("identity-folder", name, str(error))
        return None
    if now - trust.issued_ms > (trust.expires_ms - trust.issued_ms) * 2 / 3:
        days = (trust.expires_ms - now) / 86_400_000
        found.trap("bundle-expiring", name, f"trust bundle {trust.version} has {days:.1f} days left")
    return trust


def _belonging(found: Findings, connection: Connection, identity: Identity, trust: Trust) -> None:
    if trust.bridge != connection.bridge:
        found.trap(
            "identity-folder",
            identity.name,
            f"the connection is of bridge {connection.bridge}, the trust bundle of {trust.bridge}",
        )
    elif connection.role == Role.SERVICE:
        peer = trust.peers.get(identity.name)
        known = {key.kid for key, life in peer.sign if life.covers(now_ms())} if peer else set()
        if not identity.sign or identity.sign[-1].kid not in known:
            mine = identity.sign[-1].kid.hex()[:16] if identity.sign else "none"
            found.trap("key-not-in-bundle", identity.name, f"its signing key {mine} is not in bundle {trust.version}")


@asynccontextmanager
async def logged_in(found: Findings, patient: Patient, opened: Opened, timeout: float) -> AsyncIterator[Session | None]:
    """Connect as an identity to a listener that stood its checks; None if the server does not let it."""
    if patient.identity is None:
        yield None
        return
    context = opened.door.context()
    try:
        stack = dial.dialled(opened.address, opened.door.port, context, opened.door.name)
        async with stack as tls:
            session = None
            try:
                await tls.handshake()
                info = await tls.read_info()
                if _right_cloud(found, patient, info):  # before it is asked who we are: the other cloud does not know
                    session = Session(tls, info, patient.identity, timeout)
                    await session.log_in()
                    _judge_server(found, patient, session)
            except NotAccepted as error:
                found.trap("unknown-to-server", patient.name, f"{opened.door.about} answers {error}")
                session = None
            except (OSError, TransportError) as error:
                found.trap("tls-silent", patient.name, f"{opened.door.about}: {str(error) or 'no answer in time'}")
                session = None
            yield session
    except BridgeError as error:
        found.not_run(Check.IDENTITY, patient.name, str(error))


def _right_cloud(found: Findings, patient: Patient, info: Mapping[str, Any]) -> bool:
    domain, connection = info.get("domain"), patient.connection
    if domain != connection.cloud:
        found.trap("wrong-domain", patient.name, f"the server is of {domain}, the connection of {connection.cloud}")
    return bool(domain == connection.cloud)


def _judge_server(found: Findings, patient: Patient, session: Session) -> None:
    info, cloud = session.info, patient.connection.cloud
    version = str(info.get("version", ""))
    numbers = tuple(int(part) for part in version.partition("-")[0].split(".") if part.isdigit())
    if numbers < LEAST_SERVER:
        found.trap("old-server", cloud, f"{info.get('server_name')} is nats-server {version}")
        return
    milliseconds = session.round_trip * 1000
    found.ok(
        Check.IDENTITY,
        patient.name,
        f"{info.get('server_name')} ({cloud}, nats-server {version}) knows it; {milliseconds:.1f} ms away",
    )
