"""Payloads of an attempt: arguments verified to their end before a handler sees any of them, and results in parts."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import structlog

from bridge.clock import now_ms
from bridge.composite import COMPOSITE
from bridge.envelope import Opened, Opener, Sealer
from bridge.errors import (
    BridgeError,
    ConfigurationError,
    InvalidArguments,
    PartMissing,
    PayloadTooLarge,
    Refusal,
    SpoolFull,
    TransportError,
    UsageError,
)
from bridge.job import Content
from bridge.payload import Manifest, PartOpener, PartSealer
from bridge.subjects import JobKey
from bridge.transfer import IN_MEMORY, Incoming, Payload, Spool, Withdrawals, send, sweep
from bridge.transfer.fields import check_type, pack, unpack
from bridge.transfer.value import Once, Spooled
from bridge.transport import Transport
from consumers.case import Case
from consumers.failures import words
from consumers.handlers import Handler
from consumers.verdict import Done, Reject, Sent, Snooze

SPOOL: Final = "BUNNY_SPOOL"
"""The variable that names the folder where payloads are kept, sealed, until their handlers are done."""
FULL_DELAY_S: Final = 60.0
"""How long a job waits for room on this machine's disk, or for another worker."""
TROUBLE_DELAY_S: Final = 5.0
"""How long a job waits whose payload could not be read: what was read is kept."""

_log = structlog.get_logger(__name__)


class Hindered(Exception):
    """An attempt that did not come to its handler, or not to its end, through no fault of the job."""

    def __init__(self, verdict: Snooze | Reject, reason: str) -> None:
        self.verdict, self.reason = verdict, reason
        super().__init__(reason)


class Payloads:
    """Fetches the payloads of arguments and stores those of results, as one member of a pool.

    Args:
        opener: Holds the trust bundle: whom results are sealed to.
        sealer: Wraps the secrets of results.
        transport: The workers' local broker.
    """

    def __init__(self, opener: Opener, sealer: Sealer, transport: Transport) -> None:
        self._opener, self._sealer, self._transport = opener, sealer, transport
        self._withdrawals = Withdrawals(transport)

    def arguments(
        self, case: Case, handler: Handler, opened: Opened, inline: Any
    ) -> contextlib.AbstractAsyncContextManager[Any]:
        """What the handler is to be called with, verified to its end unless it takes a stream.

        Args:
            case: The attempt.
            handler: What it runs.
            opened: The job.
            inline: The arguments where they are not in parts.

        Raises:
            Hindered: It cannot be had.
        """
        if opened.payload is None:
            return contextlib.nullcontext(inline)
        return self._fetched(case, handler, opened.content, opened.payload)

    @contextlib.asynccontextmanager
    async def _fetched(self, case: Case, handler: Handler, content: Content, parts: PartOpener) -> AsyncIterator[Any]:
        async with contextlib.AsyncExitStack() as stack:
            case.payload = parts
            try:
                args = await self._fetch(case, handler, content, parts, stack)
            except BridgeError as error:
                raise _hindered(case, error) from None
            try:
                yield args
            except (Exception, SystemExit):
                _check_read(case)  # whatever the handler made of what it met amid its payload
                raise

    async def _fetch(
        self, case: Case, handler: Handler, content: Content, parts: PartOpener, stack: contextlib.AsyncExitStack
    ) -> Any:
        length = parts.manifest.content
        if length > case.settings.max_payload:  # its author's own settings may say anything
            raise PayloadTooLarge(
                f"arguments of {length} bytes; queue {case.queue} takes {case.settings.max_payload} (max_payload)"
            )
        fields = content.content_type == COMPOSITE
        if handler.isolation is None:
            check_type(content, handler.args, length)
        else:
            check_type(content, object)  # whatever it is, it is decoded there
        incoming = Incoming(self._transport, case.settings.home, case.key, parts)
        if handler.stream and not fields:
            return Payload.received(Once(_watched(incoming), length), content.content_type)
        if handler.args is not Payload and not fields and length > IN_MEMORY:
            raise PayloadTooLarge(
                f"arguments of {length} bytes, of which the handler wants all at once "
                f"(IN_MEMORY, {IN_MEMORY}); let it take a Payload"
            )
        place = self._place()
        try:
            spool = stack.enter_context(Spool(parts.manifest, place))
            stack.callback(_forget, case, spool)
            await incoming.fill(spool)
        except OSError as error:
            raise ConfigurationError(f"{place}: {error.strerror}; let {SPOOL} name a folder") from None
        return given(content, handler, Payload.received(Spooled(spool, parts), content.content_type))

    async def result(self, case: Case, value: object) -> Done:
        """What a handler returned as it is sent: inline, or stored in parts.

        Raises:
            Hindered: It cannot be written so that the producer reads the same, or is more than the queue takes; or it
                was made of arguments that could not be read to their end.
        """
        _check_read(case)
        try:
            packed = await pack(value)
        except InvalidArguments as error:
            raise Hindered(Reject(str(error), type="InvalidResult"), "InvalidResult") from None
        except UsageError as error:  # names a file of this machine
            _log.warning("result_unreadable", queue=case.queue, job=case.core.job, reason=str(error))
            told = words(error, case.settings.errors)
            raise Hindered(Reject(told, type="InvalidResult"), "InvalidResult") from None
        if isinstance(packed, Content):
            return Done(packed)
        limit = case.settings.max_payload
        now = now_ms()
        try:
            if (packed.length or 0) > limit:
                raise PayloadTooLarge(
                    f"a result of {packed.length} bytes; queue {case.queue} takes {limit} (max_payload)"
                )
            wrap = self._sealer.wrap((self._opener.trust.peer(case.core.sender).kem_key(now),), now)
            chunks, sealer = aiter(packed), PartSealer(wrap.secret, case.settings.packing)
            # Its slot must not go to the one queue whose producer fills the room there is.
            full = case.place.free
            manifest = await send(self._transport, case.key, chunks, sealer, self._withdrawals, limit=limit, full=full)
        except PayloadTooLarge as error:
            raise Hindered(Reject(str(error), type=type(error).__name__), type(error).__name__) from None
        except (TransportError, Refusal) as error:
            _check_read(case)  # an iterator reads them as it is read
            _log.warning("payload_not_stored", queue=case.queue, job=case.core.job, error=type(error).__name__)
            raise Hindered(Snooze(TROUBLE_DELAY_S), type(error).__name__) from None
        return Done(packed.content(), Sent(wrap, manifest))

    def withdraw(self, key: JobKey, manifest: Manifest) -> None:
        """Have the parts pass of a result that is not the one that stands."""
        self._withdrawals.start(key, manifest.transfer, manifest.messages)

    async def close(self) -> None:
        """Wait a little for what is being withdrawn."""
        await self._withdrawals.close()

    def _place(self) -> Path:
        """The folder of spools, made when it is needed, and swept of what is not."""
        folder = Path(os.environ.get(SPOOL) or Path(tempfile.gettempdir()) / f"bunny-spool-{os.getuid()}")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid != os.getuid():
                raise ConfigurationError(f"{folder}: another user's; let {SPOOL} name a folder of this one")
        except OSError as error:
            raise ConfigurationError(f"{folder}: {error.strerror}; let {SPOOL} name a folder") from None
        sweep(folder)
        return folder


def _forget(case: Case, spool: Spool) -> None:
    """Leave nothing of what no attempt goes on with: its job is cancelled, or has no second left."""
    if case.stop.reason is not None or case.core.expires <= now_ms() + 1_000:
        spool.close()


async def _watched(incoming: Incoming) -> AsyncIterator[bytes]:
    try:
        async for chunk in incoming.stream():
            yield chunk
    except BridgeError as error:
        incoming.opener.failed = error
        raise


def _check_read(case: Case) -> None:
    """Check that nothing kept a handler from reading its payload: what it does then is not its job's end.

    Raises:
        Hindered: Something did.
    """
    if case.payload is not None and case.payload.failed is not None:
        raise _hindered(case, case.payload.failed) from None


def _hindered(case: Case, error: BridgeError) -> Hindered:
    """What becomes of a job whose payload cannot be read."""
    name, log = type(error).__name__, _log.bind(queue=case.queue, job=case.core.job)
    match error:
        case InvalidArguments():
            return Hindered(Reject(str(error), type=name), name)
        case Refusal() | PartMissing() | PayloadTooLarge():
            log.error("payload_refused", error=name)
            return Hindered(Reject(str(error), type=name), name)
        case SpoolFull():
            log.error("spool_full", bytes=case.core.length)
            return Hindered(Snooze(FULL_DELAY_S), name)
        case TransportError():
            log.warning("payload_awaited", error=name)
            return Hindered(Snooze(TROUBLE_DELAY_S), name)
        case _:
            log.error("spool_unusable", error=str(error))
            return Hindered(Snooze(FULL_DELAY_S), name)


def given(content: Content, handler: Handler, whole: Payload | None = None) -> Any:
    """What a handler is called with.

    Args:
        content: What the job holds.
        handler: The handler.
        whole: Its payload in parts, where it has one.

    Raises:
        InvalidArguments: The content does not fit its annotation.
        BadPrelude: It speaks of other bytes than there are.
        PayloadTooLarge: It is longer than what is read into memory.
    """
    if handler.isolation is None:
        return unpack(content, handler.args, whole)
    check_type(content, object)  # in a process of its own they could not be read
    return content if whole is None else Content(content.content_type, whole.read())
