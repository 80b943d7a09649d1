"""The clocks of one cloud are off by an hour: those of its producer and of its workers, each way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Final

from bridge.cli.drill.ledger import DEADLINE_S
from bridge.cli.drill.skew import OFF_S
from bridge.cli.drill.stage import WAYS, Stage, Way
from bridge.cli.drill.strike import Strike

ALARMS: Final = frozenset({"job_from_the_future", "job_expired"})
HOLD_S: Final = 3.0
"""How long jobs go on once both alarms were heard."""
_LATE: Final = "DeadlineExceeded"
_RIGHT: Final[Mapping[str, str]] = {}


async def clock(stage: Stage, strike: Strike, *, cloud: str, ahead: bool) -> None:
    """Put the clocks of a cloud wrong, and right again.

    Where they are ahead, the cloud's jobs are of the future for the other, and the other's short ones too old; where
    they are behind, it is the other way round. Jobs from the future stay so when the clock is right, until that hour
    has passed: here the other cloud's workers are put an hour ahead instead.
    """
    assert stage.skew is not None  # noqa: S101  # for the type checker: the fault is not run without
    out, home = (next(way for way in WAYS if way.home == cloud), next(way for way in WAYS if way.work == cloud))
    parked, late = (out, home) if ahead else (home, out)
    wrong = stage.skew.off(OFF_S if ahead else -OFF_S)
    strike.struck, strike.skewed = monotonic(), True
    await _put(stage, strike, home, out, wrong)
    since = monotonic()
    for alarm in ALARMS:
        await stage.until(
            lambda alarm=alarm: stage.watch.first(since, {alarm}) is not None,  # type: ignore[misc]
            f"{alarm} in a log",
        )
    await asyncio.sleep(HOLD_S)
    until = monotonic()
    # Before a worker with a right clock can take one of them.
    await stage.until(lambda: stage.ledger.under_way(late.queue, until) == 0, "a result for every job that is too old")
    if ahead:
        await _pass_an_hour(stage, strike, home, out)
    else:
        await _put(stage, strike, home, out, _RIGHT)
    await stage.until_answered(monotonic())
    _judge(stage, strike, parked, late, since, until)


async def _put(stage: Stage, strike: Strike, home: Way, out: Way, variables: Mapping[str, str]) -> None:
    """Replace the workers and the producer of a cloud by such with another clock."""
    await asyncio.gather(_workers(stage, strike, home, variables), _producer(stage, out, variables))


async def _producer(stage: Stage, way: Way, variables: Mapping[str, str]) -> None:
    producer = stage.producers[way]
    producer.tell("leave")
    await producer.ended()
    await stage.start_producer(way, variables)


async def _workers(stage: Stage, strike: Strike, way: Way, variables: Mapping[str, str]) -> None:
    old = [each for each in stage.workers if each.way == way]
    for code in await asyncio.gather(*(stage.replace(each, variables) for each in old)):
        if code != 0:
            strike.problems.append(f"a worker that was to drain ended with code {code}")


async def _pass_an_hour(stage: Stage, strike: Strike, home: Way, out: Way) -> None:
    assert stage.skew is not None  # noqa: S101  # for the type checker
    for way in WAYS:
        stage.producers[way].tell("pause")
    await _put(stage, strike, home, out, _RIGHT)
    stage.producers[out].tell("pause")
    await _workers(stage, strike, out, stage.skew.off(OFF_S))
    await stage.until_answered(monotonic())
    await _workers(stage, strike, out, _RIGHT)
    for way in WAYS:
        stage.producers[way].tell("resume")


def _judge(stage: Stage, strike: Strike, parked: Way, late: Way, since: float, until: float) -> None:
    """What was from the future was done; of what was late, all that had less than an hour was refused."""
    early = stage.ledger.outcomes(parked.queue, since, until)
    if not early or any(status != "succeeded" for _, status in early):
        strike.problems.append("a job from the future was not done when its time had come")
    old = stage.ledger.outcomes(late.queue, since, until)
    if not old or any((status == _LATE) != (deadline == DEADLINE_S) for deadline, status in old):
        strike.problems.append("a job was not refused though its deadline had passed, or it was though it had not")
