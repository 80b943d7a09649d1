"""``bunny bench``: how fast jobs go through a bridge that runs, by its own clocks."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bridge.cli.frame import AsJson, BridgeFolder, example, run
from bridge.cli.out import Out
from bridge.cli.submit import read_json
from bridge.cli.who import IdentityFolder, choose, producing
from bridge.errors import BridgeError, UsageError
from producers import Producer

BENCH_KIND: Final = "bench"
"""What a queue takes part by: a kind of this name in the policy, with a handler that does what is to be measured."""
DEADLINE_S: Final = 60.0
"""Of each job: what is left behind by whoever interrupts it is not started later than that."""
MOST_JOBS: Final = 1_000_000
MOST_AT_ONCE: Final = 10_000
MOST_BYTES: Final = 256 * 1024
"""What travels inline: of payloads in parts the rate is another figure."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=example(
            "bunny bench thumbnails",
            "bunny bench thumbnails --window 1 --window 100 --jobs 5000 --json",
            """bunny bench thumbnails --kind probe '{"url": "https://example.com/a.png"}' --jobs 100""",
        )
    )(bench)


def bench(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")],
    args: Annotated[
        str, typer.Argument(metavar="ARGS", help="JSON that each job gets; @FILE reads it from a file.")
    ] = "null",
    kind: Annotated[str, typer.Option(help="Of the jobs, which run: one that harms nothing.")] = BENCH_KIND,
    jobs: Annotated[int, typer.Option(min=1, max=MOST_JOBS, help="For each window.")] = 1000,
    window: Annotated[
        list[int] | None,
        typer.Option(min=1, max=MOST_AT_ONCE, help="Jobs in flight; again for another.", show_default="1 and 100"),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=0, max=MOST_BYTES, help="Send so many random bytes instead of JSON.", show_default=False),
    ] = None,
    identity: IdentityFolder = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Submit jobs, wait for their results, and print how many a second and how long each took.

    They are real jobs: a worker of the queue must have a handler for their kind, and runs it. Exit code 0 only if each
    was answered and none failed.
    """
    if size is not None and args != "null":
        raise UsageError("arguments are given twice: as ARGS and as --size; leave one out")
    value = secrets.token_bytes(size) if size is not None else read_json(args)
    place = choose(
        identity,
        folder,
        lambda c: queue in c.queues and c.identity in c.queues[queue].producers,
        f"submit to queue {queue!r}",
        have=lambda c: [name for name, settings in c.queues.items() if c.identity in settings.producers],
    )
    out = Out(as_json)
    found = run(_bench(place, queue, kind, value, jobs, window or [1, 100]))
    out.table(
        ("in flight", "jobs", "jobs/s", "p50 ms", "p95 ms", "p99 ms", "longest", "here, us of CPU a job"),
        [(*each.cells, f"{each.cpu_us:.0f}") for each in found],
    )
    for each in found:
        for error, count in sorted(each.failed.items()):
            out.say(f"with {each.window} in flight, {count} jobs: {error}", "red")
    out.result({"queue": queue, "kind": kind, "runs": [each.report for each in found]})
    if any(each.failed for each in found):
        raise typer.Exit(1)


@dataclass(slots=True)
class _Run:
    """What one window came to."""

    window: int
    times: list[float] = field(default_factory=list)
    """Seconds from submit to result, of each that succeeded."""
    failed: Counter[str] = field(default_factory=Counter)
    """By the name of what it came to."""
    seconds: float = 0.0
    cpu_us: float = 0.0

    @property
    def report(self) -> dict[str, Any]:
        """For machines; times in milliseconds."""
        times = sorted(self.times) or [0.0]
        at = {f"p{each}_ms": 1000 * times[len(times) * each // 100] for each in (50, 95, 99)}
        return {
            "window": self.window,
            "jobs": len(self.times),
            "jobs_per_s": len(self.times) / self.seconds,
            **at,
            "longest_ms": 1000 * times[-1],
            "cpu_us": self.cpu_us,
            "failed": dict(self.failed),
        }

    @property
    def cells(self) -> list[str]:
        """For people."""
        window, jobs, rate, *times = [value for value in self.report.values() if not isinstance(value, dict)][:-1]
        return [f"{window}", f"{jobs}", f"{rate:.0f}", *(f"{each:.1f}" for each in times)]


async def _bench(folder: Path, queue: str, kind: str, value: object, jobs: int, windows: list[int]) -> list[_Run]:
    found = []
    async with producing(folder) as producer:
        await _job(producer, _Run(0), queue, kind, value)  # what is wrong is told by the first; connections are made
        for window in windows:
            found.append(run := _Run(window))
            numbers = iter(range(jobs))
            begun, used = time.perf_counter(), time.process_time()
            async with asyncio.TaskGroup() as group:
                for _ in range(window):
                    group.create_task(_jobs(producer, run, queue, kind, value, numbers))
            run.seconds, run.cpu_us = time.perf_counter() - begun, (time.process_time() - used) / jobs * 1e6
    return found


async def _jobs(producer: Producer, run: _Run, queue: str, kind: str, value: object, numbers: Iterator[int]) -> None:
    for _ in numbers:
        try:
            await _job(producer, run, queue, kind, value)
        except BridgeError as error:
            run.failed[type(error).__name__] += 1


async def _job(producer: Producer, run: _Run, queue: str, kind: str, value: object) -> None:
    begun = time.perf_counter()
    job = await producer.submit(queue, kind, value, deadline=DEADLINE_S)
    await job.result()
    run.times.append(time.perf_counter() - begun)
