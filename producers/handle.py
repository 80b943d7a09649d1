"""The handle of a submitted job: wait for its result, or keep its token to do so after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from bridge.durations import seconds
from bridge.envelope import Opened
from bridge.errors import BridgeError, DeadlineExceeded, JobFailed, OutcomeUnknown
from bridge.job import BYTES, JSON, Content, Failure, JobToken, Status, decode
from bridge.subjects import JobKey

if TYPE_CHECKING:
    from producers.keyed import Keyed

R = TypeVar("R")
T = TypeVar("T")

GRACE_S: Final = 30.0
"""How long after a job's deadline a result is waited for: what the link takes to heal from a short cut, and home."""


class Handle(Generic[R]):
    """One submitted job. It may be dropped: the job runs all the same, and its token attaches a new handle.

    Args:
        token: What names the job and its sealed bytes.
        deadline: The event loop's time at which the job is no longer started.
        result_type: What the result is decoded to; None leaves it to what was sent.
        ask: Looks the result up, once, and settles the handle if it stands.
        keyed: The key that it was submitted by.
    """

    __slots__ = (
        *("__weakref__", "_ask", "_deadline", "_outcome", "_result_type"),
        *("asked_at", "keyed", "stored_at", "token"),
    )

    def __init__(
        self,
        token: JobToken,
        deadline: float,
        result_type: type[R] | None,
        ask: Callable[[Handle[Any]], Awaitable[None]],
        keyed: Keyed | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.token: Final = token
        self.keyed: Final = keyed
        """What a result must agree with: of a keyed job it may answer other bytes than the token's."""
        self.asked_at = loop.time()
        """The loop's time when the job was submitted, or its result last looked up."""
        self.stored_at: float | None = None
        """The loop's time when this process sent the job; None for one that was attached."""
        self._deadline = deadline
        self._result_type = result_type
        self._ask = ask
        self._outcome: asyncio.Future[Opened | BridgeError] = loop.create_future()

    @property
    def id(self) -> str:
        """``<session>.<n>``, as the worker has it."""
        return self.key.job_id

    @property
    def key(self) -> JobKey:
        """What names the job in every subject."""
        return self.token.key

    def done(self) -> bool:
        """Whether `result` would return, or raise, without waiting."""
        return self._outcome.done()

    @property
    def error(self) -> BridgeError | None:
        """What was found instead of a result, if something was."""
        outcome = self._outcome.result() if self._outcome.done() else None
        return outcome if isinstance(outcome, BridgeError) else None

    def succeeded(self) -> bool:
        """Whether it is done, and the handler returned."""
        outcome = self._outcome.result() if self._outcome.done() else None
        return isinstance(outcome, Opened) and outcome.status is Status.SUCCEEDED

    @overload
    async def result(self, type: None = None, *, timeout: float | timedelta | None = None) -> R: ...
    @overload
    async def result(self, type: type[T], *, timeout: float | timedelta | None = None) -> T: ...

    async def result(self, type: Any = None, *, timeout: float | timedelta | None = None) -> Any:
        """Wait for the job's result.

        Args:
            type: What to decode it to; a typed `Kind` says so already.
            timeout: Seconds to wait; by default until the job's deadline and a grace of 30 s.

        Raises:
            JobFailed: The handler failed for good.
            DeadlineExceeded: A worker's signed word that it was too late to run.
            OutcomeUnknown: No result in time. The handle stays usable: a later result is still delivered.
            FencePoisoned: A result stands for the job that does not verify.
            InvalidArguments: The result does not fit ``type``.
        """
        if not self._outcome.done():
            await self._wait(timeout)
        outcome = self._outcome.result()
        if isinstance(outcome, BridgeError):
            # A new exception for each caller: a raised one grows a traceback that would pile up.
            raise outcome.__class__(*outcome.args) from outcome
        return _value(outcome, type if type is not None else self._result_type)

    async def _wait(self, timeout: float | timedelta | None) -> None:
        loop = asyncio.get_running_loop()
        patience = max(self._deadline + GRACE_S - loop.time(), 0) if timeout is None else seconds("timeout", timeout)
        await asyncio.wait([self._outcome], timeout=patience)
        if self._outcome.done():
            return
        await self._ask(self)  # what the client dropped must not be called unknown
        if not self._outcome.done():
            raise OutcomeUnknown(
                f"job {self.id} on {self.token.queue}: no result in {patience:.0f} s; it may still run; wait again, or "
                "attach its token later"
            )

    def settle(self, outcome: Opened | BridgeError) -> None:
        """Give the handle its outcome; the first one stays."""
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def __repr__(self) -> str:
        return f"<Handle {self.token.queue} {self.id} {'done' if self.done() else 'open'}>"


def _value(opened: Opened, type_: type[Any] | None) -> object:
    match opened.status:
        case Status.SUCCEEDED:
            return decode(opened.content, type_ if type_ is not None else _natural(opened.content))
        case Status.EXPIRED:
            raise DeadlineExceeded(
                f"job {opened.core.job} on {opened.core.queue}: its deadline passed before it could run"
            )
        case _:
            failure = decode(opened.content, Failure)
            raise JobFailed(failure.type, failure.message, opened.core.attempt or 0)


def _natural(content: Content) -> type[Any]:
    """What a result is without a declared type: a JSON value, bytes, or content as it is."""
    return {JSON: object, BYTES: bytes}.get(content.content_type, Content)
