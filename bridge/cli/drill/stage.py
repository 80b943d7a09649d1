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
from bridge.cli.drill.ledger import ENVIRONMENT, FILE, Ledger
from bridge.cli.drill.watch import Watch
from bridge.devserver import Bridge, launcher, monitor
from bridge.errors import TransportError
from bridge.identity import ENVIRONMENT as IDENTITY
from bridge.policy import Policy, load_policy

ACK_WAIT_S: Final = 5
POISON_ATTEMPTS: Final = 3
WORKERS: Final = 2
START_S: Final = 30.0
STEP_S: Final = 60.0
"""The longest that anything may take to heal; what takes longer is called lost."""

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
"""
"""What is killed here is processes, not the machine, which is what `durability: process` is for; and an ack wait that
one can wait for, shorter than some of the faults."""


def drill_policy(folder: Path) -> Policy:
    """Write the drill's ``bridge.yaml`` and load it."""
    path = folder / "bridge.yaml"
    path.write_text(POLICY)
    return load_policy(path)


class Child:
    """A producer or a worker as in production: a process of its own. It cannot outlive this one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

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


@dataclass(slots=True)
class Stage:
    """Both clouds, the processes, and the ledger.

    Args:
        bridge: Both clouds.
        ledger: What is judged by.
        watch: What processes and servers say.
        random: Decides how long, which and when.
        rate: Jobs per second.
        junk: Messages of the fault of that name.
        black_hole: Seconds of the fault of that name.
    """

    bridge: Bridge
    ledger: Ledger
    watch: Watch
    random: Random
    rate: float
    junk: int
    black_hole: float
    workers: list[Child] = field(default_factory=list)
    producer: Child | None = None
    _started: int = 0

    async def start_worker(self, variables: Mapping[str, str] | None = None) -> Child:
        """One more worker, ready."""
        app = f"{worker.__name__}:worker"
        command = ("-m", "bridge.cli", "work", app, "--identity", str(self.bridge.identity("bunny")), "--json")
        child = await self._start("worker", command, variables or {})
        self.workers.append(child)
        await self._until_ready(child, "worker")
        return child

    async def start_producer(self) -> None:
        """The producer, ready: what was owed to an earlier one is attached to."""
        variables = {IDENTITY: str(self.bridge.identity("relay")), producer.RATE: str(self.rate)}
        self.producer = await self._start("producer", ("-m", producer.__name__), variables)
        await self._until_ready(self.producer, "producer")

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
        await self.until(lambda: self.ledger.open(stored_by) == 0, "a result for every job stored")

    async def until_loaded(self) -> None:
        """Wait until jobs flow.

        Raises:
            TransportError: They do not.
        """
        now, jobs = monotonic(), max(5, int(self.rate / 4))
        await self.until(lambda: self.ledger.results_since(now) >= jobs, f"{jobs} results")

    async def finish(self) -> None:
        """Have the producer wait for what it is owed, then drain the workers."""
        with contextlib.suppress(TransportError):  # the ledger says what is missing
            if self.producer is not None and self.producer.alive:
                self.producer.tell("finish")
                await self.producer.ended()
            for child in self.workers:
                child.signal(signal.SIGTERM)
            for child in self.workers:
                await child.ended()

    async def kill(self) -> None:
        """End whatever still runs."""
        for child in [*([self.producer] if self.producer is not None else []), *self.workers]:
            await child.kill()

    async def _start(self, role: str, command: tuple[str, ...], variables: Mapping[str, str]) -> Child:
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
        return Child(process)

    async def _until_ready(self, child: Child, role: str) -> None:
        await self.until(lambda: not child.alive or self.ledger.said(child.pid, "ready"), f"{role} ready", START_S)
        if not child.alive:
            raise TransportError(f"the {role} ended while it started; see {self.bridge.folder.path / 'logs'}")


@contextlib.asynccontextmanager
async def staged(bridge: Bridge, random: Random, rate: float, junk: int, black_hole: float) -> AsyncIterator[Stage]:
    """Jobs flowing, until the block ends."""
    ledger = Ledger(bridge.folder.path / FILE)
    with contextlib.closing(ledger):
        async with Watch.running() as watch:
            for server in bridge.servers.values():
                watch.follow(server.log)
            stage = Stage(bridge, ledger, watch, random, rate, junk, black_hole)
            try:
                for _ in range(WORKERS):
                    await stage.start_worker()
                await stage.start_producer()
                yield stage
                await stage.finish()
            finally:
                await stage.kill()
