"""Pulling from a durable consumer with credit, through everything that can happen to it.

A pull request is sent on a *lane*: a subscription of its own with at most one open request, so that every
delivery and every status belongs to a known request and no credit leaks (a delivery carries the job's subject, not
the request's; only the subscription tells them apart). Lanes overlap: when the credit waiting reaches half of the
window, another request is sent while the others are still being served.

======================  ======================================================================
what happens            what follows
======================  ======================================================================
delivery                uses one credit of its lane; one too many (a request that was given up
                        for lost and then served) uses credit that waits, or is nak'd
100 idle heartbeat      the lane lives
408                     the request's time is up: its credit comes back, another is sent
404, 409, 503, others   its credit comes back; another after a pause of 0.1 to 5 s
two heartbeats missed   the same: the link or the server is away; the lane is left, and what it brings is late
denied                  the same
connection back         every lane's credit comes back, requests are sent at once
closed                  no more requests; what open ones still bring is nak'd, until they are over
closed for good         `get` raises NotConnected once what had arrived is taken
======================  ======================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import secrets
import time
from collections.abc import Mapping
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from bridge import subjects
from bridge.errors import NotConnected
from bridge.jetstream.client import log
from bridge.jetstream.connection import Wire
from bridge.jetstream.doubt import Doubts
from bridge.jetstream.pauses import Pauses
from bridge.jetstream.settle import NAK, delivered, is_ack_subject, settle
from bridge.transport import Delivery, Message

EXPIRES_S: Final = 3.0
"""How long a request waits at the server. One from the other cloud stays there for so long when its client is gone:
no server sees that, and what it is served meanwhile comes again only after the ack wait."""

HEARTBEAT_S: Final = 1.5
"""As often as the server takes it. A request without heartbeats is black-holed where an export's response threshold is
shorter than ``expires``."""

SILENCE_S: Final = 2 * HEARTBEAT_S + 1
TICK_S: Final = 1.0
LANES: Final = 4
"""Open requests at most: each is half of the credit that is left, so four cover all but a sixteenth."""

LEAST_ACK_WAIT_S: Final = 1.0
"""The shortest ack wait that a policy may have."""

LISTEN_ON_S: Final = 60.0
"""How long a lane that was given up is listened to. What comes later comes again, after its ack wait."""


class _Lane:
    """One subscription, and the request that is open on it."""

    __slots__ = ("after", "given_up", "heard", "inbox", "left", "over", "serial", "subscription")

    def __init__(self, inbox: str) -> None:
        self.inbox = inbox
        self.subscription: Subscription | None = None
        self.serial = 0
        self.left = 0
        """Deliveries that the open request may still bring; 0 where none is open."""
        self.heard = 0.0
        self.given_up = False
        self.after = 0
        """What the number of its next delivery must be higher than."""
        self.over = 0.0
        """When no request sent on it can be waiting at a server any more."""


class JetStreamPull:
    """See `bridge.transport.Pull`."""

    def __init__(self, wire: Wire, stream: str, consumer: str, cloud: str | None) -> None:
        self._wire = wire
        self._subject = subjects.next_message(stream, consumer, cloud)
        self._loop = asyncio.get_running_loop()
        self._log = log.bind(stream=stream, consumer=consumer, cloud=cloud)
        self._credit = 0
        """Granted, and in no open request."""
        self._due = 0
        """Deliveries that open requests may still bring."""
        self._lanes: list[_Lane] = []
        self._left: list[_Lane] = []
        """Lanes that were given up."""
        self._arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()  # None: closed
        self._wake = asyncio.Event()
        self._doubts = Doubts()
        self._pauses = Pauses(0.1, 5.0)
        self._not_before = 0.0
        self._trouble = False
        self.ended = False
        self._emptied = False
        self._answered = 0
        self._interrupted = 0
        self.brought = -math.inf
        """By `time.monotonic`, when it last brought a message."""
        self._spoken = self._loop.time()
        """When a server last said anything of a request, or there was last none."""
        self._ticked = self._loop.time()
        self._timer = self._loop.call_later(TICK_S, self._tick)
        wire.on_back.append(self._back)
        wire.on_denied.append(self._denied)
        wire.on_closed.append(self.end)
        self.task = asyncio.create_task(self._run(), name=f"pull {stream} {consumer}")

    @property
    def answered(self) -> int:
        """See `bridge.transport.Pull.answered`."""
        return self._answered

    @property
    def silent(self) -> float:
        """See `bridge.transport.Pull.silent`."""
        return self._loop.time() - self._spoken if self._asks() else 0.0

    @property
    def interrupted(self) -> int:
        """See `bridge.transport.Pull.interrupted`."""
        return self._interrupted

    def grant(self, n: int) -> None:
        """See `bridge.transport.Pull.grant`."""
        if not self._asks():
            self._spoken = self._loop.time()
        self._credit += n
        if self._wants_more():
            self._wake.set()

    async def get(self) -> Delivery:
        """See `bridge.transport.Pull.get`.

        Raises:
            NotConnected: The pull or the transport was closed.
        """
        delivery = await self._arrived.get()
        if delivery is None:
            self._arrived.put_nowait(None)  # for the next who asks
            self._wire.check_open()
            raise NotConnected(f"the pull from {self._subject} was closed")
        return delivery

    async def close(self) -> list[Delivery]:
        """See `bridge.transport.Pull.close`."""
        self.end()
        self._emptied = True
        left = [self._arrived.get_nowait() for _ in range(self._arrived.qsize())]
        self._arrived.put_nowait(None)
        return [delivery for delivery in left if delivery is not None]

    async def closed(self) -> None:
        """See `bridge.transport.Pull.closed`."""
        await asyncio.wait([self.task])

    # --- requests ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self.ended:
            await self._wake.wait()
            self._wake.clear()
            await self._leave_old()
            while self._wants_more() and (lane := await self._free_lane()):
                await self._request(lane)
        # Requests cannot be taken back: listen for as long as they can be served, to hand back what comes.
        over = max((lane.over for lane in self._lanes), default=0.0)
        await asyncio.sleep(max(0.0, over - self._loop.time()))
        for lane in (*self._lanes, *self._left):
            await self._leave(lane)

    async def _leave_old(self) -> None:
        while self._left and self._loop.time() - self._left[0].heard > LISTEN_ON_S:
            await self._leave(self._left.pop(0))

    async def _leave(self, lane: _Lane) -> None:
        if lane.subscription is not None:
            with contextlib.suppress(NatsError):
                await lane.subscription.unsubscribe()

    def _asks(self) -> bool:
        return not self.ended and self._credit + self._due > 0

    def _wants_more(self) -> bool:
        """Whether enough credit waits for a request: half of the window, since one for each job would be slow."""
        return (
            self._credit > 0
            and self._credit >= self._due
            and self._loop.time() >= self._not_before
            and self._wire.connected
            and not self.ended
        )

    async def _free_lane(self) -> _Lane | None:
        for lane in self._lanes:
            if lane.left == 0:
                return lane
        if len(self._lanes) == LANES:
            return None
        lane = _Lane(f"{self._wire.inbox_prefix}.{secrets.token_hex(8)}.")
        self._lanes.append(lane)

        async def heard(message: Msg) -> None:
            await self._heard(lane, message)

        try:
            lane.subscription = await self._wire.client.subscribe(lane.inbox + "*", cb=heard, pending_bytes_limit=0)
        except NatsError:
            self._lanes.remove(lane)
            self._pause("the subscription failed")
            return None
        return lane

    async def _request(self, lane: _Lane) -> None:
        if self._credit == 0:  # used up by a late delivery meanwhile
            return
        lane.serial += 1
        lane.left = self._credit
        self._due, self._credit = self._due + lane.left, 0
        lane.after = self._doubts.highest
        lane.heard = self._loop.time()
        lane.over = lane.heard + EXPIRES_S + 1
        request = {
            "batch": lane.left,
            "expires": int(EXPIRES_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        try:
            await self._wire.client.publish(self._subject, json.dumps(request).encode(), f"{lane.inbox}{lane.serial}")
        except NatsError:
            self._give_back(lane)
            self._pause("the request could not be sent")

    def _give_back(self, lane: _Lane) -> None:
        self._credit, self._due = self._credit + lane.left, self._due - lane.left
        lane.left = 0

    def _pause(self, reason: str) -> None:
        """Send no request for a while, and say so once."""
        self._doubts.arise()
        pause = self._pauses.next()
        self._not_before = self._loop.time() + pause
        self._loop.call_later(pause + 0.01, self._wake.set)  # never a moment too early
        if not self._trouble and not self.ended:
            self._trouble = True
            self._interrupted += 1
            self._log.warning("pull_interrupted", reason=reason)

    def _fine(self) -> None:
        if self._trouble:
            self._trouble = False
            self._log.info("pull_restored", seconds=round(self.silent, 1))
        self._spoken = self._loop.time()
        self._pauses.reset()

    # --- what comes back --------------------------------------------------------------------------

    async def _heard(self, lane: _Lane, message: Msg) -> None:
        if not lane.given_up:
            lane.heard = self._loop.time()
        if message.reply:
            await self._delivered(lane, message)
        elif message.subject == f"{lane.inbox}{lane.serial}":  # else the status of a request given up before
            self._status(lane, message.headers or {})

    async def _delivered(self, lane: _Lane, message: Msg) -> None:
        if not is_ack_subject(message.reply):
            self._log.error("delivery_with_foreign_ack_dropped", subject=message.subject)
            return
        doubtful, sent = self._doubts.about(message.reply, lane.after), math.inf
        lane.after = self._doubts.number
        if lane.given_up:
            age = min(self._loop.time() - lane.heard, self._doubts.age)
            sent = time.monotonic() - age
            if age >= LEAST_ACK_WAIT_S and (self._emptied or self._credit == 0):
                return  # it may be another's by now, whose lease a nak would end
        if self._emptied or lane.left + self._credit == 0:
            await settle(self._wire, message.reply, NAK)
            return
        if lane.left:
            lane.left, self._due = lane.left - 1, self._due - 1
            self._answered += lane.left == 0
        else:
            self._credit -= 1
        self.brought = time.monotonic()
        content = Message(message.subject, message.data, message.headers or {})
        self._arrived.put_nowait(Delivery(content, message.reply, delivered(message.reply), doubtful, sent))
        self._fine()
        if self._wants_more():
            self._wake.set()

    def _status(self, lane: _Lane, headers: Mapping[str, str]) -> None:
        status = headers.get("Status", "")
        if status == "100":
            self._fine()
            return
        self._give_back(lane)
        if status == "408":
            self._answered += 1
            self._fine()
        elif status == "503":
            self._pause("no responders: the consumer's server or the link is away")
        else:
            words = re.sub(r"[^ -~]", "?", headers.get("Description", ""))[:80]
            self._pause(f"the server says {status} {words}")
        self._wake.set()

    def _tick(self) -> None:
        """Notice requests that are neither served nor refused."""
        now = self._loop.time()
        late, self._ticked = now - self._ticked > 2 * TICK_S, now
        if late:
            self._spoken = now
        for lane in list(self._lanes):
            if late:  # this process was busy or stopped: what came meanwhile has not been read yet
                lane.heard = now
            elif lane.left and now - lane.heard > SILENCE_S:
                self._give_back(lane)
                self._lanes.remove(lane)
                self._left.append(lane)
                lane.given_up = True
                self._pause("no heartbeat: the consumer's server or the link is away")
        if self._wants_more():
            self._wake.set()
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def _back(self) -> None:
        self._doubts.arise()
        self._interrupted += any(lane.left for lane in self._lanes)
        for lane in self._lanes:
            self._give_back(lane)
        self._not_before = 0.0
        self._wake.set()

    def _denied(self, subject: str) -> None:
        if subject == self._subject.lower():
            for lane in self._lanes:
                self._give_back(lane)
            self._pause("denied: the server's permissions refuse the pull")

    def end(self) -> None:
        """Ask for nothing more; whoever waits in `get` is told."""
        if self.ended:
            return
        self.ended = True
        self._wake.set()
        self._timer.cancel()
        self._wire.on_back.remove(self._back)
        self._wire.on_denied.remove(self._denied)
        self._wire.on_closed.remove(self.end)
        self._arrived.put_nowait(None)
