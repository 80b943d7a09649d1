"""From a delivery to its verdict and what is stored then, over the transport in memory."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, replace

import pytest
import structlog
from pydantic import BaseModel

from bridge import observe, subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Draft
from bridge.errors import BundleExpired, ConfigurationError, DeadlineExceeded, JobFailed
from bridge.fence import RESEND_HEADER
from bridge.job import Content, Kind, Status
from bridge.memory import MemoryTransport
from bridge.memory.transport import MemoryPull
from bridge.transport import Delivery
from consumers import Job, Reject, Retry, Worker
from tests.fleet import FAST, Fleet, policy, until


class Resize(BaseModel):
    width: int


@dataclass
class Size:
    width: int
    attempt: int


RESIZE = Kind("thumbs", "resize", Resize, Size)


def resizing() -> Worker:
    worker = Worker()

    @worker.handler(RESIZE)
    async def resize(args: Resize, job: Job) -> Size:
        return Size(args.width, job.attempt)

    return worker


# --- the way it should go --------------------------------------------------------------------------


async def test_a_job_goes_out_and_its_result_comes_home() -> None:
    fleet = Fleet.make(policy())
    async with fleet.working(resizing()), fleet.producer() as relay:
        handle = await relay.submit(RESIZE, Resize(width=320))
        assert await handle.result() == Size(320, 1)
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    assert not fleet.held("azure", "DEAD_thumbs")
    assert not fleet.held("azure", "STARTS_thumbs")


async def test_the_other_direction_is_the_same() -> None:
    fleet = Fleet.make(policy())
    worker = Worker()

    @worker.handler("lookup", "find")
    def find(args: str) -> list[str]:
        return [args, args]

    async with fleet.working(worker, "relay"), fleet.producer("bunny") as bunny:
        handle = await bunny.submit("lookup", "find", "a")
        assert await handle.result() == ["a", "a"]


async def test_a_plain_function_runs_in_a_thread_and_no_more_of_them_than_slots() -> None:
    fleet = Fleet.make(policy())
    worker = Worker(concurrency=2)
    together = threading.Barrier(2, timeout=10)
    names = set()

    @worker.handler("thumbs", "probe")
    def probe(args: int) -> bool:
        together.wait()  # passes only if two run at once
        names.add(threading.current_thread().name)
        return threading.current_thread() is threading.main_thread()

    async with fleet.working(worker), fleet.producer() as relay:
        handles = await relay.submit_many("thumbs", "probe", range(8))
        assert [await handle.result(bool) for handle in handles if not isinstance(handle, Exception)] == [False] * 8
    assert len(names) == 2


async def test_hooks_run_around_the_jobs() -> None:
    fleet = Fleet.make(policy())
    worker = resizing()
    events: list[str] = []

    @worker.on_startup
    async def up() -> None:
        events.append("up")

    @worker.on_shutdown
    def down() -> None:
        events.append("down")

    async with fleet.working(worker), fleet.producer() as relay:
        await (await relay.submit(RESIZE, Resize(width=1))).result()
        events.append("job")
    assert events == ["up", "job", "down"]


async def test_bytes_and_other_content_pass_as_they_are() -> None:
    fleet = Fleet.make(policy())
    worker = Worker()

    @worker.handler("thumbs", "probe")
    async def probe(args: Content) -> Content:
        return Content("application/xml", args.body * 2)

    async with fleet.working(worker), fleet.producer() as relay:
        handle = await relay.submit("thumbs", "probe", b"<a/>")
        assert await handle.result() == Content("application/xml", b"<a/><a/>")
        assert await handle.result(bytes) == b"<a/><a/>"


# --- failures --------------------------------------------------------------------------------------


async def test_an_exception_is_tried_again_and_counted() -> None:
    fleet = Fleet.make(policy(max_attempts=3))
    worker = Worker()

    @worker.handler(RESIZE)
    async def resize(args: Resize, job: Job) -> Size:
        if job.attempt < 3:
            raise RuntimeError("not yet")
        assert job.last_attempt
        return Size(args.width, job.attempt)

    async with fleet.working(worker), fleet.producer() as relay:
        assert await (await relay.submit(RESIZE, Resize(width=5))).result() == Size(5, 3)
    assert len(fleet.held("azure", "STARTS_thumbs")) == 2
    assert not fleet.held("azure", "DEAD_thumbs")


async def test_the_last_attempt_ends_in_a_dead_letter_and_a_failure() -> None:
    fleet = Fleet.make(policy(max_attempts=2, errors="message"))
    worker = Worker()
    calls = 0

    @worker.handler(RESIZE)
    async def resize(args: Resize) -> Size:
        nonlocal calls
        calls += 1
        raise ValueError("x" * 2000)

    async with fleet.working(worker), fleet.producer() as relay:
        handle = await relay.submit(RESIZE, Resize(width=5))
        with pytest.raises(JobFailed) as failure:
            await handle.result()
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    assert (failure.value.type, failure.value.message, failure.value.attempts) == ("ValueError", "x" * 1000, 2)
    assert calls == 2
    (dead,) = fleet.held("azure", "DEAD_thumbs")
    assert dead.headers["Bunny-Cause"] == "ValueError"
    assert dead.headers["Bunny-Digest"] == handle.token.digest
    assert b"xxx" not in dead.data


async def test_arguments_that_do_not_fit_are_final_and_are_not_quoted() -> None:
    fleet = Fleet.make(policy())
    async with fleet.working(resizing()), fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", {"width": "canary"})
        with pytest.raises(JobFailed, match="InvalidArguments") as failure:
            await handle.result()
    assert failure.value.attempts == 1
    assert "width" in failure.value.message
    assert "canary" not in failure.value.message
    assert len(fleet.held("azure", "DEAD_thumbs")) == 1


@pytest.mark.parametrize("seen", [1, 3])
async def test_a_reject_is_final_at_any_attempt(seen: int) -> None:
    fleet = Fleet.make(policy())
    worker = Worker()

    @worker.handler(RESIZE)
    async def resize(args: Resize, job: Job) -> Size:
        if job.attempt < seen:
            raise Retry(after=0)
        raise Reject("no such picture", type="NotFound")

    async with fleet.working(worker), fleet.producer() as relay:
        handle = await relay.submit(RESIZE, Resize(width=5))
        with pytest.raises(JobFailed, match="no such picture") as failure:
            await handle.result()
    assert (failure.value.type, failure.value.attempts) == ("NotFound", seen)


async def test_a_retry_chooses_its_delay() -> None:
    fleet = Fleet.make(policy())
    worker = Worker()
    loop = asyncio.get_running_loop()
    times: list[float] = []

    @worker.handler(RESIZE)
    async def resize(args: Resize, job: Job) -> Size:
        times.append(loop.time())
        if job.attempt == 1:
            raise Retry(after=0.3)
        return Size(1, job.attempt)

    async with fleet.working(worker), fleet.producer() as relay:
        await (await relay.submit(RESIZE, Resize(width=5))).result()
    assert times[1] - times[0] >= 0.3


async def test_what_cannot_be_a_result_is_a_failure() -> None:
    fleet = Fleet.make(policy(max_payload=1000))
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def large(args: int) -> bytes:
        return bytes(args)

    @worker.handler("thumbs", "probe")
    async def odd(args: int) -> object:
        return object()

    async with fleet.working(worker), fleet.producer() as relay:
        with pytest.raises(JobFailed, match="PayloadTooLarge"):
            await (await relay.submit("thumbs", "resize", 1001)).result()
        with pytest.raises(JobFailed, match="InvalidResult"):
            await (await relay.submit("thumbs", "probe", 1)).result()


async def test_a_kind_that_no_worker_knows_is_parked_then_dead_lettered() -> None:
    fleet = Fleet.make(policy(max_attempts=3))
    async with fleet.working(resizing()), fleet.producer() as relay:
        handle = await relay.submit("thumbs", "probe", 1)
        with pytest.raises(JobFailed, match="UnknownKind") as failure:
            await handle.result()
    assert failure.value.attempts == 0
    (dead,) = fleet.held("azure", "DEAD_thumbs")
    assert dead.headers["Bunny-Cause"] == "UnknownKind"


async def test_a_kind_is_done_once_a_worker_knows_it() -> None:
    # A busy machine takes seconds to start the second worker, and deliveries to the first are counted meanwhile.
    slow = policy(backoff=replace(FAST, initial_ms=20, max_ms=20), max_attempts=1000)
    fleet = Fleet.make(slow)
    old, new = Worker(), resizing()
    old.handler("thumbs", "probe")(_echo)
    async with fleet.working(old), fleet.producer() as relay:
        handle = await relay.submit(RESIZE, Resize(width=7))
        async with fleet.working(new):
            assert (await handle.result()).width == 7


async def _echo(args: int) -> int:
    return args


async def test_h29_a_job_that_is_too_late_gets_a_signed_word() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        handle = await relay.submit(RESIZE, Resize(width=5), deadline=0.01)
        await asyncio.sleep(0.02)
        async with fleet.working(resizing()):
            with pytest.raises(DeadlineExceeded):
                await handle.result()
    (dead,) = fleet.held("azure", "DEAD_thumbs")
    assert dead.headers["Bunny-Cause"] == "Expired"


async def test_h29_a_job_from_the_future_waits() -> None:
    fleet = Fleet.make(policy())
    ahead = _job(fleet, issued_in=600_000)
    async with fleet.transport("relay") as transport, fleet.working(resizing()):
        sealed = fleet.sealer("relay").seal(ahead, now_ms())
        await transport.publish("JOBS_thumbs", subjects.job(sealed.core.key, "normal"), sealed.data)
        await asyncio.sleep(0.1)
    assert len(fleet.held("aws", "JOBS_thumbs")) == 1
    assert not fleet.held("azure", "RESULTS_thumbs")
    assert not fleet.held("azure", "REFUSED_thumbs")


# --- the fence -------------------------------------------------------------------------------------


class LosesAcks(MemoryTransport):
    """Loses the first ``lost`` acks, as a worker that is killed before it acks does."""

    lost = 1

    async def ack(self, delivery: Delivery) -> None:
        if self.lost > 0:
            self.lost -= 1
        else:
            await super().ack(delivery)


def counting() -> tuple[Worker, list[int]]:
    worker, calls = Worker(), []

    @worker.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> int:
        calls.append(job.attempt)
        return args

    return worker, calls


async def test_a_result_whose_ack_was_lost_is_not_worked_again() -> None:
    fleet = Fleet.make(policy(ack_wait_ms=150))
    worker, calls = counting()
    transport = LosesAcks(fleet.bridge, fleet.bridge.cloud("azure"))
    async with fleet.working(worker, transport=transport), fleet.producer() as relay:
        assert await (await relay.submit("thumbs", "resize", 1)).result() == 1
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    assert calls == [1]
    assert len(fleet.held("azure", "RESULTS_thumbs")) == 1


async def test_a_job_that_is_sent_again_after_it_was_done_is_not_worked_again() -> None:
    fleet = Fleet.make(policy())
    worker, calls = counting()
    async with fleet.working(worker), fleet.producer() as relay:
        await (await relay.submit("thumbs", "resize", 1)).result()
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
        async with fleet.transport("relay") as transport:
            again = _job(fleet)
            sealed = fleet.sealer("relay").seal(again, again.core.issued)
            subject = subjects.job(sealed.core.key, "normal")
            for _ in range(2):
                await transport.publish("JOBS_thumbs", subject, sealed.data, {RESEND_HEADER: "1"})
                await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    assert calls == [1, 2]  # the second job looks as if it had been started before, and runs once
    assert len(fleet.held("azure", "RESULTS_thumbs")) == 2


async def test_what_a_broker_may_have_forgotten_is_looked_up_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet.make(policy(max_attempts=1))
    worker, calls = counting()
    get = MemoryPull.get

    async def doubtful(pull: MemoryPull) -> Delivery:
        return replace(await get(pull), doubtful=True)

    monkeypatch.setattr(MemoryPull, "get", doubtful)
    async with fleet.working(worker), fleet.producer() as relay, fleet.transport("relay") as transport:
        await (await relay.submit("thumbs", "resize", 1)).result()
        again = _job(fleet)
        sealed = fleet.sealer("relay").seal(again, again.core.issued)
        for _ in range(2):  # the second time as a server does that has lost what it had been told
            await transport.publish("JOBS_thumbs", subjects.job(sealed.core.key, "normal"), sealed.data)
            await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    assert calls == [1, 1]  # each job once, as its first attempt
    assert len(fleet.held("azure", "RESULTS_thumbs")) == 2


async def test_h33_the_first_of_two_results_stands() -> None:
    fleet = Fleet.make(policy(ack_wait_ms=100))
    slow, quick, release = Worker(), Worker(), asyncio.Event()

    @slow.handler("thumbs", "resize")
    async def wait(args: int) -> str:
        await release.wait()
        return "slow"

    @quick.handler("thumbs", "resize")
    async def at_once(args: int) -> str:
        return "quick"

    class LosesLeases(MemoryTransport):
        async def in_progress(self, delivery: Delivery) -> None:
            """The link is away, as far as this one goes."""

    apart = LosesLeases(fleet.bridge, fleet.bridge.cloud("azure"))
    async with fleet.working(slow, transport=apart), fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        await until(lambda: slow.busy == 1)
        async with fleet.working(quick):
            assert await handle.result() == "quick"
            release.set()
            await until(lambda: slow.busy == 0)
    assert len(fleet.held("azure", "RESULTS_thumbs")) == 1


@pytest.mark.parametrize("author", ["relay", "other-bytes"])
async def test_h33_a_forged_result_that_stands_is_dead_lettered_and_alarmed(author: str) -> None:
    fleet = Fleet.make(policy(ack_wait_ms=100))
    worker, calls = counting()
    job = _job(fleet)
    sealed = fleet.sealer("relay").seal(job, job.core.issued)
    forged = _result(fleet, sealed.core, b"\0" * 32 if author == "other-bytes" else sealed.digest)
    signer = "bunny" if author == "other-bytes" else author
    data = fleet.sealer(signer).seal(forged, forged.core.issued).data
    async with fleet.transport("bunny") as there, fleet.transport("relay") as here:
        await there.publish("RESULTS_thumbs", subjects.result(sealed.core.key), data)
        await here.publish("JOBS_thumbs", subjects.job(sealed.core.key, "normal"), sealed.data)
        async with fleet.working(worker):
            await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    (dead,) = fleet.held("azure", "DEAD_thumbs")
    assert dead.headers["Bunny-Cause"] == "FencePoisoned"
    assert dead.data == sealed.data
    assert [m.data for m in fleet.held("azure", "RESULTS_thumbs")] == [data]
    assert calls == [1]  # a first delivery is not looked up before it runs


async def test_attempts_survive_workers_that_die() -> None:
    fleet = Fleet.make(policy(max_attempts=2))
    stuck = Worker(drain_timeout=0.05)
    worker, calls = counting()
    entered = asyncio.Event()

    @stuck.handler("thumbs", "resize")
    async def forever(args: int) -> None:
        entered.set()
        await asyncio.Event().wait()

    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        for _ in range(2):
            entered.clear()
            async with fleet.working(stuck):
                await entered.wait()
        async with fleet.working(worker):
            with pytest.raises(JobFailed, match="AttemptsExhausted") as failure:
                await handle.result()
    assert failure.value.attempts == 2
    assert calls == []


# --- refusals --------------------------------------------------------------------------------------


async def test_what_is_not_authenticated_is_kept_apart_and_never_answered() -> None:
    fleet = Fleet.make(policy())
    worker, calls = counting()
    job = _job(fleet)
    sealed = fleet.sealer("relay").seal(job, job.core.issued)
    flipped = bytearray(sealed.data)
    flipped[-1] ^= 1
    moved = sealed.core.key._replace(n=99)
    async with fleet.transport("relay") as transport, fleet.working(worker), fleet.producer() as relay:
        await transport.publish("JOBS_thumbs", subjects.job(sealed.core.key._replace(n=1), "normal"), b"rubbish")
        await transport.publish("JOBS_thumbs", subjects.job(sealed.core.key._replace(n=2), "normal"), bytes(flipped))
        await transport.publish("JOBS_thumbs", subjects.job(moved, "normal"), sealed.data)
        assert await (await relay.submit("thumbs", "resize", 1)).result() == 1
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    refused = fleet.held("azure", "REFUSED_thumbs")
    assert [m.headers["Bunny-Cause"] for m in refused] == ["BadFrame", "BadSignature", "WrongSubject"]
    assert [m.data for m in refused] == [b"rubbish", bytes(flipped), sealed.data]
    assert calls == [1]
    assert len(fleet.held("azure", "RESULTS_thumbs")) == 1
    assert not fleet.held("azure", "DEAD_thumbs")


async def test_an_author_without_a_grant_is_refused() -> None:
    fleet = Fleet.make(policy(producers=("relay",)))
    worker, calls = counting()
    job = _job(fleet, sender="other")
    sealed = fleet.sealer("other").seal(job, job.core.issued)
    async with fleet.transport("other") as transport, fleet.working(worker):
        await transport.publish("JOBS_thumbs", subjects.job(sealed.core.key, "normal"), sealed.data)
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    (refused,) = fleet.held("azure", "REFUSED_thumbs")
    assert refused.headers["Bunny-Cause"] == "NotAuthorised"
    assert calls == []


async def test_what_is_signed_and_does_not_open_is_answered() -> None:
    fleet = Fleet.make(policy())
    worker, calls = counting()
    job = _job(fleet)
    stray = Draft(job.core, (fleet.trust.peer("other").kem_key(job.core.issued),), job.content)
    sealed = fleet.sealer("relay").seal(stray, job.core.issued)
    async with fleet.transport("relay") as transport, fleet.working(worker):
        await transport.publish("JOBS_thumbs", subjects.job(sealed.core.key, "normal"), sealed.data)
        await until(lambda: not fleet.held("aws", "JOBS_thumbs"))
    (result,) = fleet.held("aws", "RESULTS_thumbs")
    opener = fleet.opener("relay")
    assert opener.open(opener.authenticate(result.data, job.core.issued)).status is Status.FAILED
    assert fleet.held("azure", "DEAD_thumbs")[0].headers["Bunny-Cause"] == "WrongRecipient"
    assert calls == []


# --- holding, draining, ending ---------------------------------------------------------------------


async def test_a_lease_keeps_what_runs_and_what_waits_for_longer_than_the_ack_wait() -> None:
    fleet = Fleet.make(policy(ack_wait_ms=1000))
    worker, release = Worker(concurrency=1, prefetch=9), asyncio.Event()  # with credit to be delivered more
    settled: list[int] = []

    class Counting(MemoryTransport):
        async def ack(self, delivery: Delivery) -> None:
            settled.append(delivery.delivered)
            await super().ack(delivery)

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        await release.wait()
        return args

    transport = Counting(fleet.bridge, fleet.bridge.cloud("azure"))
    async with fleet.producer() as relay, fleet.working(worker, transport=transport):
        handles = [await relay.submit("thumbs", "resize", n) for n in range(2)]  # one runs, one waits
        await until(lambda: worker.busy == 1)
        await asyncio.sleep(2.5)  # more than two ack waits: this is what is tested
        release.set()
        assert [await handle.result(int) for handle in handles] == [0, 1]
    assert settled == [1, 1]  # delivered once each


async def test_no_more_is_held_than_there_is_room_for() -> None:
    fleet = Fleet.make(policy())
    worker, running, release = Worker(concurrency=2, prefetch=1), 0, asyncio.Event()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        nonlocal running
        running += 1
        await release.wait()
        return args

    async with fleet.working(worker), fleet.producer() as relay:
        handles = await relay.submit_many("thumbs", "resize", range(10))
        await until(lambda: worker.busy == 2)
        other, calls = counting()
        async with fleet.working(other):
            await until(lambda: len(calls) == 7)
            release.set()
            assert sorted([await h.result() for h in handles if not isinstance(h, Exception)]) == list(range(10))
    assert running == 3


async def test_a_drain_finishes_what_runs_and_hands_back_the_rest() -> None:
    fleet = Fleet.make(policy())
    worker, release = Worker(concurrency=1, prefetch=3), asyncio.Event()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> str:
        await release.wait()
        return "first"

    other, calls = counting()
    async with fleet.producer() as relay:
        async with fleet.working(worker) as serving:
            handles = await relay.submit_many("thumbs", "resize", range(4))
            await until(lambda: worker.busy == 1)
            worker.stop()
            async with fleet.working(other):
                await until(lambda: len(calls) == 3)  # at once, not after the ack wait of 30 s
                assert not serving.done()
                release.set()
                await serving
        results = [await handle.result() for handle in handles if not isinstance(handle, Exception)]
    assert results == ["first", 1, 2, 3]


async def test_a_drain_that_takes_too_long_cancels() -> None:
    fleet = Fleet.make(policy())
    worker = Worker(drain_timeout=0.05)
    cancelled = asyncio.Event()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with fleet.producer() as relay:
        async with fleet.working(worker):
            handle = await relay.submit("thumbs", "resize", 1)
            await until(lambda: worker.busy == 1)
        assert cancelled.is_set()
        other, calls = counting()
        async with fleet.working(other):
            assert await handle.result() == 1
        assert calls == [2]


async def test_a_bundle_that_expires_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet.make(policy())
    worker, calls = counting()
    monkeypatch.setattr("consumers.intake.TRUST_CHECK_S", 0.05)
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)

        async def work() -> None:
            async with fleet.working(worker) as serving:
                await handle.result()
                monkeypatch.setattr("consumers.intake.now_ms", lambda: fleet.trust.expires_ms + 1)
                await asyncio.wait([serving], timeout=10)

        with pytest.raises(BundleExpired):
            await work()
    assert calls == [1]


async def test_h42_no_log_line_holds_anything_of_a_job(capsys: pytest.CaptureFixture[str]) -> None:
    observe.configure(json=True, level="debug")
    fleet = Fleet.make(policy(max_attempts=2))
    worker = Worker()

    @worker.handler("thumbs", "resize")
    def fails(args: str) -> None:
        raise RuntimeError(f"of {args}")

    try:
        async with fleet.working(worker), fleet.producer() as relay:
            for args in ("canary", ["canary"]):
                handle = await relay.submit("thumbs", "resize", args)
                with pytest.raises(JobFailed):
                    await handle.result()
    finally:
        structlog.reset_defaults()
    written = capsys.readouterr().err
    assert "attempt_failed" in written
    assert "RuntimeError" in written
    assert "canary" not in written


# --- what is refused before anything runs ----------------------------------------------------------


async def test_handlers_are_checked_against_the_policy() -> None:
    fleet = Fleet.make(policy())

    async def fails(worker: Worker, name: str = "bunny") -> str:
        with pytest.raises(ConfigurationError) as error:
            await worker.serve(fleet.identities[name], fleet.trust, fleet.connection(name), fleet.transport(name))
        return str(error.value)

    assert "no handler" in await fails(Worker())
    assert "does not work queue 'thumbs'" in await fails(resizing(), "relay")
    worker = Worker()
    worker.handler("thumbs", "rezise")(_echo)
    assert "resize, probe" in await fails(worker)


def test_a_function_that_is_no_handler_is_refused() -> None:
    worker = Worker()

    async def bare(args) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001  # what is refused

    async def three(a: int, b: Job, c: int) -> None: ...

    for function, message in ((bare, "annotate"), (three, "must take"), (lambda: None, "must take")):
        with pytest.raises(ConfigurationError, match=message):
            worker.handler("thumbs", "resize")(function)
    with pytest.raises(ConfigurationError, match="its Kind says Resize"):
        worker.handler(RESIZE)(_echo)  # type: ignore[arg-type]  # what is refused
    worker.handler("thumbs", "resize")(_echo)
    with pytest.raises(ConfigurationError, match="has a handler already"):
        worker.handler("thumbs", "resize")(_echo)
    with pytest.raises(ConfigurationError, match="registered as"):
        worker.handler(_echo)  # type: ignore[call-overload]  # what is refused: @worker.handler without its arguments


# --- forging ---------------------------------------------------------------------------------------


def _job(fleet: Fleet, sender: str = "relay", issued_in: int = 0) -> Draft:
    issued = now_ms() + issued_in
    core = Core(
        type="job",
        queue="thumbs",
        kind="resize",
        job=f"{'5' * 24}.7",
        generation=0,
        sender=sender,
        sender_kid=b"",
        recipient="bunny",
        issued=issued,
        expires=issued + 60_000,
        priority="normal",
    )
    return Draft(core, (fleet.trust.peer("bunny").kem_key(now_ms()),), Content("application/json", b"1"))


def _result(fleet: Fleet, job: Core, digest: bytes) -> Draft:
    core = replace(
        job, type="result", sender="bunny", recipient="relay", priority="", job_digest=digest, attempt=1, worker="w"
    )
    key = fleet.trust.peer("relay").kem_key(now_ms())
    return Draft(core, (key,), Content("application/json", b"1"), Status.SUCCEEDED)
