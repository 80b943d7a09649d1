"""What becomes of payloads in parts: those of results are read, and those of jobs withdrawn once they have served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bridge.core import Core
from bridge.envelope import Opened
from bridge.errors import BadPrelude, PayloadTooLarge
from bridge.identity import Connection
from bridge.job import Content, Status, decode
from bridge.payload import Manifest
from bridge.subjects import JobKey
from bridge.transfer import IN_MEMORY, Incoming, Payload, Spool, withdraw
from bridge.transfer.outgoing import Told
from bridge.transfer.value import Spooled, save
from bridge.transport import Transport
from producers.handle import Handle
from producers.outcome import natural, value_of


class Payloads:
    """The payloads of one producer.

    Args:
        connection: Where the workers of each queue are.
        transport: The producer's local broker.
    """

    def __init__(self, connection: Connection, transport: Transport) -> None:
        self._connection, self._transport = connection, transport
        # Strong: a job whose handle was dropped has parts all the same.
        self._sent: dict[JobKey, tuple[Handle[Any], Manifest]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def sent(self, handle: Handle[Any], core: Core) -> None:
        """Have a job's parts pass once it needs them no more; those of a dead letter may be needed again, and stay."""
        if (manifest := Manifest.of(core)) is None:
            return
        self._sent[handle.key] = handle, manifest
        handle.when_done(lambda: self._done(handle.key))

    def _done(self, key: JobKey) -> None:
        handle, manifest = self._sent.pop(key)
        if handle.status not in (Status.SUCCEEDED, Status.CANCELLED):
            return
        task = asyncio.get_running_loop().create_task(
            withdraw(self._transport, key, manifest.transfer, manifest.messages), name="withdraw"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Leave what is not withdrawn yet: it goes with the stream's age."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

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
        content_type = opened.content.content_type
        if opened.payload is None:
            if to is not None:
                return await save(aiter(Payload(opened.content.body)), to)
            if type_ is Payload:
                return Payload(opened.content.body, content_type)
            return value_of(opened, type_)
        incoming = self._incoming(key, opened)
        manifest = incoming.manifest
        whole = type_ is not Payload and to is None
        if whole and manifest.length > IN_MEMORY:
            raise PayloadTooLarge(
                f"job {key.job_id}: a result of {manifest.length} bytes, and {IN_MEMORY} are read into memory "
                "(IN_MEMORY); take it as result(to=Path), result(Payload) or stream()"
            )
        if to is not None:
            # Beside the file: what is verified waits there, sealed, for another process should this one die.
            with Spool(manifest, to.parent, f".{to.name}.") as spool:
                await incoming.fill(spool, told)
                return await save(Spooled(spool, incoming.opener).chunks(), to)
        spool = Spool(manifest)
        await incoming.fill(spool, told)
        payload = Payload.received(Spooled(spool, incoming.opener), content_type)
        if type_ is Payload:
            return payload
        content = Content(content_type, payload.read())
        return decode(content, type_ if type_ is not None else natural(content))

    async def stream(self, key: JobKey, opened: Opened) -> AsyncIterator[bytes]:
        """A result's bytes as they come, each part verified before it is given out."""
        if opened.payload is None:
            yield opened.content.body
            return
        async for chunk in self._incoming(key, opened).stream():
            yield chunk

    def _incoming(self, key: JobKey, opened: Opened) -> Incoming:
        if opened.payload is None or opened.content.body:
            raise BadPrelude("a body beside a payload in parts")
        return Incoming(self._transport, self._connection.queues[key.queue].work, key, opened.payload)
