"""Runs every check that what is at hand allows, in order; what could not be looked at is said to be not run."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge import pki
from bridge.clock import now_ms
from bridge.doctor import dial
from bridge.doctor.catalogue import Check
from bridge.doctor.door import Door, Opened, look
from bridge.doctor.finding import Findings
from bridge.doctor.link import check_link
from bridge.doctor.monitors import HttpMonitor, Monitor, SystemMonitor, Vitals, offset_ms, read_vitals
from bridge.doctor.patients import Patient, logged_in, read_patient
from bridge.doctor.permits import judge_unanswered, try_permissions
from bridge.doctor.session import Session
from bridge.doctor.site import Site, addresses, cloud_of
from bridge.doctor.state import check_clock, check_disk, check_grants, check_policy
from bridge.doctor.streams import check_streams
from bridge.errors import ConfigurationError, TransportError
from bridge.files import read_file
from bridge.identity import CA_FILE
from bridge.policy import Role
from bridge.provision import load_plan
from bridge.render.streams import plan as plan_of
from bridge.subjects import api_call

_KNOWS_TIME: Final = (Role.INSPECTOR, Role.OPERATOR)
_SEES_STREAMS: Final = (Role.INSPECTOR, Role.OPERATOR, Role.PROVISIONER)


@dataclass(slots=True)
class _Visit:
    """What is known so far."""

    site: Site
    found: Findings
    stack: AsyncExitStack
    doors: dict[tuple[str, bytes], Opened | None] = field(default_factory=dict)
    monitors: dict[str, Monitor] = field(default_factory=dict)
    vitals: dict[str, Vitals] = field(default_factory=dict)
    streams_seen: set[str] = field(default_factory=set)


async def examine(site: Site) -> Findings:
    """Look at everything at hand. It changes nothing, and no probe takes longer than the site's timeout.

    Raises:
        ConfigurationError: A monitor's address is unusable.
    """
    found = Findings()
    async with AsyncExitStack() as stack:
        visit = _Visit(site, found, stack)
        _this_python(found)
        _certificate_files(visit)
        for folder in site.identities:
            if (patient := read_patient(found, folder)) is not None:
                await _visit(visit, patient)
        door_open = await _link_doors(visit)
        await _ask_monitors(visit)
        await _link(visit, door_open)
        _clock_and_disk(visit)
        check_policy(found, site, visit.vitals)
        _unseen_streams(visit)
    return found


# --- one identity ----------------------------------------------------------------------------------


async def _visit(visit: _Visit, patient: Patient) -> None:
    """Everything that one identity can tell."""
    site, found = visit.site, visit.found
    opened = [
        each for each in [await _door(visit, patient, url) for url in addresses(patient.connection.server)] if each
    ]
    session = None
    if not opened:
        found.not_run(Check.IDENTITY, patient.name, f"no server of {patient.connection.cloud} can be connected to")
    elif patient.identity is None:
        found.not_run(Check.IDENTITY, patient.name, "its keys cannot be used, so it cannot connect")
    else:
        session = await visit.stack.enter_async_context(logged_in(found, patient, opened[0], site.timeout))
    if session is None:
        found.not_run(Check.PERMISSIONS, patient.name, f"{patient.name} is not connected")
        found.not_run(Check.STREAMS, patient.name, f"{patient.name} is not connected")
    else:
        await _use(visit, patient, session)
    if patient.connection.role == Role.SERVICE:
        check_grants(found, patient)


async def _use(visit: _Visit, patient: Patient, session: Session) -> None:
    role, cloud, found = patient.connection.role, patient.connection.cloud, visit.found
    try:
        tried = await try_permissions(found, patient, session, visit.site.policy)
        judge_unanswered(found, patient, tried)
        if role == Role.SYSTEM:
            visit.monitors.setdefault(cloud, SystemMonitor(session))
        if role in _KNOWS_TIME:
            await _time_of(visit, patient, session)
        if role in _SEES_STREAMS and cloud not in visit.streams_seen:
            await _streams(visit, cloud, session)
    except TransportError as error:
        found.not_run(Check.STREAMS, patient.name, str(error))


async def _time_of(visit: _Visit, patient: Patient, session: Session) -> None:
    before = now_ms()
    answer = json.loads(await session.request("$SYS.REQ.USER.INFO", b""))
    ahead = offset_ms(answer["server"]["time"], before)
    check_clock(visit.found, f"{patient.connection.cloud}, asked by {patient.name}", ahead)


async def _streams(visit: _Visit, cloud: str, session: Session) -> None:
    plan = _plan(visit.site, cloud)
    if plan is None:
        visit.found.not_run(Check.STREAMS, cloud, "no policy and no rendered plan.json to compare with")
        return
    await check_streams(visit.found, cloud, session, plan)
    visit.streams_seen.add(cloud)
    account = json.loads(await session.request(api_call("INFO"), b""))
    limit, reserved = account.get("limits", {}).get("max_storage", -1), account.get("reserved_storage", 0)
    if 0 < limit < reserved / 0.9:
        visit.found.note(Check.DISK, cloud, f"streams reserve {reserved:,} of the {limit:,} bytes of its account")


async def _door(visit: _Visit, patient: Patient, url: str) -> Opened | None:
    """The server's listener, looked at once for all identities that dial it alike."""
    ca_file = patient.folder / CA_FILE
    try:
        key = (url, read_file(ca_file))
    except ConfigurationError as error:
        visit.found.trap("identity-folder", patient.name, str(error))
        return None
    if key not in visit.doors:
        door = Door(f"{patient.connection.cloud} {url.removeprefix('tls://')}", url, ca_file)
        visit.doors[key] = await look(visit.found, door, visit.site.resolver, visit.site.timeout)
    return visit.doors[key]


def _plan(site: Site, cloud: str) -> Mapping[str, Any] | None:
    if site.policy is not None and cloud in site.policy.clouds:
        return plan_of(site.policy, cloud)
    try:
        return load_plan(site.rendered / cloud / "plan.json") if site.rendered is not None else None
    except ConfigurationError:
        return None


# --- the machine and the clouds --------------------------------------------------------------------


def _this_python(found: Findings) -> None:
    if dial.offers_hybrid(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):
        found.ok(Check.TLS, "this Python", f"{ssl.OPENSSL_VERSION} offers X25519MLKEM768")
    else:
        found.trap("no-hybrid-group", "this Python", f"{ssl.OPENSSL_VERSION} does not offer X25519MLKEM768")


def _certificate_files(visit: _Visit) -> None:
    folder = visit.site.pki
    if folder is None:
        return
    try:
        certificates = pki.check(folder)
    except ConfigurationError as error:
        visit.found.trap("certificate-file", str(folder), str(error))
        return
    for each in certificates:
        about, days = f"{each.cloud}/{each.path.name}", (each.not_after_ms - now_ms()) / 86_400_000
        if each.problems:
            visit.found.trap("certificate-file", about, each.problems[0])
        elif each.renew:
            visit.found.trap("certificate-expiring", about, f"{days:.1f} days left in {each.path}")
    if not any(each.problems or each.renew for each in certificates):
        visit.found.ok(Check.TLS, "certificate files", f"{len(certificates)} in {folder} can be used")


async def _link_doors(visit: _Visit) -> bool | None:
    """Dial the hub as the leaf does, if its certificate is here.

    Returns:
        Whether one of the hub's listeners stood every check; None if none could be tried.
    """
    site = visit.site
    if site.pki is None or site.hub is None or site.leaf is None:
        return None
    shown = (site.pki / site.leaf / "link.pem", site.pki / site.leaf / "link.key")
    ca_file = site.pki / site.hub / "ca.pem"
    opened = None
    for url in _link_urls(site):
        about = f"link {url.removeprefix('tls://')}"
        if not ca_file.exists() or not all(path.exists() for path in shown):
            visit.found.not_run(Check.TLS, about, "the hub's ca.pem or the leaf's link.pem is not at hand")
            continue
        stood = await look(visit.found, Door(about, url, ca_file, shown), site.resolver, site.timeout)
        opened = bool(opened) or stood is not None
    return opened


def _link_urls(site: Site) -> list[str]:
    """What the leaf dials: as ``link.conf`` has it, which its server reads, or else the policy."""
    if site.rendered is not None and site.leaf is not None:
        path = site.rendered / site.leaf / "link.conf"
        if path.exists():
            parts = read_file(path).decode(errors="replace").split('"')
            return [part.partition("#")[0] for part in parts if "://" in part]  # without the digest of what crosses
    return addresses(site.policy.hub.leafnodes or "") if site.policy is not None else []


async def _ask_monitors(visit: _Visit) -> None:
    for cloud, url in visit.site.monitors.items():
        visit.monitors[cloud] = HttpMonitor(url, visit.site.timeout)
    for cloud, monitor in visit.monitors.items():
        try:
            visit.vitals[cloud] = await read_vitals(monitor)
        except TransportError as error:
            visit.found.not_run(Check.LINK, cloud, str(error))


async def _link(visit: _Visit, door_open: bool | None) -> None:
    site = visit.site
    if site.hub is None or site.leaf is None:
        # Which of the two dials does not matter for whether they are joined.
        clouds = (*sorted(set(map(cloud_of, visit.vitals))), "the other cloud", "this cloud")[:2]
        hub, leaf = clouds
    else:
        hub, leaf = site.hub, site.leaf
    await check_link(
        visit.found,
        (hub, leaf),
        visit.vitals,
        visit.monitors,
        door_open=door_open,
        logs=[log for name, log in site.logs.items() if cloud_of(name) == leaf],
    )


def _clock_and_disk(visit: _Visit) -> None:
    found, site = visit.found, visit.site
    for cloud, vital in visit.vitals.items():
        check_clock(found, cloud, vital.offset_ms)
    if not any(each.check is Check.CLOCK for each in found.all):
        found.not_run(Check.CLOCK, "the server's", "only an inspector, a system identity or a monitor can ask for it")
    for cloud, store in site.stores.items():
        known = visit.vitals.get(cloud)
        reserved = known.varz.get("jetstream", {}).get("stats", {}).get("reserved_storage", 0) if known else None
        check_disk(found, cloud, Path(store), reserved)
    if not site.stores:
        found.not_run(Check.DISK, "the store", "not on this machine; where it is, name it with --store SERVER=FOLDER")


def _unseen_streams(visit: _Visit) -> None:
    for cloud in visit.site.policy.clouds if visit.site.policy is not None else ():
        seen = any(each.check is Check.STREAMS and each.about == cloud for each in visit.found.all)
        if not seen:
            visit.found.not_run(Check.STREAMS, cloud, "no inspector or provisioner of it is connected")
