"""Jobs at a steady rate while something happens to the servers, and what became of each of them.

``python -m tests.load FILE`` is the worker: it writes the number of each job that it runs to FILE.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from bridge.errors import BridgeError
from bridge.testing.folders import FolderRig
from consumers import Worker
from producers import Handle, Producer

ROOT = Path(__file__).resolve().parents[1]
BATCH_S = 0.05
RESULT_TIMEOUT_S = 60.0

POLICY = """\
version: 1
bridge: acme
clouds:
  aws: {role: hub, clients: "tls://hub.test:4222", leafnodes: "tls://link.test:7422", durability: process}
  azure: {role: leaf, clients: "tls://leaf.test:4222", durability: process}
identities:
  alpha: {cloud: aws}
  bunny: {cloud: azure}
  ops-aws: {cloud: aws, role: inspector}
  ops-azure: {cloud: azure, role: inspector}
  prov-aws: {cloud: aws, role: provisioner}
  prov-azure: {cloud: azure, role: provisioner}
  link-azure: {cloud: azure, role: link}
queues:
  thumbs: {producers: [alpha], workers: bunny, kinds: [resize], ack_wait: 3s}
"""
"""With an ack wait that a test can wait for: what a broken connection took with it comes again after that."""


def clustered(cloud: str, policy: str = POLICY) -> str:
    """The policy with three servers in a cloud, each with a name of its own."""
    for host, port in (("hub", 4222), ("link", 7422)) if cloud == "aws" else (("leaf", 4222),):
        names = ", ".join(f'"tls://{host}-{n}.test:{port}"' for n in range(3))
        policy = policy.replace(f'"tls://{host}.test:{port}"', f"[{names}]")
    role = "hub" if cloud == "aws" else "leaf"
    routes = ", ".join(f'"tls://{role}-{n}.test:6222"' for n in range(3))
    return policy.replace(f"{{role: {role},", f"{{role: {role}, servers: 3, routes: [{routes}],")


@dataclass
class Outcome:
    """What became of a load.

    Args:
        submitted: Jobs whose PubAck came.
        refused: Jobs that the producer was told were not stored.
        answered: Jobs whose result came.
        runs: How often each job ran that ran at all.
        seconds: How long jobs were submitted.
        stored: When each job was stored.
        done: When each result came.
    """

    submitted: int = 0
    refused: int = 0
    answered: int = 0
    runs: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    stored: list[float] = field(default_factory=list)
    done: list[float] = field(default_factory=list)

    @property
    def lost(self) -> int:
        """Jobs that were accepted and have no result."""
        return self.submitted - self.answered

    @property
    def run_again(self) -> int:
        """Jobs that ran more than once: allowed, where a server took the word that they had run with it."""
        return sum(runs > 1 for runs in self.runs.values())

    def __str__(self) -> str:
        return (
            f"{self.submitted} jobs at {self.submitted / self.seconds:.0f}/s, {self.refused} refused, "
            f"{self.lost} lost, {self.run_again} run again; "
            f"longest pause {pause(self.stored):.1f} s between jobs stored, {pause(self.done):.1f} s between results"
        )


def pause(times: list[float]) -> float:
    """The longest time between two of them."""
    return max((after - before for before, after in itertools.pairwise(sorted(times))), default=0.0)


async def run_load(
    rig: FolderRig, file: Path, meanwhile: Callable[[], Coroutine[None, None, None]], *, rate: int, seconds: float
) -> Outcome:
    """Submit jobs for some seconds, with a worker that is a process of its own, and wait for every result.

    Args:
        rig: Both clouds.
        file: Where the worker writes.
        meanwhile: Called after a third of the time.
        rate: Jobs per second.
        seconds: How long.
    """
    outcome, waiting = Outcome(), set[asyncio.Task[None]]()

    async def answer(handle: Handle[int]) -> None:
        with contextlib.suppress(BridgeError):
            await handle.result(int, timeout=RESULT_TIMEOUT_S)
            outcome.answered += 1
            outcome.done.append(time.monotonic())

    async def submit(alpha: Producer, numbers: range) -> None:
        for handle in await alpha.submit_many("thumbs", "resize", numbers):
            if isinstance(handle, Handle):
                outcome.submitted += 1
                outcome.stored.append(time.monotonic())
                waiting.add(asyncio.create_task(answer(handle)))
            else:
                outcome.refused += 1

    async with working(rig, file), rig.producer("alpha") as alpha:
        async with asyncio.TaskGroup() as group:
            began, size = time.monotonic(), int(rate * BATCH_S)
            batches = int(seconds / BATCH_S)
            for batch in range(batches):
                group.create_task(submit(alpha, range(batch * size, (batch + 1) * size)))
                if batch == batches // 3:
                    group.create_task(meanwhile())
                await asyncio.sleep(began + (batch + 1) * BATCH_S - time.monotonic())
            outcome.seconds = time.monotonic() - began
        await asyncio.gather(*waiting)
    outcome.runs = Counter(map(int, (await asyncio.to_thread(file.read_text)).split()))
    return outcome


@contextlib.asynccontextmanager
async def working(rig: FolderRig, file: Path) -> AsyncIterator[None]:
    """The worker in a process of its own, so that it and the producer do not wait for each other."""
    environment = {**os.environ, "BUNNY_IDENTITY": str(rig.identity("bunny")), "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "tests.load", str(file))
    child = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE)
    try:
        assert child.stdout is not None
        assert await asyncio.wait_for(child.stdout.readline(), 30) == b"ready\n"
        yield
        child.terminate()
        await asyncio.wait_for(child.wait(), 40)
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def main(file: str) -> None:
    """Be the worker."""
    worker = Worker.from_env(concurrency=64, prefetch=256)
    written = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    @worker.on_startup
    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        os.write(written, b"%d\n" % args)
        return args

    worker.main()


if __name__ == "__main__":
    main(sys.argv[1])
