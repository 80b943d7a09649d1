"""The link check: whether the clouds are joined, from whatever of the two can be seen."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bridge.doctor.catalogue import Check
from bridge.doctor.finding import Findings
from bridge.doctor.monitors import Monitor, Vitals
from bridge.doctor.site import cloud_of
from bridge.errors import TransportError

SLOW_PING_NS: Final = 30_000_000_000
"""Longer, and a link that is dead counts as up for more than a minute."""

REDIAL_S: Final = 4.0
"""A leaf dials every second: one that could and did not in this time has stopped."""

_REFUSED: Final = re.compile(r"\[ERR\].*Leafnode Error.*(?:Authorization|Authentication).*", re.IGNORECASE)
_LOG_TAIL: Final = 16 * 1024


async def check_link(
    found: Findings,
    clouds: tuple[str, str],
    vitals: Mapping[str, Vitals],
    monitors: Mapping[str, Monitor],
    *,
    door_open: bool | None,
    logs: Sequence[Path],
) -> None:
    """Judge the link.

    Args:
        found: Where findings go.
        clouds: The hub and the leaf.
        vitals: What the servers that can be seen say, by server.
        monitors: To ask them again.
        door_open: Whether the hub's listener stood every check from here; None if it could not be tried.
        logs: Those of the leaf's servers that are on this machine.
    """
    hub, leaf = clouds
    about = f"{leaf} to {hub}"
    for server, vital in vitals.items():
        _pings(found, server, vital)
    if not vitals:
        found.not_run(Check.LINK, about, "no monitor or system identity of either cloud at hand")
        return
    # Every server of a leaf dials; those dialled may all be one server of the hub.
    hubs = [vital.links for server, vital in vitals.items() if cloud_of(server) == hub]
    leaves = [vital.links for server, vital in vitals.items() if cloud_of(server) != hub]
    if (not hubs or any(hubs)) and all(leaves):
        told = ", ".join(f"{server}: {_round_trip(vital)}" for server, vital in vitals.items() if vital.links)
        found.ok(Check.LINK, about, f"up; round trip as seen by {told}")
        return
    parted = ", ".join(f"{server} has {vital.links or 'no'} links" for server, vital in vitals.items())
    refused = next((match for log in logs if (match := _REFUSED.search(_tail(log)))), None)
    leafs = [monitor for server, monitor in monitors.items() if cloud_of(server) == leaf]
    if refused:
        found.trap("link-refused", about, f"{parted}; the leaf's log: {_said(refused[0])}")
    elif door_open and leafs and await _stays_parted(leafs):
        found.trap("leaf-stopped", about, f"{parted}, and the leaf did not dial in {REDIAL_S:g} s")
    else:
        found.trap("link-down", about, parted)


def _pings(found: Findings, cloud: str, vital: Vitals) -> None:
    interval, most = int(vital.varz.get("ping_interval", 0)), int(vital.varz.get("ping_max", 2))
    if interval > SLOW_PING_NS:
        seconds = interval / 1e9
        found.trap("slow-ping", cloud, f"it pings every {seconds:g} s and gives up after {most}: {seconds * most:g} s")


async def _stays_parted(leafs: Sequence[Monitor]) -> bool:
    """Whether a server of the leaf does not dial in the time in which it would."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + REDIAL_S
    while loop.time() < deadline:
        try:
            if all([(await leaf.page("leafz")).get("leafnodes") for leaf in leafs]):
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
    return line[line.index("Leafnode Error") :][:160]
