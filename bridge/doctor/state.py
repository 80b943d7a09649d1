"""The checks of clock, disk and policy: what the servers say beside what lies here."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bridge import bundle
from bridge.doctor.catalogue import Check
from bridge.doctor.finding import Findings
from bridge.doctor.monitors import Vitals
from bridge.doctor.patients import Patient
from bridge.doctor.site import Site, cloud_of
from bridge.errors import BridgeError, ConfigurationError
from bridge.files import read_file
from bridge.provision import load_plan
from bridge.render import render
from bridge.render.servers import POLICY_TAG
from bridge.trust import SKEW_MS

DRIFT_MS: Final = 10_000
FULL: Final = 0.95
FILLING: Final = 0.85

_MEASURES: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def check_clock(found: Findings, about: str, offset_ms: float) -> None:
    """Judge how far a server's clock is ahead of ours."""
    side = "ahead of" if offset_ms > 0 else "behind"
    seen = f"the server's clock is {abs(offset_ms) / 1000:.1f} s {side} this machine's"
    if abs(offset_ms) >= SKEW_MS:
        found.trap("clock-off", about, seen)
    elif abs(offset_ms) >= DRIFT_MS:
        found.trap("clock-drifting", about, seen)
    else:
        found.ok(Check.CLOCK, about, seen)


def check_disk(found: Findings, server: str, store: Path, reserved: int | None) -> None:
    """Judge the disk under a server's streams.

    Args:
        found: Where findings go.
        server: Whose.
        store: A folder on that disk.
        reserved: What streams may grow to, in bytes; None where that is not known.
    """
    try:
        disk = os.statvfs(store)
    except OSError as error:
        found.not_run(Check.DISK, server, f"{store}: {error.strerror}")
        return
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    used = 1 - free / total if total else 1.0
    grow = f"; streams may grow to {_size(reserved)}" if reserved is not None else ""
    seen = f"{used:.0%} of {_size(total)} used under {store}{grow}"
    if used >= FULL:
        found.trap("disk-full", server, seen)
    elif used >= FILLING:
        found.trap("disk-filling", server, seen)
    else:
        found.ok(Check.DISK, server, seen)
        if reserved is not None and reserved > total:
            found.note(Check.DISK, server, "the disk is smaller than what the streams may grow to; watch it")


def check_policy(found: Findings, site: Site, vitals: Mapping[str, Vitals]) -> None:
    """Compare the policy here, what is rendered, what each server runs, and what the trust bundle says."""
    running = {server: _tag(vital) for server, vital in vitals.items()}
    if site.policy is not None:
        _rendered(found, site)
        _bundle(found, site)
    for server, digest in running.items():
        expected, source = _expected(site, cloud_of(server))
        if digest is None:
            found.note(Check.POLICY, server, "its server does not tell which policy it runs; render anew, and reload")
        elif expected is not None and digest != expected:
            why = _rejected(site.logs.get(server))
            found.trap("policy-not-loaded", server, f"the server runs {digest[:12]}, {source} is {expected[:12]}{why}")
        else:
            found.ok(Check.POLICY, server, f"the server runs {digest[:12]}")
    told = {digest for digest in running.values() if digest is not None}
    if len(told) > 1:
        each = ", ".join(f"{server} runs {digest[:12]}" for server, digest in running.items() if digest)
        found.trap("sides-differ", "both sides", each)
    elif len({cloud_of(server) for server, digest in running.items() if digest}) > 1:
        found.ok(Check.POLICY, "both sides", "run the same policy")
    else:
        seen = ", ".join(running) or "neither"
        found.not_run(Check.POLICY, "both sides", f"{seen} can be seen: it takes a monitor or system identity of each")


def check_grants(found: Findings, patient: Patient) -> None:
    """Compare a service's connection with its trust bundle: both follow from one policy."""
    if patient.trust is None:
        found.not_run(Check.POLICY, patient.name, "it has no trust bundle that can be relied on")
        return
    me, missing = patient.name, []
    granted = {(g.queue, g.sender, g.recipient): g.kinds for g in patient.trust.grants}
    for name, queue in patient.connection.queues.items():
        for producer in queue.producers:
            kinds = granted.get((name, producer, queue.workers), frozenset())
            if me in (producer, queue.workers) and not set(queue.kinds) <= kinds:
                missing.append(f"{name} from {producer} to {queue.workers}")
    if missing:
        found.trap("bundle-differs", me, f"bundle {patient.trust.version} does not grant {', '.join(missing)}")
    else:
        found.ok(Check.POLICY, me, f"trust bundle {patient.trust.version} grants what the connection says")


def _expected(site: Site, cloud: str) -> tuple[str | None, str]:
    if site.rendered is not None:
        try:
            return str(load_plan(site.rendered / cloud / "plan.json")["policy"]), "what is rendered"
        except (ConfigurationError, KeyError):
            pass
    return (site.policy.digest, "bridge.yaml") if site.policy is not None else (None, "")


def _rendered(found: Findings, site: Site) -> None:
    policy, keys, folder = site.policy, site.keys, site.rendered
    if policy is None or keys is None or folder is None:
        found.not_run(Check.POLICY, "rendered files", "no rendered folder, or no keys/, at hand")
        return
    # A development bridge points these two at this machine; every other file is the policy's alone.
    files = {n: t for n, t in render(policy, keys).items() if not n.endswith(("/link.conf", "/cluster.conf"))}
    stale = [name for name, text in files.items() if _text(folder / name) != text]
    if stale:
        more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        found.trap("render-stale", "rendered files", f"{folder / stale[0]}{more}: not what the policy renders to")
    else:
        found.ok(Check.POLICY, "rendered files", f"{len(files)} files are what policy {policy.digest[:12]} renders to")


def _bundle(found: Findings, site: Site) -> None:
    policy, keys, path = site.policy, site.keys, site.trust
    if policy is None or keys is None or path is None or not path.exists():
        found.not_run(Check.POLICY, "trust bundle", "no trust.json beside the policy, or no keys/")
        return
    try:
        value = bundle.read_payload(read_file(path))
        wanted = json.loads(bundle.build_payload(policy, keys, value["version"], value["issued"]))
    except (BridgeError, KeyError, TypeError) as error:
        found.trap("bundle-refused", "trust bundle", f"{path}: {error}")
        return
    differ = [part for part in ("bridge", "principals", "grants", "expires") if value.get(part) != wanted[part]]
    if differ:
        found.trap("bundle-differs", "trust bundle", f"{path}: its {', '.join(differ)} are not the policy's")
    else:
        found.ok(Check.POLICY, "trust bundle", f"version {value['version']} says what the policy says")


def _tag(vital: Vitals) -> str | None:
    tags = [str(tag) for tag in vital.varz.get("tags") or ()]
    return next((tag.removeprefix(POLICY_TAG) for tag in tags if tag.startswith(POLICY_TAG)), None)


def _rejected(log: Path | None) -> str:
    if log is None:
        return ""
    lines = [line for line in _text(log, tail=True).splitlines() if "Reloaded server" in line or "to reload" in line]
    failed = bool(lines) and "Failed to reload" in lines[-1]
    return "; its log says that the last reload failed" if failed else "; its log tells of no reload that failed"


def _text(path: Path, *, tail: bool = False) -> str:
    try:
        with path.open("rb") as file:
            if tail:
                file.seek(max(0, file.seek(0, 2) - 65_536))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _size(number: float) -> str:
    measure = 0
    while number >= 1024 and measure < len(_MEASURES) - 1:
        number, measure = number / 1024, measure + 1
    return f"{number:.0f} {_MEASURES[measure]}"
