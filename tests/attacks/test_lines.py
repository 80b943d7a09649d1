"""Lines of the servers' protocol: no subject of a leaf's client cuts the link, and what crosses fits into one line."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Final

import pytest

from bridge.devserver import monitor
from bridge.errors import ConfigurationError
from bridge.identity import Identity
from bridge.policy import Queue
from bridge.policy.queues import MAX_QUEUES
from bridge.render import server_config
from bridge.render.servers import CROSSING_BYTES, link_conf
from tests.integration.plain import plain
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
