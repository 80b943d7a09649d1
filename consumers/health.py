"""Whether a worker lives: a signed message of its own comes back through the local broker, and its threads turn.

Nothing here asks the link or the other cloud. Those are away when they are away, and restarting workers mends neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Final

import structlog

from bridge import subjects
from bridge.crypto import VerifyKey
from bridge.errors import Denied, TransportError
from bridge.identity import Identity
from bridge.signals.probes import LIVE_S, Probes
from bridge.transport import Message, Transport
from consumers.leasethread import LeaseThread

INTERVAL_S: Final = 10.0
"""Between two round trips: half a percent of a millisecond's work each."""
ANSWER_S: Final = 5.0
"""How long one may take, on a server whose disk is slow."""
LATE_S: Final = 0.5
"""A round trip that ended so much later than it may take says nothing: a handler kept the event loop, which has not
read yet what came meanwhile."""
REDIAL_AFTER: Final = 3
"""Round trips in a row that fail on a connection that stands, after which it is made anew."""
THREAD_S: Final = 60.0
"""Without an answer of the thread that renews leases for so long it counts as dead. It takes milliseconds, unless a
handler keeps Python's global lock."""

_LABEL: Final = b"bunny-bridge/v1/health\0"
_log = structlog.get_logger(__name__)


class Health:
    """The checks of life of one worker.

    Args:
        identity: Signs what is sent, and whose signature must come back.
    """

    def __init__(self, identity: Identity) -> None:
        self.probes = Probes()
        self.probes.live |= {"broker": self._broker, "leases": self._leases}
        self.probes.ready |= {"connection": self._connection, "startup": lambda: "its startup hooks have not run"}
        self._key = identity.sign[-1]
        self._verify = VerifyKey(self._key.public)
        # Of this process alone: the other members of a pool are heard on theirs.
        self._subject = subjects.health(identity.name, secrets.token_hex(12))
        self._hears = self._denied = False
        self._sent = b""
        self._back = asyncio.Event()
        self._good = time.monotonic()
        self._transport: Transport | None = None
        self._thread: LeaseThread | None = None

    @contextlib.asynccontextmanager
    async def watching(self, transport: Transport, thread: LeaseThread | None) -> AsyncIterator[None]:
        """Send and wait, again and again, until the block ends.

        Args:
            transport: The connection that is looked after.
            thread: The thread that is; None where there is none.
        """
        self._transport, self._thread = transport, thread
        task = asyncio.create_task(self._watch(transport, thread), name="health")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()  # raises what ended it

    async def _watch(self, transport: Transport, thread: LeaseThread | None) -> None:
        failed = 0
        while True:
            if thread is not None:
                thread.ping()
            came = await self._round_trip(transport)
            if came is None:
                await asyncio.sleep(INTERVAL_S)
                continue
            failed = 0 if came or not transport.connected else failed + 1
            if failed == 1:
                _log.warning("broker_silent", seconds=round(time.monotonic() - self._good, 1))
            if failed == REDIAL_AFTER:
                # The server has lost what was subscribed to, say: it answers its pings, and nothing else.
                _log.error("connection_redialled", seconds=round(time.monotonic() - self._good, 1))
                failed = 0
                await transport.redial()
            await asyncio.sleep(INTERVAL_S)

    async def _round_trip(self, transport: Transport) -> bool | None:
        """Whether what was sent came back; None where nobody can tell."""
        self._sent, self._back = secrets.token_bytes(32), asyncio.Event()
        begun = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_S):
                if not (self._hears or self._denied):
                    await transport.subscribe(self._subject, self._heard)
                    self._hears = True
                if self._denied:
                    await transport.flush(ANSWER_S)
                else:
                    await transport.tell(self._subject, self._sent + self._key.sign(_LABEL + self._sent))
                    await self._back.wait()
        except Denied:  # by servers whose configuration was rendered by an earlier release
            _log.warning("health_subject_denied", subject=self._subject)
            self._denied = True
            return True
        except (TransportError, TimeoutError):
            return None if time.monotonic() - begun > ANSWER_S + LATE_S else False
        self._good = time.monotonic()
        return True

    async def _heard(self, message: Message) -> None:
        sent, signature = message.data[:32], message.data[32:]
        if sent == self._sent and self._verify.verify(signature, _LABEL + sent):
            self._back.set()

    def _broker(self) -> str:
        age = time.monotonic() - self._good
        return f"no round trip through the local NATS server for {age:.0f} s" if age > LIVE_S else ""

    def _leases(self) -> str:
        age = 0.0 if self._thread is None else self._thread.unanswered
        return f"the thread that renews leases does not turn since {age:.0f} s" if age > THREAD_S else ""

    def _connection(self) -> str:
        if self._transport is None or not self._transport.connected:
            return "not connected to the local NATS server"
        age = time.monotonic() - self._good
        late = age > 2 * INTERVAL_S + ANSWER_S
        return f"no round trip through the local NATS server for {age:.0f} s" if late else ""
