"""Identities revoked while they work, with real servers: cut off, refused, and what they signed with them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bridge import follow
from bridge.clock import now_ms
from bridge.devserver import Bridge, monitor
from bridge.devserver import standing as stand
from bridge.devserver.revocation import Revoked, revoke
from bridge.devserver.standing import standing
from bridge.errors import BridgeError, IdentityRefused, IdentityRevoked, NotAuthorised, UnknownKey
from bridge.identity import Identity
from bridge.trust import Trust
from consumers import Worker
from producers import Producer
from tests.support import running_bridge

GRACE_S = 60.0
"""Far more than anything here takes."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK_S", 0.05)
    monkeypatch.setattr(stand, "SETTLE_S", 1.0)


async def revoked(bridge: Bridge, *names: str) -> Revoked:
    after = replace(bridge.policy, revoked=names)
    with standing(after, bridge.folder, bridge.policy) as at:
        return await revoke(at, names, print)


async def test_a_worker_is_cut_off_and_what_it_answered_is_refused(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        worker = Worker(bridge.identity("bunny"))

        @worker.handler("thumbs", "resize")
        async def handle(args: int) -> int:
            return args

        working = asyncio.create_task(worker.run())
        async with Producer.open(bridge.identity("alpha")) as alpha:
            first = await alpha.submit("thumbs", "resize", 1)
            assert await first.result(int, timeout=GRACE_S) == 1
            token = (await alpha.submit("thumbs", "resize", 2)).token
            await until_stored(bridge, 2)
        kid = Identity.load(bridge.identity("bunny")).sign[-1].kid
        began = time.monotonic()
        done = await revoked(bridge, "bunny")
        assert done.connections >= 1
        assert 0 < done.cut_s <= done.refused_s < time.monotonic() - began + 1
        assert done.stored == {kid.hex(): "RESULTS_thumbs"}
        with pytest.raises((IdentityRevoked, IdentityRefused)):
            await asyncio.wait_for(working, GRACE_S)
        with pytest.raises(UnknownKey):
            Trust.load(bridge.identity("alpha"), now_ms()).signer(kid, now_ms())
        async with Producer.open(bridge.identity("alpha")) as alpha:
            with pytest.raises((BridgeError, TimeoutError)):
                await (await alpha.attach(token)).result(int, timeout=2)
            with pytest.raises(NotAuthorised):
                await alpha.submit("thumbs", "resize", 3)


async def test_a_leaf_is_cut_off_and_dials_in_vain(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        assert await monitor.links(bridge.hub.monitor_port) == 1
        done = await revoked(bridge, "link-azure")
        assert done.connections == 1
        assert await monitor.links(bridge.hub.monitor_port) == 0
        assert "SYS" in (accounts := (bridge.folder.rendered / "aws" / "accounts.conf").read_text())
        assert "KICK" not in accounts, "who may close connections may do so for a moment alone"
        start = bridge.hub.log.stat().st_size

        async def refused() -> bool:
            return b"authentication error" in bridge.hub.log.read_bytes()[start:]

        await monitor.until(refused, GRACE_S, "the leaf to be refused")


async def until_stored(bridge: Bridge, count: int) -> None:
    async def there() -> bool:
        _, body = await monitor.get(bridge.hub.monitor_port, "/jsz?accounts=1&streams=1")
        details = [stream for account in body["account_details"] for stream in account.get("stream_detail", ())]
        return any(each["name"] == "RESULTS_thumbs" and each["state"]["messages"] >= count for each in details)

    await monitor.until(there, GRACE_S, "the results to come home")
