"""The inbox over real servers: submitted by one process, stored by another, through kills, restarts and a cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.devserver import Bridge, monitor
from bridge.errors import ConfigurationError
from consumers import Worker
from producers import Producer
from tests.integration.test_jobs import ROOT, SHORT, held, serving
from tests.support import running_bridge

BOXED = SHORT.replace("    ack_wait: 1s\n", "    ack_wait: 3s\n    inbox: [alpha]\n")
"""With an ack wait that a test can wait for, and that a process which was not run for a while outlasts."""
JOBS = 30
PATIENCE_S = 90.0
"""For a line of a process, which starts on a machine that does other things too."""


def echoing() -> Worker:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        return args

    return worker


@contextlib.asynccontextmanager
async def daemon(bridge: Bridge, *arguments: str) -> AsyncIterator[Process]:
    """Run `tests.integration.inbox_process`, and end it if it still runs."""
    environment = {**os.environ, "BUNNY_IDENTITY": str(bridge.identity("alpha")), "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "tests.integration.inbox_process", *arguments)
    child = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE)
    try:
        assert await says(child) == "ready"
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def says(child: Process) -> str:
    assert child.stdout is not None
    return (await asyncio.wait_for(child.stdout.readline(), PATIENCE_S)).decode().strip()


async def submit(bridge: Bridge, *numbers: int) -> None:
    """As a web process does: it submits, and is gone before there is a result."""
    async with Producer.open(bridge.identity("alpha")) as web:
        await web.submit_many("thumbs", "resize", numbers)


async def answered(bridge: Bridge, count: int) -> None:
    async def all_of_them() -> bool:
        return await held(bridge, "ops-aws", "RESULTS_thumbs") == count

    await monitor.until(all_of_them, 30, f"{count} results")


async def stop(child: Process) -> list[str]:
    """What it still wrote before it ended by itself."""
    child.terminate()
    lines = []
    while (line := await says(child)) != "over":
        lines.append(line)
    assert await child.wait() == 0
    return lines


async def test_results_are_stored_by_another_process_once_if_it_acks_and_again_if_it_is_killed(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, BOXED) as bridge, serving(bridge, "bunny", echoing()):
        await submit(bridge, *range(JOBS))
        await answered(bridge, JOBS)
        async with daemon(bridge) as first:
            assert sorted([await says(first) for _ in range(JOBS)]) == sorted(f"{n} 1" for n in range(JOBS))
            assert await stop(first) == []
        await submit(bridge, 100)
        async with daemon(bridge, "hold") as second:  # killed after it stored the result and before its ack
            assert await says(second) == "100 1"
        async with daemon(bridge) as third:
            value, delivered = (await says(third)).split()
            assert (value, int(delivered) > 1) == ("100", True)
            await submit(bridge, 101)
            assert await says(third) == "101 1"
            assert await stop(third) == []
        async with daemon(bridge) as one, daemon(bridge) as two:  # who share it
            await submit(bridge, *range(200, 200 + JOBS))
            assert sorted(await heard(JOBS, one, two)) == sorted(f"{n} 1" for n in range(200, 200 + JOBS))
            await submit(bridge, 300)
            assert await heard(1, one, two) == ["300 1"]


async def heard(count: int, *children: Process) -> list[str]:
    """The next lines that any of them writes."""
    lines: asyncio.Queue[str] = asyncio.Queue()

    async def feed(child: Process) -> None:
        while True:
            lines.put_nowait(await says(child))

    feeding = [asyncio.create_task(feed(child)) for child in children]
    try:
        return [await asyncio.wait_for(lines.get(), PATIENCE_S) for _ in range(count)]
    finally:
        for task in feeding:
            task.cancel()
        await asyncio.wait(feeding)


async def test_an_inbox_outlives_a_broker_and_a_cut_of_the_link(tmp_path: Path) -> None:
    async with (
        running_bridge(tmp_path, BOXED, relay=True) as bridge,
        serving(bridge, "bunny", echoing()),
        daemon(bridge) as reader,
    ):
        assert bridge.relay is not None
        await submit(bridge, 1)
        assert await says(reader) == "1 1"
        await bridge.hub.kill()
        await bridge.restart("aws")
        await submit(bridge, 2)
        seen = []
        while (value := (await says(reader)).split()[0]) != "2":
            seen.append(value)
        assert seen in ([], ["1"])  # a broker that is killed may have forgotten its last ack
        await submit(bridge, 3)
        assert await says(reader) == "3 1"
        await bridge.relay.cut()
        await submit(bridge, 4)
        bridge.relay.heal()
        assert await says(reader) == "4 1"
        assert await stop(reader) == []
        with pytest.raises(ConfigurationError, match="no inbox"):
            async with Producer.open(bridge.identity("beta")) as beta:
                beta.inbox("thumbs")
