"""The worker: what it may serve, how it starts, pulls no more than it has room for, drains, and ends."""

from __future__ import annotations

import contextlib
import inspect
import os
import re
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

import structlog

from bridge import observe
from bridge.batching import Batcher
from bridge.clock import now_ms
from bridge.durations import seconds
from bridge.envelope import Opener, Sealer
from bridge.errors import ConfigurationError, UsageError
from bridge.follow import following
from bridge.identity import Connection, Identity
from bridge.job import Kind
from bridge.journal import Journal, keeping
from bridge.keyring import Keyring
from bridge.member import Member, folder_from_env
from bridge.signals import Signals, signalling
from bridge.signals.probes import Probes
from bridge.transport import Transport
from bridge.trust import Trust
from consumers import process
from consumers.attempt import Attempts
from consumers.cancels import Cancels
from consumers.children import Children
from consumers.execute import Judge
from consumers.handlers import Function, Handlers, Register
from consumers.health import Health
from consumers.intake import Intake
from consumers.isolation import Isolation
from consumers.leasethread import Connect, LeaseThread, renewing
from consumers.ledger import LEAST_LIMIT, LIMIT, NoLedger, State, remembering
from consumers.limits import Backoff, Limits
from consumers.payloads import Payloads
from consumers.progress import Reports
from consumers.settle import Settler
from consumers.streaming import Streams

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

A = TypeVar("A")
R = TypeVar("R")
F = TypeVar("F", bound=Function)
Hook = Callable[[], Awaitable[None] | None]
H = TypeVar("H", bound=Hook)

CONCURRENCY: Final = 8
"""Jobs that run at once: right for handlers that wait for others; set it to what one pod can do."""
PREFETCH: Final = 4
"""Jobs held beyond the free slots, so that a slot that frees need not wait for the link; each is renewed."""
DRAIN_TIMEOUT_S: Final = 30.0
"""How long running jobs may take to finish after SIGTERM: the grace that Kubernetes gives."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_log = structlog.get_logger(__name__)


class Worker:
    """Runs handlers for the jobs of one identity's queues. Making one does no I/O.

    Args:
        folder: The identity folder; None reads ``BUNNY_IDENTITY`` when it runs.
        concurrency: Jobs that run at once.
        prefetch: Jobs held beyond the free slots, for each queue.
        drain_timeout: Seconds that running jobs may take to finish when it is stopped.
        data: A folder of this process alone, for its ledger: a job that it has answered does not run again, whatever a
            broker does. None reads ``BUNNY_DATA`` when it runs; not set is no ledger.
        ledger_limit: Bytes that the ledger may take; a worker whose ledger is full takes no work.
        metrics: ``host:port`` to serve Prometheus metrics at; None reads ``BUNNY_METRICS``, not set is nowhere.
        traces: The OpenTelemetry provider to send spans to; None takes the global one if ``BUNNY_TRACES`` is 1.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        concurrency: int = CONCURRENCY,
        prefetch: int = PREFETCH,
        drain_timeout: float | timedelta = DRAIN_TIMEOUT_S,
        data: Path | str | None = None,
        ledger_limit: int = LIMIT,
        metrics: str | None = None,
        traces: TracerProvider | None = None,
    ) -> None:
        counts = (("concurrency", concurrency, 1), ("prefetch", prefetch, 0))
        for what, count, least in (*counts, ("ledger_limit", ledger_limit, LEAST_LIMIT)):
            if type(count) is not int or count < least:
                raise UsageError(f"{what}={count!r}; pass a whole number from {least}")
        self.folder = None if folder is None else Path(folder)
        self.concurrency = concurrency
        self.prefetch = prefetch
        self.drain_timeout = seconds("drain_timeout", drain_timeout)
        self.data = None if data is None else Path(data)
        self.ledger_limit = ledger_limit
        self.metrics = metrics
        self._traces = traces
        self._handlers = Handlers()
        self._startup: list[Hook] = []
        self._shutdown: list[Hook] = []
        self._intake: Intake | None = None
        self._ledger = NoLedger()

    @classmethod
    def from_env(
        cls,
        *,
        concurrency: int = CONCURRENCY,
        prefetch: int = PREFETCH,
        drain_timeout: float | timedelta = DRAIN_TIMEOUT_S,
        data: Path | str | None = None,
        ledger_limit: int = LIMIT,
        metrics: str | None = None,
        traces: TracerProvider | None = None,
    ) -> Worker:
        """A worker whose identity folder ``BUNNY_IDENTITY`` names when it runs."""
        return cls(
            concurrency=concurrency,
            prefetch=prefetch,
            drain_timeout=drain_timeout,
            data=data,
            ledger_limit=ledger_limit,
            metrics=metrics,
            traces=traces,
        )

    # --- what it does ------------------------------------------------------------------------------

    @overload
    def handler(
        self,
        queue: Kind[A, R],
        /,
        *,
        max_attempts: int | None = None,
        backoff: Backoff | None = None,
        timeout: float | timedelta | None = None,
        final: tuple[type[BaseException], ...] = (),
        isolation: Literal["process"] | None = None,
        memory: int | None = None,
        recycle: int | None = None,
        stream: bool = False,
    ) -> Register[A, R]: ...
    @overload
    def handler(
        self,
        queue: str,
        kind: str,
        /,
        *,
        max_attempts: int | None = None,
        backoff: Backoff | None = None,
        timeout: float | timedelta | None = None,
        final: tuple[type[BaseException], ...] = (),
        isolation: Literal["process"] | None = None,
        memory: int | None = None,
        recycle: int | None = None,
        stream: bool = False,
    ) -> Callable[[F], F]: ...

    def handler(
        self,
        queue: str | Kind[Any, Any],
        kind: str = "",
        /,
        *,
        max_attempts: int | None = None,
        backoff: Backoff | None = None,
        timeout: float | timedelta | None = None,
        final: tuple[type[BaseException], ...] = (),
        isolation: Literal["process"] | None = None,
        memory: int | None = None,
        recycle: int | None = None,
        stream: bool = False,
    ) -> Any:
        """Register a function for a kind of job, as ``(queue, kind)`` or a typed `Kind`.

        The function takes the arguments, decoded to its annotation, and the `Job` if it has a second parameter;
        what it returns is the result. What an async generator yields streams to the producer while it runs, each record
        a value of its own. A plain function runs in a thread. Raise `Retry`, `Snooze` or `Reject` to
        decide; any other exception is tried again after the backoff, unless it is final.

        Args:
            queue: The queue's name, or the typed contract.
            kind: The kind's name; not with a contract.
            max_attempts: Instead of the queue's.
            backoff: Instead of the queue's.
            timeout: Seconds from the start of an attempt to its end; the attempt fails with ``HandlerTimeout``. A job's
                deadline ends it in any case. A plain function cannot be stopped: its thread goes on, unheeded.
            final: Exceptions that trying again does not mend.
            isolation: ``"process"`` runs the function in a process of its own, which imports it: for what may crash,
                leak, or keep Python's global lock. What ends the process ends the attempt, with ``WorkerProcessDied``.
                Past its time it gets SIGTERM, and SIGKILL 3 s later. Hooks do not run there.
            memory: With it: bytes of addresses that such a process may use.
            recycle: With it: jobs after which another process takes its place; None is 100.
            stream: Call a handler that takes a `Payload` before all of it is there: ``async for`` gives its parts as
                they come, each verified, and raises where one is not what the producer signed.

        Raises:
            ConfigurationError: The function is no handler, a limit cannot be, or the kind has a handler.
        """
        if not isinstance(queue, (str, Kind)) or (isinstance(queue, str) and not kind):
            raise ConfigurationError("a handler is registered as @worker.handler(queue, kind), or with a Kind")
        limits = Limits(max_attempts, backoff, timeout, final)
        if isolation not in (None, "process") or (isolation is None and not memory is recycle is None):
            raise ConfigurationError("isolation is 'process' or None; memory and recycle are for a process")
        contract = queue if isinstance(queue, Kind) else None
        queue, kind = (queue.queue, queue.name) if isinstance(queue, Kind) else (queue, kind)

        def register(function: F) -> F:
            apart = None if isolation is None else Isolation.of(function, memory, recycle)
            self._handlers.add(queue, kind, function, contract, limits, apart, stream)
            return function

        return register

    def on_startup(self, hook: H) -> H:
        """Call ``hook``, plain or async, after connecting and before the first job."""
        self._startup.append(hook)
        return hook

    def on_shutdown(self, hook: H) -> H:
        """Call ``hook``, plain or async, after the last job."""
        self._shutdown.append(hook)
        return hook

    @property
    def queues(self) -> list[str]:
        """The queues that there are handlers for, sorted."""
        return self._handlers.queues

    # --- running -----------------------------------------------------------------------------------

    def main(self) -> None:
        """Run as this process: SIGTERM or SIGINT drains, a second one stops at once. Ends in ``SystemExit``.

        The exit code is 0 after a drain, 1 where the configuration is wrong, 3 where the broker cannot be used, 4 where
        the trust bundle cannot be relied on (any more), and 6 where this identity is not accepted (any more).
        """
        process.main(self)

    async def run(self) -> None:
        """Connect with the identity folder and serve until `stop`.

        Raises:
            ConfigurationError: The folder, or a handler that the policy grants no jobs to.
            TrustError: The trust bundle cannot be relied on, has expired while it ran, or has not this identity's key.
            NotConnected: The connection was closed for good, or `IdentityRefused`: this identity is not accepted.
        """
        if not structlog.is_configured():
            observe.configure()  # structlog's own default prints the local variables of a handler that failed
        member = Member.load(self.folder if self.folder is not None else folder_from_env())
        self._handlers.granted(member.connection)  # what is wrong with the handlers is said before anything is dialled
        health = Health(member.identity)
        async with signalling(self.metrics, self._traces, health.probes):  # so that it answers while it dials
            transport = await member.connect("worker")
            await self.serve(
                member.keys,
                member.trust,
                member.connection,
                transport,
                leases=partial(member.connect, "leases"),
                folder=member.folder,
                health=health,
            )

    async def serve(
        self,
        identity: Identity | Keyring,
        trust: Trust,
        connection: Connection,
        transport: Transport,
        *,
        leases: Connect | None = None,
        folder: Path | None = None,
        health: Health | None = None,
    ) -> None:
        """Serve over a given transport until `stop`, then close it; raises as `run`.

        Args:
            identity: Who it is: its private keys, or the keyring that holds them.
            trust: Whom it trusts.
            connection: What it may work.
            transport: The connection to its local broker.
            leases: Makes another one, for the thread that renews what is held; None has ``transport`` do it.
            folder: The identity folder, whose newer trust bundles and keys are taken up; None keeps what there is.
            health: What is shown of it where metrics are; None makes one.
        """
        opener = Opener(identity, trust)
        identity = opener.ring.identity
        health = health or Health(identity)
        try:
            opener.check_mine(now_ms())
            async with (
                signalling(self.metrics, self._traces, health.probes) as signals,
                contextlib.nullcontext() if leases is None else renewing(leases) as renewer,
                following(folder, opener),
                remembering(self.data, self.ledger_limit) as self._ledger,
                keeping(opener.ring, connection, transport, signals.meter) as journal,
                health.watching(transport, renewer),
            ):
                await self._serve(identity, opener, connection, transport, signals, health.probes, renewer, journal)
        finally:
            self._intake, self._ledger = None, NoLedger()
            await transport.close()
            _log.info("worker_stopped", identity=identity.name)

    async def _serve(
        self,
        identity: Identity,
        opener: Opener,
        connection: Connection,
        transport: Transport,
        signals: Signals,
        probes: Probes,
        renewer: LeaseThread | None,
        journal: Journal | None = None,
    ) -> None:
        worker = _UNSAFE.sub("-", f"{socket.gethostname()}-{os.getpid()}")[-128:].lstrip("-._")
        sealer = Sealer(opener.ring)
        children = Children(self.concurrency)
        threads = ThreadPoolExecutor(self.concurrency, thread_name_prefix="handler")
        try:
            queues = self._handlers.granted(connection)
            cancels = Cancels(opener, transport, signals.meter)
            reports = Reports(sealer, opener, transport, worker)
            kept = Payloads(opener, sealer, transport)
            streams = Streams(opener, sealer, transport, worker, signals.meter)
            attempts = Attempts(opener, kept, streams, cancels, reports, threads, children, signals, journal)
            meter, ledger = signals.meter, self._ledger
            judge = Judge(opener, sealer, transport, self._handlers, attempts, cancels, queues, ledger, worker, meter)
            batcher, withdraw = Batcher(sealer), kept.withdraw
            settler = Settler(judge, batcher, opener, transport, ledger, worker, signals, withdraw, journal)
            self._intake = Intake(
                judge,
                cancels,
                reports,
                settler,
                ledger,
                transport,
                concurrency=self.concurrency,
                prefetch=self.prefetch,
                drain_timeout=self.drain_timeout,
                meter=meter,
                probes=probes,
                renewer=renewer,
            )
            try:
                await _call(self._startup)
                _log.info(
                    "worker_started", identity=identity.name, cloud=connection.cloud, concurrency=self.concurrency
                )
                await self._intake.run(queues, identity.name, connection.cloud, opener)
            finally:
                await _call(self._shutdown)
                await kept.close()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            await children.close()

    @property
    def serving(self) -> bool:
        """Whether it has connected, and pulls jobs."""
        return self._intake is not None

    @property
    def busy(self) -> int:
        """How many jobs run now."""
        return self._intake.running if self._intake is not None else 0

    @property
    def refusing(self) -> State:
        """Why it takes no work though it serves: the ledger is ``full``, or its ``disk`` fails; empty while it does."""
        return self._ledger.refusing

    def stop(self) -> None:
        """Drain: pull no more, hand back what has not started, let the rest finish. To be called in the event loop."""
        if self._intake is not None:
            self._intake.stop()


async def _call(hooks: list[Hook]) -> None:
    for hook in hooks:
        done = hook()
        if inspect.isawaitable(done):
            await done
