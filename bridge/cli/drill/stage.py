"""Where the drill plays: its policy, and the producer and the workers, each a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

from bridge.cli.drill import producer, worker
from bridge.cli.drill.disk import Disk
from bridge.cli.drill.ledger import ENVIRONMENT, FILE, Ledger
from bridge.cli.drill.skew import Skew
from bridge.cli.drill.watch import Watch
from bridge.cli.drill.worker import BACK as BACK_KIND
from bridge.cli.drill.worker import JUNK, POISON, WORK
from bridge.devserver import Bridge, launcher, monitor
from bridge.errors import TransportError
from bridge.identity import ENVIRONMENT as IDENTITY
from bridge.policy import Policy, load_policy

ACK_WAIT_S: Final = 5
POISON_ATTEMPTS: Final = 3
START_S: Final = 60.0
STEP_S: Final = 60.0
"""The longest that anything may take to heal; what takes longer is called lost."""
DRAINED: Final = 100
"""Jobs a second by which a backlog must become less, beyond that."""

POLICY: Final = f"""\
version: 1
bridge: drill
clouds:
  aws: {{role: hub, clients: "tls://hub.test:4222", leafnodes: "tls://link.test:7422", durability: process}}
  azure: {{role: leaf, clients: "tls://leaf.test:4222", durability: process}}
identities:
  relay: {{cloud: aws}}
  bunny: {{cloud: azure}}
  ops-aws: {{cloud: aws, role: inspector}}
  ops-azure: {{cloud: azure, role: inspector}}
  provisioner-aws: {{cloud: aws, role: provisioner}}
  provisioner-azure: {{cloud: azure, role: provisioner}}
  azure-link: {{cloud: azure, role: link}}
queues:
  work:
    producers: [relay]
    workers: bunny
    kinds: [step]
    ack_wait: {ACK_WAIT_S}s
    backoff: {{initial: 100ms, factor: 2, max: 1s}}
  poison:
    producers: [relay]
    workers: bunny
    kinds: [step]
    ack_wait: {ACK_WAIT_S}s
    max_attempts: {POISON_ATTEMPTS}
  junk:
    producers: [relay]
    workers: bunny
    kinds: [step]
  back:
    producers: [bunny]
    workers: relay
    kinds: [step]
    ack_wait: {ACK_WAIT_S}s
    backoff: {{initial: 100ms, factor: 2, max: 1s}}
"""
"""What is killed here is processes, not the machine, which is what `durability: process` is for; and an ack wait that
one can wait for, shorter than some of the faults."""


@dataclass(frozen=True, slots=True)
class Way:
    """One of the two directions in which jobs flow.

    Args:
        queues: To which jobs are submitted; the first is under load.
        producer: The identity that submits.
        workers: The identity that works them.
        app: The worker.
        processes: How many workers.
        share: Of the rate.
        home: The cloud of the producer.
        work: The cloud of the workers.
    """

    queues: tuple[str, ...]
    producer: str
    workers: str
    app: str
    processes: int
    share: float
    home: str
    work: str

    @property
    def queue(self) -> str:
        """The one under load."""
        return self.queues[0]


THERE: Final = Way((WORK.queue, POISON.queue, JUNK.queue), "relay", "bunny", "worker", 2, 0.75, "aws", "azure")
BACK: Final = Way((BACK_KIND.queue,), "bunny", "relay", "back", 1, 0.25, "azure", "aws")
WAYS: Final = (THERE, BACK)
LOADED: Final = tuple(way.queue for way in WAYS)


def drill_policy(folder: Path) -> Policy:
    """Write the drill's ``bridge.yaml`` and load it."""
    path = folder / "bridge.yaml"
    path.write_text(POLICY)
    return load_policy(path)


class Child:
    """A producer or a worker as in production: a process of its own. It cannot outlive this one.

    Args:
        process: What was started.
        way: Whose jobs it submits or works.
    """

    def __init__(self, process: asyncio.subprocess.Process, way: Way) -> None:
        self._process, self.way = process, way

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    def tell(self, *words: object) -> None:
        """Give an order to a producer."""
        if self._process.stdin is not None and self.alive:
            self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self, timeout: float = STEP_S) -> int:
        """Wait until it has ended: its exit code.

        Raises:
            TransportError: It does not.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._process.wait()
        except TimeoutError:
            raise TransportError(f"process {self.pid} has not ended within {timeout:g} s") from None

    async def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        await self._process.wait()


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large some faults are.

    Args:
        junk: Messages of the fault of that name.
        black_hole: Seconds of the fault of that name.
        backlog: Jobs that wait for the link in the fault of that name.
    """

    junk: int = 10_000
    black_hole: float = 6.0
    backlog: int = 2_000


@dataclass(slots=True)
class Stage:
    """Both clouds, the processes, and the ledger.

    Args:
        bridge: Both clouds.
        ledger: What is judged by.
        watch: What processes and servers say.
        random: Decides how long, which and when.
        rate: Jobs per second, both ways together.
        sizes: How large some faults are.
        disks: Under the servers' stores, if they can be full.
        skew: How a process gets a wrong clock, if it can.
    """

    bridge: Bridge
    ledger: Ledger
    watch: Watch
    random: Random
    rate: float
    sizes: Sizes
    disks: Mapping[str, Disk] = field(default_factory=dict)
    skew: Skew | None = None
    workers: list[Child] = field(default_factory=list)
    producers: dict[Way, Child] = field(default_factory=dict)
    _started: int = 0

    async def start_worker(self, way: Way = THERE, variables: Mapping[str, str] | None = None) -> Child:
        """One more worker, ready."""
        identity = str(self.bridge.identity(way.workers))
        command = ("-m", "bridge.cli", "work", f"{worker.__name__}:{way.app}", "--identity", identity, "--json")
        child = await self._start("worker", way, command, variables or {})
        self.workers.append(child)
        await self._until_ready(child, "worker")
        return child

    async def start_producer(self, way: Way, variables: Mapping[str, str] | None = None) -> None:
        """The producer of a direction, ready: what was owed to an earlier one is attached to."""
        own = {
            IDENTITY: str(self.bridge.identity(way.producer)),
            producer.RATE: str(self.rate * way.share),
            producer.OUTBOX: str(self.bridge.folder.path / f"outbox-{way.queue}"),
        }
        command = ("-m", producer.__name__, *way.queues)
        self.producers[way] = child = await self._start("producer", way, command, {**own, **(variables or {})})
        await self._until_ready(child, "producer")

    async def pause(self, way: Way) -> None:
        """Have no more jobs submitted in a direction until ``resume``, and wait until all have their results.

        Raises:
            TransportError: They have not.
        """
        now, child = monotonic(), self.producers[way]
        child.tell("pause")
        await self.until(lambda: self.ledger.said(child.pid, "paused", now), "the producer to pause")
        await self.until(lambda: self.ledger.under_way(way.queue) == 0, "every job to be answered")

    async def replace(self, child: Child, variables: Mapping[str, str] | None = None) -> int:
        """Start a worker, and drain another: the exit code of that."""
        await self.start_worker(child.way, variables)
        child.signal(signal.SIGTERM)
        code = await child.ended()
        self.workers.remove(child)
        return code

    async def until(self, probe: Callable[[], bool], what: str, timeout: float = STEP_S) -> None:
        """Wait until ``probe`` says yes.

        Raises:
            TransportError: It does not in time.
        """

        async def ask() -> bool:
            return probe()

        await monitor.until(ask, timeout, what)

    async def until_answered(self, stored_by: float) -> None:
        """Wait until every job that was stored by then has its result.

        Raises:
            TransportError: Not in time.
        """
        patience = STEP_S + self.ledger.open(stored_by) / DRAINED
        await self.until(lambda: self.ledger.open(stored_by) == 0, "a result for every job stored", patience)

    async def until_loaded(self) -> None:
        """Wait until jobs flow.

        Raises:
            TransportError: They do not.
        """
        now = monotonic()
        for way in WAYS:
            jobs = max(3, int(self.rate * way.share / 4))
            await self.until(
                lambda queue=way.queue, jobs=jobs: self.ledger.results_since(now, queue) >= jobs,  # type: ignore[misc]
                f"{jobs} results",
            )

    async def finish(self) -> None:
        """Have the producers wait for what they are owed, then drain the workers."""
        with contextlib.suppress(TransportError):  # the ledger says what is missing
            for child in self.producers.values():
                child.tell("finish")
            for child in self.producers.values():
                await child.ended()
            for child in self.workers:
                child.signal(signal.SIGTERM)
            for child in self.workers:
                await child.ended()

    async def kill(self) -> None:
        """End whatever still runs."""
        for child in [*self.producers.values(), *self.workers]:
            await child.kill()

    async def _start(self, role: str, way: Way, command: tuple[str, ...], variables: Mapping[str, str]) -> Child:
        self._started += 1
        log = self.bridge.folder.log(f"{role}-{self._started}")
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, ENVIRONMENT: str(self.bridge.folder.path / FILE), **variables}
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launcher.__file__, str(os.getpid())),
                *(sys.executable, *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,  # Ctrl-C is for us
            )
        self.watch.follow(log)
        return Child(process, way)

    async def _until_ready(self, child: Child, role: str) -> None:
        await self.until(lambda: not child.alive or self.ledger.said(child.pid, "ready"), f"{role} ready", START_S)
        if not child.alive:
            raise TransportError(f"the {role} ended while it started; see {self.bridge.folder.path / 'logs'}")


@contextlib.asynccontextmanager
async def staged(
    bridge: Bridge, random: Random, rate: float, sizes: Sizes, disks: Mapping[str, Disk], skew: Skew | None
) -> AsyncIterator[Stage]:
    """Jobs flowing both ways, until the block ends."""
    ledger = Ledger(bridge.folder.path / FILE)
    with contextlib.closing(ledger):
        async with Watch.running() as watch:
            for server in bridge.servers.values():
                watch.follow(server.log)
            stage = Stage(bridge, ledger, watch, random, rate, sizes, disks, skew)
            try:
                for way in WAYS:
                    for _ in range(way.processes):
                        await stage.start_worker(way)
                    await stage.start_producer(way)
                yield stage
                await stage.finish()
            finally:
                await stage.kill()
