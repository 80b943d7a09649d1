"""What a result says that verified: opened, and then a value, or the error that it stands for."""

from __future__ import annotations

from typing import Any

from bridge.envelope import Authenticated, Opened, Opener
from bridge.errors import DeadlineExceeded, JobCancelled, JobFailed, PayloadTooLarge, Refusal, UsageError
from bridge.job import BYTES, JSON, Content, Failure, Status, decode
from bridge.segments import ENDED
from bridge.signals import NO_SPAN, Operation, about
from bridge.signals.traces import Tracer
from bridge.transfer.fields import unpack


def open_result(opener: Opener, tracer: Tracer, result: Authenticated, size: int) -> Opened:
    """Open a result, as part of the trace that it belongs to.

    Args:
        opener: Has this producer's keys.
        tracer: Where the span goes.
        result: What was authenticated.
        size: Bytes of the message.

    Raises:
        Refusal: It does not open.
    """
    core, span = result.core, NO_SPAN
    if core.traceparent is not None:
        seen = about(core.queue, core.kind, core.job, {"messaging.message.body.size": size})
        span = tracer.start(Operation.PROCESS, f"results.{core.queue}", seen, parent=core.traceparent)
    try:
        opened = opener.open(result)
    except Refusal as refusal:
        span.end(refusal.name)
        raise
    span.note({"bunny.status": str(opened.status), "bunny.attempt": core.attempt})
    span.end()
    return opened


def value_of(opened: Opened, type_: type[Any] | None) -> Any:
    """The value of a result that succeeded.

    Args:
        opened: The result.
        type_: What to decode it to; None leaves that to what was sent.

    Raises:
        JobFailed, JobCancelled, DeadlineExceeded: It did not succeed.
        InvalidArguments: It does not fit ``type_``.
        PayloadTooLarge: It is in parts, which are fetched first.
        UsageError: It has no value: its job streamed records.
    """
    match opened.status:
        case Status.SUCCEEDED if streamed(opened.content):
            raise UsageError(
                f"job {opened.core.job}: its handler yielded records, and returned no value; attach its token, and "
                "read them with records()"
            )
        case Status.SUCCEEDED if opened.payload is not None:
            raise PayloadTooLarge(
                f"job {opened.core.job}: a result of {opened.payload.manifest.content} bytes, in parts; take it as "
                "`await result.read()`"
            )
        case Status.SUCCEEDED:
            return unpack(opened.content, type_ if type_ is not None else natural(opened.content))
        case Status.CANCELLED:
            raise JobCancelled(decode(opened.content, str))
        case Status.EXPIRED:
            raise DeadlineExceeded(
                f"job {opened.core.job} on {opened.core.queue}: its deadline passed before it could run"
            )
        case _:
            failure = decode(opened.content, Failure)
            raise JobFailed(failure.type, failure.message, opened.core.attempt or 0)


def streamed(content: Content) -> bool:
    """Whether a result says no more than how the job's stream of records ended."""
    return content.content_type == ENDED


def natural(content: Content) -> type[Any]:
    """What a result is without a declared type: a JSON value, bytes, or content as it is."""
    return {JSON: object, BYTES: bytes}.get(content.content_type, Content)
