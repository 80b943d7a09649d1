"""Spans for OpenTelemetry. Imported only where traces are asked for: it needs the extra ``tracing``.

It follows the semantic conventions for messaging. They ask for a parent only where one message is processed at a time,
which is so here: a span that sends a job is the parent of those that receive and process it, in the other cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Final

from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TracerProvider

from bridge.signals.traces import Attribute, Operation, Span, Tracer

_KINDS: Final = {
    Operation.SEND: SpanKind.PRODUCER,
    Operation.RECEIVE: SpanKind.CLIENT,
    Operation.PROCESS: SpanKind.CONSUMER,
    Operation.SETTLE: SpanKind.CLIENT,
}


class OtelTracer(Tracer):
    """Starts spans with a provider; None is the global one, as the program has configured it."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("bunny-bridge", tracer_provider=provider)

    def start(
        self,
        operation: Operation,
        destination: str,
        attributes: Mapping[str, Attribute],
        *,
        parent: Span | str | None = None,
        start_ms: int | None = None,
    ) -> Span:
        """See `Tracer.start`."""
        return _OtelSpan(
            self._tracer.start_span(
                f"{operation.value} {destination}",
                context=_context(parent),
                kind=_KINDS[operation],
                attributes={
                    "messaging.system": "nats",
                    "messaging.operation.name": operation.value,
                    "messaging.operation.type": operation.value,
                    "messaging.destination.template": destination,
                    **attributes,
                },
                start_time=None if start_ms is None else start_ms * 1_000_000,
            )
        )


class _OtelSpan(Span):
    def __init__(self, span: trace.Span) -> None:
        self.span = span
        told = span.get_span_context()
        if told.is_valid:  # not so where no SDK is configured
            self.traceparent = f"00-{told.trace_id:032x}-{told.span_id:016x}-{told.trace_flags:02x}"

    def note(self, attributes: Mapping[str, Attribute]) -> None:
        self.span.set_attributes(attributes)

    def current(self) -> AbstractContextManager[object]:
        # What a handler raises may quote its arguments, so no exception is recorded: `end` names it.
        return trace.use_span(self.span, end_on_exit=False, record_exception=False, set_status_on_exception=False)

    def end(self, error: str = "") -> None:
        if error:
            self.span.set_attribute("error.type", error)
            self.span.set_status(Status(StatusCode.ERROR))
        self.span.end()


def _context(parent: Span | str | None) -> context.Context | None:
    if parent is None:
        return None
    if isinstance(parent, _OtelSpan):
        return trace.set_span_in_context(parent.span)
    if isinstance(parent, Span):
        return context.Context()
    _, trace_id, span_id, flags = parent.split("-")  # the core's reader has checked it
    told = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
    # On an empty context: what happens to be current here has nothing to do with the other cloud's span.
    return trace.set_span_in_context(NonRecordingSpan(told), context.Context())
