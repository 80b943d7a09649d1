"""Keyed jobs: the same key and arguments are the same job, whichever of a producer's processes submits it, and when.

Nothing is remembered here. What was submitted is found where it lies: its result in the local copy of the fence, or
the job in its queue. Where neither is there yet, it is stored again, and the worker, who looks at the fence before any
keyed job, finds what stands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final
from weakref import WeakValueDictionary

from bridge import keyed, subjects
from bridge.clock import now_ms
from bridge.envelope import Opener
from bridge.errors import KeyConflict, PublishTimeout, Refusal, SubjectTaken, UsageError
from bridge.fence import Tag
from bridge.job import Content, JobToken, Kind
from bridge.subjects import JobKey
from bridge.transfer import Payload
from bridge.transport import Transport
from producers import generations
from producers.arrivals import Arrivals
from producers.handle import Handle
from producers.outbox import Outbox
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
    """

    def __init__(
        self,
        opener: Opener,
        transport: Transport,
        outbox: Outbox,
        arrivals: Arrivals,
        make: Make,
    ) -> None:
        identity = opener.ring.identity
        self._secret, self._producer = identity.dedup_secret, identity.name
        self._opener, self._transport = opener, transport
        self._outbox, self._arrivals, self._make = outbox, arrivals, make
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def submit(
        self, kind: Kind[Any, Any], args: object, key: str, terms: Terms, timeout: float, retry_failed: bool
    ) -> Handle[Any]:
        """The job of a key: found, or stored. See `producers.client.Producer.submit`."""
        give_up = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout(timeout + LATE_S) as limit:
                return await self._submit(kind, args, key, terms, give_up, retry_failed)
        except TimeoutError:
            if not limit.expired():
                raise
            raise PublishTimeout(
                f"a keyed job on {kind.queue}: no answer of the local server in {timeout:.1f} s; submit it again"
            ) from None

    async def _submit(
        self, kind: Kind[Any, Any], args: object, key: str, terms: Terms, give_up: float, retry_failed: bool
    ) -> Handle[Any]:
        if isinstance(args, Payload):
            raise UsageError("a keyed job's arguments travel inline, up to 256 KiB; submit it without a key")
        content = self._outbox.content(args, kind)
        wanted = self._wanted(kind, key, content, terms)
        # One at a time, so that two of this process are not both the first.
        async with self._locks.setdefault(wanted.job.session, asyncio.Lock()):
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
            return await self._kept(wanted, kind) or await self._store(wanted, kind, content, terms, give_up)

    def _wanted(self, kind: Kind[Any, Any], key: str, content: Content, terms: Terms) -> Keyed:
        if terms.priority != "normal" or terms.delay is not None or terms.at is not None:
            raise UsageError("a keyed job has priority normal and no time; leave priority, delay and at out")
        session = keyed.session(self._secret, self._producer, kind.queue, key)
        tag = Tag(kind.name, keyed.args_tag(self._secret, content))
        return Keyed(JobKey(kind.queue, self._producer, session, 0), tag, key)

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

    async def _store(
        self, wanted: Keyed, kind: Kind[Any, Any], content: Content, terms: Terms, give_up: float
    ) -> Handle[Any]:
        clock = asyncio.get_running_loop().time
        while True:
            parcel = await self._outbox.seal_one(kind, content, terms, wanted)
            core = parcel.sealed.core
            token = JobToken(*core.key, parcel.sealed.digest.hex())
            handle = self._make(token, core.expires - now_ms(), kind.result, wanted)
            handle.stored_at = handle.asked_at
            self._arrivals.expect(handle)  # before it is sent: the answer may be faster than the PubAck
            try:
                await self._outbox.store(parcel, max(give_up - clock(), 0.0))
            except SubjectTaken:
                pass
            else:
                return handle
            found = await self._stored(wanted, kind)
            if found is not None and found.token == handle.token:
                await self._outbox.found(parcel)  # its PubAck was lost
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


def _raise_conflict(handle: Handle[Any]) -> None:
    if isinstance(handle.error, KeyConflict):
        raise handle.error
