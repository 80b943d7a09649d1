"""Spans: where a job's path through both clouds is told, to nobody unless something is listening. No I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import Enum
from types import MappingProxyType
from typing import Final, TypeAlias

Attribute: TypeAlias = str | int | float | bool


class Operation(Enum):
    """What is done with a message, as the messaging conventions of OpenTelemetry name it."""

    SEND = "send"
    RECEIVE = "receive"
    PROCESS = "process"
    SETTLE = "settle"


class Span:
    """A span that nobody records."""

    traceparent: str | None = None
    """What a child elsewhere names as its parent; None where nothing is traced."""

    def note(self, attributes: Mapping[str, Attribute]) -> None:
        """Add attributes."""

    def current(self) -> AbstractContextManager[object]:
        """Make it the parent of what the block does."""
        return contextlib.nullcontext()

    def end(self, error: str = "") -> None:
        """End it.

        Args:
            error: The name of what went wrong; never a text.
        """


NO_SPAN: Final = Span()


class Tracer:
    """Starts spans that nobody records."""

    def start(
        self,
        operation: Operation,
        destination: str,
        attributes: Mapping[str, Attribute],
        *,
        parent: Span | str | None = None,
        start_ms: int | None = None,
    ) -> Span:
        """Start a span.

        Args:
            operation: What is done.
            destination: Where to or from, without what differs for each message: ``jobs.thumbnails``.
            attributes: What else is known.
            parent: A span of this process, or the ``traceparent`` of one elsewhere; None takes the current one.
            start_ms: When it started, in milliseconds UTC, if not now.
        """
        return NO_SPAN


NO_TRACER: Final = Tracer()


def about(
    queue: str, kind: str, job: str, more: Mapping[str, Attribute] = MappingProxyType({})
) -> Mapping[str, Attribute]:
    """The attributes that every span of a job has, and ``more``."""
    return {"bunny.queue": queue, "bunny.kind": kind, "messaging.message.id": job, **more}
