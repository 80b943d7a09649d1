"""One durable pull consumer: what waits, what is out, and when it comes again."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bridge.matching import matches
from bridge.memory.store import Stored, Stream
from bridge.transport import Delivery, Message


class Taker(Protocol):
    """A pull, as its consumer sees it."""

    def wants(self) -> bool:
        """Whether it has credit, and can be reached."""

    def take(self, delivery: Delivery) -> None:
        """Use one credit."""


@dataclass(slots=True)
class _Out:
    """A message that was delivered and is not acked."""

    delivered: int
    due: float
    """When it is delivered again."""


class Consumer:
    """A consumer as a plan describes it.

    Args:
        stream: The stream it reads.
        config: The configuration, as in the JetStream API.
        clock: Seconds now.
    """

    def __init__(self, stream: Stream, config: Mapping[str, Any], clock: Callable[[], float]) -> None:
        self.stream = stream
        self.name: str = config["durable_name"]
        self._filters: tuple[str, ...] = tuple(
            config.get("filter_subjects") or filter(None, [config.get("filter_subject")])
        )
        self._ack_wait: float = config.get("ack_wait", 30_000_000_000) / 1e9
        self._max_pending: int = config.get("max_ack_pending", 1000)
        self._max_deliver: int = config.get("max_deliver", -1)
        self._clock = clock
        self._takers: list[Taker] = []
        self._read = 0
        """The last sequence delivered a first time, or passed over."""
        self._out: dict[int, _Out] = {}
        self._due: list[tuple[float, int]] = []
        self._sent = 0
        self._timer: asyncio.TimerHandle | None = None

    def join(self, taker: Taker) -> None:
        """Let a pull take part."""
        self._takers.append(taker)

    def leave(self, taker: Taker) -> None:
        """Leave a pull out from now on."""
        self._takers.remove(taker)

    def ack(self, sequence: int) -> None:
        """Done: of a work queue it is removed."""
        if self._out.pop(sequence, None) is not None:
            if self.stream.work_queue:
                self.stream.remove(sequence)
            self.pump()  # room below max_ack_pending

    def postpone(self, sequence: int, seconds: float | None) -> None:
        """Deliver it again after some seconds, or after a new ack wait."""
        out = self._out.get(sequence)
        if out is not None:
            self._schedule(sequence, out, self._ack_wait if seconds is None else seconds)
            self.pump()

    def pump(self) -> None:
        """Deliver what can be delivered now, and wake up when more falls due."""
        self.stream.expire(self._clock())
        while (taker := self._next_taker()) is not None and (message := self._next_message()) is not None:
            out = self._out.setdefault(message.sequence, _Out(0, 0.0))
            out.delivered += 1
            self._sent += 1
            self._schedule(message.sequence, out, self._ack_wait)
            self._takers.remove(taker)
            self._takers.append(taker)  # each in turn: whoever got one waits until all others have had the chance
            taker.take(self._delivery(message, out.delivered))
        self._set_timer()

    def _next_taker(self) -> Taker | None:
        return next((taker for taker in self._takers if taker.wants()), None)

    def _next_message(self) -> Stored | None:
        now = self._clock()
        while self._due and self._due[0][0] <= now:
            due, sequence = heapq.heappop(self._due)
            out, message = self._out.get(sequence), self.stream.get(sequence)
            if out is None or out.due != due:
                continue  # acked or postponed since
            if message is None or 0 < self._max_deliver <= out.delivered:
                del self._out[sequence]
                continue
            return message
        if 0 < self._max_pending <= len(self._out):
            return None
        for message in self.stream.after(self._read):
            self._read = message.sequence
            if not self._filters or any(matches(pattern, message.subject) for pattern in self._filters):
                return message
        return None

    def _schedule(self, sequence: int, out: _Out, seconds: float) -> None:
        out.due = self._clock() + seconds
        heapq.heappush(self._due, (out.due, sequence))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._due and ((out := self._out.get(self._due[0][1])) is None or out.due != self._due[0][0]):
            heapq.heappop(self._due)
        if self._due and self._due[0][0] > self._clock():  # else it waits for a taker, which will pump
            delay = self._due[0][0] - self._clock()
            self._timer = asyncio.get_running_loop().call_later(delay, self.pump)

    def _delivery(self, message: Stored, delivered: int) -> Delivery:
        tokens = (message.sequence, self._sent, int(message.stored * 1e9), 0)
        ack = f"$JS.ACK.{self.stream.name}.{self.name}.{delivered}." + ".".join(map(str, tokens))
        return Delivery(Message(message.subject, message.data, dict(message.headers)), ack, delivered)
