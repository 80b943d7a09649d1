"""A worker as a process: its event loop, its signals, its exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from bridge.errors import BridgeError, ConfigurationError, told

THREAD_NAME: Final = "handler"
"""What the names of the threads begin with that plain handlers run in."""
GARBAGE: Final = 20_000
"""Objects made and not yet freed after which garbage is looked for; some 2 MiB."""
STOP_TIMEOUT_S: Final = 2.0
"""How long a second signal leaves for handing back what is held."""

_log = structlog.get_logger(__name__)


class Runnable(Protocol):
    """What is run: a worker."""

    async def run(self) -> None:
        """Serve until stopped."""

    @property
    def serving(self) -> bool:
        """Whether it pulls jobs, so that there is something to drain."""

    def stop(self) -> None:
        """Drain."""


def main(worker: Runnable) -> None:
    """Run a worker until a signal, and exit. See `consumers.Worker.main`."""
    if getattr(sys.modules["__main__"], "IS_CHILD", False):  # of `consumers.child`, which imports the handler's module
        raise ConfigurationError(
            'importing this module starts the worker; let it do so under if __name__ == "__main__"'
        )
    code = 0
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            code = runner.run(_run(worker))
    except BridgeError as error:
        print(told(error), file=sys.stderr)  # noqa: T201  # for whoever started the process
        code = error.exit_code
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]
    for thread in threads:
        thread.join(0.2)  # an idle one is about to end
    if any(thread.is_alive() for thread in threads):
        # A plain function cannot be interrupted, and the interpreter would wait for it for ever.
        _log.warning("handler_abandoned")
        _exit(code)
    sys.exit(code)


async def _run(worker: Runnable) -> int:
    loop = asyncio.get_running_loop()
    # What was loaded by now lives as long as the process, and hundreds of jobs under way are no garbage: looked through
    # at every 700 objects, they took up to a fifth of a worker's time.
    gc.freeze()
    gc.set_threshold(GARBAGE)
    running = asyncio.create_task(worker.run(), name="worker")
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        _log.warning("signal_received", signal=signal.Signals(number).name)
        if len(received) == 1 and worker.serving:
            worker.stop()
            return
        running.cancel()
        if len(received) > 1:
            loop.call_later(STOP_TIMEOUT_S, _exit, 128 + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        await running
    except asyncio.CancelledError:
        if not received:
            raise
    return 128 + received[-1] if len(received) > 1 else 0


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it runs: it takes a tenth off the cost of a job."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
