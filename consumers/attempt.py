"""One attempt: arguments opened, a handler run within its time, what it raised turned into a verdict."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor as ThreadPool
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import structlog

from bridge.clock import now_ms
from bridge.envelope import Opener
from bridge.errors import InvalidArguments, PayloadTooLarge, Refusal
from bridge.journal import Journal
from bridge.signals import Operation, Signals, about, metrics
from bridge.transfer import IN_MEMORY
from bridge.transfer.fields import check_body
from consumers.cancels import Cancels
from consumers.case import Case
from consumers.children import Children, HandlerFailed, WorkerProcessDied
from consumers.failures import words
from consumers.handlers import Handler, Job, moment
from consumers.isolation import names
from consumers.limits import Backoff, backoff
from consumers.payloads import Hindered, Payloads, given
from consumers.progress import Reports
from consumers.streaming import Streams
from consumers.verdict import Cancelled, Done, Reject, Retry, Snooze, TooLate, Verdict

_Arguments = AbstractAsyncContextManager[Any]

_log = structlog.get_logger(__name__)


class Attempts:
    """Runs handlers, as one member of a pool.

    Args:
        opener: Opens the arguments.
        payloads: Fetches those in parts, and stores such results.
        streams: Stores what handlers yield while they run.
        cancels: Stops handlers of jobs that are cancelled.
        reports: Tells how far handlers are.
        threads: Where plain functions run.
        children: Where isolated ones run.
        signals: Where measurements and spans go.
        journal: Told of what is about to run; None where no queue leaves receipts.
    """

    def __init__(
        self,
        opener: Opener,
        payloads: Payloads,
        streams: Streams,
        cancels: Cancels,
        reports: Reports,
        threads: ThreadPool,
        children: Children,
        signals: Signals,
        journal: Journal | None = None,
    ) -> None:
        self._opener, self._journal = opener, journal
        self._payloads, self._streams = payloads, streams
        self._cancels = cancels
        self._reports = reports
        self._threads = threads
        self._children = children
        self._meter, self._tracer = signals.meter, signals.tracer

    async def run(self, case: Case, handler: Handler) -> Verdict:
        """Open the arguments and run the handler: one attempt, one verdict. Only cancelling stops it."""
        try:
            opened = self._opener.open(case.job)
            if opened.payload is not None:
                check_body(opened.content)
            inline = given(opened.content, handler) if opened.payload is None else None
        except Refusal as refusal:
            return Reject(str(refusal), type=refusal.name)
        except (InvalidArguments, PayloadTooLarge) as error:
            return Reject(str(error), type=type(error).__name__)
        core = case.core
        if self._journal is not None:
            self._journal.accepted(core, case.job.digest, case.attempt)
            case.accepted = True
        self._begin(case)
        structlog.contextvars.bind_contextvars(
            queue=case.queue,
            kind=core.kind,
            job=core.job,
            attempt=case.attempt,
            producer=core.sender,
            traceparent=case.span.traceparent or core.traceparent,
        )
        report = self._reports.of(case)
        job = Job(
            queue=case.queue,
            kind=core.kind,
            id=core.job,
            generation=core.generation,
            producer=core.sender,
            issued=moment(case.submitted),
            deadline=moment(core.expires),
            attempt=case.attempt,
            max_attempts=handler.limits.max_attempts or case.settings.max_attempts,
            traceparent=case.span.traceparent or core.traceparent,
            _stop=case.stop,
            _report=report,
        )
        begun, ended = time.monotonic(), "CancelledError"  # unless it comes to a verdict
        try:
            with case.span.current():
                self._cancels.begin(case)
                arguments = self._payloads.arguments(case, handler, opened, inline)
                verdict, ended = await self._outcome(case, handler, arguments, job)
            return verdict
        finally:
            self._cancels.end(case)
            report.over = True
            case.span.end(ended)
            if case.counted:
                self._meter.time(metrics.RUN_TIME, time.monotonic() - begun, case.queue, core.kind)

    async def _outcome(self, case: Case, handler: Handler, arguments: _Arguments, job: Job) -> tuple[Verdict, str]:
        """Run a handler: the verdict, and the name of what it raised."""
        if handler.isolation is None:
            return await self._timed(case, handler, arguments, partial(self._here, case, handler, job))
        try:
            async with self._children.one(handler.isolation) as child:  # its start is not the handler's time
                limit, errors = min(case.settings.max_payload, IN_MEMORY), case.settings.errors

                async def apart(args: Any) -> Done:
                    return await self._payloads.result(case, await child.run(job, limit, errors, args))

                return await self._timed(case, handler, arguments, apart)
        except WorkerProcessDied as error:
            return self._failed(case, handler, error)

    async def _timed(
        self, case: Case, handler: Handler, arguments: _Arguments, call: Callable[[Any], Awaitable[Done]]
    ) -> tuple[Verdict, str]:
        late = (case.core.expires - now_ms()) / 1000
        limit = min(late, handler.limits.timeout_s or late)
        case.starts(limit)
        case.stop.limit = limit
        try:
            # A payload is read and a result's is stored within the handler's time, and its arguments last until then.
            async with case.stop, arguments as args:
                return await call(args), ""
        except Hindered as hindered:
            return hindered.verdict, hindered.reason
        except Cancelled as cancelled:
            if case.stop.reason is None:  # the handler's own idea
                return self._failed(case, handler, cancelled)
            return cancelled, "Cancelled"
        except Reject as reject:
            return reject, "Reject"
        except Snooze as snooze:
            return snooze, "Snooze"
        except Retry as retry:
            return self._again(case, handler, retry.after, "Retry", retry.reason), "Retry"
        except TimeoutError as error:
            if not case.stop.late:  # the handler's own
                return self._failed(case, handler, error)
            if limit == late:
                return TooLate(), "DeadlineExceeded"
            reason = f"not done after {limit:g} s, the handler's timeout"
            return self._again(case, handler, None, "HandlerTimeout", reason), "HandlerTimeout"
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            reason = "the handler was cancelled from within"
            return self._again(case, handler, None, "CancelledError", reason), "CancelledError"
        except HandlerFailed as failure:
            return self._failed_apart(case, handler, failure)
        except (Exception, SystemExit) as error:
            return self._failed(case, handler, error)

    def _begin(self, case: Case) -> None:
        """Tell how long the job has waited, and start the span of its attempt."""
        core, now = case.core, now_ms()
        issued = min(core.issued, now)  # by the producer's clock, which may be a little ahead
        if case.counted:
            self._meter.time(metrics.QUEUE_TIME, (now - issued) / 1000, case.queue, core.kind)
        if core.traceparent is None:
            return
        seen = about(
            case.queue,
            core.kind,
            core.job,
            {"bunny.attempt": case.attempt, "messaging.consumer.group.name": case.settings.workers},
        )
        destination = f"jobs.{case.queue}"
        if case.attempt == 1:  # what a later one has waited for is the backoff
            self._tracer.start(Operation.RECEIVE, destination, seen, parent=core.traceparent, start_ms=issued).end()
        case.span = self._tracer.start(Operation.PROCESS, destination, seen, parent=core.traceparent)

    async def _here(self, case: Case, handler: Handler, job: Job, args: Any) -> Done:
        """Run a handler in this process, and have its result stored as far as it is in parts, or streams."""
        arguments = (args, job) if handler.takes_job else (args,)
        if handler.yields:
            return await self._streams.run(case, job._written, partial(handler.function, *arguments))
        return await self._payloads.result(case, await self._call(handler, arguments))

    async def _call(self, handler: Handler, arguments: tuple[Any, ...]) -> object:
        if handler.is_async:
            value = handler.function(*arguments)
        else:
            context = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            value = await loop.run_in_executor(self._threads, context.run, handler.function, *arguments)
        return await value if inspect.isawaitable(value) else value

    def _failed(self, case: Case, handler: Handler, error: BaseException) -> tuple[Verdict, str]:
        name, errors = type(error).__name__, case.settings.errors
        told = error.told(errors) if isinstance(error, WorkerProcessDied) else words(error, errors)
        _log.warning("attempt_failed", exc_info=error)
        if isinstance(error, handler.limits.final):
            return Reject(told, type=name), name
        return self._again(case, handler, None, name, told), name

    def _failed_apart(self, case: Case, handler: Handler, failure: HandlerFailed) -> tuple[Verdict, str]:
        if failure.kinds & names(handler.limits.final):
            return Reject(failure.message, type=failure.type), failure.type
        return self._again(case, handler, None, failure.type, failure.message), failure.type

    def _again(self, case: Case, handler: Handler, after: float | None, type_: str, message: str) -> Verdict:
        if case.attempt >= (handler.limits.max_attempts or case.settings.max_attempts):
            return Reject(message, type=type_)
        if after is None:
            after = backoff(handler.limits.backoff or Backoff.of(case.settings), case.attempt)
        return Retry(after)
