"""Reading a payload's parts from the cloud where their author is: by name, many at once, each verified as it comes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import structlog

from bridge import subjects
from bridge.errors import BadPart, Denied, NotConnected, PartMissing, TransportError
from bridge.payload import PART, Manifest, PartOpener
from bridge.subjects import JobKey
from bridge.transfer.outgoing import Told
from bridge.transfer.spool import Spool
from bridge.transfer.window import Window
from bridge.transport import Transport

LOOKUP_TIMEOUT_S: Final = 10.0
"""How long one answer is waited for before a part is asked for again."""
STALL_S: Final = 120.0
"""How long no answer may come, over cuts of the link, until whoever reads is told."""
MISSING_TRIES: Final = 5
"""Of three servers, one may not have yet what the others have: how often it must be called missing."""
PAUSE_S: Final = 0.5

_log = structlog.get_logger(__name__)


class Incoming:
    """One payload on its way in.

    Args:
        transport: To the local server.
        cloud: Where its author is; None is here.
        key: The job that it belongs to.
        opener: Verifies and opens its parts.
    """

    def __init__(self, transport: Transport, cloud: str | None, key: JobKey, opener: PartOpener) -> None:
        self._transport, self._cloud, self._key = transport, cloud, key
        self._stream = subjects.parts_stream(key.queue)
        self._transfer = opener.manifest.transfer.hex()
        self._window = Window()
        self._learnt = False
        self.opener = opener
        self.asked = 0
        """Bytes that were asked for and came, those that came twice counted twice."""

    @property
    def manifest(self) -> Manifest:
        """What the message says of it."""
        return self.opener.manifest

    async def fill(self, spool: Spool, told: Told | None = None) -> None:
        """Have a spool hold all of it, from where the spool is.

        Args:
            spool: Where to.
            told: How many bytes are verified so far.

        Raises:
            BadPart: A part, or the index, is not the one that was signed.
            PartMissing: One is not there.
            TransportError: No answer for 2 min.
            SpoolFull: There is no room for it here.
        """
        try:
            await self.learn()
            async for number, sealed in self.sealed(spool.resume(self.opener)):
                spool.write(number, sealed)
                if told is not None:
                    told(min((number + 1) * PART, self.manifest.length))
        except TransportError as error:
            spool.kept = not isinstance(error, PartMissing)
            raise

    async def stream(self) -> AsyncIterator[bytes]:
        """The payload's bytes, part by part, each verified before it is given out; raises as `fill`."""
        await self.learn()
        async for number, sealed in self.sealed(0):
            yield self.opener.open(number, sealed)

    async def learn(self) -> None:
        """Read the index, once."""
        if not self._learnt:
            parts = self.manifest.parts
            pieces = [await self._get(parts + piece) for piece in range(self.manifest.pieces)]
            self.opener.learn(pieces)
            self._learnt = True

    async def sealed(self, first: int) -> AsyncIterator[tuple[int, bytes]]:
        """Verified parts in order, still sealed."""
        coming: deque[asyncio.Task[bytes]] = deque()
        asked = first
        try:
            for number in range(first, self.manifest.parts):
                while asked < self.manifest.parts and len(coming) < self._window.parts:
                    coming.append(asyncio.create_task(self._get(asked), name="part"))
                    asked += 1
                yield number, await coming[0]
                coming.popleft()
        finally:
            for task in coming:
                task.cancel()
            await asyncio.gather(*coming, return_exceptions=True)

    async def _get(self, number: int) -> bytes:
        clock = asyncio.get_running_loop().time
        subject = subjects.part(self._key, self._transfer, number)
        give_up, missing = clock() + STALL_S, 0
        while True:
            begun = clock()
            try:
                message = await self._transport.lookup(
                    self._stream, subject, cloud=self._cloud, timeout=LOOKUP_TIMEOUT_S
                )
            except (NotConnected, Denied):
                raise
            except TransportError as error:
                if clock() >= give_up:
                    raise
                _log.info("part_awaited", stream=self._stream, error=type(error).__name__)
                await asyncio.sleep(PAUSE_S)
                continue
            if message is None or not message.data:
                missing += 1
                if missing >= MISSING_TRIES:
                    raise PartMissing(
                        f"{self._stream}: part {number} of a payload of job {self._key.job_id} is not there: "
                        "its stream was emptied, or it is past its time"
                    )
                await asyncio.sleep(PAUSE_S)
                continue
            now = clock()
            self._window.took(now - begun, len(message.data), now)
            self.asked += len(message.data)
            if len(message.data) != self.manifest.size_of(number):  # its author may have signed it all the same
                raise BadPart(f"part {number} of a payload is of another length than was signed")
            if number < self.manifest.parts:
                self.opener.check(number, message.data)
            return message.data
