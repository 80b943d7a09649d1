"""Logs: events with named fields, of which only known ones with values of a known shape are written.

The last step before the renderer is an allow-list, so that a payload, a key or an argument of a job has no way into
a log, whatever a caller passes by mistake: an event is a word and not a sentence, a field that is not listed here is
dropped and counted, a value of another shape is replaced, and of an exception its class and the places it passed
are written, but neither its message (unless it is one of ours) nor any variable.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor

from bridge.errors import BridgeError, ConfigurationError, JobError

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
MAX_TEXT: Final = 200
"""Characters of one value."""

MAX_FRAMES: Final = 12
"""Places of a traceback, the innermost last."""

_EVENT: Final = re.compile(r"[a-z][a-z0-9_]{0,59}")
_LIBRARIES: Final = ("nats", "asyncio")
_NOISE: Final = "returning true from eof_received() has no effect when using ssl"
"""What asyncio says whenever nats-py closes a TLS connection."""


def _matches(pattern: str) -> Callable[[object], bool]:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


_name = _matches(r"[A-Za-z0-9_-]{1,80}")
_words = _matches(r"[ -~]{0,200}")
_class = _matches(r"[A-Za-z_][A-Za-z0-9_]{0,80}")
_hex = _matches(r"[0-9a-f]{1,64}")
_address = _matches(r"[a-z]+://[A-Za-z0-9.:,/\[\]-]{1,200}")

FIELDS: Final[Mapping[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("queue", "kind", "priority", "stream", "consumer", "pool", "schedule"), _name),
    **dict.fromkeys(("producer", "worker", "identity", "cloud", "role", "connection"), _name),
    **dict.fromkeys(("action", "signal", "status", "outcome", "verdict", "refusal"), _name),
    **dict.fromkeys(("error", "cause"), _class),
    **dict.fromkeys(("digest", "kid"), _hex),
    **dict.fromkeys(("attempt", "delivered", "generation", "count", "bytes", "seconds"), _is_number),
    **dict.fromkeys(("version", "pid", "port", "concurrency", "limit", "expires", "dropped"), _is_number),
    "job": _matches(r"[0-9a-f]{24}\.[0-9]{1,16}"),
    "subject": _matches(r"[A-Za-z0-9_.$*>-]{1,200}"),
    "tick": _matches(r"[0-9T:.-]{19,30}Z"),
    "server": _address,
    "traceparent": _matches(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
    "where": _matches(r"[A-Za-z0-9_]{1,80}\.py:[0-9]{1,6}"),
    "reason": _words,  # for words of our own, of the operating system and of TLS alone
    "logger": _matches(r"[A-Za-z0-9_.]{1,80}"),
    "level": _name,
    "timestamp": _words,
}
"""Every field that may be written, and the shape its value must have."""


def configure(*, json: bool | None = None, level: str = "info") -> None:
    """Set up logging for this process; for programs, not for libraries. Logs go to standard error.

    Args:
        json: One JSON object to a line, or text for people; None is JSON unless standard error is a terminal.
        level: The least level written, one of `LEVELS`.

    Raises:
        ConfigurationError: There is no such level.
    """
    if level not in LEVELS:
        raise ConfigurationError(f"log level {level[:20]!r}: not one of {', '.join(LEVELS)}")
    number = logging.getLevelNamesMapping()[level.upper()]
    _to_stderr(json, number)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers = [_FromLibrary()]
        library.propagate = False
        library.setLevel(max(number, logging.INFO))


def quiet() -> None:
    """For a producer in somebody's program: warnings alone, and on standard error, unless logging was set up there.

    structlog's own default would write everything to standard output, unfiltered. The program's loggers stay as they
    are, but for one line of asyncio's that tells nothing.
    """
    logging.getLogger("asyncio").addFilter(_tells)
    if not structlog.is_configured():
        _to_stderr(None, logging.INFO, _warnings_alone)


def _to_stderr(json: bool | None, number: int, *first: Processor) -> None:
    as_json = not sys.stderr.isatty() if json is None else json
    renderer: Processor = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            *first,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            allow_list,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),  # as it is now: tests and shells replace it
        cache_logger_on_first_use=False,
    )


def _warnings_alone(_: object, method: str, event: EventDict) -> EventDict:
    if method in ("debug", "info"):
        raise structlog.DropEvent
    return event


def _tells(record: logging.LogRecord) -> bool:
    return record.msg != _NOISE


def allow_list(_: object, __: str, event: EventDict) -> EventDict:
    """Keep what is listed in `FIELDS` and has its shape. A processor of structlog, the last before the renderer."""
    name = event.pop("event", None)
    error = _exception(event.pop("exc_info", None))
    if error is not None:
        event.update(_described(error))
    kept: dict[str, Any] = {"event": name if isinstance(name, str) and _EVENT.fullmatch(name) else "unnamed_event"}
    dropped = 0
    for field, value in event.items():
        shape = FIELDS.get(field)
        if shape is None:
            dropped += 1
        elif value is not None:
            plain = _one_line(value) if shape is _words and isinstance(value, str) else value
            kept[field] = plain if shape(plain) else f"<{type(value).__name__}>"
    if error is not None:
        kept["frames"] = _frames(error)
    if dropped:
        kept["dropped"] = dropped
    return kept


def _exception(given: object) -> BaseException | None:
    found = sys.exc_info()[1] if given is True else given[1] if isinstance(given, tuple) else given
    return found if isinstance(found, BaseException) else None


def _described(error: BaseException) -> dict[str, str]:
    """Its class; its words only if they are ours.

    The text of a foreign exception may quote what it was given, and that of a `JobError` is the other side's.
    """
    told = {"error": type(error).__name__}
    if isinstance(error, BridgeError) and not isinstance(error, JobError):
        told["reason"] = str(error)
    inner = error.__cause__ or error.__context__
    if inner is not None:
        told["cause"] = type(inner).__name__
    return told


def _frames(error: BaseException) -> list[str]:
    passed = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return [f"{Path(code.co_filename).name}:{line} {code.co_name}" for code, line in passed[-MAX_FRAMES:]]


def _one_line(text: str) -> str:
    return re.sub(r"[^ -~]", "?", text)[:MAX_TEXT]


class _FromLibrary(logging.Handler):
    """Brings records of nats-py and asyncio into our form: their place and exception, never their text.

    A record's text may hold anything: asyncio prints the arguments of a callback, nats-py's messages hold payloads.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if not _tells(record):
            return
        log = structlog.get_logger()
        where = f"{record.filename}:{record.lineno}"
        log.log(record.levelno, "library_message", logger=record.name, where=where, exc_info=record.exc_info)
