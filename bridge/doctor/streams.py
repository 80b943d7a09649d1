"""The checks of streams, of the copies that come home, and of how full both are, as an inspector or provisioner."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from bridge.doctor.catalogue import Check
from bridge.doctor.finding import Findings
from bridge.doctor.session import Session
from bridge.provision import Outcome, Report, compare

FILLING: Final = 0.8
COPY_SILENT_NS: Final = 5_000_000_000
"""The stream that is copied sends a heartbeat every second."""


async def check_streams(found: Findings, cloud: str, session: Session, plan: Mapping[str, Any]) -> None:
    """Compare the server with the plan, without changing anything, and look at what it holds.

    Raises:
        TransportError: The server does not answer or refuses a call.
    """
    comparison = await compare(session, plan)
    _differences(found, cloud, comparison.report)
    for info in comparison.streams.values():
        _fullness(found, cloud, info)
        _copying(found, cloud, info)


def _differences(found: Findings, cloud: str, report: Report) -> None:
    well = 0
    for change in report.changes:
        if change.outcome is Outcome.CREATED:
            found.trap("missing-stream", cloud, f"{change.asset} is not there")
        elif change.outcome is Outcome.UNCHANGED:
            well += 1
        else:
            fields = ", ".join(
                f"{each.field} is {json.dumps(each.have)}, planned {json.dumps(each.want)}"
                for each in change.differences
            )
            found.trap("drifted-stream", cloud, f"{change.asset}: {fields}"[:300])
    if well == len(report.changes):
        found.ok(Check.STREAMS, cloud, f"all {well} streams and consumers are as planned")
    if report.extra:
        found.note(Check.STREAMS, cloud, f"not in the plan, and left alone: {', '.join(report.extra)}")


def _fullness(found: Findings, cloud: str, info: Mapping[str, Any]) -> None:
    config, state = info["config"], info["state"]
    shares = [
        (state["messages"] / config["max_msgs"] if config.get("max_msgs", -1) > 0 else 0.0, "messages"),
        (state["bytes"] / config["max_bytes"] if config.get("max_bytes", -1) > 0 else 0.0, "bytes"),
    ]
    share, unit = max(shares)
    if share >= FILLING:
        limit = config["max_msgs" if unit == "messages" else "max_bytes"]
        seen = f"{config['name']} holds {state[unit]:,} of {limit:,} {unit}"
        found.trap("stream-full" if share >= 1 else "stream-filling", cloud, seen)


def _copying(found: Findings, cloud: str, info: Mapping[str, Any]) -> None:
    for source in info.get("sources") or ():
        active, name = int(source.get("active", -1)), info["config"]["name"]
        if not 0 <= active < COPY_SILENT_NS:
            since = "never" if active < 0 else f"{active / 1e9:.0f} s ago"
            found.trap("copy-silent", cloud, f"{name} last heard from its source: {since}")
        else:
            found.ok(Check.LINK, cloud, f"{name} hears from its source, {source.get('lag', 0)} behind")
