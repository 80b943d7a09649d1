"""One fault after the other, each with what it took to notice and to heal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from bridge.cli.drill.stage import LOADED, WAYS, Stage
from bridge.cli.drill.strike import Fault, Strike
from bridge.errors import TransportError

AGAIN = "started again"


async def run(stage: Stage, plan: Sequence[Fault], until: float, told: Callable[[Strike], None]) -> list[Strike]:
    """Inject the faults, until the time is over.

    Args:
        stage: Where.
        plan: Which, in their order.
        until: When no further one is begun, by `time.monotonic`.
        told: Called with each.
    """
    strikes: list[Strike] = []
    await stage.until_loaded()
    for fault in plan:
        if monotonic() >= until:
            break
        strike = Strike(fault.name, monotonic())
        strikes.append(strike)
        try:
            await stage.until_loaded()
            await _strike(stage, fault, strike)
        except* TransportError as errors:
            strike.problems.extend(str(error) for error in _leaves(errors))
        strike.closed = monotonic()
        told(strike)
        await _mend(stage)
    return strikes


async def _strike(stage: Stage, fault: Fault, strike: Strike) -> None:
    try:
        await fault.inject(stage, strike)
    finally:
        strike.mended, strike.owed = monotonic(), stage.ledger.open()
    await stage.until(lambda: stage.ledger.first_result(strike.mended, LOADED) is not None, "a result after the fault")
    strike.first = stage.ledger.first_result(strike.mended, LOADED)
    await stage.until_answered(strike.mended)
    strike.drained = monotonic()
    _notice(stage, fault, strike)


def _notice(stage: Stage, fault: Fault, strike: Strike) -> None:
    sign = stage.watch.first(strike.struck, fault.signs)
    again = stage.ledger.first_again(strike.struck) if fault.again else None
    if sign is not None and (again is None or sign.at < again):
        strike.noticed, strike.sign = sign.at, sign.event
    elif again is not None:
        strike.noticed, strike.sign = again, AGAIN


async def _mend(stage: Stage) -> None:
    """Have what a fault that went wrong left behind put right, so that the next finds all as it should be."""
    for child in [each for each in stage.workers if not each.alive]:
        stage.workers.remove(child)
        await stage.start_worker(child.way)
    for way in WAYS:
        if not stage.producers[way].alive:
            stage.ledger.disowned(way.queues)
            await stage.start_producer(way)
        stage.producers[way].tell("resume")


def _leaves(group: BaseExceptionGroup[TransportError]) -> list[BaseException]:
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found
