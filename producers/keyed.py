"""Keyed jobs: the same key and arguments are the same job, whichever of a producer's processes submits it, and when.

Nothing is remembered here. What was submitted is found where it lies: its result in the local copy of the fence, or
the job in its queue. Where neither is there yet, it is stored again, and the worker, who looks at the fence before any
keyed job, finds what stands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

from bridge import keyed, subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Opener
from bridge.errors import KeyConflict, PublishTimeout, Refusal, SubjectTaken, UsageError
from bridge.fence import Tag
from bridge.job import Content, JobToken, Kind
from bridge.subjects import JobKey
from bridge.transfer.fields import Large
from bridge.transfer.outgoing import Told
from bridge.transport import Transport
from producers import generations
from producers.arrivals import Arrivals
from producers.handle import Handle
from producers.outbox import Outbox, Parcel
from producers.terms import Terms

PAUSE_S: Final = 0.25
"""Before looking again at a key whose job was there a moment ago, and now is neither stored nor answered."""

LATE_S: Final = 0.5
"""After which looking ends that should have ended by itself."""

_NO_DIGEST: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Keyed:
    """A key as subjects and cores have it."""

    job: JobKey
    tag: Tag
    key: str = field(default="", repr=False)
    """Empty where it is not known: a token does not hold it."""

    def again(self, generation: int) -> Keyed:
        """Another run of it."""
        return replace(self, job=self.job._replace(generation=generation))

    def conflict(self) -> KeyConflict:
        """What to tell whoever submits it."""
        return KeyConflict(
            f"key {self.key[:80]!r} on queue {self.job.queue}: used before for another kind of job or other arguments; "
            "take another key"
        )


@dataclass(slots=True)
class _Making:
    """How the job of a key is made where there is none, and what came of it."""

    seal: Callable[[Keyed], Awaitable[Parcel]]
    sent: bool = False
    """Whether one may be stored that was made so."""
    stored: Core | None = None
    """The one that is."""


Make = Callable[[JobToken, int, type[Any] | None, Keyed], Handle[Any]]
"""Makes a handle: token, lifetime in milliseconds, the result's type, and the key."""


class Keys:
    """The keyed jobs of one producer.

    Args:
        opener: Holds the producer's keys, and verifies what is stored.
        transport: The producer's local broker.
        outbox: Seals and stores.
        arrivals: Settles handles.
        make: Makes them.
        sent: Told of a job with parts that is stored.
    """

    def __init__(
        self,
        opener: Opener,
        transport: Transport,
        outbox: Outbox,
        arrivals: Arrivals,
        make: Make,
        sent: Callable[[Handle[Any], Core], None],
    ) -> None:
        identity = opener.ring.identity
        self._secret, self._producer = identity.dedup_secret, identity.name
        self._opener, self._transport = opener, transport
        self._outbox, self._arrivals, self._make, self._sent = outbox, arrivals, make, sent
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def submit(
        self,
        kind: Kind[Any, Any],
        args: Content | Large,
        key: str,
        terms: Terms,
        timeout: float,
        retry_failed: bool,
        told: Told | None = None,
    ) -> Handle[Any]:
        """The job of a key: found, or stored. See `producers.client.Producer.submit`."""
        if terms.priority != "normal" or terms.delay is not None or terms.at is not None:
            raise UsageError("a keyed job has priority normal and no time; leave priority, delay and at out")
        job = JobKey(kind.queue, self._producer, keyed.session(self._secret, self._producer, kind.queue, key), 0)
        self._outbox.check(kind, args)
        if isinstance(args, Large):
            return await self._submit_large(kind, args, job, key, terms, timeout, retry_failed, told)
        wanted = Keyed(job, Tag(kind.name, keyed.args_tag(self._secret, args)), key)
        making = _Making(partial(self._outbox.seal_one, kind, args, terms))
        return await self._find_or_store(wanted, kind, making, timeout, retry_failed)

    async def _submit_large(
        self,
        kind: Kind[Any, Any],
        large: Large,
        job: JobKey,
        key: str,
        terms: Terms,
        timeout: float,
        retry_failed: bool,
        told: Told | None,
    ) -> Handle[Any]:
        """As `submit`, of arguments in parts. What can be read but once is stored before it is known what it is."""
        tag = b""
        if large.again:
            async for _ in large:
                await asyncio.sleep(0)  # what is in memory is hashed without a pause
            tag = large.tag(self._secret)
            found = await self._find(Keyed(job, Tag(kind.name, tag), key), kind, timeout, retry_failed)
            if found is not None:
                return found
        upload = await self._outbox.upload(kind, large, terms, told, job)
        making = _Making(partial(self._outbox.seal_upload, kind, upload, terms))
        try:
            wanted = Keyed(job, Tag(kind.name, large.tag(self._secret)), key)
            if tag and tag != wanted.tag.args_tag:
                raise UsageError("arguments of a keyed job that changed while they were read; submit them again")
            handle = await self._find_or_store(wanted, kind, making, timeout, retry_failed)
        except BaseException as error:
            if not making.sent or isinstance(error, UsageError):
                self._outbox.withdraw(upload)
            raise
        if making.stored is None:  # another's of the same arguments was there before
            self._outbox.withdraw(upload)
        else:
            self._sent(handle, making.stored)
        return handle

    async def _find(
        self, wanted: Keyed, kind: Kind[Any, Any], timeout: float, retry_failed: bool
    ) -> Handle[Any] | None:
        """The job of a key where it is known, answered or stored."""
        async with _in_time(kind, timeout), self._lock(wanted):
            found = await self._known(wanted, kind, retry_failed)
            if isinstance(found, Handle):
                return found
            stored = await self._stored(found, kind)
            if stored is None or stored.key != found.job:
                return None
            self._arrivals.expect(stored)
            return stored

    async def _find_or_store(
        self, wanted: Keyed, kind: Kind[Any, Any], making: _Making, timeout: float, retry_failed: bool
    ) -> Handle[Any]:
        give_up = asyncio.get_running_loop().time() + timeout
        async with _in_time(kind, timeout), self._lock(wanted):
            found = await self._known(wanted, kind, retry_failed)
            if isinstance(found, Handle):
                return found
            return await self._store(found, kind, making, give_up)

    def _lock(self, wanted: Keyed) -> asyncio.Lock:
        """One at a time, so that two of this process are not both the first."""
        return self._locks.setdefault(wanted.job.session, asyncio.Lock())

    async def _known(self, wanted: Keyed, kind: Kind[Any, Any], retry_failed: bool) -> Handle[Any] | Keyed:
        """A handle to what is answered or was sent by this process, or else which run of the key is to be stored."""
        open_handle = self._open(wanted)
        if open_handle is not None:
            return open_handle
        handle = await self._answered(wanted, kind)
        if handle is not None:
            if handle.succeeded() or not retry_failed:
                return handle
            wanted = wanted.again(handle.key.generation + 1)
            open_handle = self._open(wanted)
            if open_handle is not None:
                return open_handle
        return await self._kept(wanted, kind) or wanted

    def _open(self, wanted: Keyed) -> Handle[Any] | None:
        """The handle that this process has open for it."""
        known = self._arrivals.get(wanted.job)
        if known is None or known.keyed is None:
            return None
        if known.keyed.tag != wanted.tag:
            raise wanted.conflict()
        return known

    async def _kept(self, wanted: Keyed, kind: Kind[Any, Any]) -> Handle[Any] | None:
        """A handle to what was sent under the key before, and is sent again in case it is stored no more."""
        copy = self._outbox.kept(wanted.job)
        if copy is None or not copy.stored or copy.expires <= now_ms():
            return None
        if copy.tag != wanted.tag:
            raise wanted.conflict()
        handle = self._make(copy.token, copy.expires - now_ms(), kind.result, wanted)
        self._arrivals.expect(handle)
        await self._outbox.send_again(copy)
        return handle

    async def _answered(self, wanted: Keyed, kind: Kind[Any, Any]) -> Handle[Any] | None:
        """A handle that is done, of the newest run that was answered."""
        handle = await self._result(wanted, kind)
        if handle is not None and not handle.succeeded():
            newest = await generations.newest(self._transport, wanted.job)
            if newest > wanted.job.generation:
                handle = await self._result(wanted.again(newest), kind) or handle
        return handle

    async def _result(self, wanted: Keyed, kind: Kind[Any, Any]) -> Handle[Any] | None:
        stream, subject = subjects.results_stream(kind.queue), subjects.result(wanted.job)
        message = await self._transport.lookup(stream, subject)
        if message is None:
            return None
        digest = _NO_DIGEST  # of what is no result: then the handle says so
        with contextlib.suppress(Refusal):
            digest = self._opener.authenticate(message.data, now_ms()).core.job_digest or digest
        handle = self._make(JobToken(*wanted.job, digest.hex()), 0, kind.result, wanted)
        await self._arrivals.ask(handle)
        _raise_conflict(handle)
        return handle if handle.done() else None

    async def _store(self, wanted: Keyed, kind: Kind[Any, Any], making: _Making, give_up: float) -> Handle[Any]:
        clock = asyncio.get_running_loop().time
        while True:
            parcel = await making.seal(wanted)
            core = parcel.sealed.core
            token = JobToken(*core.key, parcel.sealed.digest.hex())
            handle = self._make(token, core.expires - now_ms(), kind.result, wanted)
            handle.stored_at = handle.asked_at
            self._arrivals.expect(handle)  # before it is sent: the answer may be faster than the PubAck
            making.sent = True
            try:
                await self._outbox.store(parcel, max(give_up - clock(), 0.0))
            except SubjectTaken:
                pass
            else:
                making.stored = core
                return handle
            found = await self._stored(wanted, kind)
            if found is not None and found.token == handle.token:
                await self._outbox.found(parcel)  # its PubAck was lost
                making.stored = core
                return handle
            if found is not None and found.key == wanted.job:
                self._arrivals.expect(found)
                return found
            # It was there: done meanwhile, or about to be removed, as one that was answered before.
            await self._arrivals.ask(handle)
            _raise_conflict(handle)
            if handle.done():
                return handle
            if clock() + PAUSE_S >= give_up:
                raise PublishTimeout(
                    f"job {wanted.job.job_id} on {kind.queue}: not known to be stored; submit it again"
                )
            await asyncio.sleep(PAUSE_S)

    async def _stored(self, wanted: Keyed, kind: Kind[Any, Any]) -> Handle[Any] | None:
        """A handle to the job that is stored under the key, of whatever generation."""
        stream, subject = subjects.jobs_stream(kind.queue), subjects.job(wanted.job, "normal")
        message = await self._transport.lookup(stream, subject)
        if message is None:
            return None
        try:
            job = self._opener.authenticate(message.data, now_ms())
        except Refusal:
            return None  # rubbish, which the worker takes away
        core = job.core
        if core.type != "job" or core.key._replace(generation=0) != wanted.job._replace(generation=0):
            return None
        if Tag(core.kind, core.args_tag) != wanted.tag:
            raise wanted.conflict()
        token = JobToken(*core.key, job.digest.hex())
        return self._make(token, core.expires - now_ms(), kind.result, wanted.again(core.generation))


@contextlib.asynccontextmanager
async def _in_time(kind: Kind[Any, Any], timeout: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout + LATE_S) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise PublishTimeout(
            f"a keyed job on {kind.queue}: no answer of the local server in {timeout:.1f} s; submit it again"
        ) from None


def _raise_conflict(handle: Handle[Any]) -> None:
    if isinstance(handle.error, KeyConflict):
        raise handle.error
