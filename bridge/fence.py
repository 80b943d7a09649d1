"""What counts as a worker's word about a job, for the producer that waits and the worker that must not run it twice.

No I/O.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from bridge.core import Core
from bridge.envelope import Authenticated, Opener
from bridge.errors import KeyConflict, NotAuthorised, WrongSubject
from bridge.subjects import JobKey

RESEND_HEADER: Final = "Bunny-Resend"
"""On a job that may have been stored before. A hint, never trusted: it only forces a look at the fence."""


class Tag(NamedTuple):
    """What makes a keyed job the same, whatever its bytes."""

    kind: str
    args_tag: bytes


def tag_of(core: Core) -> Tag | None:
    """That of a keyed job, or of its result; other jobs have none."""
    return Tag(core.kind, core.args_tag) if core.args_tag else None


class OtherBytes(WrongSubject):
    """The workers' word about the job, but not about the bytes whose digest is known."""

    @property
    def name(self) -> str:
        """That of what it is on the wire."""
        return WrongSubject.__name__


def authenticate_answer(
    opener: Opener,
    data: bytes,
    type: Literal["result", "start", "event", "segment"],
    key: JobKey,
    job_digest: bytes | None,
    workers: str,
    now: int,
    tag: Tag | None = None,
) -> Authenticated:
    """Check that ``data`` is what a queue's workers say about one job. Nothing is opened.

    Args:
        opener: Holds the trust bundle.
        data: What stands, or came, on a subject of the job.
        type: What must stand there.
        key: The job and generation that the subject names.
        job_digest: The job's digest: an answer to other bytes under the same id is no answer. None where nobody knows
            it: whatever job of that id was answered, the answer says which.
        workers: The principal that works the queue.
        now: Milliseconds UTC.
        tag: Of a keyed job, where it is known: a result may answer other bytes then, of the same kind and arguments.

    Raises:
        Refusal: It is not, and why; `OtherBytes` where nothing but the digest differs.
        KeyConflict: It is their word, about another job of the same key.
        BundleExpired: Nothing can be said about it.
    """
    answer = opener.authenticate(data, now)
    core = answer.core
    if core.type != type or core.key != key:
        raise WrongSubject(f"what stands as the {type} of a job is of another type, or speaks of another job")
    if core.sender != workers:
        raise NotAuthorised(f"a {type} is not signed by the queue's workers")
    if tag is not None and core.args_tag:
        if tag != (core.kind, core.args_tag):
            raise KeyConflict(f"job {core.job} on {core.queue}: its key was used before with another kind or arguments")
    elif job_digest is not None and core.job_digest != job_digest:
        if core.args_tag:  # and nothing is known of the job but its digest
            raise KeyConflict(
                f"job {core.job} on {core.queue}: its key was answered for another submit; submit it with its key again"
            )
        raise OtherBytes(f"a {type} speaks of other bytes than the job's")
    return answer
