"""Reading a payload's parts from the cloud where their author is: by name, many at once, each verified as it comes."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final, TypeAlias

import structlog

from bridge import subjects
from bridge.errors import Denied, NotConnected, PartMissing, TransportError
from bridge.payload import PART, Manifest, PartOpener
from bridge.subjects import JobKey
from bridge.transfer.outgoing import Told
from bridge.transfer.spool import Spool
from bridge.transfer.window import Others, Window
from bridge.transport import Transport

LOOKUP_TIMEOUT_S: Final = 10.0
"""How long one answer is waited for at most before a part is asked for again: less where answers were quicker."""
STALL_S: Final = 120.0
"""How long no answer may come, over cuts of the link, until whoever reads is told."""
MISSING_S: Final = 30.0
"""Of three servers, one may not have yet what the others have: how long a part may be called missing."""
AT_ONCE: Final = 8
"""Parts that are verified and kept in one turn of a thread, while the next ones come: 2 MiB."""
PAUSE_S: Final = 0.5

_log = structlog.get_logger(__name__)

Onto: TypeAlias = Callable[[int, bytes], None]
"""Takes verified parts in their order, still sealed, in a thread."""


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
        self._window = Window(Others(transport).there)
        self._learnt = False
        self.opener = opener
        self.asked = 0
        """Bytes that were asked for and came, those that came twice counted twice."""

    @property
    def manifest(self) -> Manifest:
        """What the message says of it."""
        return self.opener.manifest

    async def fill(self, spool: Spool, told: Told | None = None, onto: Onto | None = None) -> None:
        """Have a spool hold all of it, from where the spool is.

        Args:
            spool: Where to.
            told: How many bytes are verified so far.
            onto: Takes all parts from the first on, as they are verified.

        Raises:
            BadPart: A part, or the index, is not the one that was signed.
            PartMissing: One is not there.
            TransportError: No answer for 2 min.
            SpoolFull: There is no room for it here.
        """
        try:
            first = 0
            if spool.begun:
                await self._learn()
                first = await asyncio.to_thread(self._resume, spool, onto)
            async with aclosing(self._kept(spool, first, onto)) as kept:
                async for number, some in kept:
                    if told is not None:
                        for after in range(number + 1, number + len(some) + 1):
                            told(min(after * PART, self.manifest.content))
        except TransportError as error:
            spool.kept = not isinstance(error, PartMissing)
            raise

    async def stream(self) -> AsyncIterator[bytes]:
        """The payload's bytes, part by part, each verified before it is given out; raises as `fill`."""
        async with aclosing(self._come(0)) as coming:
            async for first, some in coming:
                for number, sealed in enumerate(some, first):
                    if data := await asyncio.to_thread(self.opener.open, number, sealed):  # none where all is padding
                        yield data

    async def _learn(self) -> None:
        """Read the index, once."""
        if not self._learnt:
            parts = self.manifest.parts
            pieces = [await self._get(parts + piece) for piece in range(self.manifest.pieces)]
            self.opener.learn(pieces)
            self._learnt = True

    def _resume(self, spool: Spool, onto: Onto | None) -> int:
        first = spool.resume(self.opener)
        if onto is not None:
            for number in range(first):
                onto(number, spool.read(number))
        return first

    async def _kept(self, spool: Spool, first: int, onto: Onto | None) -> AsyncGenerator[tuple[int, list[bytes]], None]:
        """Parts as they come, given out once they are verified and kept; those that follow come meanwhile."""
        before: tuple[int, list[bytes], asyncio.Task[None]] | None = None
        try:
            async with aclosing(self._come(first)) as coming:
                async for number, some in coming:
                    if before is not None:
                        await asyncio.shield(before[2])
                        yield before[0], before[1]
                    keeping = asyncio.to_thread(self._keep, spool, number, some, onto)
                    before = number, some, asyncio.create_task(keeping, name="keep")
            if before is not None:
                await asyncio.shield(before[2])
                yield before[0], before[1]
        finally:
            if before is not None:  # whatever came to an end: what has come is kept
                await asyncio.wait([before[2]])
                if not before[2].cancelled():
                    before[2].exception()  # where it was told already, or another was first

    def _keep(self, spool: Spool, first: int, some: list[bytes], onto: Onto | None) -> None:
        # In a thread: hashes and files leave the interpreter to whoever has other work meanwhile.
        for number, sealed in enumerate(some, first):
            self.opener.check(number, sealed)
            spool.write(number, sealed)
            if onto is not None:
                onto(number, sealed)

    async def _come(self, first: int) -> AsyncGenerator[tuple[int, list[bytes]], None]:
        """Parts in their order, not verified yet: the number of the first, and those that have come after it.

        The first ones are asked for together with the index, and given out once it is there: one round trip for both.
        """
        index = asyncio.create_task(self._learn(), name="index")
        coming: deque[asyncio.Task[bytes]] = deque()
        number = asked = first
        try:
            while number < self.manifest.parts:
                while asked < self.manifest.parts and len(coming) < self._window.parts:
                    coming.append(asyncio.create_task(self._get(asked), name="part"))
                    asked += 1
                await index
                some = [await coming[0]]
                coming.popleft()
                while coming and _came(coming[0]) and len(some) < AT_ONCE:
                    some.append(coming.popleft().result())
                yield number, some
                number += len(some)
        finally:
            for task in (index, *coming):
                task.cancel()
            await asyncio.gather(index, *coming, return_exceptions=True)

    async def _get(self, number: int) -> bytes:
        clock = asyncio.get_running_loop().time
        subject = subjects.part(self._key, self._transfer, number)
        give_up, missing_since, lost = clock() + STALL_S, math.inf, 0
        while True:
            begun = clock()
            patience = min(LOOKUP_TIMEOUT_S, self._window.patience * 2 ** min(lost, 8))  # it may be slower now
            try:
                message = await self._transport.lookup(self._stream, subject, cloud=self._cloud, timeout=patience)
            except (NotConnected, Denied):
                raise
            except TransportError as error:
                if clock() >= give_up:
                    raise
                lost += 1
                _log.info("part_awaited", stream=self._stream, error=type(error).__name__)
                await asyncio.sleep(PAUSE_S)
                continue
            if message is None or not message.data:  # empty, it was withdrawn, and stays so
                missing_since = min(missing_since, begun)
                if message is not None or clock() - missing_since >= MISSING_S:
                    raise PartMissing(
                        f"{self._stream}: part {number} of a payload of job {self._key.job_id} is not there: "
                        "its stream was emptied, or it is past its time"
                    )
                await asyncio.sleep(PAUSE_S)
                continue
            now = clock()
            self._window.took(now - begun, len(message.data), now)
            self.asked += len(message.data)
            return message.data


def _came(task: asyncio.Task[bytes]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
