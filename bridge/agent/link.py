"""What the servers of a cloud say of the link: whether it stands, its round trip, and the policy that they run."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from bridge.render.accounts import LINK_ACCOUNT
from bridge.render.servers import POLICY_TAG

REQUEST: Final = "$SYS.REQ.SERVER.PING.LEAFZ"
MAX_ANSWER: Final = 256 * 1024
MAX_SERVERS: Final = 16
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|µs|us|ns|m|s)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}


@dataclass(frozen=True, slots=True)
class Server:
    """What one server said."""

    at: float
    """The loop's time."""
    links: int
    round_trip: float | None
    """Seconds; of the slowest link."""
    policy: str
    """Digest; empty where it carries no tag."""


def read(data: bytes, at: float) -> tuple[str, Server] | None:
    """The id of a server and what it says, or None if it is no answer to `REQUEST`."""
    try:
        value = json.loads(data) if len(data) <= MAX_ANSWER else None
        if not isinstance(value, dict):
            return None
        server, leafs = value["server"], value["data"].get("leafs") or []
        # Clients that speak as leaves to other accounts are not the link.
        links = [leaf for leaf in leafs if leaf.get("account") == LINK_ACCOUNT]
        trips = [trip for leaf in links if (trip := seconds(str(leaf.get("rtt", "")))) is not None]
        return str(server["id"]), Server(at, len(links), max(trips, default=None), _policy(server.get("tags")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def seconds(text: str) -> float | None:
    """A duration as Go writes it: ``1.5ms``, ``1m2.5s``; None if it is none."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _policy(tags: Any) -> str:  # noqa: ANN401  a JSON value
    for tag in tags if isinstance(tags, list) else ():
        digest = str(tag).removeprefix(POLICY_TAG)
        if digest != tag and re.fullmatch(r"[0-9a-f]{64}", digest):
            return digest
    return ""
