"""The drill's workers: ``bunny work bridge.cli.drill.worker:worker`` in one cloud, ``:back`` in the other.

SIGUSR1 has one die at its next ack: after the result is stored, before the broker knows.
"""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from typing import Final

from bridge.cli.drill.ledger import ENVIRONMENT, Ledger
from bridge.jetstream import JetStreamTransport
from bridge.job import Kind
from bridge.transport import Delivery
from consumers import Job, Worker, execute

SLOWNESS: Final = "BUNNY_DRILL_SLOWNESS"
"""The variable that makes a worker slow: seconds that it adds to each job."""
DRAIN_S: Final = 10.0
FUTURE_S: Final = 5.0
"""How long a job from the future is put off here, in place of a minute: one can wait for it."""


@dataclass
class Step:
    """What a job asks for.

    Args:
        job: Its number in the ledger.
        seconds: How long the handler works.
        fatal: Whether the handler kills its process.
        padding: Makes messages of different sizes.
    """

    job: int
    seconds: float
    fatal: bool = False
    padding: str = ""


WORK: Final = Kind("work", "step", Step, int)
POISON: Final = Kind("poison", "step", Step, int)
JUNK: Final = Kind("junk", "step", Step, int)
BACK: Final = Kind("back", "step", Step, int)
KINDS: Final = {kind.queue: kind for kind in (WORK, POISON, JUNK, BACK)}

worker = Worker.from_env(concurrency=16, prefetch=16, drain_timeout=DRAIN_S)
back = Worker.from_env(concurrency=16, prefetch=16, drain_timeout=DRAIN_S)
_slowness = float(os.environ.get(SLOWNESS, "0"))
_ledger: list[Ledger] = []


async def _die(transport: JetStreamTransport, delivery: Delivery) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _arm() -> None:
    JetStreamTransport.ack = _die  # type: ignore[method-assign, assignment]  # the fault itself


@worker.on_startup
@back.on_startup
def ready() -> None:
    """Say so in the ledger."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _arm)
    execute.FUTURE_DELAY_S = FUTURE_S  # type: ignore[misc]  # here, not in whatever imports this module
    _ledger.append(Ledger(os.environ[ENVIRONMENT]))
    _ledger[0].say("ready")


async def step(args: Step, job: Job) -> int:
    """Write that it begins, work, write that it ends."""
    effect = _ledger[0].begin(args.job, os.getpid(), job.attempt)
    if args.fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(args.seconds + _slowness)
    _ledger[0].end(effect)
    return args.job


for _kind in (WORK, POISON, JUNK):
    worker.handler(_kind)(step)
back.handler(BACK)(step)
