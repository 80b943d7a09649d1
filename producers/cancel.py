"""Asking the workers to leave a job: a sealed control, stored beside the jobs for as long as its job may start."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Draft, Opener, Sealed, Sealer
from bridge.errors import PublishTimeout, Refusal, SubjectTaken, UsageError
from bridge.identity import Connection
from bridge.job import MAX_REASON_CHARS, JobToken, encode
from bridge.transport import Message, Transport
from producers.handle import Handle, Signed

PUBLISH_TIMEOUT_S: Final = 5.0
"""How long one PubAck is waited for before the same bytes are sent again."""


class Canceller:
    """Asks for jobs of one identity to be cancelled.

    Args:
        opener: Holds the producer's keys, and verifies a job of one's own that is looked up; its bundle says whom
            controls are sealed to.
        connection: The queues.
        transport: The producer's local broker.
    """

    def __init__(self, opener: Opener, connection: Connection, transport: Transport) -> None:
        self._opener = opener
        self._connection = connection
        self._transport = transport
        self._sealer = Sealer(opener.ring)

    async def cancel(self, handle: Handle[Any], reason: str, timeout: float) -> None:
        """See `Handle.cancel`."""
        if len(reason) > MAX_REASON_CHARS:
            raise UsageError(f"a reason of {len(reason)} characters; at most {MAX_REASON_CHARS}")
        if handle.done():
            return
        signed = handle.signed or await self._look_up(handle)
        if signed is None:
            return
        handle.signed = signed
        now = now_ms()
        if now < signed.expires:  # else it does not start any more
            await self._store(self._seal(handle.token, signed, reason, now), timeout)

    async def _look_up(self, handle: Handle[Any]) -> Signed | None:
        """The kind and the end of a job that another process submitted; None if it is done meanwhile.

        Raises:
            UsageError: It is not stored any more, and has no result here.
        """
        token, where = handle.token, f"job {handle.id} on {handle.key.queue}"
        message = await stored(self._transport, token)
        if message is None:
            await handle.look()  # it may have been answered while it was looked for
            if handle.done():
                return None
            raise UsageError(f"{where}: not stored: its result is on its way or too old, or it is a replay")
        try:
            job = self._opener.authenticate(message.data, now_ms())
        except Refusal as refusal:
            raise UsageError(f"{where}: what is stored is not a job of yours ({refusal.name})") from None
        same = job.digest.hex() == token.digest or handle.keyed is not None
        if job.core.type != "job" or job.core.key != token.key or not same:
            raise UsageError(f"{where}: what is stored is not what the token speaks of")
        return Signed(job.digest, job.core.kind, job.core.expires)

    def _seal(self, token: JobToken, signed: Signed, reason: str, now: int) -> Sealed:
        settings, trust = self._connection.queues[token.queue], self._opener.trust
        self._opener.check_mine(now)
        trust.authorise("control", token.queue, signed.kind, token.producer, settings.workers)
        core = Core(
            type="control",
            queue=token.queue,
            kind=signed.kind,
            job=token.key.job_id,
            generation=token.generation,
            sender=token.producer,
            sender_kid=b"",
            recipient=settings.workers,
            issued=now,
            expires=signed.expires,
            job_digest=signed.digest,
            action="cancel",
        )
        recipients = (trust.peer(settings.workers).kem_key(now),)
        return self._sealer.seal(Draft(core, recipients, encode(reason), packing=settings.packing), now)

    async def _store(self, sealed: Sealed, timeout: float) -> None:
        core, clock = sealed.core, asyncio.get_running_loop().time
        give_up = clock() + timeout
        # The server keeps it for as long as the job may start: a cancel that is forgotten sooner would be undone.
        keep_s = -((core.issued - core.expires) // 1000)
        headers = {
            "Bunny-Queue": core.queue,
            "Bunny-Kind": core.kind,
            "Bunny-Producer": core.sender,
            "Bunny-Digest": core.job_digest.hex(),
            "Nats-TTL": f"{keep_s}s",
        }
        stream, subject = subjects.control_stream(core.queue), subjects.control(core.key)
        again = False
        while True:
            patience = max(min(PUBLISH_TIMEOUT_S, give_up - clock()), 0.001)
            try:
                await self._transport.publish(stream, subject, sealed.data, headers, timeout=patience)
            except SubjectTaken:
                if core.generation and not again:  # all runs of a key share the subject, and only workers read it
                    raise UsageError(
                        f"job {core.job}: a cancel of it, or of an earlier run of its key, stands already"
                    ) from None
                return  # it has been asked already, by an earlier call or by an earlier try of this one
            except PublishTimeout:
                if clock() >= give_up:
                    raise
                again = True
            else:
                return


async def stored(transport: Transport, token: JobToken) -> Message | None:
    """A job as its producer's cloud holds it, **not verified**; None once it is done, or if it never was.

    Raises:
        TransportError: The local server does not answer.
    """
    places = [
        *((subjects.jobs_stream(token.queue), subjects.job(token.key, each)) for each in subjects.PRIORITIES),
        (subjects.delayed_stream(token.queue), subjects.delayed(token.key)),
    ]
    found = await asyncio.gather(*(transport.lookup(stream, subject) for stream, subject in places))
    return next((message for message in found if message is not None), None)
