"""The processes of a measurement: how much memory and processor time each takes, and how ours are started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path
from typing import Final, TypeVar

_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_LOOK_S: Final = 0.1

T = TypeVar("T")


class Watched:
    """Processes by name: the most memory that each held (looked at ten times a second), and its processor time.

    Args:
        pids: The processes; more may be added.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.pids = dict(pids)
        self.peak_mb: dict[str, int] = {}

    async def watch(self) -> None:
        """Look at them until cancelled."""
        while True:
            for name, pid in self.pids.items():
                with contextlib.suppress(OSError, ValueError):
                    self.peak_mb[name] = max(self.peak_mb.get(name, 0), resident_mb(pid))
            await asyncio.sleep(_LOOK_S)

    def cpu(self) -> dict[str, float]:
        """Seconds that each has used since it began."""
        return {name: cpu_seconds(pid) for name, pid in self.pids.items()}

    async def spent(self, work: Awaitable[T]) -> tuple[T, dict[str, float]]:
        """What work came to, and the seconds of processor time that it took of each."""
        before = self.cpu()
        found = await work
        return found, {name: round(used - before.get(name, 0.0), 2) for name, used in self.cpu().items()}


def resident_mb(pid: int) -> int:
    """Memory that a process holds now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE // 1_048_576


def cpu_seconds(pid: int) -> float:
    """Processor time, of the user and the system; 0 for a process that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


@contextlib.asynccontextmanager
async def started(module: str, *arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Child]:
    """A module of ours as a process, ended with the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


class Child:
    """A process of ours; it is told and tells by lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def tell(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    async def line(self) -> str:
        """The next line of its standard output; empty at its end."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()


def serving(identity: Path, spool: Path) -> contextlib.AbstractAsyncContextManager[Child]:
    """The worker of `bench.payload`."""
    return started("bench.payload", "--serve", env={"BUNNY_IDENTITY": str(identity), "BUNNY_SPOOL": str(spool)})
