"""Whether a process lives and is ready, as probes ask it: the names of the checks that fail, and why. No I/O.

What is alive is for a supervisor to keep, and what is not for it to restart: so a check of life is of the process
alone, and never of what a restart does not mend. What is ready may get work, or count in a rollout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final, TypeAlias

from bridge.signals.listener import Page

LIVE: Final = "/livez"
READY: Final = "/readyz"

LIVE_S: Final = 300.0
"""Without any answer of the local broker for so long a process counts as dead: longer than brokers take to restart or
to be moved to another machine, since ending everybody meanwhile would help nobody."""

Check: TypeAlias = Callable[[], str]
"""Why it does not hold, in words of our own; empty while it does."""


class Probes:
    """The checks of one worker or agent, by name."""

    def __init__(self) -> None:
        self.live: dict[str, Check] = {}
        self.ready: dict[str, Check] = {}

    def failed(self, path: str) -> dict[str, str]:
        """The checks of a page that do not hold. What does not live is not ready."""
        checks = self.live if path == LIVE else {**self.live, **self.ready}
        return {name: why for name, check in checks.items() if (why := check())}


def answer(path: str, probes: Iterable[Probes]) -> Page | None:
    """The page of a probe: 200, or 503 with what failed of any of them; None if it is no probe's."""
    if path not in (LIVE, READY):
        return None
    failed: dict[str, str] = {}
    for each in probes:
        failed |= each.failed(path)
    body = json.dumps({"status": "failed", "failed": failed} if failed else {"status": "ok"})
    status = HTTPStatus.SERVICE_UNAVAILABLE if failed else HTTPStatus.OK
    return Page(body.encode() + b"\n", "application/json", status)
