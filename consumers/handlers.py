"""The registry of handlers: which function does which kind of job, and what its annotations say. No I/O."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar, overload

from bridge.errors import ConfigurationError
from bridge.identity import Connection, QueueSettings
from bridge.job import CANARY, INLINE_LIMIT, Kind
from bridge.transfer import Payload
from bridge.transfer.fields import takes_payloads
from consumers.isolation import Isolation
from consumers.limits import Limits
from consumers.stop import Stop
from consumers.verdict import Cancelled
from consumers.written import Written

Function = Callable[..., Any]
A = TypeVar("A")
R = TypeVar("R")
_NONE: Final = Limits()
_PLAIN: Final = ("queue", "kind", "id", "generation", "producer", "attempt", "max_attempts", "traceparent")


class _Told:
    """What need not be waited for: awaiting it lets other tasks run once."""

    def __await__(self) -> Generator[None, None, None]:
        yield


_TOLD: Final = _Told()


def _to_nobody(fraction: float, text: str) -> None:
    """Where the progress of a job goes that a test of a handler made."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a handler may know of the job it does, and tell of it; what it is was signed by the producer."""

    queue: str
    kind: str
    id: str
    """``<session>.<n>``: unique, and the same for every attempt."""
    generation: int
    """0, and one more for every replay."""
    producer: str
    issued: datetime
    deadline: datetime
    """After this the job is not started any more."""
    attempt: int
    """From 1. May be one too high after a crash, never too low."""
    max_attempts: int
    traceparent: str | None = None
    _stop: Stop = field(default_factory=Stop, repr=False, compare=False)
    _report: Callable[[float, str], None] = field(default=_to_nobody, repr=False, compare=False)
    _written: Written = field(default_factory=Written, repr=False, compare=False)

    def progress(self, fraction: float, text: str = "") -> Awaitable[None]:
        """Tell the producer how far the job is; it neither fails nor waits for the network.

        ``await`` it in a coroutine, which lets it be sent while the coroutine computes; a plain function just calls it.
        Of what is reported faster than ten times a second the last is sent, and it may be lost.

        Args:
            fraction: From 0 to 1.
            text: A few words, sealed to the producer like all else; at most 200 characters are sent.
        """
        self._report(fraction, text)
        return _TOLD

    @property
    def written(self) -> int:
        """Of a handler that yields records: how many of an earlier attempt stand."""
        return self._written.count

    def resume(self) -> int:
        """Go on after the records that stand, instead of starting over; to be called before the first ``yield``.

        Returns:
            How many they are: those that the handler is not to yield again; 0 where there are none.

        Raises:
            UsageError: The handler has yielded already.
        """
        return self._written.resume()

    @property
    def cancelled(self) -> bool:
        """Whether the producer has cancelled the job: to be looked at now and then by a plain function.

        A coroutine is cancelled. Whatever the function returns from now on, the job's result is ``cancelled``.
        """
        return self._stop.reason is not None

    def raise_if_cancelled(self) -> None:
        """Stop here if the producer has cancelled the job.

        Raises:
            Cancelled: It has.
        """
        if self._stop.reason is not None:
            raise Cancelled(self._stop.reason)

    @property
    def last_attempt(self) -> bool:
        """Whether a failure now is final."""
        return self.attempt >= self.max_attempts

    def plain(self) -> dict[str, Any]:
        """As JSON, for the process of an isolated handler."""
        moments = {"issued": self.issued.isoformat(), "deadline": self.deadline.isoformat()}
        return {**{name: getattr(self, name) for name in _PLAIN}, **moments}

    @classmethod
    def from_plain(cls, plain: dict[str, Any], report: Callable[[float, str], None]) -> Job:
        """Read what `plain` made, and tell progress to ``report``."""
        moments = {name: datetime.fromisoformat(plain[name]) for name in ("issued", "deadline")}
        return cls(**{**plain, **moments}, _report=report)


class Register(Protocol[A, R]):
    """The decorator for a typed contract: what it takes, for the type checker."""

    @overload
    def __call__(self, function: Callable[[A, Job], AsyncIterator[R]], /) -> Callable[[A, Job], AsyncIterator[R]]: ...
    @overload
    def __call__(self, function: Callable[[A], AsyncIterator[R]], /) -> Callable[[A], AsyncIterator[R]]: ...
    @overload
    def __call__(
        self, function: Callable[[A, Job], Coroutine[Any, Any, R]], /
    ) -> Callable[[A, Job], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[[A], Coroutine[Any, Any, R]], /) -> Callable[[A], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, function: Callable[[A, Job], R], /) -> Callable[[A, Job], R]: ...
    @overload
    def __call__(self, function: Callable[[A], R], /) -> Callable[[A], R]: ...


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered function."""

    queue: str
    kind: str
    function: Function
    args: Any
    """The annotation of its first parameter: what the arguments are decoded to."""
    takes_job: bool
    is_async: bool
    limits: Limits = field(default_factory=Limits)
    isolation: Isolation | None = None
    """Of what runs in a process of its own."""
    yields: bool = False
    """Whether it is an async generator, whose records stream to the producer while it runs."""
    stream: bool = False
    """Whether it takes a payload's parts as they come, each verified, before there are all."""


class Handlers:
    """Handlers by queue and kind, filled at import time and then only read."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, str], Handler] = {}

    def add(
        self,
        queue: str,
        kind: str,
        function: Function,
        contract: Kind[Any, Any] | None = None,
        limits: Limits = _NONE,
        isolation: Isolation | None = None,
        stream: bool = False,
    ) -> None:
        """Register ``function``.

        Raises:
            ConfigurationError: Its signature is no handler's, differs from the typed contract, or the kind
                has a handler already.
        """
        name = f"handler {getattr(function, '__qualname__', repr(function))} of {queue}/{kind}"
        if (queue, kind) in self._handlers:
            raise ConfigurationError(f"{name}: the kind has a handler already; remove one of them")
        handler = read(name, queue, kind, function)
        if contract is not None and handler.args != contract.args:
            raise ConfigurationError(
                f"{name}: takes {_type_name(handler.args)}, but its Kind says {_type_name(contract.args)}"
            )
        if isolation is not None and takes_payloads(handler.args):
            raise ConfigurationError(f"{name}: a process of its own takes no Payload; let it take bytes, up to 64 MiB")
        if handler.yields and isolation is not None:
            raise ConfigurationError(f"{name}: a process of its own yields no records; let it return them")
        if stream and handler.args is not Payload:
            raise ConfigurationError(f"{name}: stream=True is for a handler that takes a Payload")
        self._handlers[queue, kind] = replace(handler, limits=limits, isolation=isolation, stream=stream)

    def get(self, queue: str, kind: str) -> Handler | None:
        """The handler of a kind, or None. Of a canary, which no user's can be, it is the bridge's own."""
        return _CANARY if kind == CANARY else self._handlers.get((queue, kind))

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._handlers.values())

    @property
    def queues(self) -> list[str]:
        """The queues with a handler, sorted."""
        return sorted({queue for queue, _ in self._handlers})

    def granted(self, connection: Connection) -> dict[str, QueueSettings]:
        """The queues to serve: those that there are handlers for.

        Raises:
            ConfigurationError: There is no handler, one cannot be isolated, or the policy grants no jobs to one.
        """
        granted = {name: q for name, q in connection.queues.items() if q.workers == connection.identity}
        if not self.queues:
            raise ConfigurationError("the worker has no handler; register one with @worker.handler(queue, kind)")
        for handler in self:
            if handler.isolation is not None:
                handler.isolation.check(handler.function)
            if handler.queue not in granted:
                raise ConfigurationError(
                    f"{connection.identity} does not work queue {handler.queue!r}; "
                    f"bridge.yaml lets it work {', '.join(sorted(granted)) or 'none'}"
                )
            if handler.yields and granted[handler.queue].max_payload <= INLINE_LIMIT:
                raise ConfigurationError(
                    f"queue {handler.queue!r} has no room for records that a handler yields: they are stored as parts; "
                    f"let bridge.yaml give it a max_payload above {INLINE_LIMIT // 1024}KiB"
                )
            if handler.kind not in granted[handler.queue].kinds:
                raise ConfigurationError(
                    f"queue {handler.queue!r} has no kind {handler.kind!r}; "
                    f"bridge.yaml has {', '.join(granted[handler.queue].kinds)}"
                )
        return {queue: granted[queue] for queue in self.queues}


def read(name: str, queue: str, kind: str, function: Function) -> Handler:
    """What a function's signature says.

    Raises:
        ConfigurationError: It is no handler's.
    """
    try:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    except NameError as error:
        raise ConfigurationError(
            f"{name}: its annotation {error.name!r} cannot be resolved; define it at module level"
        ) from None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = [p for p in parameters if p.kind in positional and (p.default is p.empty or p is parameters[0])]
    others = [p for p in parameters if p.kind not in positional and p.default is p.empty]
    if len(taken) not in (1, 2) or any(p.kind is inspect.Parameter.KEYWORD_ONLY for p in others):
        raise ConfigurationError(f"{name}: it must take (args: T) or (args: T, job: Job)")
    if taken[0].annotation is inspect.Parameter.empty:
        raise ConfigurationError(
            f"{name}: annotate its first parameter with the type of the arguments (Any for any JSON)"
        )
    if len(taken) == 2 and taken[1].annotation not in (inspect.Parameter.empty, Job, Any, object):
        raise ConfigurationError(
            f"{name}: its second parameter is annotated {_type_name(taken[1].annotation)}, but what it gets is the "
            "Job; put all arguments into one type"
        )
    is_async, yields = _is(inspect.iscoroutinefunction, function), _is(inspect.isasyncgenfunction, function)
    return Handler(queue, kind, function, taken[0].annotation, len(taken) == 2, is_async, yields=yields)


def _is(what: Callable[[Any], bool], function: Function) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return what(function) or what(
        getattr(function, "__call__", None)  # noqa: B004  # an object whose __call__ is async, not a test for one
    )


def _type_name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)


def moment(milliseconds: int) -> datetime:
    """A time of the signed core, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


async def _same(args: str) -> str:
    return args


_CANARY: Final = read("canary", "", CANARY, _same)
