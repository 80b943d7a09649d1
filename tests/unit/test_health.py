"""What a worker makes of its round trips, in memory: an event loop that was kept is no connection that is deaf."""

from __future__ import annotations

import time

import pytest

from bridge.memory import MemoryTransport
from consumers import Worker, health
from tests.fleet import Fleet, policy, until


class Counted(MemoryTransport):
    """Counts what a worker sends to itself, and how often it dials anew."""

    told = redialled = 0

    async def tell(self, subject: str, data: bytes) -> None:
        """Counted."""
        self.told += 1

    async def redial(self) -> None:
        """Counted."""
        self.redialled += 1


class Kept(Counted):
    """As beside a handler that lets nothing else of its process run for a while."""

    async def tell(self, subject: str, data: bytes) -> None:
        """Late to be read."""
        await super().tell(subject, data)
        time.sleep(0.3)  # noqa: ASYNC251  that is the fault
        await MemoryTransport.tell(self, subject, data)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("INTERVAL_S", 0.01), ("ANSWER_S", 0.1), ("LATE_S", 0.1)):
        monkeypatch.setattr(health, name, seconds)


def worker() -> Worker:
    found = Worker()

    @found.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        return args

    return found


async def test_a_server_that_lost_a_subscription_is_dialled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LATE_S", 60.0)
    fleet = Fleet.make(policy())
    lost = Counted(fleet.bridge, fleet.bridge.cloud("azure"))
    async with fleet.working(worker(), transport=lost):
        await until(lambda: lost.redialled > 0)
    assert lost.told >= health.REDIAL_AFTER


async def test_a_loop_that_a_handler_kept_is_no_reason_to_dial() -> None:
    fleet = Fleet.make(policy())
    kept = Kept(fleet.bridge, fleet.bridge.cloud("azure"))
    async with fleet.working(worker(), transport=kept):
        await until(lambda: kept.told > 2 * health.REDIAL_AFTER)
    assert kept.redialled == 0
