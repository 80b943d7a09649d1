"""What becomes of payloads in parts: those of results are read, and those of jobs withdrawn once they have served."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

from bridge.composite import COMPOSITE
from bridge.core import Core
from bridge.envelope import Opened
from bridge.errors import InvalidArguments, PayloadTooLarge
from bridge.identity import Connection
from bridge.job import Status
from bridge.payload import Manifest, PartOpener
from bridge.subjects import JobKey
from bridge.transfer import IN_MEMORY, Aside, Incoming, Payload, Spool, Withdrawals, sweep
from bridge.transfer.aside import beside, tidy
from bridge.transfer.fields import check_body, check_type, unpack
from bridge.transfer.outgoing import Told
from bridge.transfer.value import Spooled, save
from bridge.transport import Transport
from producers.handle import Handle
from producers.outcome import natural, value_of

MAX_SENT: Final = 100_000
"""Jobs whose parts await their answers, half a KiB each: as many as are kept. The parts of older ones go with age."""


class Payloads:
    """The payloads of one producer.

    Args:
        connection: Where the workers of each queue are.
        transport: The producer's local broker.
        withdrawals: Those of ``transport``; closed by whoever made them.
    """

    def __init__(self, connection: Connection, transport: Transport, withdrawals: Withdrawals) -> None:
        self._connection, self._transport, self._withdrawals = connection, transport, withdrawals
        # No handles: a job whose handle was dropped has parts all the same. Ordered by when each was sent.
        self._sent: OrderedDict[JobKey, Manifest] = OrderedDict()

    def sent(self, handle: Handle[Any], core: Core) -> None:
        """Have a stored job's parts pass once it needs them no more; those of a dead letter may be needed again."""
        if (manifest := Manifest.of(core)) is None:
            return
        self._sent[handle.key] = manifest
        while len(self._sent) > MAX_SENT:
            self._sent.popitem(last=False)
        if handle.done():  # the answer was faster than the PubAck
            self.answered(handle.key, lambda: handle.status)

    def answered(self, key: JobKey, status: Callable[[], Status | None]) -> None:
        """A job is answered; ``status`` says how, and is asked only where parts hang on it."""
        manifest = self._sent.pop(key, None)
        if manifest is not None and status() in (Status.SUCCEEDED, Status.CANCELLED):
            self._withdrawals.start(key, manifest.transfer, manifest.messages)

    async def read(
        self, key: JobKey, opened: Opened, type_: type[Any] | None, to: Path | None, told: Told | None
    ) -> object:
        """A result's value: all of it verified before any of it is given out.

        Args:
            key: The job.
            opened: Its result, which succeeded.
            type_: What to decode it to; None leaves it to what was sent.
            to: A file to write it to instead, which is then the value.
            told: How many bytes are verified so far.
        """
        content = opened.content
        fields = content.content_type == COMPOSITE
        wanted = type_ if type_ is not None else natural(content)
        if fields and to is not None:
            raise _in_fields(key)
        check_type(content, wanted, 0 if opened.payload is None or to is not None else opened.payload.manifest.content)
        if to is not None:
            await asyncio.to_thread(_tidy, to)
        if opened.payload is None:
            if to is not None:
                return await save(aiter(Payload(content.body)), to)
            return value_of(opened, type_)
        incoming = self._incoming(key, opened, opened.payload)
        manifest = incoming.manifest
        whole = type_ is not Payload and to is None and not fields
        if whole and manifest.content > IN_MEMORY:
            raise PayloadTooLarge(
                f"job {key.job_id}: a result of {manifest.content} bytes, and {IN_MEMORY} are read into memory "
                "(IN_MEMORY); take it as result(to=Path), result(Payload) or stream(), or in a shell with --out FILE"
            )
        if to is not None:
            # Beside the file: what is verified waits there, sealed, for another process should this one die.
            with (
                Spool(manifest, to.parent, beside(to)) as spool,
                Aside(to, manifest.transfer.hex() if spool.named else None) as aside,
            ):

                def write(number: int, sealed: bytes) -> None:
                    aside.write(incoming.opener.unseal(number, sealed))

                await incoming.fill(spool, told, write)
                return await asyncio.to_thread(aside.land)
        spool = Spool(manifest)
        await incoming.fill(spool, told)
        payload = Payload.received(Spooled(spool, incoming.opener), content.content_type)
        return unpack(content, wanted, payload)

    async def stream(self, key: JobKey, opened: Opened) -> AsyncIterator[bytes]:
        """A result's bytes as they come, each part verified before it is given out."""
        if opened.content.content_type == COMPOSITE:
            raise _in_fields(key)
        if opened.payload is None:
            yield opened.content.body
            return
        async for chunk in self._incoming(key, opened, opened.payload).stream():
            yield chunk

    def _incoming(self, key: JobKey, opened: Opened, parts: PartOpener) -> Incoming:
        check_body(opened.content)
        settings = self._connection.queues[key.queue]
        if parts.manifest.content > settings.max_payload:  # its author's own settings may say anything
            raise PayloadTooLarge(
                f"job {key.job_id}: a result of {parts.manifest.content} bytes; queue {key.queue} takes "
                f"{settings.max_payload} (max_payload): it stands, and can be read where bridge.yaml says more"
            )
        return Incoming(self._transport, settings.work, key, parts)


def _tidy(to: Path) -> None:
    """Remove what processes that died left beside a file, but for what one may go on with."""
    tidy(to)
    sweep(to.parent, beside(to))


def _in_fields(key: JobKey) -> InvalidArguments:
    return InvalidArguments(
        f"job {key.job_id}: a result with payloads among its fields; take it as result(Type), and each by itself"
    )
