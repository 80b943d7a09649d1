"""What a job costs in calls of functions, held to a limit: it is the same on every machine, however busy.

``make bench-guard``. Producer and worker run in this process over the transport in memory, so that no server and no
clock has a say; what nats-py and the servers take is not in it. A change that makes a job's way much longer is refused
until it is shorter, or its length is written down here.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Final

from bench.pace import paced
from bench.policy import bench_policy
from bridge.crypto import SigningKey, VerifyKey
from bridge.observe import configure
from bridge.testing import memory_bridge
from consumers import Worker

JOBS: Final = 200
WINDOW: Final = 50
LIMITS: Final = {"calls": 527, "calls of C": 488, "signatures": 0.25}
"""For each job and its result, both ends together, a tenth more than it was when this was written: calls of functions
in Python, and of others that these make. Signatures made and verified: four where nothing shares one."""
ROOT: Final = Path(__file__).parent.parent
SIGNING: Final = (SigningKey.sign.__code__, VerifyKey.verify.__code__)


@cache
def ours(path: str) -> bool:
    """Whether it is code of a producer or a worker; a dataclass's own methods have no file."""
    place = Path(path)
    if not place.is_relative_to(ROOT):
        return path == "<string>"
    return place.relative_to(ROOT).parts[0] in ("bridge", "producers", "consumers") and "memory" not in place.parts


async def counted() -> dict[str, float]:
    """Calls for each job."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if not ours(code.co_filename):
            return
        calls[event] += 1
        if event == "call" and code in SIGNING:
            calls["signatures"] += 1

    args = {"data": "x" * 1000}
    with tempfile.TemporaryDirectory() as place:
        async with memory_bridge(bench_policy(Path(place))) as rig, rig.producer("producer") as producer:

            async def submit(_: int) -> None:
                handle = await producer.submit("bench", "echo", args)
                assert await handle.result() == args

            async with rig.working(_worker(), "pool"):
                await paced(WINDOW, WINDOW, submit)  # what is done once is done
                sys.setprofile(count)
                try:
                    await paced(JOBS, WINDOW, submit)
                finally:
                    sys.setprofile(None)
    return {
        "calls": calls["call"] / JOBS,
        "calls of C": calls["c_call"] / JOBS,
        "signatures": calls["signatures"] / JOBS,
    }


def _worker() -> Worker:
    worker = Worker(concurrency=16, prefetch=64)

    @worker.handler("bench", "echo")
    async def echo(args: dict[str, str]) -> dict[str, str]:
        return args

    return worker


def complaints(found: dict[str, float]) -> list[str]:
    """What is more than is written down."""
    return [
        f"{what}: {found[what]:.2f} for each job, where bench/guard.py allows {limit}"
        for what, limit in LIMITS.items()
        if found[what] > limit
    ]


def main() -> None:
    """Count, print, and end with 1 where it is more than is written down."""
    configure(level="error")
    found = asyncio.run(counted())
    for what, count in found.items():
        print(f"{what}: {count:.2f} for each job, at most {LIMITS[what]}")
    if wrong := complaints(found):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
