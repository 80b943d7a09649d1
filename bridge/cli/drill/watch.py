"""What the processes and servers say while a fault lasts: the first sign that one of them has noticed it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple, Self

LOOK_S: Final = 0.02
"""How often the logs are read, so how exact the times are."""
MOST: Final = 50_000
_SERVER_SAYS: Final = {
    "Leafnode connection closed": "link_closed",
    "Stale Client Connection": "link_stale",
    "no space left on device": "disk_full",
}


class Sign(NamedTuple):
    """A line of a log that says something."""

    at: float
    event: str


class Watch:
    """Reads logs as they grow."""

    def __init__(self) -> None:
        self._places: dict[Path, int] = {}
        self._signs: deque[Sign] = deque(maxlen=MOST)

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator[Self]:
        """Watch until the block ends."""
        watch = cls()
        task = asyncio.create_task(watch._run(), name="drill-watch")
        try:
            yield watch
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def follow(self, log: Path) -> None:
        """Read this log as well, from its present end."""
        self._places[log] = log.stat().st_size if log.exists() else 0

    def first(self, since: float, events: Collection[str]) -> Sign | None:
        """The first of some events since then."""
        return next((sign for sign in self._signs if sign.at >= since and sign.event in events), None)

    async def _run(self) -> None:
        while True:
            for log in list(self._places):
                self._read(log)
            await asyncio.sleep(LOOK_S)

    def _read(self, log: Path) -> None:
        place, now = self._places[log], monotonic()
        with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
            file.seek(place)
            whole, newline, _ = file.read().rpartition(b"\n")
            self._places[log] = place + len(whole) + len(newline)
            for line in whole.splitlines():
                if event := _event(line):
                    self._signs.append(Sign(now, event))


def _event(line: bytes) -> str:
    if not line.startswith(b"{"):
        return next((event for words, event in _SERVER_SAYS.items() if words.encode() in line), "")
    try:
        return str(json.loads(line).get("event", ""))
    except ValueError:
        return ""
