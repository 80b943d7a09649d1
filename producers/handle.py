"""The handle of a submitted job: wait for its result, or keep its token to do so after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, overload

from bridge.durations import seconds
from bridge.envelope import Opened
from bridge.errors import BridgeError, OutcomeUnknown
from bridge.fence import Tag, tag_of
from bridge.job import JobToken, Status
from bridge.segments import Position
from bridge.subjects import JobKey
from bridge.transfer.aside import target
from bridge.transfer.outgoing import Told
from producers.outcome import streamed, value_of

if TYPE_CHECKING:
    from producers.events import Progress
    from producers.keyed import Keyed
    from producers.records import Records

R = TypeVar("R")
T = TypeVar("T")

GRACE_S: Final = 30.0
"""How long after a job's deadline a result is waited for: what the link takes to heal from a short cut, and home."""

CANCEL_TIMEOUT_S: Final = 30.0
"""How long a cancel is tried to be stored: the restart of a broker takes less."""


Read: TypeAlias = Callable[[JobKey, Opened, "type[Any] | None", "Path | None", "Told | None"], Awaitable[object]]
"""Reads the value of a result: as of what type, or to which file, and who is told how far it is."""


class Signed(NamedTuple):
    """What a control must say of the job as it is stored; a keyed one may be of other bytes than the token's."""

    digest: bytes
    kind: str
    expires: int
    """Milliseconds UTC."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a handle has its producer do."""

    ask: Callable[[Handle[Any]], Awaitable[None]]
    """Look its result up, once, and settle it if that stands."""
    cancel: Callable[[Handle[Any], str, float], Awaitable[None]]
    """Have its job cancelled, for a reason, trying for so many seconds."""
    events: Callable[[Handle[Any]], AsyncGenerator[Progress, None]]
    """Hear how far its job is."""
    read: Read
    """Read the value of a result."""
    stream: Callable[[JobKey, Opened], AsyncIterator[bytes]]
    """Read its bytes as they come."""
    records: Callable[[Handle[Any], type[Any] | None, Position | None, float | None], Records[Any]]
    """Read what its job yields while it runs."""

    def handle(
        self, token: JobToken, lifetime_ms: int, result_type: type[Any] | None, keyed: Keyed | None = None
    ) -> Handle[Any]:
        """A new handle to a job that may be started for so long."""
        deadline = asyncio.get_running_loop().time() + lifetime_ms / 1000
        return Handle(token, deadline, None if result_type is object else result_type, self, keyed)


class Handle(Generic[R]):
    """One submitted job. It may be dropped: the job runs all the same, and its token attaches a new handle.

    Args:
        token: What names the job and its sealed bytes.
        deadline: The event loop's time at which the job is no longer started.
        result_type: What the result is decoded to; None leaves it to what was sent.
        desk: The producer's.
        keyed: The key that it was submitted by.
    """

    __slots__ = (
        *("__weakref__", "_deadline", "_desk", "_outcome", "_result_type", "_waiting"),
        *("asked_at", "key", "keyed", "signed", "stored_at", "token"),
    )

    def __init__(
        self,
        token: JobToken,
        deadline: float,
        result_type: type[R] | None,
        desk: Desk,
        keyed: Keyed | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.token: Final = token
        self.key: Final = token.key
        """What names the job in every subject."""
        self.keyed: Final = keyed
        """What a result must agree with: of a keyed job it may answer other bytes than the token's."""
        self.asked_at = loop.time()
        """The loop's time when the job was submitted, or its result last looked up."""
        self.stored_at: float | None = None
        """The loop's time when this process sent the job; None for one that was attached."""
        self._deadline = deadline
        self._result_type = result_type
        self._desk = desk
        self.signed: Signed | None = None
        """Of the job, once it is known."""
        self._outcome: asyncio.Future[Opened | BridgeError] = loop.create_future()
        self._waiting: list[asyncio.Future[None]] = []
        """Of those who wait for it: to await it itself would let whoever is cancelled cancel it."""

    @property
    def id(self) -> str:
        """``<session>.<n>``, as the worker has it."""
        return self.key.job_id

    def done(self) -> bool:
        """Whether `result` would return, or raise, without waiting."""
        return self._outcome.done()

    @property
    def outcome(self) -> Opened | BridgeError | None:
        """Its result, whatever it says, or what was found instead; None while there is neither."""
        return self._outcome.result() if self._outcome.done() else None

    @property
    def error(self) -> BridgeError | None:
        """What was found instead of a result, if something was."""
        outcome = self.outcome
        return outcome if isinstance(outcome, BridgeError) else None

    @property
    def tag(self) -> Tag | None:
        """What a later run must agree with, of a keyed job that was answered."""
        outcome = self.outcome
        return tag_of(outcome.core) if isinstance(outcome, Opened) else None

    @property
    def status(self) -> Status | None:
        """How its job ended, by the worker's word; None while nobody knows."""
        outcome = self.outcome
        return outcome.status if isinstance(outcome, Opened) else None

    @property
    def content_type(self) -> str | None:
        """What its result is, once that is known."""
        outcome = self.outcome
        return outcome.content.content_type if isinstance(outcome, Opened) else None

    @property
    def length(self) -> int | None:
        """How many bytes its result has, once that is known."""
        outcome = self.outcome
        if not isinstance(outcome, Opened):
            return None
        return outcome.payload.manifest.content if outcome.payload is not None else len(outcome.content.body)

    @property
    def streamed(self) -> bool | None:
        """Whether its result is no value but the end of the records that it yielded; None while that is not known."""
        outcome = self.outcome
        return streamed(outcome.content) if isinstance(outcome, Opened) else None

    def succeeded(self) -> bool:
        """Whether it is done, and the handler returned."""
        return self.status is Status.SUCCEEDED

    @overload
    async def result(
        self, type: None = None, *, timeout: float | timedelta | None = None, progress: Told | None = None
    ) -> R: ...
    @overload
    async def result(
        self, type: type[T], *, timeout: float | timedelta | None = None, progress: Told | None = None
    ) -> T: ...
    @overload
    async def result(
        self, *, to: Path | str, timeout: float | timedelta | None = None, progress: Told | None = None
    ) -> Path: ...

    async def result(
        self,
        type: Any = None,
        *,
        to: Path | str | None = None,
        timeout: float | timedelta | None = None,
        progress: Told | None = None,
    ) -> Any:
        """Wait for the job's result.

        One in parts is read from the workers' cloud, and given out once all of it is verified.

        Args:
            type: What to decode it to; a typed `Kind` says so already. JSON that is decoded may have 8 MiB, ``bytes``
                64 MiB, a `Payload` any number.
            to: A file to write its bytes to. It appears under its name once all of them are verified and on the disk;
                what came is kept beside it, sealed, if this process dies, and another call goes on from there.
            timeout: Seconds to wait for the result itself; by default until the job's deadline and a grace of 30 s.
            progress: Told how many bytes of a result in parts are verified.

        Raises:
            JobFailed: The handler failed for good.
            JobCancelled: It was cancelled before it was done.
            DeadlineExceeded: A worker's signed word that it was too late to run.
            OutcomeUnknown: No result in time. The handle stays usable: a later result is still delivered.
            FencePoisoned: A result stands for the job that does not verify.
            InvalidArguments: The result does not fit ``type``.
            BadPart, PartMissing: A part of it is not the one that was signed, or is not there.
            PayloadTooLarge: It is longer than what is read into memory, or than the queue's ``max_payload``.
            UsageError: ``to`` is a directory, or in none, or no name for a file.
            SpoolFull: There is no room for it on this machine's disk.
            TransportError: No part of it came for 2 min.
        """
        place = None if to is None else target(to)  # before it is waited for
        opened = await self._succeeded(timeout)
        wanted = type if type is not None else self._result_type
        return await self._desk.read(self.key, opened, wanted, place, progress)

    async def stream(self, *, timeout: float | timedelta | None = None) -> AsyncGenerator[bytes, None]:
        """The result's bytes as they come: ``async for chunk in job.stream()``. Each part is verified, the rest not.

        Args:
            timeout: Seconds to wait for the result itself, as `result`, which also says what is raised.
        """
        opened = await self._succeeded(timeout)
        async for chunk in self._desk.stream(self.key, opened):
            yield chunk

    @overload
    def records(
        self, type: None = None, *, after: str | None = None, timeout: float | timedelta | None = None
    ) -> Records[R]: ...
    @overload
    def records(
        self, type: type[T], *, after: str | None = None, timeout: float | timedelta | None = None
    ) -> Records[T]: ...

    def records(
        self, type: Any = None, *, after: str | None = None, timeout: float | timedelta | None = None
    ) -> Records[Any]:
        """Read what the job yields while it runs: ``async for record in job.records()``.

        In order, each once, and to the end that the job's result names; a record is given out once its segment is
        verified. They wait in the workers' cloud for as long as results do: whoever reads slowly, or from a token
        later, misses none.

        Args:
            type: What to decode each to; a typed `Kind` says so already.
            after: What `Records.position` was: goes on behind that record, in whichever process.
            timeout: Seconds to wait for each; by default until the job's deadline and a grace of 30 s.

        Raises:
            StreamRestarted: A later attempt writes them anew: those that were read are void. Call it again.
            JobFailed, JobCancelled, DeadlineExceeded: The job ended so; what it had yielded was given out before.
            OutcomeUnknown: No record, and no result, in time.
            BadSegment: What stands as a segment is not the one that follows, or the end is not the one that was signed.
            PartMissing: A segment is not there.
            UsageError: The job's handler returned a value; or ``after`` is no position.
            TransportError: No segment came for 2 min after the job was done.
        """
        position = None if after is None else Position.parse(after)
        patience = None if timeout is None else seconds("timeout", timeout)
        wanted = type if type is not None else self._result_type
        return self._desk.records(self, wanted, position, patience)

    async def _succeeded(self, timeout: float | timedelta | None) -> Opened:
        if not self._outcome.done():
            await self._wait(timeout)
        outcome = self._outcome.result()
        if isinstance(outcome, BridgeError):
            # A new exception for each caller: a raised one grows a traceback that would pile up.
            raise outcome.__class__(*outcome.args) from outcome
        if outcome.status is not Status.SUCCEEDED or streamed(outcome.content):
            value_of(outcome, None)  # raises what it stands for
        return outcome

    async def cancel(self, reason: str = "", *, timeout: float | timedelta = CANCEL_TIMEOUT_S) -> None:
        """Ask for the job not to be done, or not to its end.

        It returns once the local server has stored the request. A job that waits never starts then, and is answered
        when its time, or its next attempt, has come; of one that runs, a coroutine is cancelled and a plain function
        told. `result` says what came of it: it raises `JobCancelled`, or does as ever where the job was done first.
        Asking twice, or for a job that is done, changes nothing.

        Args:
            reason: For the worker and whoever waits for the result, sealed; at most 200 characters.
            timeout: Seconds to try.

        Raises:
            UsageError: The reason is too long; or the job is not stored, being a replay or all but answered; or it is a
                later run of a keyed job, and a cancel of an earlier one is kept still.
            BundleExpired, NotAuthorised: The trust bundle does not allow it; nothing was sent.
            QueueFull, Denied: Nothing was stored.
            PublishTimeout: Not known to be stored in ``timeout``.
        """
        await self._desk.cancel(self, reason, seconds("timeout", timeout))

    def events(self) -> AsyncGenerator[Progress, None]:
        """Hear how far the job is, from now until it ends: ``async for progress in job.events()``.

        What a handler reports is sent at most some times a second, stored nowhere, and may be lost; what it reported
        before this is not heard. Whoever reads slowly misses the oldest.

        Raises:
            TransportError: The local server cannot be asked for them.
        """
        return self._desk.events(self)

    @property
    def gives_up(self) -> float:
        """The loop's time until which a result is waited for where nothing else is said."""
        return self._deadline + GRACE_S

    def when_done(self, callback: Callable[[], None]) -> Callable[[], object]:
        """Call back once the handle has its outcome, soon if it has; call what is returned to end that."""

        def done(_: object) -> None:
            callback()

        self._outcome.add_done_callback(done)
        return lambda: self._outcome.remove_done_callback(done)

    async def look(self) -> None:
        """Look the result up, once.

        Raises:
            TransportError: The local server does not answer.
        """
        await self._desk.ask(self)

    async def _wait(self, timeout: float | timedelta | None) -> None:
        loop = asyncio.get_running_loop()
        patience = max(self.gives_up - loop.time(), 0) if timeout is None else seconds("timeout", timeout)
        woken: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(patience, _wake, woken)
        self._waiting.append(woken)
        try:
            await woken
        finally:
            timer.cancel()
            self._waiting.remove(woken)
        if self._outcome.done():
            return
        await self.look()  # what the client dropped must not be called unknown
        if not self._outcome.done():
            raise OutcomeUnknown(
                f"job {self.id} on {self.token.queue}: no result in {patience:.0f} s; it may still run; wait again, or "
                "attach its token later"
            )

    def settle(self, outcome: Opened | BridgeError) -> None:
        """Give the handle its outcome; the first one stays."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)
            for waiting in self._waiting:
                _wake(waiting)

    def __repr__(self) -> str:
        return f"<Handle {self.token.queue} {self.id} {'done' if self.done() else 'open'}>"


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
