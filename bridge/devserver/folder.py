"""The folder that both clouds run in: where everything lies, who may use it, and whether it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridge.errors import ConfigurationError
from bridge.files import read_file, write_file

READY_FILE: Final = "ready.json"
_LAST_BREATH_S: Final = 3.0
"""How long the servers of a process that was killed may take to end with it."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The paths inside ``bunny up``'s folder (``.bunny`` by default)."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> Folder:
        """The folder at a path, which servers in other working directories can find as well."""
        return cls(path.absolute())

    @property
    def keys(self) -> Path:
        """Public halves, as they would be reviewed."""
        return self.path / "keys"

    @property
    def roots(self) -> Path:
        """Private root keys."""
        return self.path / "roots"

    @property
    def pki(self) -> Path:
        """Certificates, a folder per cloud."""
        return self.path / "pki"

    @property
    def rendered(self) -> Path:
        """What the policy renders to, a folder per cloud."""
        return self.path / "rendered"

    @property
    def ready(self) -> Path:
        """Written when jobs can flow, removed when they no longer can."""
        return self.path / READY_FILE

    def identity(self, name: str) -> Path:
        """The identity folder of a service."""
        return self.path / "identities" / name

    def store(self, server: str) -> Path:
        """Where a server keeps its streams: it has the name of its cloud, or in a cluster ``<cloud>.<n>``."""
        return self.path / "store" / server

    def log(self, name: str) -> Path:
        """What a server or a worker says."""
        return self.path / "logs" / f"{name}.log"

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[int]:
        """Hold the folder for this process alone.

        Yields:
            The lock's file descriptor, for the servers to inherit: the folder stays held until the last has ended.

        Raises:
            ConfigurationError: Another process holds it.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            await self._lock(lock)
            os.truncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            yield lock
        finally:
            os.close(lock)

    async def _lock(self, lock: int) -> None:
        deadline = asyncio.get_running_loop().time() + _LAST_BREATH_S
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(lock, 20, 0).decode()
            if holder.isdigit() and _alive(int(holder)):
                raise ConfigurationError(
                    f"{self.path}: in use by process {holder}; stop that, or name another folder with --dir"
                )
            if asyncio.get_running_loop().time() > deadline:
                raise ConfigurationError(
                    f"{self.path}: in use by servers of process {holder or '?'}, which has ended; stop nats-server"
                )
            await asyncio.sleep(0.02)

    def read_ready(self) -> dict[str, Any]:
        """What ``ready.json`` says of the bridge that runs here.

        Raises:
            ConfigurationError: None runs here, or not yet.
        """
        remedy = f"start one with `bunny up --dir {self.path}`"
        if not self.ready.exists():
            raise ConfigurationError(f"{self.path}: no bridge is ready here; {remedy}")
        try:
            ready = json.loads(read_file(self.ready))
            if ready["version"] == 1 and _alive(ready["pid"]):
                return dict(ready)
        except (ValueError, KeyError, TypeError):
            raise ConfigurationError(f"{self.ready}: not written by this release; {remedy}") from None
        raise ConfigurationError(f"{self.path}: the bridge that ran here (process {ready['pid']}) has ended; {remedy}")

    def write_ready(self, ready: dict[str, Any]) -> None:
        """Say that jobs can flow."""
        write_file(self.ready, json.dumps({"version": 1, "pid": os.getpid(), **ready}, indent=2) + "\n", private=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
