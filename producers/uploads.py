"""Payloads of jobs: their parts are stored before the job that names them, and pass where it never is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bridge.envelope import Wrap
from bridge.errors import PayloadTooLarge
from bridge.identity import QueueSettings
from bridge.job import Content, Kind
from bridge.payload import Manifest, PartSealer
from bridge.subjects import JobKey
from bridge.transfer import Withdrawals, send
from bridge.transfer.fields import Large
from bridge.transfer.outgoing import Told
from bridge.transport import Transport


@dataclass(frozen=True, slots=True)
class Upload:
    """A payload that is stored, and that no message names yet."""

    key: JobKey
    wrap: Wrap
    """Whose secret it is sealed under, and the message that is to name it."""
    manifest: Manifest
    content: Content
    """What the message itself is to hold."""


class Uploads:
    """Stores payloads in the producer's cloud.

    Args:
        transport: The producer's local broker.
        withdrawals: Those of ``transport``.
    """

    def __init__(self, transport: Transport, withdrawals: Withdrawals) -> None:
        self._transport, self._withdrawals = transport, withdrawals

    async def store(self, large: Large, key: JobKey, wrap: Wrap, settings: QueueSettings, told: Told | None) -> Upload:
        """Store all of it.

        Raises:
            PayloadTooLarge: It has more bytes than the queue takes; what was stored is withdrawn.
            TransportError: It could not be stored, and is withdrawn.
        """
        sealer, limit = PartSealer(wrap.secret, settings.packing), settings.max_payload
        manifest = await send(self._transport, key, aiter(large), sealer, self._withdrawals, limit=limit, told=told)
        return Upload(key, wrap, manifest, large.content())

    def withdraw(self, key: JobKey, manifest: Manifest | None) -> None:
        """Have the parts pass of a job that is not stored, nor will be; None has none."""
        if manifest is not None:
            self._withdrawals.start(key, manifest.transfer, manifest.messages)


def check(large: Large, kind: Kind[Any, Any], settings: QueueSettings) -> None:
    """Check what can be said of arguments before any of them is stored.

    Raises:
        PayloadTooLarge: They are more than the queue takes.
        InvalidArguments: They do not fit the kind.
    """
    if (large.length or 0) > settings.max_payload:
        raise too_large(kind.queue, large.length, settings)
    large.check(kind.args)


def too_large(queue: str, length: int | None, settings: QueueSettings) -> PayloadTooLarge:
    """What to tell whoever has more for a queue than it takes."""
    return PayloadTooLarge(f"arguments of {length} bytes; queue {queue!r} takes {settings.max_payload} (max_payload)")
