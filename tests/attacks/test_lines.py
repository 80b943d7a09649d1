"""Lines of the servers' protocol: nothing that a client sends cuts the link, and what crosses fits into one line."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from pathlib import Path
from typing import Final

import pytest
from nats.aio.msg import Msg

from bridge.devserver import monitor
from bridge.errors import ConfigurationError
from bridge.identity import Identity
from bridge.policy import Queue
from bridge.policy.queues import MAX_QUEUES
from bridge.render import server_config
from bridge.render.accounts import HUB_PAYLOAD
from bridge.render.servers import CROSSING_BYTES, link_conf
from tests.integration.plain import Plain, plain
from tests.integration.test_jobs import held
from tests.support import running_bridge, write_policy

LINE: Final = int(re.findall(r"^max_control_line: (\d+) ", server_config("leaf"), re.MULTILINE)[0])
"""Bytes of a command that a leaf takes of a client, without its verb."""


async def test_no_subject_that_a_leaf_takes_is_longer_than_the_hub_takes_of_the_link(tmp_path: Path) -> None:
    """Where it was, one stored message had the hub close the link each time it was sent to it, for ever."""
    async with running_bridge(tmp_path) as bridge:
        port, nkey = bridge.ports["aws"].monitor, Identity.load(bridge.identity("link-azure")).public().nkey
        before = await monitor.link_ids(port, nkey)
        longest = LINE - len("  0")  # as nats-py writes it: no reply, no bytes
        async with plain(bridge, "bunny") as bunny:
            await bunny.client.publish(_result(longest))
            await bunny.settled()
            await bunny.ask("results.thumbs.alpha.after.1.0")

        async def copied() -> bool:
            return await held(bridge, "ops-aws", "RESULTS_thumbs") == 2

        await monitor.until(copied, 20, "both to be copied")
        async with plain(bridge, "bunny") as bunny:
            await bunny.client.publish(_result(longest + 1))

            async def closed() -> bool:
                return bunny.client.is_closed

            await monitor.until(closed, 20, "the client to be closed")
        assert await held(bridge, "ops-azure", "RESULTS_thumbs") == 2
        assert await monitor.link_ids(port, nkey) == before


async def test_no_message_that_the_hub_takes_is_larger_than_the_leaf_takes_of_the_link(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        port, nkey = bridge.ports["aws"].monitor, Identity.load(bridge.identity("link-azure")).public().nkey
        before = await monitor.link_ids(port, nkey)
        subject = "control.thumbs.alpha.feedfacefeedfacefeedface.1"
        heard: asyncio.Queue[int] = asyncio.Queue()

        async def hear(message: Msg) -> None:
            heard.put_nowait(len(message.data))

        async with plain(bridge, "bunny") as bunny, plain(bridge, "alpha") as alpha:
            await bunny.client.subscribe("control.thumbs.*.*.*", cb=hear)
            await bunny.settled()
            await _until_heard(alpha, subject, heard)
            await alpha.client.publish(subject, bytes(HUB_PAYLOAD))
            async with asyncio.timeout(20):
                while await heard.get() != HUB_PAYLOAD:
                    pass
            await alpha.client.publish(subject, bytes(HUB_PAYLOAD + 1))

            async def closed() -> bool:
                return alpha.client.is_closed

            await monitor.until(closed, 20, "the client to be closed")
        assert await monitor.link_ids(port, nkey) == before


async def _until_heard(sender: Plain, subject: str, heard: asyncio.Queue[int]) -> None:
    """A new subscription takes a while to be known across the link."""

    async def sent() -> bool:
        await sender.client.publish(subject, b"x")
        await sender.settled()
        return not heard.empty()

    await monitor.until(sent, 20, "a message to cross the link")


def _result(length: int) -> str:
    return f"{'results.thumbs.alpha.'.ljust(length - 4, 'x')}.1.0"


def test_a_policy_of_which_too_much_would_cross_is_refused(tmp_path: Path) -> None:
    assert CROSSING_BYTES < 16 * LINE
    policy = write_policy(tmp_path)
    hub = dataclasses.replace(policy.hub, name="a" * 63)
    names = [f"{n:03}{'q' * 60}" for n in range(MAX_QUEUES)]
    queues = {
        name: Queue(name, ("alpha",), "w" * 63, ("resize",), home=hub.name, work="azure", payload_bytes=1 << 30)
        for name in names
    }
    clouds = {hub.name: hub, "azure": policy.leaf}
    with pytest.raises(ConfigurationError, match=rf"what may cross the link takes \d+ bytes, .* {CROSSING_BYTES};"):
        link_conf(dataclasses.replace(policy, clouds=clouds, queues=queues))
