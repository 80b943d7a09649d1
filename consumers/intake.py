"""Pulling: no more deliveries than there is room for, each in a task of its own, and all handed back at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from bridge import subjects
from bridge.clock import now_ms
from bridge.envelope import Opener
from bridge.errors import BridgeError, BundleExpired, Refusal, TransportError, TrustError, UnknownVersion
from bridge.identity import QueueSettings
from bridge.job import CANARY
from bridge.signals import metrics
from bridge.signals.meter import Meter, Sample
from bridge.signals.probes import Probes
from bridge.subjects import JobKey
from bridge.transport import Delivery, Pull, Transport
from consumers.cancels import Cancels
from consumers.case import Case
from consumers.execute import TROUBLE_DELAY_S, Judge
from consumers.lease import Lease, Leases
from consumers.leasethread import LeaseThread
from consumers.ledger import NoLedger
from consumers.places import Standing
from consumers.progress import Reports
from consumers.settle import Settler
from consumers.slots import WEIGHTS, Slots
from consumers.verdict import Crowded, Park, Retry, Snooze, Wait

TRUST_CHECK_S: Final = 5.0
"""The longest between two looks at the trust bundle: a newer one may be there, and a clock may be set."""
DEAF_S: Final = 30.0
"""Pulls that no server has answered for so long count as a worker that is not ready: the link may be down for less."""
BUG_DELAY_S: Final = 60.0
"""How long a job is put off that made this program itself fail."""

NEWER_DELAY_S: Final = 60.0
NEWER_DELIVERIES: Final = 24 * 60
"""A job in a format that this release does not read is put off by a minute, for a day, and refused after that."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lane:
    """One consumer of a queue that is served: a priority, the jobs with a time, or the replay orders."""

    queue: str
    name: str
    weight: int
    settings: QueueSettings
    pull: Pull
    lease: Lease
    admit: Callable[[str, QueueSettings, Delivery], Case]


class Intake:
    """The slots of one worker process, shared by its queues.

    Every lane is granted as many deliveries as there are slots, and ``prefetch`` more; one that is settled is
    replaced by one more. What is held is leased, whether it runs or waits for a slot; slots go by weight.

    Args:
        judge: Decides.
        cancels: What is not to be run.
        reports: What handlers tell of it.
        settler: Carries out.
        ledger: What was begun and answered here; while it takes nothing, nothing is pulled.
        transport: The workers' local broker.
        concurrency: Slots.
        prefetch: Deliveries held of each lane beyond the slots.
        drain_timeout: Seconds that running jobs may take to finish at the end.
        meter: Where measurements go.
        probes: Where it says whether it is ready.
        renewer: Renews leases; None has it done in this loop, over ``transport``.
    """

    def __init__(
        self,
        judge: Judge,
        cancels: Cancels,
        reports: Reports,
        settler: Settler,
        ledger: NoLedger,
        transport: Transport,
        *,
        concurrency: int,
        prefetch: int,
        drain_timeout: float,
        meter: Meter,
        probes: Probes,
        renewer: LeaseThread | None = None,
    ) -> None:
        self._judge = judge
        self._cancels = cancels
        self._gates = judge.gates
        self._reports = reports
        self._settler = settler
        self._ledger = ledger
        self._transport = transport
        self._concurrency = concurrency
        self._credit = concurrency + prefetch
        self._drain_timeout = drain_timeout
        self._meter = meter
        self._probes = probes
        self._renewer = renewer
        self._leases = Leases(self._gates.permits.keep if self._gates else None)
        self._slots = Slots(concurrency)
        self._stopping = asyncio.Event()
        self._reason: BridgeError | None = None
        self._withheld: list[Lane] = []
        """Lanes, once for each delivery that they may have more of once the ledger takes work again."""
        self._waiting: dict[asyncio.Task[None], tuple[Lane, Delivery]] = {}
        self._running: dict[asyncio.Task[None], Delivery] = {}

    @property
    def running(self) -> int:
        """How many jobs run, or have run and are being settled."""
        return len(self._running)

    def stop(self) -> None:
        """Pull no more; `run` returns when what runs has finished."""
        self._stopping.set()

    async def run(self, queues: dict[str, QueueSettings], pool: str, cloud: str, opener: Opener) -> None:
        """Serve queues until `stop`.

        Args:
            queues: The settings of each.
            pool: The principal that works them.
            cloud: Where this process is.
            opener: Holds the trust bundle, whose expiry ends it.

        Raises:
            BundleExpired, IdentityRevoked: The trust bundle ended it; what ran has finished.
            NotConnected: The connection was closed for good, or is refused.
        """
        try:
            await self._run(queues, pool, cloud, opener)
        finally:
            await self._gates.close()
        if self._reason is not None:
            raise self._reason

    async def _run(self, queues: dict[str, QueueSettings], pool: str, cloud: str, opener: Opener) -> None:
        async with asyncio.TaskGroup() as group:
            self._cancels.on_asked = self._cancelled
            self._transport.on_refused(self._end)
            background = [
                group.create_task(self._watch(opener), name="trust-watch"),
                group.create_task(self._cancels.serve(queues, cloud), name="cancels"),
                group.create_task(self._reports.send(), name="reports"),
                group.create_task(self._ledger.keep(self._again, self._end), name="ledger"),
            ]
            lanes, takers = [], []
            for queue, settings in queues.items():
                for lane in self._lanes(queue, settings, pool, cloud):
                    lanes.append(lane)
                    takers.append(group.create_task(self._take(lane, group), name=f"take-{lane.name}"))
            background.append(group.create_task(self._renew(), name="leases"))
            self._probes.ready.pop("startup", None)
            self._probes.ready["ledger"] = lambda: f"its ledger is {why}" if (why := self._ledger.refusing) else ""
            self._probes.ready["pulls"] = lambda: self._deaf(lanes)
            self._probes.ready["trust"] = lambda: _untrusted(opener)
            self._probes.ready["drain"] = lambda: "it drains" if self._stopping.is_set() else ""
            unwatch = self._meter.watch(lambda: self._now(lanes))
            try:
                await self._stopping.wait()
                for taker in takers:
                    taker.cancel()
                await asyncio.wait(takers)
                await self._drain(lanes)
            finally:
                unwatch()
            for task in background:
                task.cancel()

    def _lanes(self, queue: str, settings: QueueSettings, pool: str, cloud: str) -> Iterator[Lane]:
        home = None if settings.home == cloud else settings.home
        jobs = subjects.jobs_stream(queue)
        consumers = [(jobs, subjects.jobs_consumer(pool, priority), priority) for priority in WEIGHTS]
        consumers += [(subjects.delayed_stream(queue), pool, "normal"), (subjects.replay_stream(queue), pool, "normal")]
        for stream, consumer, weight in consumers:
            replays = stream == subjects.replay_stream(queue)
            lease = self._leases.add(settings.ack_wait_ms / 1000, partial(self._lost, queue))
            pull = self._transport.pull(stream, consumer, cloud=None if replays else home)
            admit = self._judge.admit_replay if replays else self._judge.admit
            yield Lane(queue, f"{stream}-{consumer}", WEIGHTS[weight], settings, pull, lease, admit)

    def _now(self, lanes: list[Lane]) -> list[Sample]:
        by_queue = {queue: [lane for lane in lanes if lane.queue == queue] for queue in {each.queue for each in lanes}}
        return [
            (metrics.SLOTS, (), self._concurrency),
            (metrics.IN_FLIGHT, (), len(self._running)),
            *self._ledger.now(),
            *((metrics.HELD, (queue,), sum(len(each.lease) for each in of)) for queue, of in by_queue.items()),
            *((metrics.PULLS, (queue,), sum(each.pull.answered for each in of)) for queue, of in by_queue.items()),
            *((metrics.PULL_SILENCE, (queue,), max(each.pull.silent for each in of)) for queue, of in by_queue.items()),
            *((metrics.PULL_TROUBLE, (q,), sum(each.pull.interrupted for each in of)) for q, of in by_queue.items()),
        ]

    def _deaf(self, lanes: list[Lane]) -> str:
        silent = {lane.queue: lane.pull.silent for lane in lanes if lane.pull.silent > DEAF_S}
        return "; ".join(f"queue {queue}: no answer to pulls for {age:.0f} s" for queue, age in silent.items())

    async def _take(self, lane: Lane, group: asyncio.TaskGroup) -> None:
        try:
            lane.pull.grant(self._credit)
            while True:
                delivery = await lane.pull.get()
                self._meter.count(metrics.DELIVERIES, lane.queue)
                if delivery.delivered > 1:
                    self._meter.count(metrics.REDELIVERIES, lane.queue)
                if not lane.lease.hold(delivery, min(self._leases.sent(), delivery.sent)):
                    # The link, a server or this loop was away for longer than the ack wait; the job may run elsewhere.
                    _log.warning("delivery_ignored", queue=lane.queue, delivered=delivery.delivered)
                    self._meter.count(metrics.LOST_LEASES, lane.queue)
                    self._grant(lane)
                    continue
                task = group.create_task(self._work(lane, delivery), name=f"job-{lane.queue}")
                self._waiting[task] = (lane, delivery)
        except TransportError as error:
            self._end(error)

    async def _work(self, lane: Lane, delivery: Delivery) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # for the type checker: a coroutine runs in a task
        place = Standing(lane, delivery, self._slots, self._waiting, self._running, partial(self._grant, lane))
        try:
            try:
                if not (self._slots.full and self._needs_no_slot(lane, delivery)):
                    await place.take()
                _, self._running[task] = self._waiting.pop(task)
                await self._execute(lane, delivery, place)
                del self._running[task]
            finally:
                place.give()
        except asyncio.CancelledError:
            mine = self._waiting.pop(task, None) or self._running.pop(task, None)
            # Unless the drain has done so, or it is lost: that could hand back what another worker has got meanwhile.
            if mine is not None and not lane.lease.has_lost(delivery):
                await self._hand_back(delivery)
            raise
        finally:
            lane.lease.release(delivery)
            if not place.replaced:
                self._grant(lane)

    def _grant(self, lane: Lane) -> None:
        if self._ledger.refusing:
            self._withheld.append(lane)
        elif not self._stopping.is_set():
            lane.pull.grant(1)

    def _again(self) -> None:
        withheld, self._withheld = self._withheld, []
        for lane in withheld:
            lane.pull.grant(1)

    def _cancelled(self, key: JobKey) -> None:
        """Let a job that waits for a slot be answered without one: a cancel is not to wait for other jobs' ends."""
        tail = f".{key.producer}.{key.session}.{key.n}"
        for task, (lane, delivery) in self._waiting.items():
            same = lane.queue == key.queue and delivery.message.subject.endswith(tail)
            if same and self._is_cancelled(lane, delivery):
                self._slots.excuse(task)
                self._gates.excuse(lane.queue, task)

    def _needs_no_slot(self, lane: Lane, delivery: Delivery) -> bool:
        """Whether it is answered without running anything of the user's: it is cancelled, or a canary."""
        if delivery.message.headers.get("Bunny-Kind") == CANARY:  # a hint, so that what is none costs nothing
            with contextlib.suppress(Refusal, BundleExpired):
                return not lane.admit(lane.queue, lane.settings, delivery).counted
        return self._is_cancelled(lane, delivery)

    def _is_cancelled(self, lane: Lane, delivery: Delivery) -> bool:
        if not self._cancels:
            return False
        try:
            return self._cancels.known(lane.admit(lane.queue, lane.settings, delivery)) is not None
        except (Refusal, BundleExpired):  # told when its turn comes
            return False

    async def _execute(self, lane: Lane, delivery: Delivery, place: Standing[Lane]) -> None:
        try:
            try:
                case = lane.admit(lane.queue, lane.settings, delivery)
                case.remembered = self._ledger.recall(case)
            except Refusal as refusal:
                place.give()
                if isinstance(refusal, UnknownVersion) and delivery.delivered < NEWER_DELIVERIES:
                    # Of a team that has upgraded first, most likely: not touched, until this side follows.
                    _log.error("job_of_a_newer_version", queue=lane.queue, reason=str(refusal))
                    await self._hand_back(delivery, NEWER_DELAY_S)
                    return
                await self._settler.refuse(lane.queue, delivery, refusal)
                return
            case.starts = partial(lane.lease.run, delivery)
            case.wanted, case.place = lambda: not lane.lease.has_lost(delivery), place
            if not self._ledger.enter(case):
                # Another worker may do it at once; what is under way here already is looked up in a while.
                await self._hand_back(delivery, 0 if self._ledger.refusing else TROUBLE_DELAY_S)
                return
            try:
                await self._carry_out(lane, case, place)
            finally:
                self._ledger.leave(case)
        except BundleExpired as error:
            self._end(error)
            await self._hand_back(delivery)
        except TransportError as error:  # closed: the broker delivers it again, and the fence knows what was done
            _log.warning("delivery_unsettled", queue=lane.queue, error=type(error).__name__)
        except Exception as error:
            # Ours, not the handler's. Putting it off keeps one message from spinning the whole worker.
            _log.error("worker_failed", queue=lane.queue, exc_info=error)
            await self._hand_back(delivery, BUG_DELAY_S)

    async def _carry_out(self, lane: Lane, case: Case, place: Standing[Lane]) -> None:
        verdict = await self._judge.judge(case)
        place.settle()
        lane.lease.settle(case.delivery)
        if lane.lease.has_lost(case.delivery) and isinstance(verdict, (Retry, Snooze, Park, Wait, Crowded)):
            return  # it is another worker's to put off
        # Storing waits for room in the queue's streams: kept meanwhile, the slots would go to the one queue whose
        # producer fills them. What it holds is bounded by its own credit.
        place.give()
        await self._settler.settle(case, verdict)

    async def _renew(self) -> None:
        try:
            if self._renewer is not None:
                await self._renewer.keep(self._leases)
        except BridgeError as error:
            self._end(error)  # and what runs may finish, renewed from here
        with contextlib.suppress(TransportError):  # closed for good: whoever pulls says so
            await self._leases.keep(self._transport)

    def _lost(self, queue: str, delivery: Delivery, done: bool) -> None:
        """Stop what another worker may have got; what is done is answered for."""
        self._meter.count(metrics.LOST_LEASES, queue)
        if done:
            return
        waiting = [(task, held) for task, (_, held) in self._waiting.items()]
        for task, held in [*waiting, *self._running.items()]:
            if held is delivery:
                task.cancel()

    async def _drain(self, lanes: list[Lane]) -> None:
        _log.info("worker_draining", count=len(self._running))
        for lane in lanes:
            for delivery in await lane.pull.close():
                await self._hand_back(delivery)
        waiting = dict(self._waiting)
        self._waiting.clear()
        for task, (_, delivery) in waiting.items():
            task.cancel()
            await self._hand_back(delivery)
        if self._running:
            _, late = await asyncio.wait(list(self._running), timeout=self._drain_timeout)
            if late:
                _log.warning("drain_timed_out", count=len(late))
                for task in late:
                    task.cancel()
        for lane in lanes:
            await lane.pull.closed()

    async def _hand_back(self, delivery: Delivery, delay: float = 0.0) -> None:
        with contextlib.suppress(TransportError):  # then it comes back after its ack wait
            await self._transport.nak(delivery, delay)

    async def _watch(self, opener: Opener) -> None:
        try:
            while True:
                opener.check_mine(now_ms())
                left = (opener.trust.expires_ms - now_ms()) / 1000
                await asyncio.sleep(min(max(left, 0.1), TRUST_CHECK_S))
        except TrustError as error:
            self._end(error)

    def _end(self, error: BridgeError) -> None:
        if self._reason is None and not self._stopping.is_set():
            _log.error("worker_stopping", error=type(error).__name__, reason=str(error))
            self._reason = error
        self._stopping.set()


def _untrusted(opener: Opener) -> str:
    try:
        opener.check_mine(now_ms())
    except TrustError as error:
        return str(error)
    return ""
