"""What runs in a process of its own: one handler, job after job.

``python -P child.py FD``: it is started as a file, reads over a socket where its modules are, and imports them then. It
gets neither identity nor keys, and no variable of ours: arguments come in as bytes with a content type, and results go
out as such; nothing is unpickled. Of this project only the standard library is imported above, so that `receive` and
`send` can be.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import inspect
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from consumers.handlers import Handler, Job

HEAD: Final = struct.Struct("!II")
"""Bytes of the header, which is JSON, and of the body behind it."""
MAX_HEADER: Final = 64 * 1024
MAX_TEXT: Final = 1000
"""Characters of what an exception says; a result has no room for more."""
REPORT_S: Final = 0.1
"""The least between two words on how far a job is."""

IS_CHILD: Final = __name__ == "__main__"
"""In the main module of a process: that it is one of these."""

_PR_SET_PDEATHSIG: Final = 1
_stopping = False


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """A message between the two processes."""
    text = json.dumps(header).encode()
    return HEAD.pack(len(text), len(body)) + text + body


def receive(channel: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """Wait for a message; None at the end."""
    head = _exactly(channel, HEAD.size)
    if head is None:
        return None
    sizes = HEAD.unpack(head)
    header, body = (_exactly(channel, size) for size in sizes)
    return None if header is None or body is None else (json.loads(header), body)


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    parts = []
    while size:
        part = channel.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Outlet:
    """Where answers go, and now and then, before one, how far a job is."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._job = 0
        self._due = 0.0
        self._latest: dict[str, Any] | None = None
        self._timer: threading.Timer | None = None

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send an answer; what was reported of the same job and waits, or still comes, is no longer true."""
        with self._lock:
            self._job += 1
            self._latest = None
            self._channel.sendall(pack(header, body))

    def reports(self) -> Callable[[float, str], None]:
        """What the next job tells its progress to."""
        return partial(self._report, self._job)

    def _report(self, job: int, fraction: float, text: str) -> None:
        """Send progress, at once or, if it is told faster than ten times a second, a little later."""
        with self._lock:
            if job != self._job:
                return
            self._latest = {"outcome": "progress", "fraction": float(fraction), "text": str(text)[:MAX_TEXT]}
            wait = self._due - time.monotonic()
        if wait <= 0:
            self._flush()
        elif self._timer is None:
            self._timer = threading.Timer(wait, self._flush)
            self._timer.daemon = True
            self._timer.start()

    def _flush(self) -> None:
        with self._lock:
            self._timer = None
            if self._latest is not None:
                self._channel.sendall(pack(self._latest))
                self._latest, self._due = None, time.monotonic() + REPORT_S


def main(number: int) -> int:
    """Run jobs until the socket ends; returns an exit code."""
    channel = socket.socket(fileno=number)
    os.set_inheritable(number, False)  # what a handler starts must not keep it open
    faulthandler.enable()  # where a segfault was, on standard error: names of files and functions, and no values
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's, for the worker, which drains
    signal.signal(signal.SIGTERM, _terminate)
    if (first := receive(channel)) is None:
        return 0
    settings, _ = first
    _end_with(settings["parent"])
    sys.path[:] = settings["path"]
    try:
        handler = _import(settings["module"], settings["name"])
        _limit(settings["memory"])
    except (Exception, SystemExit) as error:
        if _stopping:
            raise
        channel.sendall(pack({"outcome": "unfit", "type": type(error).__name__, "message": _text(error)}))
        return 1
    outlet = Outlet(channel)
    outlet.send({"outcome": "ready"})
    import asyncio

    runner = asyncio.Runner()  # which makes a loop when there is something to run in it
    try:
        while (request := receive(channel)) is not None:
            header, body = _attempt(runner, outlet, handler, *request)
            if _stopping:
                return 128 + signal.SIGTERM
            outlet.send(header, body)
    finally:
        runner.close()
    return 0


def _terminate(*_: object) -> None:
    global _stopping
    _stopping = True
    raise SystemExit(128 + signal.SIGTERM)


def _end_with(parent: int) -> None:
    """Do not outlive the worker, whose job another one gets: not even in a call that never returns to Python."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(0)


def _limit(memory: int | None) -> None:
    if memory is None:
        return
    import resource

    # Of addresses, used or not: the one ceiling that holds everywhere without rights.
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        bytearray(1 << 24)
    except MemoryError:
        raise MemoryError(f"memory={memory} leaves nothing to work with once the handler is imported") from None


def _import(module: str, name: str) -> Handler:
    import importlib

    import structlog

    from bridge import observe
    from consumers.handlers import read

    if not structlog.is_configured():
        observe.configure()
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return read(name, "", "", found)


def _attempt(
    runner: Any, outlet: Outlet, handler: Handler, header: dict[str, Any], body: bytes
) -> tuple[dict[str, Any], bytes]:
    import structlog

    from bridge.errors import InvalidArguments
    from bridge.job import Content, decode, encode
    from consumers.failures import words
    from consumers.handlers import Job
    from consumers.verdict import Reject, Retry, Snooze

    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**header["log"])
    try:
        args = decode(Content(header["content_type"], body), handler.args)
    except InvalidArguments as error:
        return {"outcome": "reject", "type": "InvalidArguments", "message": str(error)}, b""
    try:
        value = _call(runner, handler, args, Job.from_plain(header["job"], outlet.reports()))
    except Reject as reject:
        return {"outcome": "reject", "type": str(reject.type)[:MAX_TEXT], "message": str(reject.reason)[:MAX_TEXT]}, b""
    except Snooze as snooze:
        return {"outcome": "snooze", "after": snooze.after}, b""
    except Retry as retry:
        return {"outcome": "retry", "after": retry.after, "message": str(retry.reason)[:MAX_TEXT]}, b""
    except (Exception, SystemExit) as error:
        if not _stopping:
            structlog.get_logger(__name__).warning("attempt_failed", exc_info=error)
        kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
        told = words(error, header["errors"])
        return {"outcome": "failed", "type": type(error).__name__, "message": told, "kinds": kinds[:64]}, b""
    try:
        content = encode(value)
    except InvalidArguments as error:
        return {"outcome": "reject", "type": "InvalidResult", "message": str(error)}, b""
    if len(content.body) > header["limit"]:
        reason = f"a result of {len(content.body)} bytes; queue {header['log']['queue']} takes {header['limit']}"
        return {"outcome": "reject", "type": "PayloadTooLarge", "message": f"{reason} (max_payload)"}, b""
    return {"outcome": "done", "content_type": content.content_type}, content.body


def _call(runner: Any, handler: Handler, args: Any, job: Job) -> Any:
    value = handler.function(*((args, job) if handler.takes_job else (args,)))

    async def wait() -> Any:
        return await value

    return runner.run(wait()) if inspect.isawaitable(value) else value


def _text(error: BaseException) -> str:
    try:
        return str(error)[:MAX_TEXT]
    except Exception:  # the exception is the user's own class
        return ""


if IS_CHILD:
    sys.exit(main(int(sys.argv[1])))
