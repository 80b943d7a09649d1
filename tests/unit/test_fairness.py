"""Large payloads leave turns of the event loop, and of the ways that messages take, to whatever else goes on."""

from __future__ import annotations

import asyncio
import os
from itertools import pairwise

from bridge.payload import PART
from bridge.transfer import outgoing
from tests.fleet import Fleet, policy

MIB = 1024 * 1024
DATA = os.urandom(7 * PART + 77)


async def test_no_two_parts_are_stored_in_one_turn_of_the_event_loop() -> None:
    rig = Fleet.make(policy(max_payload=4 * MIB, payload_bytes=16 * MIB))
    async with rig.producer() as relay:
        submit = asyncio.create_task(relay.submit("thumbs", "resize", DATA))
        stored = [0]
        while not submit.done():
            await asyncio.sleep(0)
            stored.append(len(rig.held("aws", "PARTS_thumbs")))
        await submit
    assert stored[-1] == 8 + 1, "parts, and their index"
    turns = [turn for turn, (before, after) in enumerate(pairwise(stored)) if after > before]
    assert max(after - before for before, after in pairwise(stored)) == 1
    assert min(after - before for before, after in pairwise(turns)) >= outgoing.TURNS
