"""Transfers that are broken amid: was the digest right, and how many bytes went over the link again?

The link is cut, a server killed and started again, the reader or the writer killed with -9, each way in turn, once a
third of the payload has been read (or stored, where its writer is to die).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.processes import Child, serving, started
from bench.rivals import digest_of, flowing
from bridge.devserver import Bridge
from bridge.observe import configure
from bridge.payload import stored_length
from producers import Producer

CUT_S: Final = 0.5
LONGEST_S: Final = 120.0
_HOWS: Final = ("cut the link", "kill -9 the reader", "kill -9 the hub", "kill -9 the leaf", "kill -9 the writer")
CASES: Final = tuple(itertools.product(("there", "back"), _HOWS))


async def broken(bridge: Bridge, folder: Path, size: int, times: int) -> list[dict[str, Any]]:
    """Break transfers, each case in turn.

    Args:
        bridge: With a relay in its link.
        folder: Where spools and results lie.
        size: Of each payload.
        times: How many.
    """
    digest, rows = digest_of(size), list[dict[str, Any]]()
    for n in range(times):
        way, how = CASES[n % len(CASES)]
        place = folder / f"break-{n}"
        place.mkdir()
        begun = time.perf_counter()
        row = {"way": way, "how": how} | await _broken(bridge, place, size, way, how)
        row["right"] = row.pop("sha256") == digest
        rows.append(row | {"seconds": round(time.perf_counter() - begun, 1)})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


async def _broken(bridge: Bridge, place: Path, size: int, way: str, how: str) -> dict[str, Any]:
    assert bridge.relay is not None
    there = way == "there"
    author = bridge.policy.hub.name if there else bridge.policy.leaf.name
    direction = "from_hub" if there else "from_leaf"
    carried, stored = bridge.relay.carried[direction], _stored(bridge, author)
    third = size // 3
    user = {"BUNNY_IDENTITY": str(bridge.identity("producer"))}
    asked = ("bench.breaks", way, str(size), str(place / "out"))
    async with contextlib.AsyncExitStack() as stack:
        serves = await stack.enter_async_context(serving(bridge.identity("pool"), place / "spool"))
        asks = await stack.enter_async_context(started(*asked, env=user))
        spool = place / "spool" if there else place
        if how == "kill -9 the writer":
            await _until(lambda: _stored(bridge, author) - stored > third)
        else:
            await _until(lambda: _size(spool) > third)
        token, again = "", 0
        if how == "cut the link":
            await bridge.relay.cut()
            await asyncio.sleep(CUT_S)
            bridge.relay.heal()
        elif how in ("kill -9 the hub", "kill -9 the leaf"):
            server = bridge.hub if how.endswith("hub") else bridge.leaf
            await server.kill()
            await server.start()
        elif there == (how == "kill -9 the reader"):
            await _kill(serves)
            again = 0 if there else _stored(bridge, author) - stored
            await stack.enter_async_context(serving(bridge.identity("pool"), place / "spool"))
        else:
            token = "" if there else await asks.line()
            await _kill(asks)
            again = _stored(bridge, author) - stored if there else 0
            asks = await stack.enter_async_context(started(*asked, *([token] if token else []), env=user))
        async with asyncio.timeout(LONGEST_S):
            if not token:
                await asks.line()
            found = await asks.line()
    over = bridge.relay.carried[direction] - carried - stored_length(size)
    return {"sha256": found, "over_the_link_again": max(0, over), "stored_again": again, "of": stored_length(size)}


async def _kill(child: Child) -> None:
    child.process.kill()
    await child.process.wait()


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONGEST_S):
        while not holds():  # noqa: ASYNC110  # files tell nobody
            await asyncio.sleep(0.002)


def _stored(bridge: Bridge, cloud: str) -> int:
    return sum(_size(blocks) for blocks in bridge.folder.store(cloud).glob("**/PARTS_bench/msgs"))


def _size(folder: Path) -> int:
    total = 0
    for each in folder.glob("*"):
        with contextlib.suppress(OSError):
            total += each.stat().st_size if not each.name.endswith(".aside") else 0
    return total


async def _ask(way: str, size: int, path: Path, token: str) -> None:
    """One end of a transfer: the producer."""
    async with Producer.open(Path(os.environ["BUNNY_IDENTITY"])) as producer:
        if way == "there":
            job = await producer.submit("bench", "check", flowing(size), timeout=LONGEST_S)
            print(job.token, flush=True)
            print(await job.result(), flush=True)
            return
        job = await producer.attach(token) if token else await producer.submit("bench", "source", size)
        if not token:
            print(job.token, flush=True)
        await job.result(to=path)
        print(await asyncio.to_thread(_digest, path), flush=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(way: str, size: str, path: str, token: str = "") -> None:
    """Submit a job, or wait for that of a token; say the token, then the digest of what came."""
    configure(level="critical")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_ask(way, int(size), Path(path), token))


if __name__ == "__main__":
    main(*sys.argv[1:])
