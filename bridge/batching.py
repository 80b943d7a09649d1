"""Messages sealed in one turn of the event loop share a signature: the more there is to do, the less each one costs.

Nothing waits for company: what is alone is signed alone, as soon as the loop has run what was ready with it.
"""

from __future__ import annotations

import asyncio

from bridge.crypto import MAX_TREE
from bridge.envelope import Draft, Sealed, Sealer, Unsigned


class Batcher:
    """Seals for one identity in one event loop.

    What waits for its signature is what its callers seal in one turn, and so as bounded as they are.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._waiting: list[tuple[Unsigned, asyncio.Future[Sealed]]] = []

    def seal(self, draft: Draft, now_ms: int) -> asyncio.Future[Sealed]:
        """Seal one message, to be signed alone or with up to 255 others: await what is returned.

        Raises:
            PayloadTooLarge, BadFrame: As `Sealer.seal`; the others are none the worse.
        """
        message = self._sealer.close(draft, now_ms)
        loop = asyncio.get_running_loop()
        signed: asyncio.Future[Sealed] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._sign)
        self._waiting.append((message, signed))
        return signed

    def _sign(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), MAX_TREE):
            batch = waiting[first : first + MAX_TREE]
            try:
                sealed = self._sealer.sign([each for each, _ in batch])
            except Exception as error:  # ours; but nobody is to wait for ever
                for _, signed in batch:
                    if not signed.done():
                        signed.set_exception(error)
                continue
            for each, (_, signed) in zip(sealed, batch, strict=True):
                if not signed.done():  # cancelled: whoever asked has gone
                    signed.set_result(each)
