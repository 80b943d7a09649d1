"""What can be said of a job by its producer: only what is signed by someone the trust bundle knows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from bridge import subjects
from bridge.cli.out import moment
from bridge.cli.who import connect_soon
from bridge.clock import now_ms
from bridge.envelope import Opened, Opener
from bridge.errors import ConfigurationError, FencePoisoned, Refusal, UsageError, WrongSubject
from bridge.fence import Tag, authenticate_answer, tag_of
from bridge.job import Failure, JobToken, Status, decode
from bridge.member import Member
from bridge.subjects import PRIORITIES, JobKey
from bridge.transport import Message, Transport
from producers import generations


@dataclass(frozen=True, slots=True)
class State:
    """A job's state; what is not known is None. Times are ISO 8601, UTC."""

    token: JobToken
    state: str
    """``queued``, ``succeeded``, ``failed``, ``expired``, ``cancelled`` or ``unknown``."""
    kind: str | None = None
    submitted: str | None = None
    deadline: str | None = None
    worker: str | None = None
    attempt: int | None = None
    answered: str | None = None
    content_type: str | None = None
    size: int | None = None
    error: str | None = None
    reason: str | None = None
    """Of a cancel."""


async def look(folder: Path, token: JobToken, generation: int | None = None) -> State:
    """Look for a job's result, then for the job itself.

    Args:
        folder: The producer's identity folder.
        token: Of the job.
        generation: Which run; by default the newest that was answered, unless the token's succeeded.

    Raises:
        FencePoisoned: A result stands that does not verify.
        UsageError: What is stored under the job's name is not what the token speaks of.
        TransportError: The server does not answer.
    """
    member = Member.load(folder)
    if token.producer != member.identity.name:
        raise UsageError(f"the token is of a job of {token.producer}, not of {member.identity.name}")
    settings = member.connection.queues.get(token.queue)
    if settings is None:
        raise ConfigurationError(f"{token.producer} has no queue {token.queue!r}; render and deliver it again")
    if generation is not None:
        token = token._replace(generation=generation)
    opener = Opener(member.identity, member.trust)
    async with await connect_soon(member.connection, member.identity.nkey_seed, folder, "bunny") as transport:
        # The job first: should it be done between the two, its result is seen.
        stored = await _stored(transport, token.key)
        newest = token.generation
        if generation is None and stored is None:
            newest = await generations.newest(transport, token.key)
        result = None
        try:
            result = await _answer(transport, opener, token, settings.workers)
        except FencePoisoned:
            if newest == token.generation:
                raise
        if newest > token.generation:
            tag = tag_of(result.core) if result is not None else None
            token = token._replace(generation=newest)
            result = await _answer(transport, opener, token, settings.workers, tag)
    if result is not None:
        return _ended(token, result)
    return State(token, "unknown") if stored is None else _queued(token, opener, stored.data)


async def _answer(
    transport: Transport, opener: Opener, token: JobToken, workers: str, tag: Tag | None = None
) -> Opened | None:
    """The result that stands for a job."""
    key, digest = token.key, bytes.fromhex(token.digest)
    standing = await transport.lookup(subjects.results_stream(key.queue), subjects.result(key))
    if standing is None:
        return None
    try:
        return opener.open(authenticate_answer(opener, standing.data, "result", key, digest, workers, now_ms(), tag))
    except Refusal as refusal:
        raise FencePoisoned(
            f"job {key.job_id} on {key.queue}: a result stands that does not verify ({refusal.name})"
        ) from None


async def _stored(transport: Transport, key: JobKey) -> Message | None:
    """The job, wherever it waits: its token does not say."""
    places = [(subjects.jobs_stream(key.queue), subjects.job(key, priority)) for priority in PRIORITIES]
    places.append((subjects.delayed_stream(key.queue), subjects.delayed(key)))
    found = await asyncio.gather(*(transport.lookup(*place) for place in places))
    return next(filter(None, found), None)


def _queued(token: JobToken, opener: Opener, data: bytes) -> State:
    try:
        job = opener.authenticate(data, now_ms())
        if job.core.key != token.key or job.digest.hex() != token.digest:
            raise WrongSubject("another job is stored under its name")
    except Refusal as refusal:
        raise UsageError(
            f"job {token.key.job_id} on {token.queue}: what is stored is not what the token speaks of ({refusal.name})"
        ) from None
    return State(token, "queued", kind=job.core.kind, submitted=_iso(job.core.issued), deadline=_iso(job.core.expires))


def _ended(token: JobToken, result: Opened) -> State:
    error = reason = None
    if result.status is Status.FAILED:
        failure = decode(result.content, Failure)
        error = f"{failure.type}: {failure.message}"
    elif result.status is Status.CANCELLED:
        reason = decode(result.content, str)
    told = error is None and reason is None
    core = result.core
    return State(
        token,
        str(result.status),
        kind=core.kind,
        worker=core.worker,
        attempt=core.attempt,
        answered=_iso(core.issued),
        content_type=result.content.content_type if told else None,
        size=len(result.content.body) if told else None,
        error=error,
        reason=reason,
    )


def _iso(milliseconds: int) -> str:
    return moment(milliseconds).isoformat(timespec="milliseconds")
