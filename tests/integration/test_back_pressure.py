"""A submit has an end: at once where the queue is full, and in its own time whatever became of the connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bridge.devserver import Bridge
from bridge.devserver.link import Relay
from bridge.errors import BridgeError, PublishTimeout, QueueFull
from bridge.identity import CA_FILE
from bridge.jetstream import JetStreamTransport, connect
from bridge.member import Member
from producers import Producer
from tests.support import POLICY, running_bridge

FULL = POLICY.replace("    kinds: [resize, probe]\n", "    kinds: [resize, probe]\n    max_pending: 20\n")
TIMEOUT_S = 0.5
PATIENCE_S = 5.0
"""Above a submit's own timeout, on a machine with other things to do; what ignores it takes 10 s and more."""


@contextlib.asynccontextmanager
async def through(bridge: Bridge) -> AsyncIterator[tuple[Callable[[], Awaitable[Producer]], Relay]]:
    """Producers whose connection to their own server leads through a relay."""
    folder = bridge.identity("alpha")
    member = Member.load(folder)
    async with Relay(urlsplit(member.connection.server).port or 0) as relay, contextlib.AsyncExitStack() as stack:
        dialled = member.connection.model_copy(update={"server": f"tls://127.0.0.1:{relay.port}"})

        async def producer() -> Producer:
            transport = await connect(dialled, member.identity.nkey_seed, folder / CA_FILE, name="alpha", timeout=20)
            return await stack.enter_async_context(Producer(member.identity, member.trust, dialled, transport))

        yield producer, relay


async def gives_up(submit: Awaitable[object]) -> None:
    begun = time.monotonic()
    with pytest.raises(PublishTimeout):
        await submit
    assert time.monotonic() - begun < TIMEOUT_S + PATIENCE_S


async def test_a_full_queue_says_so_at_once_to_each(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, FULL) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        begun = time.monotonic()
        outcomes = await alpha.submit_many("thumbs", "resize", range(50), window=8, timeout=60)
        assert Counter(type(each) for each in outcomes[20:]) == {QueueFull: 30}
        assert not [each for each in outcomes[:20] if isinstance(each, BridgeError)]
        for key in (None, "order-42"):
            with pytest.raises(QueueFull):
                await alpha.submit("thumbs", "resize", 1, key=key, timeout=60)
        assert time.monotonic() - begun < 30  # of the 60 that each had


@pytest.mark.parametrize("state", ["black hole", "cut", "stopped"])
async def test_a_submit_ends_in_its_time_whatever_became_of_the_connection(state: str, tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge, through(bridge) as (producer, relay):
        used, fresh, keyed, many = [await producer() for _ in range(4)]
        await used.submit("thumbs", "resize", 1)
        match state:
            case "black hole":
                relay.black_hole()
            case "cut":
                await relay.cut()
            case "stopped":
                await bridge.hub.stop()
        # The first submit of a process hears its results before it sends; a keyed one looks for its job.
        await asyncio.gather(
            gives_up(used.submit("thumbs", "resize", 2, timeout=TIMEOUT_S)),
            gives_up(used.submit("thumbs", "resize", 2, key="k", timeout=TIMEOUT_S)),
            gives_up(fresh.submit("thumbs", "resize", 3, timeout=TIMEOUT_S)),
            gives_up(keyed.submit("thumbs", "resize", 4, key="k", timeout=TIMEOUT_S)),
        )
        begun = time.monotonic()
        outcomes = await many.submit_many("thumbs", "resize", range(20), window=10, timeout=TIMEOUT_S)
        assert [type(each) for each in outcomes] == [PublishTimeout] * 20
        assert time.monotonic() - begun < 2 * TIMEOUT_S + PATIENCE_S
        if state == "black hole":  # and what was given up does not stop the connection from being heard again
            relay.heal()
            for each in (used, fresh, keyed, many):
                await each.submit("thumbs", "resize", 5, timeout=10)


async def test_an_answer_to_a_flush_that_was_given_up_ends_no_connection(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge, through(bridge) as (producer, relay):
        alpha = await producer()
        transport = alpha._transport
        assert isinstance(transport, JetStreamTransport)
        relay.black_hole()
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(transport.flush(60), 0.2)
        relay.heal()
        await alpha.submit("thumbs", "resize", 1, timeout=10)  # in less than it takes to miss two pings
