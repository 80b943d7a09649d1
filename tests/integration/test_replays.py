"""Dead letters over real servers: an operator lists, replays and drops them; nobody else does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.clock import now_ms
from bridge.deadletters import DeadLetters, Filter
from bridge.devserver import Bridge, monitor
from bridge.errors import JobFailed, TransportError, UsageError
from bridge.identity import Connection, Identity
from bridge.trust import Trust
from consumers import Job, Reject, Worker
from producers import Producer
from tests.integration.test_jobs import SHORT, held, serving, until_empty
from tests.support import connected, running_bridge

OPERATED = SHORT.replace("  link-azure:", "  boss-azure: {cloud: azure, role: operator}\n  link-azure:")


@contextlib.asynccontextmanager
async def operating(bridge: Bridge, name: str = "boss-azure") -> AsyncIterator[DeadLetters]:
    folder = bridge.identity(name)
    async with await connected(bridge, name) as transport:
        trust = Trust.load(folder, now_ms())
        yield DeadLetters(Identity.load(folder), trust, Connection.load(folder), transport)


async def test_an_operator_has_a_dead_letter_run_again(tmp_path: Path) -> None:
    broken, mended = Worker(), Worker()

    @broken.handler("thumbs", "resize")
    async def reject(args: int) -> int:
        raise Reject("no such photo", type="NoPhoto")

    @mended.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> list[int]:
        return [args, job.generation, job.attempt]

    async with (
        running_bridge(tmp_path, OPERATED) as bridge,
        Producer.open(bridge.identity("alpha")) as alpha,
        operating(bridge) as boss,
    ):
        async with serving(bridge, "bunny", broken):
            handles = [await alpha.submit("thumbs", "resize", n) for n in range(3)]
            for handle in handles:
                with pytest.raises(JobFailed, match="NoPhoto"):
                    await handle.result()
        letters = [letter async for letter in boss.search("thumbs")]
        assert [letter.key for letter in letters] == [handle.key for handle in handles]
        assert {(letter.kind, letter.cause, letter.attempt) for letter in letters} == {("resize", "NoPhoto", "1")}
        assert all(0 <= now_ms() - letter.stored < 60_000 for letter in letters)
        assert [letter async for letter in boss.search("thumbs", Filter(producer="beta"))] == []

        again = await alpha.attach(await boss.replay(letters[0]))
        with pytest.raises(UsageError, match="ordered already"):
            await boss.replay(letters[0])
        async with serving(bridge, "bunny", mended):
            assert await again.result(list) == [0, 1, 1]
            await until_empty(bridge, "ops-azure", "REPLAY_thumbs")
        await boss.drop(letters[1])
        with pytest.raises(UsageError, match="gone"):
            await boss.drop(letters[1])
        assert [letter async for letter in boss.search("thumbs")] == [letters[2]]

        async def left() -> bool:
            return await held(bridge, "ops-azure", "DEAD_thumbs") == 1

        await monitor.until(left, 10, "what took the letter's place to be gone")
        async with operating(bridge, "ops-azure") as inspector:
            assert await inspector.get("thumbs", letters[2].sequence) == letters[2]
            with pytest.raises(TransportError):
                await inspector._transport.remove("DEAD_thumbs", letters[2].sequence)
        assert await held(bridge, "ops-azure", "REFUSED_thumbs") == 0
