"""Handlers that run in processes of their own, which import this module."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consumers import Content, Job, Reject, Retry, Snooze, Worker


class Hopeless(Exception):
    """What trying again does not mend."""


class Quite(Hopeless):
    """Derived from it."""


@dataclass
class Resize:
    width: int


@dataclass
class Size:
    width: int
    attempt: int


def gone(pid: int) -> bool:
    """Whether a process has ended, for a test."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def note(path: str, word: object) -> None:
    with Path(path).open("a") as file:
        file.write(f"{word}\n")


def size(args: Resize, job: Job) -> Size:
    return Size(args.width * 2, job.attempt)


async def size_async(args: Resize) -> Size:
    await asyncio.sleep(0)
    return Size(args.width * 2, 0)


def twice(args: Content) -> Content:
    return Content(args.content_type, args.body * 2)


def which(args: str) -> int:
    return os.getpid()


def surroundings(args: None) -> dict[str, Any]:
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return {
        "variables": sorted(os.environ),
        "files": [os.readlink(each) for each in links if os.path.exists(each)],
        "parent": os.getppid(),
    }


def segfault(args: str, job: Job) -> int:
    note(args, job.attempt)
    if job.attempt == 1:
        ctypes.string_at(0)
    return job.attempt


def leaves(args: str, job: Job) -> int:
    note(args, job.attempt)
    if job.attempt == 1:
        os._exit(7)
    return job.attempt


def keeps_the_lock(args: str, job: Job) -> int:
    note(args, job.attempt)
    ctypes.PyDLL(None).sleep(3)  # a call that does not give up the global lock
    return job.attempt


@dataclass
class Hold:
    path: str
    seconds: float


def keeps_the_lock_for(args: Hold, job: Job) -> int:
    note(args.path, job.attempt)
    ctypes.PyDLL(None).sleep(int(args.seconds))
    return job.attempt


def eats(args: int) -> int:
    return len(bytearray(args))


def raises(args: str, job: Job) -> None:
    match args:
        case "reject":
            raise Reject("no such picture", type="NotFound")
        case "retry":
            if job.attempt < 3:
                raise Retry(0, "not yet")
        case "snooze":
            raise Snooze(60)
        case "final":
            raise Quite("no use")
        case "exit":
            raise SystemExit(3)
        case _:
            raise LookupError(args)


def odd(args: int) -> object:
    return bytes(args) if args else object()


def cleans_up(args: str) -> None:
    try:
        note(args, "begun")
        time.sleep(60)
    finally:
        note(args, "cleaned up")


def will_not_stop(args: str) -> None:
    note(args, os.getpid())
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(BaseException):
            time.sleep(60)


def tells(args: str, job: Job) -> None:
    while not Path(args).exists():
        for page in range(1, 101):
            job.progress(page / 100, f"page {page}")
        time.sleep(0.3)


def talks(args: str) -> None:
    sys.stdout.write(f"{args} to stdout\n")
    sys.stdout.flush()
    sys.stderr.write(f"{args} to stderr\n")


def lasts(args: str) -> None:
    note(args, os.getpid())
    ctypes.PyDLL(None).sleep(60)


if __name__ == "__main__":
    worker = Worker.from_env(concurrency=2, drain_timeout=20)
    worker.handler("thumbs", "probe", isolation="process")(lasts)
    worker.handler("thumbs", "resize", isolation="process")(size)
    worker.main()
