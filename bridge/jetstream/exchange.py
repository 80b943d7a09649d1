"""Questions and their replies over one inbox subscription: PubAcks, direct gets and API calls alike.

A task and a timer for each question is what makes the usual request slow (`docs/performance.md` has the figures):
here a question is a future in a dictionary, and one timer looks after all deadlines.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, MaxPayloadError, OutboundBufferLimitError
from nats.errors import Error as NatsError

from bridge.errors import Denied, NotConnected, PayloadTooLarge
from bridge.jetstream.connection import Wire, as_transport_error

START_TIMEOUT_S: Final = 10.0
SWEEP_S: Final = 0.1
"""How often deadlines are looked at, so how late one may be noticed."""

LOST: Final = None
"""The reply to a question that was under way when the connection broke: it may have arrived, or not."""

Take: TypeAlias = Callable[[Msg], bool]


@dataclass(slots=True, eq=False)
class _Question:
    subject: str
    deadline: float
    reply: asyncio.Future[Msg | None]
    take: Take | None


class Exchange:
    """All questions of one connection."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._inbox = f"{wire.inbox_prefix}.{secrets.token_hex(8)}."
        self._open: dict[str, _Question] = {}
        self._asked = 0
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Subscribe to the inbox.

        Raises:
            Denied: The permissions refuse the inbox: the identity and its connection file do not belong together.
        """
        await self._wire.subscribe(self._inbox + "*", self._replied, START_TIMEOUT_S)
        self._wire.on_lost.append(self._lost)
        self._wire.on_closed.append(self._closed)
        self._wire.on_denied.append(self._denied)

    async def ask(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None,
        deadline: float,
        take: Take | None = None,
    ) -> Msg | None:
        """Send, and wait for the reply; `LOST` if the connection broke meanwhile.

        Args:
            subject: Where to.
            data: What is asked.
            headers: As they are sent.
            deadline: Of the loop's clock.
            take: For a question with many replies: whether this one is but a part, which it keeps.

        Raises:
            TimeoutError: ``deadline`` (of the loop's clock) has passed.
            Denied: The permissions refuse the subject.
            NotConnected: The transport was closed.
        """
        self._asked += 1
        token = str(self._asked)
        question = _Question(subject, deadline, self._loop.create_future(), take)
        self._open[token] = question
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        try:
            await self._wire.client.publish(subject, data, self._inbox + token, headers)  # type: ignore[arg-type]  # only read
            return await question.reply
        except OutboundBufferLimitError:
            return LOST
        except ConnectionClosedError:
            self._wire.check_open()
            raise NotConnected("the transport was closed") from None
        except MaxPayloadError:
            raise PayloadTooLarge("a message above the server's max_payload; nothing was sent") from None
        except NatsError as error:
            raise as_transport_error(error) from None
        finally:
            self._open.pop(token, None)

    async def _replied(self, message: Msg) -> None:
        question = self._open.get(message.subject[len(self._inbox) :])
        if question is None or question.reply.done():
            return
        if question.take is None or not question.take(message):
            question.reply.set_result(message)

    def _sweep(self) -> None:
        now = self._loop.time()
        for question in self._open.values():
            if question.deadline <= now and not question.reply.done():
                question.reply.set_exception(TimeoutError())
        self._timer = self._loop.call_later(SWEEP_S, self._sweep) if self._open else None

    def _lost(self) -> None:
        for question in self._open.values():
            if not question.reply.done():
                question.reply.set_result(LOST)

    def _closed(self) -> None:
        for question in self._open.values():
            if not question.reply.done():
                question.reply.set_exception(NotConnected("the transport was closed"))
        if self._timer is not None:
            self._timer.cancel()

    def _denied(self, subject: str) -> None:
        for question in self._open.values():
            if question.subject.lower() == subject and not question.reply.done():
                question.reply.set_exception(Denied(f"the server's permissions refuse {question.subject}"))
