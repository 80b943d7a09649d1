"""The link check: whether the clouds are joined, from whatever of the two can be seen."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bridge.doctor.catalogue import Check
from bridge.doctor.finding import Findings
from bridge.doctor.monitors import Monitor, Vitals
from bridge.errors import TransportError

SLOW_PING_NS: Final = 30_000_000_000
"""Longer, and a link that is dead counts as up for more than a minute."""

REDIAL_S: Final = 4.0
"""A leaf dials every second: one that could and did not in this time has stopped."""

_REFUSED: Final = re.compile(r"\[ERR\].*(?:Authorization Violation|Authentication)", re.IGNORECASE)
_LOG_TAIL: Final = 16 * 1024


async def check_link(
    found: Findings,
    clouds: tuple[str, str],
    vitals: Mapping[str, Vitals],
    monitors: Mapping[str, Monitor],
    *,
    door_open: bool | None,
    log: Path | None,
) -> None:
    """Judge the link.

    Args:
        found: Where findings go.
        clouds: The hub and the leaf.
        vitals: What the servers that can be seen say.
        monitors: To ask them again.
        door_open: Whether the hub's listener stood every check from here; None if it could not be tried.
        log: The leaf's log, if it is on this machine.
    """
    hub, leaf = clouds
    for cloud, vital in vitals.items():
        _pings(found, cloud, vital)
    if not vitals:
        found.not_run(Check.LINK, f"{leaf} to {hub}", "no monitor or system identity of either cloud at hand")
        return
    if all(vital.links for vital in vitals.values()):
        told = ", ".join(f"{cloud}: {_round_trip(vital)}" for cloud, vital in vitals.items())
        found.ok(Check.LINK, f"{leaf} to {hub}", f"up; round trip as seen by {told}")
        return
    parted = ", ".join(f"{cloud} has {vital.links or 'no'} links" for cloud, vital in vitals.items())
    refused = log is not None and _REFUSED.search(_tail(log))
    if refused:
        found.trap("link-refused", f"{leaf} to {hub}", f"{parted}; the leaf's log: {_said(refused[0])}")
    elif door_open and leaf in monitors and await _stays_parted(monitors[leaf]):
        found.trap("leaf-stopped", f"{leaf} to {hub}", f"{parted}, and the leaf did not dial in {REDIAL_S:g} s")
    else:
        found.trap("link-down", f"{leaf} to {hub}", parted)


def _pings(found: Findings, cloud: str, vital: Vitals) -> None:
    interval, most = int(vital.varz.get("ping_interval", 0)), int(vital.varz.get("ping_max", 2))
    if interval > SLOW_PING_NS:
        seconds = interval / 1e9
        found.trap("slow-ping", cloud, f"it pings every {seconds:g} s and gives up after {most}: {seconds * most:g} s")


async def _stays_parted(leaf: Monitor) -> bool:
    """Whether the leaf dials in the time in which it would."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + REDIAL_S
    while loop.time() < deadline:
        try:
            if (await leaf.page("leafz")).get("leafnodes"):
                return False
        except TransportError:
            return False
        await asyncio.sleep(0.25)
    return True


def _round_trip(vital: Vitals) -> str:
    return ", ".join(str(each.get("rtt", "?")) for each in vital.leafz.get("leafs") or ())


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    # What was said before the last link stood is over.
    return text.rpartition("Leafnode connection created")[2]


def _said(line: str) -> str:
    return line.partition("[ERR]")[2].strip()[:160]
