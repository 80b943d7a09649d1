"""One nats-server process on this machine: started, watched, reloaded and stopped, never outliving its parent."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bridge.devserver import launcher, monitor
from bridge.devserver.ports import is_free
from bridge.devserver.servers import quoted
from bridge.errors import ConfigurationError, TransportError

START_TIMEOUT_S: Final = 30.0
"""A server that recovers a large store takes seconds before it is healthy."""

RELOAD_TIMEOUT_S: Final = 10.0

QUEUE_S: Final = 0.3
"""Seconds more of either for each queue: a server compares every subject that crosses the link with the others."""

STOP_TIMEOUT_S: Final = 10.0
_SEED: Final = re.compile(r"\bS[A-Z2-7]{57}\b")
_INHERITED: Final = ("PATH", "HOME", "TZ", "TMPDIR", "GOMEMLIMIT", "GOGC", "GOMAXPROCS")


MEMORY_LIMIT_MIB: Final = 160
"""``GOMEMLIMIT`` of a server whose environment says no other, with one more for each queue. Without one, large payloads
fill memory with garbage."""
GARBAGE: Final = "400"
"""``GOGC`` of the same: a server lives in few megabytes, and would collect garbage each time a few more were used."""


class PortTaken(TransportError):
    """Something listens on one of the server's ports already."""


def find_server() -> Path:
    """The nats-server program: the one installed with this Python, or the first on the path.

    Raises:
        ConfigurationError: There is none.
    """
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("nats-server")
    if found is None:
        raise ConfigurationError("nats-server: not found; run `pip install bunny-bridge[embedded]`")
    return Path(found)


class Server:
    """A nats-server that listens on loopback.

    Use it from one event loop. The server dies with the thread that runs the loop (on Linux), however that ends.

    Args:
        name: What errors call it.
        config: Its configuration file.
        variables: What the configuration's ``$NAMES`` stand for.
        monitor_port: Where its monitor listens.
        log: The file that its output is appended to.
        queues: How many its configuration has: each takes time to read, and memory.
        program: The nats-server to run; found if not given.
        keep_open: File descriptors that it inherits, to hold locks for as long as it lives.
    """

    def __init__(
        self,
        name: str,
        config: Path,
        variables: Mapping[str, str],
        *,
        monitor_port: int,
        log: Path,
        queues: int = 0,
        program: Path | None = None,
        keep_open: tuple[int, ...] = (),
    ) -> None:
        self.name, self.config, self.log, self.monitor_port = name, config, log, monitor_port
        self._variables, self._program, self._keep_open = dict(variables), program or find_server(), keep_open
        self.queues = queues
        self._process: asyncio.subprocess.Process | None = None
        self._started = asyncio.Event()
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self, timeout: float | None = None) -> None:
        """Start the server and wait until it is healthy.

        Args:
            timeout: Seconds; `START_TIMEOUT_S`, and `QUEUE_S` for each queue, if not given.

        Raises:
            PortTaken: One of its ports is in use.
            TransportError: It ended, or was not healthy in time; its last error is in the message.
        """
        if self.pid is not None:
            return
        if not is_free(self.monitor_port):
            # Whoever listens there might answer in the server's name that it is healthy.
            raise PortTaken(f"{self.name}: port {self.monitor_port} is in use")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment.setdefault("GOMEMLIMIT", f"{MEMORY_LIMIT_MIB + self.queues}MiB")
        environment.setdefault("GOGC", GARBAGE)
        environment |= {name: quoted(value) for name, value in self._variables.items()}
        # 0600: a server's log names subjects and addresses.
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._log_start = os.fstat(output).st_size
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", launcher.__file__, str(os.getpid())),
                *(str(self._program), "-c", str(self.config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                pass_fds=self._keep_open,
                start_new_session=True,  # Ctrl-C is for us, and we stop it when its clients have finished
            )
        finally:
            os.close(output)
        self._started.set()
        timeout = START_TIMEOUT_S + QUEUE_S * self.queues if timeout is None else timeout
        try:
            await monitor.until(self._ready, timeout, f"{self.name}: server ready (see {self.log})")
        except BaseException:
            await self.kill()
            raise

    async def stop(self, timeout: float = STOP_TIMEOUT_S) -> None:
        """Ask the server to end, and kill it if it has not within ``timeout`` seconds. Nothing stored is lost."""
        if (process := self._running()) is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout):
                await process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End the server at once, as a crash would (SIGKILL)."""
        if (process := self._running()) is not None:
            process.kill()
            await process.wait()

    async def restart(self) -> None:
        """Stop it if it runs, and start it on the same ports and store."""
        await self.stop()
        await self.start()

    async def reload(self) -> None:
        """Apply changed configuration files (SIGHUP), and wait until the server has.

        Raises:
            ConfigurationError: The server refused the new configuration and keeps the old one.
            TransportError: It does not run, or did not answer in time.
        """
        if self.pid is None:
            raise TransportError(f"{self.name}: the server does not run, so it cannot reload")
        await hang_up(self.name, self.pid, self.monitor_port, self.log, self.queues)

    async def ended(self) -> None:
        """Wait until the server ends without having been stopped or killed here.

        Raises:
            TransportError: It did.
        """
        while True:
            await self._started.wait()
            if self._process is not None:
                await self._process.wait()
            if self._started.is_set():
                code = 0 if self._process is None else self._process.returncode or 0
                # Of one that was killed, the last line tells of something else.
                why = f"killed by signal {-code}" if code < 0 else self._last_words()
                raise TransportError(f"{self.name}: the server ended ({why}); see {self.log}")

    def _running(self) -> asyncio.subprocess.Process | None:
        self._started.clear()
        return self._process if self.pid is not None else None

    async def _ready(self) -> bool:
        if self.pid is None:
            words = self._last_words()
            if "address already in use" in words:
                raise PortTaken(f"{self.name}: {words}")
            raise ConfigurationError(f"{self.name}: the server did not start ({words}); see {self.log}")
        return await monitor.healthy(self.monitor_port)

    def _last_words(self) -> str:
        lines = self._lines(self._log_start)
        fatal = [line for line in lines if "[FTL]" in line or line.startswith("nats-server:")] or lines
        return _told(fatal[-1]) if fatal else "without a word"

    def _lines(self, start: int) -> list[str]:
        return _lines(self.log, start)


async def hang_up(name: str, pid: int, monitor_port: int, log: Path, queues: int) -> None:
    """Have a server of this machine apply changed configuration files (SIGHUP), and wait until it has.

    It may take `RELOAD_TIMEOUT_S`, and `QUEUE_S` for each queue.

    Raises:
        ConfigurationError: The server refused the new configuration and keeps the old one.
        TransportError: It does not run, or did not answer in time.
    """

    async def loaded() -> str:
        _, body = await monitor.get(monitor_port, "/varz")
        return str(body["config_load_time"])

    before, start = await loaded(), _size(log)
    os.kill(pid, signal.SIGHUP)

    async def applied() -> bool:
        if failed := [line for line in _lines(log, start) if "Failed to reload" in line]:
            raise ConfigurationError(f"{name}: {_told(failed[-1])}")
        return (await loaded()) != before

    timeout = RELOAD_TIMEOUT_S + QUEUE_S * queues
    await monitor.until(applied, timeout, f"{name}: configuration reloaded (see {log})")


def _size(log: Path) -> int:
    return log.stat().st_size


def _lines(log: Path, start: int) -> list[str]:
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace").splitlines()


def _told(line: str) -> str:
    """A line of the server's log for an error message: without time stamp, and never with a seed."""
    return _SEED.sub("S…", re.sub(r"^\[\d+\] \S+ \S+ ", "", line))[:300]
