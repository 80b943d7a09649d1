"""What counts as a job's answer, for the producer that waits and the worker that must not run it twice. No I/O."""

from __future__ import annotations

from typing import Final

from bridge.envelope import Authenticated, Opener
from bridge.errors import NotAuthorised, WrongSubject
from bridge.subjects import JobKey

RESEND_HEADER: Final = "Bunny-Resend"
"""On a job that may have been stored before. A hint, never trusted: it only forces a look at the fence."""


def authenticate_result(
    opener: Opener, data: bytes, key: JobKey, job_digest: bytes, workers: str, now_ms: int
) -> Authenticated:
    """Check that ``data`` is the answer of a queue's workers to one job. Nothing is opened.

    Args:
        opener: Holds the trust bundle.
        data: What stands, or came, on the result's subject.
        key: What that subject names.
        job_digest: The job's digest: an answer to other bytes under the same id is no answer.
        workers: The principal that works the queue.
        now_ms: Milliseconds UTC.

    Raises:
        Refusal: It is not, and why.
        BundleExpired: Nothing can be said about it.
    """
    result = opener.authenticate(data, now_ms)
    core = result.core
    if core.type != "result" or core.key != key:
        raise WrongSubject("what stands as a result speaks of another job")
    if core.job_digest != job_digest:
        raise WrongSubject("a result answers other bytes than the job's")
    if core.sender != workers:
        raise NotAuthorised("a result is not signed by the queue's workers")
    return result
