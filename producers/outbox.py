"""Where jobs go out: checked, sealed, and stored in the local cloud."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import MAX_LIFETIME_MS, Core
from bridge.envelope import Draft, Sealed, Sealer
from bridge.errors import (
    BridgeError,
    ConfigurationError,
    PayloadTooLarge,
    PublishTimeout,
    SubjectTaken,
    UsageError,
)
from bridge.fence import RESEND_HEADER
from bridge.identity import Connection, Identity, QueueSettings
from bridge.job import Kind, encode
from bridge.transport import Transport
from bridge.trust import Trust

PUBLISH_TIMEOUT_S: Final = 5.0
"""How long one PubAck is waited for before the same bytes are sent again."""

_PRIORITY: Final = "normal"


class Outbox:
    """Seals and stores the jobs of one process.

    Args:
        identity: The producer's private keys.
        trust: Whom jobs are sealed to, and what is allowed.
        connection: The queues.
        transport: The producer's local broker.
    """

    def __init__(self, identity: Identity, trust: Trust, connection: Connection, transport: Transport) -> None:
        self._name = identity.name
        self._trust = trust
        self._connection = connection
        self._transport = transport
        self._sealer = Sealer(identity)
        self.session: Final = secrets.token_hex(12)
        """96 random bits: nobody can guess, and so take, a job's subject before it is sent."""
        self._counters: dict[str, int] = {}

    def settings(self, kind: Kind[Any, Any]) -> QueueSettings:
        """The settings of a kind's queue.

        Raises:
            ConfigurationError: This identity submits no such jobs; names those it does.
        """
        settings = self._connection.queues.get(kind.queue)
        if settings is None or self._name not in settings.producers:
            mine = sorted(name for name, queue in self._connection.queues.items() if self._name in queue.producers)
            raise ConfigurationError(
                f"{self._name} submits no jobs to queue {kind.queue!r}; "
                f"bridge.yaml lets it submit to {', '.join(mine) or 'none'}"
            )
        if kind.name not in settings.kinds:
            raise ConfigurationError(
                f"queue {kind.queue!r} has no kind {kind.name!r}; bridge.yaml has {', '.join(settings.kinds)}"
            )
        return settings

    def seal(
        self, kind: Kind[Any, Any], batch: Sequence[object], deadline: float | timedelta | None
    ) -> list[Sealed | BridgeError]:
        """Seal one job for each of ``batch`` under one signature; what cannot be sealed is its error, in its place.

        Raises:
            ConfigurationError, UsageError, TrustError, Refusal: What holds for all of them.
        """
        settings, now = self.settings(kind), now_ms()
        self._trust.check(now)
        self._trust.authorise("job", kind.queue, kind.name, self._name, settings.workers)
        recipients = (self._trust.peer(settings.workers).kem_key(now),)
        expires = now + _lifetime_ms(deadline, settings)
        outcomes: list[Sealed | BridgeError] = []
        drafts: list[Draft] = []
        for args in batch:
            try:
                content = encode(args)
                if len(content.body) > settings.max_payload:
                    raise PayloadTooLarge(
                        f"arguments of {len(content.body)} bytes; queue {kind.queue!r} takes {settings.max_payload} "
                        "(max_payload)"
                    )
            except BridgeError as error:
                outcomes.append(error)
                continue
            drafts.append(Draft(self._core(kind, settings, now, expires), recipients, content))
            outcomes.append(_PENDING)
        sealed = iter(self._seal(drafts, now))
        return [next(sealed) if outcome is _PENDING else outcome for outcome in outcomes]

    async def store(self, sealed: Sealed, timeout: float) -> None:
        """Have the local server store a job, sending the same bytes again until it is known to.

        Raises:
            TransportError: Nothing was stored; with `PublishTimeout` it may be.
        """
        core = sealed.core
        stream, subject = subjects.jobs_stream(core.queue), subjects.job(core.key, core.priority)
        headers = {
            "Bunny-Kind": core.kind,
            "Bunny-Deadline": datetime.fromtimestamp(core.expires // 1000, UTC).isoformat(),
            "Bunny-Digest": sealed.digest.hex(),
        }
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout
        while True:
            patience = min(PUBLISH_TIMEOUT_S, give_up - loop.time())
            try:
                await self._transport.publish(stream, subject, sealed.data, headers, timeout=max(patience, 0.001))
            except SubjectTaken:
                if RESEND_HEADER not in headers:
                    raise
                return  # by these bytes: the subject is this process's own, and unguessable
            except PublishTimeout:
                if loop.time() >= give_up:
                    raise
                # The first one may have been stored, worked and removed: then this is the same job a second time,
                # and whoever gets it must look at the fence before it runs.
                headers[RESEND_HEADER] = "1"
            else:
                return

    def _core(self, kind: Kind[Any, Any], settings: QueueSettings, issued: int, expires: int) -> Core:
        n = self._counters[kind.queue] = self._counters.get(kind.queue, 0) + 1
        return Core(
            type="job",
            queue=kind.queue,
            kind=kind.name,
            job=f"{self.session}.{n}",
            generation=0,
            sender=self._name,
            sender_kid=b"",
            recipient=settings.workers,
            issued=issued,
            expires=expires,
            priority=_PRIORITY,
        )

    def _seal(self, drafts: Sequence[Draft], now: int) -> Sequence[Sealed | BridgeError]:
        if not drafts:
            return []
        try:
            return self._sealer.seal_batch(drafts, now)
        except BridgeError as error:
            # One that cannot be sealed fails its batch: seal alone, to find which.
            return [error] if len(drafts) == 1 else [self._seal([draft], now)[0] for draft in drafts]


_PENDING: Final = BridgeError("not sealed yet")


def _lifetime_ms(deadline: float | timedelta | None, settings: QueueSettings) -> int:
    if deadline is None:
        return settings.deadline_ms
    seconds = deadline.total_seconds() if isinstance(deadline, timedelta) else deadline
    # Beyond the results' lifetime the fence would be gone before the job is, and it could run twice.
    limit = min(MAX_LIFETIME_MS, settings.result_ttl_ms)
    if not 0 < seconds * 1000 < limit:
        raise UsageError(
            f"a deadline of {seconds:g} s; it must be above 0 and below {limit // 1000} s, the queue's result_ttl"
        )
    return max(int(seconds * 1000), 1)
