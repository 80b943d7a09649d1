"""What a stream or consumer has against what the plan wants, field by field, and which changes are safe. No I/O.

Safe is what takes nothing away that is stored and nothing that was promised: a wider limit, one more subject, a
description. Everything else is refused, by name; whoever means it does it by hand.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Config: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not as planned.

    Args:
        field: Its name in the JetStream API.
        have: What the server has, as JSON values; durations are nanoseconds.
        want: What the plan wants.
        refused: Why it is not changed; empty if it is.
    """

    field: str
    have: Any
    want: Any
    refused: str = ""


_ALWAYS: Final = frozenset(
    {
        "description",
        "duplicate_window",
        "num_replicas",
        "allow_direct",
        "republish",
        "metadata",
        "max_msg_size",
    }
)
"""Stream fields that can be changed either way."""

_ONE_WAY: Final[Mapping[str, Any]] = {
    "discard": "new",
    "discard_new_per_subject": True,
    "deny_delete": True,
    "deny_purge": True,
    "allow_rollup_hdrs": False,
    "allow_msg_ttl": True,
}
"""Stream fields that may be changed to this value only: away from it, stored messages lose a
protection, or a server refuses the change."""

_LIMITS: Final = frozenset({"max_msgs", "max_bytes", "max_age", "max_msgs_per_subject"})

_UNLIMITED_BELOW_ONE: Final = _LIMITS | {"max_msg_size", "max_consumers"}

_CONSUMER: Final = frozenset({"description", "ack_wait", "max_deliver", "max_ack_pending", "num_replicas", "metadata"})
"""Consumer fields that can be changed; with the others it would be another consumer."""


MONITOR: Final = "io.nats.monitor."
"""Metadata that is the plan's alone: a threshold that it no longer has is to go."""

_SERVERS: Final = "_nats."
"""Metadata that servers write themselves."""


def stream_differences(have: Config, want: Config, state: Config, now: dt.datetime) -> list[Difference]:
    """How a stream's configuration differs from the planned one.

    Args:
        have: The server's configuration.
        want: The planned one; fields that it does not name are left alone.
        state: The stream's state, as ``STREAM.INFO`` gives it.
        now: The present, for the age of what is stored.
    """
    return [
        Difference(name, have.get(name), value, _stream_refusal(name, have.get(name), value, state, now))
        for name, value in want.items()
        if not _same(name, have.get(name), value)
    ]


def consumer_differences(have: Config, want: Config) -> list[Difference]:
    """How a consumer's configuration differs from the planned one."""
    return [
        Difference(
            name,
            have.get(name),
            value,
            "" if name in _CONSUMER else "it would be another consumer; delete this one by hand if it is not needed",
        )
        for name, value in want.items()
        if not _same(name, have.get(name), value)
    ]


def _stream_refusal(name: str, have: Any, want: Any, state: Config, now: dt.datetime) -> str:  # noqa: ANN401 - JSON
    if name in _ALWAYS or (name in _ONE_WAY and want == _ONE_WAY[name]):
        return ""
    if name in _LIMITS:
        return _limit_refusal(name, have, want, state, now)
    if name == "subjects":
        gone = sorted(set(have or ()) - set(want))
        return f"messages on {', '.join(gone)} would have no stream" if gone else ""
    if name == "sources":
        # Other sources would mix what two clouds wrote, and sequences would begin anew.
        return "it copies from elsewhere already" if have else ""
    if name in _ONE_WAY:
        return "stored messages would lose a protection"
    return "it cannot be changed with messages stored; move them to a new stream by hand"


def _limit_refusal(name: str, have: Any, want: Any, state: Config, now: dt.datetime) -> str:  # noqa: ANN401 - JSON
    limit, before, messages = _limit(want), _limit(have), int(state.get("messages", 0))
    if limit >= before or not messages:
        return ""
    stored: float
    match name:
        case "max_msgs":
            stored = messages
        case "max_bytes":
            stored = int(state["bytes"])
        case "max_age":
            stored = (now - parse_time(str(state["first_ts"]))).total_seconds() * 1e9
        case _:
            # At most this many on one subject; the server does not tell which has the most.
            stored = messages - int(state.get("num_subjects", 1)) + 1
    return "" if stored <= limit else f"{round(stored)} is stored, and the rest would be deleted"


def _limit(value: Any) -> float:  # noqa: ANN401 - JSON
    return float("inf") if value is None or value < 1 else float(value)


def _same(name: str, have: Any, want: Any) -> bool:  # noqa: ANN401 - JSON
    if name in _UNLIMITED_BELOW_ONE and _limit(have) == _limit(want):
        return True
    if name == "subjects":
        return set(have or ()) == set(want)
    if name == "metadata":
        ours = {key: value for key, value in (have or {}).items() if key.startswith(MONITOR) or key in want}
        return ours == dict(want)
    return _covers(have, want)


def _covers(have: Any, want: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether the server has what is wanted: it leaves out empty values, and adds fields of its own."""
    if isinstance(want, Mapping):
        return all(_covers((have or {}).get(key), value) for key, value in want.items())
    if isinstance(want, list):
        found = have or []
        return len(found) == len(want) and all(_covers(h, w) for h, w in zip(found, want, strict=True))
    return bool(have == want) or (not have and not want)


def merged(have: Config, want: Config) -> dict[str, Any]:
    """The configuration to send: as planned, and what the plan does not name as it is.

    Metadata that others wrote is kept, a former plan's thresholds are not.
    """
    config = {**have, **want}
    if "metadata" in want:
        kept = {k: v for k, v in (have.get("metadata") or {}).items() if not k.startswith((MONITOR, _SERVERS))}
        config["metadata"] = kept | want["metadata"]
    return config


def parse_time(text: str) -> dt.datetime:
    """A time of the JetStream API: RFC 3339 with up to nine decimals, of which Python takes six."""
    return dt.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text).replace("Z", "+00:00"))
