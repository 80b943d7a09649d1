"""What an agent shows: metrics for Prometheus, the backlog for autoscalers, and whether it lives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from bridge.agent.state import State
from bridge.signals.listener import Page
from bridge.signals.probes import LIVE_S, Probes, answer

_JSON: Final = "application/json"


def pages(state: State, metrics: Callable[[], Page]) -> Callable[[str], Page | None]:
    """From a path to its page."""

    def page(path: str) -> Page | None:
        if path == "/metrics":
            return metrics()
        if path.startswith("/scale/"):
            return _scale(state, path.removeprefix("/scale/"))
        return answer(path, checks)

    checks = [_checks(state)]
    return page


def _checks(state: State) -> Probes:
    """Of this agent and its own cloud: whether the other one is heard, restarting this agent would not mend."""
    probes, begun = Probes(), state.clock()

    def broker() -> str:
        age = state.clock() - max(state.looked_at, begun)
        return f"the streams of {state.cloud} have not answered for {age:.0f} s" if age > LIVE_S else ""

    probes.live["broker"] = broker
    probes.ready["connection"] = lambda: "" if state.connected else "not connected to the local NATS server"
    probes.ready["streams"] = lambda: "" if state.fresh else f"the streams of {state.cloud} do not answer"
    return probes


def _scale(state: State, queue: str) -> Page | None:
    """The backlog, or 503: an autoscaler that gets no number keeps what runs; one that got 0 would stop it all."""
    settings = state.connection.queues.get(queue)
    if settings is None:
        return None
    backlog = state.backlog(queue)
    if backlog is None:
        if settings.home == state.cloud:
            why = f"the streams of {state.cloud} do not answer"
        else:
            why = f"the agent of {settings.home} is not heard: the link may be cut"
        unknown = {"queue": queue, "state": "unknown", "backlog": None, "reason": why}
        return _json(unknown, HTTPStatus.SERVICE_UNAVAILABLE)
    return _json(
        {
            "queue": queue,
            "state": "known",
            "backlog": backlog.jobs,
            "oldest_seconds": backlog.oldest_ms / 1000,
            "cloud": settings.home,
            "via": backlog.via,
        },
        HTTPStatus.OK,
    )


def _json(value: Mapping[str, Any], status: HTTPStatus) -> Page:
    return Page(json.dumps(value).encode() + b"\n", _JSON, status)
