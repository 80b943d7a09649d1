"""The processes that isolated handlers run in, as the worker sees them: started, given jobs, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from bridge.job import Content, Errors
from consumers import child
from consumers.handlers import Job
from consumers.isolation import Isolation
from consumers.verdict import Reject, Retry, Snooze

START_TIMEOUT_S: Final = 60.0
"""How long importing a handler may take."""
GRACE_S: Final = 3.0
"""Between SIGTERM, which lets a handler clean up, and SIGKILL."""

_OUT_OF_TURN: Final = "it answered out of turn; a handler must not write to its socket"
_log = structlog.get_logger(__name__)


class WorkerProcessDied(Exception):
    """The process of a handler ended, and with it the attempt.

    Args:
        how: In our words.
        theirs: What the handler's module said of it.
    """

    def __init__(self, how: str, theirs: str = "") -> None:
        super().__init__(how)
        self._how, self._theirs = how, theirs

    def told(self, errors: Errors) -> str:
        """What a producer may be told."""
        return self._how if errors == "type" or not self._theirs else f"{self._how}: {self._theirs}"


class HandlerFailed(Exception):
    """What a handler raised in its process.

    Args:
        type: The name of its class.
        message: What may be told of what it says.
        kinds: The full names of its class and of those that it is derived from.
    """

    def __init__(self, type: str, message: str, kinds: frozenset[str]) -> None:
        super().__init__(message)
        self.type, self.message, self.kinds = type, message, kinds


class _Answer(NamedTuple):
    """See `consumers.child`."""

    header: dict[str, Any]
    body: bytes


class Child:
    """A process that runs one handler. Made by `Children`."""

    def __init__(self, isolation: Isolation, process: Process, channel: socket.socket) -> None:
        self.isolation = isolation
        self.idle = False
        self._process = process
        self._channel = channel
        self._done = 0
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def start(cls, isolation: Isolation) -> Child:
        """Start a process and have it import the handler.

        Raises:
            WorkerProcessDied: It cannot.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            # Of variables, all but ours: those name the identity, which a handler has no part in.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("BUNNY_")}
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", str(Path(child.__file__)), str(theirs.fileno())),
                    stdin=DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=environment,
                    start_new_session=True,  # a terminal's signals are the worker's
                )
            except OSError as error:
                ours.close()
                raise WorkerProcessDied(f"it cannot start: {os.strerror(error.errno or 0)}") from None
        made = cls(isolation, process, ours)
        settings = {
            "path": sys.path,
            "parent": os.getpid(),
            "module": isolation.module,
            "name": isolation.name,
            "memory": isolation.memory,
        }
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                header, _ = await made._ask(child.pack(settings), 0)
            if header["outcome"] != "ready":
                raise WorkerProcessDied(f"it cannot start: {header['type']}", header["message"])
        except TimeoutError:
            await made.end()
            raise WorkerProcessDied(f"it did not start within {START_TIMEOUT_S:g} s") from None
        except BaseException:
            await made.end()
            raise
        made.idle = True
        return made

    @property
    def alive(self) -> bool:
        """Whether it can be given a job."""
        return self.idle and self._process.returncode is None

    async def run(self, job: Job, limit: int, errors: Errors, args: Content) -> Content:
        """One attempt; raises what the handler raises of `Reject`, `Retry` and `Snooze`.

        Args:
            job: What is known of it.
            limit: Bytes of a result.
            errors: What may be told of an exception.
            args: The arguments, as they were sent.

        Raises:
            HandlerFailed: The handler raised anything else.
            WorkerProcessDied: The process ended before it answered.
        """
        self.idle = False
        log = structlog.contextvars.get_contextvars()
        header = {
            "job": job.plain(),
            "log": log,
            "content_type": args.content_type,
            "limit": limit,
            "errors": errors,
        }
        answer, body = await self._ask(child.pack(header, args.body), limit)
        while answer["outcome"] == "progress":
            await job.progress(float(answer["fraction"]), str(answer["text"]))
            answer, body = await self._ask(b"", limit)
        self._done += 1
        # What ran out of memory once has little left for the next.
        self.idle = self._done < self.isolation.jobs and answer.get("type") != MemoryError.__name__
        match answer:
            case {"outcome": "done", "content_type": str(content_type)}:
                return Content(content_type, body)
            case {"outcome": "reject", "type": str(type_), "message": str(message)}:
                raise Reject(message, type=type_)
            case {"outcome": "retry", "after": float() | int() | None as after, "message": str(message)}:
                raise Retry(after, message)
            case {"outcome": "snooze", "after": float() | int() as after}:
                raise Snooze(after)
            case {"outcome": "failed", "type": str(type_), "message": str(message), "kinds": [*kinds]}:
                raise HandlerFailed(type_, message, frozenset(map(str, kinds)))
        self.idle = False
        raise WorkerProcessDied(_OUT_OF_TURN)

    async def end(self) -> None:
        """End it: at once if it has nothing to do, else within its grace."""
        ending = asyncio.ensure_future(self._end())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending  # bounded, and nobody else would do it
            raise

    async def _end(self) -> None:
        self._channel.close()
        if not self.alive:
            self._send(signal.SIGTERM)
        try:
            async with asyncio.timeout(GRACE_S):
                await self._process.wait()
        except TimeoutError:
            _log.warning("handler_killed", pid=self._process.pid)
            self._send(signal.SIGKILL)
            await self._process.wait()

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def _ask(self, message: bytes, limit: int) -> _Answer:
        try:
            await self._loop.sock_sendall(self._channel, message)
            sizes = child.HEAD.unpack(await self._exactly(child.HEAD.size))
            if sizes[0] > child.MAX_HEADER or sizes[1] > limit:
                raise WorkerProcessDied(_OUT_OF_TURN)
            text, body = [await self._exactly(size) for size in sizes]
            header = json.loads(text)
            if not isinstance(header, dict) or "outcome" not in header:
                raise WorkerProcessDied(_OUT_OF_TURN)
            return _Answer(header, body)
        except ValueError:
            raise WorkerProcessDied(_OUT_OF_TURN) from None
        except (EOFError, OSError):
            raise WorkerProcessDied(await self._why()) from None

    async def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = await self._loop.sock_recv(self._channel, size - len(parts))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    async def _why(self) -> str:
        try:
            async with asyncio.timeout(GRACE_S):
                code = await self._process.wait()
        except TimeoutError:
            return "it closed its socket"
        if code >= 0:
            return f"it ended with exit code {code}"
        name = signal.Signals(-code).name
        return f"it ended with {name}" + (", as where memory is short" if -code == signal.SIGKILL else "")


class Children:
    """All processes of a worker; as many run as have a job.

    Args:
        idle: How many are kept for the next job.
    """

    def __init__(self, idle: int) -> None:
        self._most = idle
        self._idle: list[Child] = []
        self._closed = False

    @contextlib.asynccontextmanager
    async def one(self, isolation: Isolation) -> AsyncIterator[Child]:
        """A process for one attempt; ended with the block unless it can do another.

        Raises:
            WorkerProcessDied: It cannot start.
        """
        mine = await self._take(isolation)
        try:
            yield mine
        finally:
            if mine.alive and not self._closed:
                self._idle.append(mine)
            else:
                await mine.end()
            while len(self._idle) > self._most:
                await self._idle.pop(0).end()

    async def close(self) -> None:
        """End those that wait for a job."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(each.end() for each in idle))

    async def _take(self, isolation: Isolation) -> Child:
        for each in reversed(self._idle):
            if each.isolation == isolation:
                self._idle.remove(each)
                if each.alive:
                    return each
                await each.end()
                return await self._take(isolation)
        return await Child.start(isolation)
