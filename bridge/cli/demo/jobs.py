"""The demo's jobs: one for each file, a bounded window of them under way, every answer checked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Final

from bridge.cli.demo.files import COUNT, TOO_LARGE, Counts, Skipped, count, read
from bridge.cli.demo.leaks import MOST_SAMPLES, PER_FILE, pick
from bridge.errors import BridgeError, PayloadTooLarge
from bridge.job import JobToken
from producers.client import Producer

WINDOW: Final = 64
"""Jobs under way at once: at most 16 MiB of files in memory."""
DEADLINE_S: Final = 300.0
AT_REST: Final = 128
"""Jobs that are stored with no worker running, so that the search finds stored jobs to look at."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A file, and what this process itself counts in it."""

    path: Path
    expected: Counts


@dataclass(frozen=True, slots=True)
class Plan:
    """What was read of the input before the first job."""

    files: list[Planned]
    unread: list[Skipped]
    """Files that could not be read after all."""
    samples: set[bytes] = field(repr=False)


@dataclass(slots=True)
class Tally:
    """What became of the jobs."""

    started: float
    """By `time.perf_counter`, as all times here."""
    ended: float = 0.0
    first: float | None = None
    """When the first answer came."""
    latencies: list[float] = field(default_factory=list)
    """Seconds from submit to answer, for each job that was answered since ``started``."""
    jobs: int = 0
    """Jobs submitted, or tried to be."""
    right: int = 0
    """Jobs with a right answer."""
    size: int = 0
    """Bytes of the jobs that were answered."""
    wrong: list[Skipped] = field(default_factory=list)
    """Jobs without a right answer, and why."""
    skipped: list[Skipped] = field(default_factory=list)
    token: JobToken | None = None
    """Of one job with a right answer."""

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return len(self.latencies) / (self.ended - self.started) if self.latencies else 0.0

    def percentile(self, percent: int) -> float:
        """Seconds within which this share of the jobs was answered."""
        ordered = sorted(self.latencies)
        return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else 0.0


def plan(paths: Sequence[Path]) -> Plan:
    """Read every file once: count what a right answer must say, and take samples. Blocks; run it in a thread."""
    files: list[Planned] = []
    unread: list[Skipped] = []
    samples: set[bytes] = set()
    per_file = max(1, min(PER_FILE, MOST_SAMPLES // max(1, len(paths))))
    for path in paths:
        data = read(path)
        if isinstance(data, Skipped):
            unread.append(data)
            continue
        files.append(Planned(path, count(data)))
        samples |= pick(data, per_file)
    return Plan(files, unread, samples)


async def run_jobs(
    producer: Producer, paths: Iterable[Path], planning: Awaitable[Plan], advance: Callable[[], None]
) -> Tally:
    """Submit a job for each file, wait for its answer, compare.

    The first goes alone and at once: it waits for the worker's process to start, and while the rest is still being
    read. That is no part of the rate and the latencies.

    Args:
        producer: Who submits.
        paths: The files.
        planning: Gives what is planned of them.
        advance: Called after each file.
    """
    tally = Tally(perf_counter())
    first = await asyncio.to_thread(_plan_one, paths)
    if first is not None:
        await _run_job(producer, first, tally)
        advance()
    plan = await planning
    for _ in plan.unread:
        advance()
    if len(plan.files) > 1:
        tally.started = perf_counter()
        tally.latencies.clear()
    rest = (planned for planned in plan.files if first is None or planned.path != first.path)

    async def lane() -> None:
        for planned in rest:
            await _run_job(producer, planned, tally)
            advance()

    async with asyncio.TaskGroup() as group:
        for _ in range(WINDOW):
            group.create_task(lane(), name="demo-lane")
    tally.ended = perf_counter()
    tally.skipped += plan.unread
    return tally


def _plan_one(paths: Iterable[Path]) -> Planned | None:
    contents = ((path, read(path)) for path in paths)
    return next((Planned(path, count(data)) for path, data in contents if isinstance(data, bytes)), None)


async def store_jobs(producer: Producer, files: Sequence[Planned]) -> int:
    """Store jobs that nobody works; how many were."""
    contents = (data for planned in files[:AT_REST] if isinstance(data := read(planned.path), bytes))
    outcomes = await producer.submit_many(COUNT, contents, deadline=DEADLINE_S, window=WINDOW)
    return sum(not isinstance(outcome, BridgeError) for outcome in outcomes)


async def _run_job(producer: Producer, planned: Planned, tally: Tally) -> None:
    path, expected = str(planned.path), planned.expected
    data = read(planned.path)
    if isinstance(data, Skipped):
        tally.skipped.append(data)
        return
    if sha256(data).hexdigest() != expected.sha256:  # it changed since it was planned
        expected = count(data)
    submitted = perf_counter()
    try:
        job = await producer.submit(COUNT, data, deadline=DEADLINE_S)
        answer = await job.result()
    except PayloadTooLarge:
        tally.skipped.append(Skipped(path, TOO_LARGE))
        return
    except BridgeError as error:
        tally.jobs += 1
        tally.wrong.append(Skipped(path, f"{type(error).__name__}: {error}"))
        return
    now = perf_counter()
    tally.jobs += 1
    tally.first = tally.first or now
    tally.latencies.append(now - submitted)
    tally.size += len(data)
    if answer == expected:
        tally.right += 1
        tally.token = job.token
    else:
        tally.wrong.append(Skipped(path, "the answer is not what this process counts"))
