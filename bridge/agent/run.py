"""The agent: looks at its cloud, tells the other's agents, hears them, and shows what it knows."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Final

import structlog

from bridge import jetstream, subjects
from bridge.agent import link, report
from bridge.agent.canaries import Canaries, Proving, queues_of
from bridge.agent.look import look as look_at
from bridge.agent.pages import pages
from bridge.agent.report import Report
from bridge.agent.samples import samples
from bridge.agent.schedules import Producing, Scheduler
from bridge.agent.state import Repeated, State
from bridge.clock import now_ms
from bridge.errors import BundleExpired, ConfigurationError, PublishTimeout, Refusal, TransportError, TrustError
from bridge.follow import Seen, is_news, look, take_keys
from bridge.identity import CA_FILE, Identity
from bridge.jetstream import JetStreamTransport
from bridge.member import Member
from bridge.pki.expiry import file_expiry, shown_expiry
from bridge.policy import Role
from bridge.signals.bind import metrics_page, new_meter
from bridge.signals.listener import listening
from bridge.transport import Message
from bridge.trust import Trust

INTERVAL_S: Final = 2.0
"""Between two looks, and so between two reports."""
RELOAD_S: Final = 5.0
"""Between two looks at the identity folder: a bundle, a certificate or other keys may be delivered there."""

_log = structlog.get_logger(__name__)


class Agent:
    """One agent of a cloud. Several may run: they agree, or the newest is believed.

    Args:
        member: Who it is.
        transport: Its connection to the local server.
        certificates: Certificate files to watch besides what its own connection shows.
    """

    def __init__(self, member: Member, transport: JetStreamTransport, certificates: Iterable[Path] = ()) -> None:
        self._member = member
        self._transport = transport
        self._trust = member.trust
        self._seen: Seen | None = None
        self._said: dict[str, str] = {}
        self._files = tuple(certificates)
        self._clock = asyncio.get_running_loop().time
        self._session = secrets.token_hex(12)
        self._told = 0
        self._replies = f"{subjects.inbox_prefix(member.identity.name)}.link"
        self._muted: set[tuple[str, str]] = set()
        self._alone = False
        self.state = State(member.connection, self._clock)
        transport.on_reconnect(self.state.losses.interrupted)
        self.ended = asyncio.Event()
        """Set when `run` is over."""

    async def run(self) -> None:
        """Look and tell until cancelled.

        Raises:
            NotConnected: The connection was closed for good, or is refused.
            IdentityRevoked: Nobody takes this agent's word any more.
        """
        try:
            await self._run()
        finally:
            self.ended.set()

    async def submit(self, producing: Producing) -> None:
        """Submit what the agent's schedules say until cancelled.

        Args:
            producing: Connects, as the same identity.

        Raises:
            BridgeError: The identity folder cannot be used any more.
        """
        scheduler = Scheduler(self._member.connection)
        self.state.schedules = scheduler.progress
        try:
            async with producing(self._member.folder) as submit:
                await scheduler.run(submit)
        finally:
            self.ended.set()

    async def prove(self, proving: Proving) -> None:
        """Send canaries until cancelled.

        Args:
            proving: Connects, as the same identity.

        Raises:
            BridgeError: The identity folder cannot be used any more.
        """
        canaries = Canaries(self._member.connection, self._clock)
        self.state.proofs = canaries.proofs
        try:
            async with proving(self._member.folder) as ask:
                await canaries.run(ask)
        finally:
            self.ended.set()

    async def _run(self) -> None:
        self._reload()
        await self._transport.subscribe(self._replies, self._server_said)
        for cloud in self.state.others:
            try:
                await self._transport.subscribe(subjects.any_stats(cloud), self._heard)
            except TransportError as error:
                # Of a policy that gives only one cloud an agent, say: what is seen here is worth showing all the same.
                _log.error("agent_hears_nobody", cloud=cloud, error=type(error).__name__)
                self._alone = True
        reload_at = self._clock() + RELOAD_S
        while True:
            began = self._clock()
            if began >= reload_at:
                reload_at = began + RELOAD_S
                self._reload()
            await self._round()
            await asyncio.sleep(max(began + INTERVAL_S - self._clock(), INTERVAL_S / 4))

    async def _round(self) -> None:
        state = self.state
        state.connected = self._transport.connected
        if not state.connected:
            with contextlib.suppress(PublishTimeout):
                await self._transport.flush(0.1)  # raises where it is closed for good: then nothing is left to watch
            return
        if (shown := self._transport.certificate) is not None and (expiry := shown_expiry(shown)) is not None:
            state.certificates["server"] = expiry
        with contextlib.suppress(TransportError):
            await self._transport.tell(link.REQUEST, b"", self._replies)
        seen = await look_at(self._transport, self._member.connection)
        state.saw(seen)
        if not self._alone:
            await self._tell()

    async def _tell(self) -> None:
        state, me = self.state, self._member.identity
        self._told += 1
        data = report.write(
            Report(
                bridge=self._member.connection.bridge,
                sender=me.name,
                cloud=state.cloud,
                session=self._session,
                n=self._told,
                issued=now_ms(),
                policy=state.policy,
                trust_version=state.trust_version,
                trust_expires=state.trust_expires,
                queues=state.known("own", state.cloud),
            ),
            me.sign[-1],
        )
        if len(data) > report.MAX_REPORT:
            _log.error("report_too_large", bytes=len(data), limit=report.MAX_REPORT)
            return
        try:
            await self._transport.tell(subjects.stats(state.cloud, me.name), data)
        except TransportError as error:
            _log.warning("report_not_told", error=type(error).__name__)

    async def _heard(self, message: Message) -> None:
        _, cloud, _ = message.subject.split(".", 2)  # as subscribed to, and so one of the policy's
        now = now_ms()
        try:
            self.state.heard(report.read(message.data, message.subject, self._trust, now), now)
        except (Refusal, TrustError) as error:
            self._refuse(cloud, type(error).__name__)
        except Repeated:
            self._refuse(cloud, "Repeated")

    def _refuse(self, cloud: str, reason: str) -> None:
        self.state.refused[cloud, reason] += 1
        if (cloud, reason) not in self._muted:  # whoever may publish there could fill the log; the count goes on
            self._muted.add((cloud, reason))
            _log.warning("report_refused", cloud=cloud, refusal=reason)

    async def _server_said(self, message: Message) -> None:
        if (said := link.read(message.data, self._clock())) is not None:
            self.state.saw_server(*said)

    def _reload(self) -> None:
        """Read trust bundle, keys and certificates where others lie there; what cannot be read leaves what was known.

        Raises:
            IdentityRevoked: Nobody takes this agent's word any more.
        """
        folder = self._member.folder
        if (seen := look(folder)) != self._seen:
            self._seen = seen
            try:
                self._trust = Trust.load(folder, now_ms(), self._trust.version)
            except (TrustError, ConfigurationError) as error:
                if is_news(self._said, "trust", error):
                    _log.error("trust_not_reloaded", error=type(error).__name__, reason=str(error))
                self._seen = None
            try:
                take_keys(Identity.load(folder), self._member.keys, self._trust)
            except (TrustError, ConfigurationError) as error:
                if is_news(self._said, "keys", error):
                    _log.error("keys_not_reloaded", error=type(error).__name__, reason=str(error))
                self._seen = None
        me = self._member.identity
        with contextlib.suppress(BundleExpired):  # which it goes on to show
            self._trust.check_mine(me.name, me.sign[-1].kid, now_ms())
        self.state.trust_version, self.state.trust_expires = self._trust.version, self._trust.expires_ms
        for path in (folder / CA_FILE, *self._files):
            try:
                self.state.certificates[path.stem] = file_expiry(path)
            except ConfigurationError as error:
                _log.error("certificate_not_read", error=type(error).__name__, reason=str(error))


@contextlib.asynccontextmanager
async def watching(
    folder: Path,
    address: str,
    certificates: Iterable[Path] = (),
    producing: Producing | None = None,
    proving: Proving | None = None,
) -> AsyncIterator[tuple[Agent, int]]:
    """Run an agent until the block ends.

    Args:
        folder: The identity folder of an agent.
        address: ``host:port`` to show its pages at; port 0 is any free one.
        certificates: Certificate files to watch.
        producing: Connects to submit what its schedules say; without it they are left to others.
        proving: Connects to send canaries; without it none are sent.

    Yields:
        The agent, and the port.

    Raises:
        ConfigurationError: The folder is no agent's, the address is taken, or the extra ``metrics`` is not installed.
        TrustError: The trust bundle cannot be relied on.
        NotConnected, IdentityRevoked: At the end, what ended it meanwhile.
    """
    member, meter = Member.load(folder), new_meter()
    if member.connection.role != Role.AGENT:
        raise ConfigurationError(
            f"{folder}: its role is {member.connection.role}; name the folder of an identity with role: agent"
        )
    transport = await jetstream.connect(
        member.connection, member.keys, folder / CA_FILE, name=f"{member.identity.name}-agent"
    )
    async with transport:
        agent = Agent(member, transport, certificates)
        meter.watch(lambda: samples(agent.state))
        async with listening(address, pages(agent.state, lambda: metrics_page(meter))) as port:
            running = [asyncio.create_task(agent.run(), name="agent")]
            if producing is not None and member.connection.schedules:
                running.append(asyncio.create_task(agent.submit(producing), name="schedules"))
            if proving is not None and queues_of(member.connection):
                running.append(asyncio.create_task(agent.prove(proving), name="canaries"))
            try:
                yield agent, port
            finally:
                for task in running:
                    task.cancel()
                await asyncio.wait(running)
            for task in running:
                if not task.cancelled():
                    task.result()  # raises what ended it
