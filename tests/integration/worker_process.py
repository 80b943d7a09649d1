"""A worker to be run as a process of its own, and killed: ``python -m tests.integration.worker_process``.

It tells of each handler on standard output, one line each, and handlers wait for what ``args`` says.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bridge.devserver import monitor
from bridge.jetstream import JetStreamTransport
from bridge.transport import Delivery
from consumers import Job, Worker

worker = Worker.from_env(concurrency=2, prefetch=2, drain_timeout=20)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def exists(path: Path) -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        return await asyncio.to_thread(path.exists)

    return probe


@worker.on_startup
def ready() -> None:
    say("ready")


@worker.on_shutdown
def over() -> None:
    say("over")


@worker.handler("thumbs", "resize")
async def until_the_file_exists(args: str, job: Job) -> int:
    say("started", job.attempt)
    await monitor.until(exists(Path(args)), 60, args)
    return job.attempt


@worker.handler("thumbs", "probe")
def block(args: float) -> str:
    say("blocking")
    time.sleep(args)
    return threading.current_thread().name


async def die(transport: JetStreamTransport, delivery: Delivery) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    if "die-before-ack" in sys.argv:
        JetStreamTransport.ack = die  # type: ignore[method-assign, assignment]  # the fault that is tested
    worker.main()
