"""What a job is made of: typed contracts, their encoding, how a job ended, and a handle's token. No I/O.

Arguments and results are pydantic models, dataclasses, JSON values or bytes with a content type. They are
read in pydantic's strict JSON mode, so that ``"1"`` is never taken for ``1``. Nothing is ever unpickled, and
no error holds any of the input: arguments are another team's secret, and errors end up in logs.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, Generic, Literal, NamedTuple, NoReturn, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from bridge import subjects
from bridge.errors import ConfigurationError, InvalidArguments, UsageError
from bridge.values import value

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")

INLINE_LIMIT: Final = 262_144
"""The largest arguments or result that travel inside their message, in bytes before sealing."""

MAX_REASON_CHARS: Final = 200
"""Of the reason of a cancel: a sentence. Every worker of the queue remembers it."""
MAX_STEP_CHARS: Final = 200
"""Of the text of a progress report."""

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}(;[ -~]{1,127})?")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SHOWN: Final = 5
"""How many errors a message names before it says how many more there are."""
_DEPTH: Final = 200
"""Nesting at which pydantic's JSON parser gives up: what is deeper is refused where it is made."""


class Status(StrEnum):
    """How a job ended, as its signed result says."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


Errors = Literal["type", "message", "traceback"]
"""What a queue's producers are told of an exception: the name of its class, its message too, or its traceback."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed result holds: the worker's words, sealed to the producer."""

    type: str
    """The name of the exception."""
    message: str = field(repr=False)
    """As the queue's policy has it; empty where that tells the type alone."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an event holds: how far a job is, in its worker's words."""

    fraction: float
    """From 0 to 1."""
    text: str = field(repr=False)


CANARY: Final = "bunny-canary"
"""The kind of the jobs by which agents prove the way of a queue: no policy may declare it, and no handler take it."""
CANARY_PRIORITY: Final = "high"
"""Of all of them: they tell of the way, and not of the backlog; and agents publish nothing else of it."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[A, R]):
    """A typed contract that both teams share: what a kind of job takes and what it returns.

    Raises:
        ConfigurationError: The queue or the kind has a name that NATS cannot carry.
    """

    queue: str
    name: str
    args: type[A]
    result: type[R]

    def __post_init__(self) -> None:
        for what, text in (("queue", self.queue), ("kind", self.name)):
            if not subjects.is_name(text):
                raise ConfigurationError(f"Kind: {text!r} cannot name a {what}; use at most 63 of a-z, 0-9, - and _")


@value(frozen=True, slots=True)
class Content:
    """Bytes and what they are: XML, Protobuf or anything else travels as this."""

    content_type: str
    body: bytes = field(repr=False)  # never in a log


class JobToken(NamedTuple):
    """What a handle is re-attached by: the job's key and the digest of its sealed envelope."""

    queue: str
    producer: str
    session: str
    n: int
    generation: int
    digest: str
    """64 lowercase hex digits."""

    @property
    def key(self) -> subjects.JobKey:
        """The variable tokens of the job's subjects."""
        return subjects.JobKey(self.queue, self.producer, self.session, self.n, self.generation)

    def __str__(self) -> str:
        return ".".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> JobToken:
        """Read what ``str`` wrote; anything else is refused.

        Raises:
            UsageError: It is not a token.
        """
        match text.split("."):
            case [queue, producer, session, n, generation, digest] if (
                subjects.is_name(queue)
                and subjects.is_name(producer)
                and subjects.SESSION.fullmatch(session)
                and _DIGEST.fullmatch(digest)
            ):
                number, replay = subjects.parse_decimal(n), subjects.parse_decimal(generation)
                if number is not None and replay is not None:
                    return cls(queue, producer, session, number, replay, digest)
        raise UsageError("not a job token; it reads queue.producer.session.n.generation.digest, as `submit` gave it")


# --- encoding --------------------------------------------------------------------------------------


def encode(value: object, context: object = None) -> Content:
    """Turn arguments or a result into content.

    Args:
        value: A pydantic model, a dataclass, a JSON value, bytes, or content as it is.
        context: For the fields whose types say how they are written.

    Raises:
        InvalidArguments: It cannot be written so that the other side reads the same.
    """
    if isinstance(value, Content):
        if not _MEDIA_TYPE.fullmatch(value.content_type):
            raise InvalidArguments("the content type is not a lower-case media type such as application/xml")
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return Content(BYTES, bytes(value))
    name = type(value).__name__
    try:
        # Aliases are what the JSON Schema shows the other team, and what validation reads back.
        adapter = _adapter(type(value) if _is_declared(value) else Any)
        body = adapter.serializer.to_json(value, by_alias=True, round_trip=True, warnings="error", context=context)
        _check_written(adapter, value, body, context)
    except Exception:  # a serializer may be the user's own; its error, like pydantic's, may quote the value
        body = None
    if body is None:  # outside the handler, so that no cause with the value in it is chained
        raise InvalidArguments(
            f"{name} cannot be written as JSON: a field does not fit its type, or holds NaN, bytes that are not "
            f"UTF-8, nesting deeper than {_DEPTH}, or an object that is no model, dataclass or JSON value "
            "(a payload stands in a field that is declared as Payload)"
        )
    return Content(JSON, body)


def decode(content: Content, type_: type[T], context: object = None) -> T:
    """Turn content into a value of a declared type.

    Args:
        content: What arrived.
        type_: A pydantic model, dataclass or any type that pydantic validates; ``bytes`` takes the body of
            any content type, `Content` takes the content as it is.
        context: For the fields whose types say how they are read.

    Raises:
        InvalidArguments: The content does not fit; the message names fields and kinds of error only.
    """
    if type_ is Content:
        return cast(T, content)
    if type_ is bytes:
        return cast(T, content.body)
    name = getattr(type_, "__name__", str(type_))
    if content.content_type.partition(";")[0].strip() != JSON:
        raise InvalidArguments(f"{name} is read from {JSON}, and this has another content type; take Content")
    adapter = _adapter(type_)
    try:
        _FINITE.decode(content.body.decode("utf-8"))  # pydantic alone would read NaN, and 1e400 as infinity
        return cast(T, adapter.validator.validate_json(content.body, strict=True, context=context))
    except ValidationError as error:
        why = _describe(adapter, error)
    except (ValueError, RecursionError):
        why = "not JSON, or a number that is not finite, or nested too deeply"
    except Exception as error:  # a validator is the user's own: what it raises must not end a worker
        why = f"a validator raised {type(error).__name__}"
    # Outside the handlers: a chained cause would carry the input into every traceback.
    raise InvalidArguments(f"does not fit {name}: {why}")


def _is_declared(value: object) -> bool:
    """Whether the type itself says how to write the value; the rest are JSON values."""
    return hasattr(type(value), "__pydantic_core_schema__") or hasattr(type(value), "__dataclass_fields__")


def _check_written(adapter: TypeAdapter[Any], value: object, body: bytes, context: object) -> None:
    """Raise ValueError for what was written but would be read differently, or not at all."""
    if b"null" in body:  # pydantic writes NaN and infinity as null
        _check_finite(adapter.dump_python(value, by_alias=True, round_trip=True, context=context))
    # Or, if the model's configuration asks for it, as themselves. One letter is found in a fifth of the time.
    if (b"N" in body and b"NaN" in body) or (b"I" in body and b"Infinity" in body):
        _FINITE.decode(body.decode("utf-8"))
    if body.count(b"[") + body.count(b"{") > _DEPTH:
        from_json(body)


def _check_finite(value: object) -> None:
    todo = [value]
    while todo:
        node = todo.pop()
        if isinstance(node, float):
            if not math.isfinite(node):
                raise ValueError
        elif isinstance(node, dict):
            todo += [*node, *node.values()]
        elif isinstance(node, list | tuple | set | frozenset):
            todo += node


def _adapter(type_: object) -> TypeAdapter[Any]:
    try:
        return _cached_adapter(type_)
    except TypeError:  # not hashable (Annotated with such metadata), or not a type: pydantic says which
        return _new_adapter(type_)


def _new_adapter(type_: object) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(cast(type[Any], type_))
    except Exception as error:
        name = getattr(type_, "__name__", str(type_))
        raise ConfigurationError(
            f"{name} cannot be arguments or a result ({type(error).__name__}); use a model or dataclass"
        ) from error


@lru_cache(maxsize=512)
def _cached_adapter(type_: object) -> TypeAdapter[Any]:
    return _new_adapter(type_)


def _describe(adapter: TypeAdapter[Any], error: ValidationError) -> str:
    """Name the fields and the kinds of error, and nothing that the sender chose."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    known = _declared_names(adapter)
    shown = []
    for entry in errors[:_SHOWN]:
        # A location also holds keys of dictionaries and names of unknown fields: those are input.
        path = ".".join(str(p) if isinstance(p, int) or p in known else "*" for p in entry["loc"])
        shown.append(f"{path}: {entry['type']}" if path else entry["type"])
    more = f" and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    return ", ".join(shown) + more


def declares(type_: object, name: str) -> bool:
    """Whether a type has a field of a name, at any depth."""
    return name in _declared_names(_adapter(type_))


def _declared_names(adapter: TypeAdapter[Any]) -> set[str]:
    """Every field and class name that the type itself declares, as its JSON Schema has them."""
    try:
        todo: list[Any] = [adapter.json_schema(mode="validation")]
    except Exception:  # a type without a JSON Schema: then no name is known to be ours
        return set()
    names: set[str] = set()
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            for key in ("properties", "$defs"):
                names.update(node.get(key, ()))
            todo.extend(node.values())
        elif isinstance(node, list):
            todo.extend(node)
    return names


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e400
        raise ValueError
    return number


def _refuse(_: str) -> NoReturn:
    raise ValueError


_FINITE: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse)
