"""Handlers that take twenty times the ack wait, under the defaults of the policy: each job runs once.

``python -m tests.long_handler`` takes ten minutes, so it is no test of the suite, which has the same with an ack wait
of a second, in `tests/integration/test_leases.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from bridge import observe, subjects
from bridge.devserver import Bridge
from bridge.member import Member
from consumers import Job, Worker
from producers import Producer
from tests import isolated
from tests.fleet import until
from tests.support import POLICY, connected, running_bridge

QUEUE = "thumbs"
KINDS = {
    "awaits": "a coroutine that awaits",
    "blocks": "a plain function, in a thread, in a call into C",
    "keeps": "a process of its own, in a call into C that keeps the global lock",
}
TEXT = POLICY.replace("    durability: process\n", "").replace("[resize, probe]", f"[{', '.join(KINDS)}]")
"""All that it says of the queue is who uses it: ack wait, attempts, deadline and durability are the defaults."""


def worker(notes: Path) -> Worker:
    made = Worker()

    @made.handler(QUEUE, "awaits")
    async def awaits(seconds: float, job: Job) -> int:
        isolated.note(str(notes / "awaits"), job.attempt)
        await asyncio.sleep(seconds)
        return job.attempt

    @made.handler(QUEUE, "blocks")
    def blocks(seconds: float, job: Job) -> int:
        isolated.note(str(notes / "blocks"), job.attempt)
        time.sleep(seconds)
        return job.attempt

    made.handler(QUEUE, "keeps", isolation="process")(isolated.keeps_the_lock_for)
    return made


async def redeliveries(bridge: Bridge) -> int:
    """How often the broker has delivered a job again."""
    async with await connected(bridge, "ops-aws") as transport:
        asked = f"$JS.API.CONSUMER.INFO.JOBS_{QUEUE}.{subjects.jobs_consumer('bunny', 'normal')}"
        return int(json.loads(await transport.request(asked, b""))["num_redelivered"])


async def run(folder: Path, seconds: float) -> bool:
    """Run one job of each kind, at once."""
    async with running_bridge(folder, TEXT) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        made, member = worker(folder), Member.load(bridge.identity("bunny"))
        transport = await member.connect("worker")
        serving = asyncio.create_task(
            made.serve(
                member.identity,
                member.trust,
                member.connection,
                transport,
                leases=lambda: member.connect("leases"),
            )
        )
        await until(lambda: made.serving or serving.done())
        ack_wait = member.connection.queues[QUEUE].ack_wait_ms / 1000
        began = time.monotonic()
        args = {"awaits": seconds, "blocks": seconds, "keeps": isolated.Hold(str(folder / "keeps"), seconds)}
        handles = {kind: await alpha.submit(QUEUE, kind, args[kind]) for kind in KINDS}
        attempts = {kind: await handle.result(int, timeout=seconds + 300) for kind, handle in handles.items()}
        took, again = time.monotonic() - began, await redeliveries(bridge)
        made.stop()
        await serving
    runs = {kind: (folder / kind).read_text().split() for kind in KINDS}
    for kind, about in KINDS.items():
        sys.stdout.write(f"{about}: executions {len(runs[kind])}, attempt {attempts[kind]}\n")
    sys.stdout.write(f"{took:.0f} s, ack wait {ack_wait:g} s, delivered again: {again}\n")
    return again == 0 and all(run == ["1"] for run in runs.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    observe.configure(level="critical")
    with tempfile.TemporaryDirectory() as path:
        raise SystemExit(0 if asyncio.run(run(Path(path), parser.parse_args().minutes * 60)) else 1)
