"""A thread that renews leases, with an event loop and a connection of its own: nothing that a handler does to the
worker's loop reaches it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

import structlog

from bridge.errors import BridgeError, TransportError
from bridge.transport import Transport
from consumers.lease import Leases

Connect: TypeAlias = Callable[[], Awaitable[Transport]]
"""Makes a connection in the loop that calls it."""

CLOSE_TIMEOUT_S: Final = 2.0

_log = structlog.get_logger(__name__)


class LeaseThread:
    """Made by `renewing`. Its methods are for the worker's loop.

    Args:
        connect: Makes its connection.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._outside = asyncio.get_running_loop()
        self._connected: asyncio.Future[None] = self._outside.create_future()
        self._ended: asyncio.Future[BridgeError | None] = self._outside.create_future()
        self._leases: asyncio.Future[Leases]
        self._inside: asyncio.AbstractEventLoop
        self._task: asyncio.Task[None]
        self._stopping = False
        self._pinged: float | None = None
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    async def start(self) -> None:
        """Start the thread, and wait until it has its connection.

        Raises:
            BridgeError: It ended.
        """
        self._thread.start()
        events: set[asyncio.Future[Any]] = {self._connected, self._ended}
        await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            raise self._reason()

    async def keep(self, leases: Leases) -> None:
        """Have it renew ``leases``, until cancelled.

        Raises:
            BridgeError: It ended.
        """
        self._inside.call_soon_threadsafe(self._leases.set_result, leases)
        await asyncio.wait({self._ended})
        raise self._reason()

    def ping(self) -> None:
        """Ask whether its loop turns: `unanswered` tells."""
        if self._pinged is None:
            self._pinged = time.monotonic()
            with contextlib.suppress(RuntimeError, AttributeError):  # its loop has ended, or has not begun
                self._inside.call_soon_threadsafe(self._pong)

    @property
    def unanswered(self) -> float:
        """For how many seconds the first `ping` that was not answered has not been; 0 where all were."""
        return 0.0 if (pinged := self._pinged) is None else time.monotonic() - pinged

    def _pong(self) -> None:
        self._pinged = None

    async def stop(self) -> None:
        """End the thread, within 2 seconds."""
        self._stopping = True
        with contextlib.suppress(RuntimeError, AttributeError):  # its loop has ended, or has not begun
            self._inside.call_soon_threadsafe(self._task.cancel)
        await asyncio.wait({self._ended}, timeout=CLOSE_TIMEOUT_S)
        if self._ended.done():
            self._thread.join(CLOSE_TIMEOUT_S)
        else:
            _log.warning("lease_thread_abandoned")

    def _reason(self) -> BridgeError:
        return self._ended.result() or TransportError("the thread that renews leases has ended; start the worker again")

    def _run(self) -> None:
        ended: BridgeError | None = None
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            pass
        except BridgeError as error:
            ended = error
        except BaseException as error:
            _log.critical("lease_thread_failed", exc_info=error)
        finally:
            with contextlib.suppress(RuntimeError):  # the worker's loop has ended
                self._outside.call_soon_threadsafe(self._ended.set_result, ended)

    async def _main(self) -> None:
        # So that what is told of this connection is not taken for the worker's other one.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(connection="leases")
        self._inside = asyncio.get_running_loop()
        self._leases = self._inside.create_future()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # for the type checker: a coroutine runs in a task
        self._task = task
        if self._stopping:
            return
        transport = await self._connect()
        try:
            self._outside.call_soon_threadsafe(self._connected.set_result, None)
            await (await self._leases).keep(transport)
        finally:
            await transport.close()


@contextlib.asynccontextmanager
async def renewing(connect: Connect) -> AsyncIterator[LeaseThread]:
    """A thread with a connection, until the block ends.

    Args:
        connect: Makes the connection, in the thread's loop.

    Raises:
        BridgeError: No connection can be made.
    """
    thread = LeaseThread(connect)
    try:
        await thread.start()
        yield thread
    finally:
        await thread.stop()
