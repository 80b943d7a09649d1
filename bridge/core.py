"""The signed core of an envelope: strict JSON with a fixed set of fields for each type. No I/O.

The table of fields is in ``docs/spec.md``. The signed bytes are the bytes sent: a core is parsed from them, and never
written again to be compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field, fields
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from pydantic_core import to_json

from bridge import stems, strict_json
from bridge.corefields import REMEMBERED, Field, known, matching, one_of, plain, raw, read_job_id, read_name, whole
from bridge.errors import BadFrame, Expired, FromTheFuture, UnknownVersion
from bridge.subjects import PRIORITIES, JobKey
from bridge.values import value
from bridge.versions import newer

MAX_CORE_LEN: Final = 4096
MAX_SKEW_MS: Final = 300_000
"""How far ahead of ours the clock of an author may be. Nothing is allowed the other way: expiry is expiry."""
MAX_LIFETIME_MS: Final = 31 * 24 * 3600 * 1000
"""The longest from ``issued`` to ``expires``."""
_LAST_S: Final = 253_402_300_799
"""The end of the year 9999."""
MAX_PAYLOAD: Final = 16 * 1024**3
"""Bytes of the longest payload that a core can name: 65,536 parts."""
ACTIONS: Final = ("cancel",)
"""What a control may ask for."""


@value(frozen=True, slots=True)
class Core:
    """Who says what to whom about which job. Times are milliseconds UTC; digests and kids are raw bytes."""

    type: str
    queue: str
    kind: str
    job: str
    """``<session>.<n>``."""
    generation: int
    sender: str
    sender_kid: bytes
    recipient: str
    issued: int
    expires: int
    wrap_id: bytes = b""
    """16 random bytes; empty for a start, which seals nothing."""
    priority: str = ""
    """Jobs only."""
    job_digest: bytes = b""
    """All but jobs: the digest of the job they speak of."""
    attempt: int = 0
    """Results, starts, events and segments: which attempt this was, from 1; 0 where the job never ran."""
    worker: str = ""
    """Results, starts, events and segments: the name of the process, for people."""
    action: str = ""
    """Controls only: what is asked of the workers."""
    producer: str = ""
    """Replays only: whose job it is, since an operator signs and the workers are addressed."""
    traceparent: str | None = None
    """Jobs and results, optional: the span that sent it, W3C Trace Context, version 00."""
    not_before: int = 0
    """Jobs, optional: when it may start; 0 is at once."""
    concurrency_key: bytes = b""
    """Jobs, optional: an HMAC that says which jobs must not run together, and names nothing."""
    args_tag: bytes = b""
    """Keyed jobs and their results: an HMAC of the arguments, the same for the same arguments alone."""
    transfer: bytes = b""
    """Jobs and results with a payload in parts (`bridge.payload`): 16 random bytes, in the subjects of the parts."""
    index: bytes = b""
    """The same: SHA-256 of the digests of all parts."""
    length: int = 0
    """The same: bytes of the payload; 0 where all of the message travels inline."""
    run: int = 0
    """Segments only (`bridge.segments`): which beginning of the stream it belongs to, from 1."""
    segment: int = 0
    """Segments only: its number in the run, from 0."""
    previous: bytes = b""
    """Segments only: the digest of the one before it; zeros of the first."""
    records: int = 0
    """Segments only: how many records the run has with this one."""
    size: int = 0
    """Segments only: how many bytes these records have."""
    _key: JobKey | None = field(default=None, init=False, repr=False, compare=False)

    def hints(self) -> dict[str, str]:
        """What a job tells people who hold no key, as headers. Nobody trusts them: what counts is signed."""
        return {
            "Bunny-Queue": self.queue,
            "Bunny-Kind": self.kind,
            "Bunny-Producer": self.sender,
            "Bunny-Deadline": spell_time(self.expires),
        }

    @property
    def key(self) -> JobKey:
        """What names the job: the tokens of its subjects."""
        if self._key is None:  # asked for a dozen times on a job's way
            object.__setattr__(self, "_key", self._named())
        assert self._key is not None  # noqa: S101  # for the type checker
        return self._key

    def _named(self) -> JobKey:
        session, n = self.job.split(".")
        match self.type:
            case "job" | "control":
                producer = self.sender
            case "replay":
                producer = self.producer
            case _:
                producer = self.recipient
        return JobKey(self.queue, producer, session, int(n), self.generation)

    def signed_by(self, kid: bytes, wrap_id: bytes) -> Core:
        """The same with what its sealer adds; `dataclasses.replace` takes four times as long."""
        values = list(_ALL(self))
        values[_KID], values[_WRAP] = kid, wrap_id
        return Core(*values)

    def encode(self) -> bytes:
        """The JSON to be signed and sent.

        Raises:
            BadFrame: A field is not what the specification allows; nothing like it may be sent.
        """
        common = _COMMON(self)
        stem = _WRITTEN.get(common)
        if stem is not None and _speaks(self.type, self.job_digest):
            joined = stems.join(stem, self.job, self.issued, self.expires, self.job_digest)
            if joined is not None:
                _check(self)
                return joined
        data = self._encoded()
        if (parted := stems.part(data)) is not None:
            stems.remember(_WRITTEN, common, parted.stem)
        return data

    def _encoded(self) -> bytes:
        """The same, the long way: each field by itself."""
        value: dict[str, Any] = {"v": 1, "type": self.type}
        try:
            for name, each in _FIELDS[self.type].items():
                held = getattr(self, each.attribute)
                value[name] = written = held if each.write is None else each.write(held)
                if each.read(written) != held:
                    raise ValueError
            for name, each in _OPTIONAL[self.type].items():
                if held := getattr(self, each.attribute):  # left out where there is none, never null
                    value[name] = written = held if each.write is None else each.write(held)
                    if each.read(written) != held:
                        raise ValueError
                elif held != _NOTHING[each.attribute]:
                    raise ValueError
        except (ValueError, TypeError):
            raise BadFrame(f"a field of the core of a {self.type} is not as specified") from None
        absent, nothing = _ABSENT[self.type]
        if absent(self) != nothing:
            raise BadFrame("a core holds a value that its encoding cannot carry")
        _check(self)
        data = to_json(value)  # of ASCII and whole numbers, as was checked: as `strict_json.dump` writes it
        _check_length(data)
        return data


def decode(data: bytes) -> Core:
    """Parse and check a core.

    Raises:
        UnknownVersion: ``v`` is another than 1.
        BadFrame: Anything else is not as specified, a field too many included.
    """
    _check_length(data)
    parted = stems.part(data)
    common = None if parted is None else _READ.get(parted.stem)
    if parted is not None and common is not None and _speaks(common[0], parted.job_digest):
        values = list(common)
        _, values[_JOB], values[_ISSUED], values[_EXPIRES], values[_JOB_DIGEST] = parted
        core = Core(*values)
        _check(core)
        return core
    core = _decoded(data)
    if parted is not None and _speaks(core.type, parted.job_digest):  # or it stands in the stem, and would stand twice
        stems.remember(_READ, parted.stem, _ALL(core))
    return core


def _speaks(type_: str, job_digest: bytes) -> bool:
    """Whether a tail has a digest where its core has: each but a job's."""
    return bool(job_digest) == (type_ != "job")


def _decoded(data: bytes) -> Core:
    """The same, the long way: each field by itself."""
    try:
        value = strict_json.parse_object(data)
    except ValueError:
        raise BadFrame("the core is not strict JSON") from None
    version, type_ = value.pop("v", None), value.pop("type", None)
    if type(version) is not int or version != 1:
        raise UnknownVersion(newer("an envelope", version) or "an envelope whose core names no version")
    if type(type_) is not str or type_ not in _FIELDS:
        raise BadFrame("the core is of an unknown type")
    return _read(type_, value)


def _check_length(data: bytes) -> None:
    if len(data) > MAX_CORE_LEN:
        raise BadFrame(f"the core is longer than {MAX_CORE_LEN} bytes")


def _read(type_: str, value: strict_json.Object) -> Core:
    """A core from its fields as JSON has them, without ``v`` and ``type``."""
    named = _FIELDS[type_]
    if value.keys() != named.keys():
        named = {**named, **{name: each for name, each in _OPTIONAL[type_].items() if name in value}}
    if value.keys() != named.keys():
        raise BadFrame(f"the core of a {type_} lacks a field or has one too many")
    try:
        core = Core(type=type_, **{each.attribute: each.read(value[name]) for name, each in named.items()})
    except (ValueError, TypeError):  # a list or an object where a name is to be
        raise BadFrame(f"a field of the core of a {type_} is not as specified") from None
    _check(core)
    return core


def _check(core: Core) -> None:
    """What one field says of another."""
    if not core.issued < core.expires <= core.issued + MAX_LIFETIME_MS:
        raise BadFrame("the core expires before it was issued, or more than 31 days after")
    if core.not_before and not core.issued <= core.not_before < core.expires:
        raise BadFrame("the core of a job that may start before it was issued, or only once it has expired")
    if core.type == "job" and core.job.endswith(".0") != bool(core.args_tag):  # no number begins with a 0
        raise BadFrame("a job is keyed if and only if its number is 0")
    if bool(core.transfer) != bool(core.index) or bool(core.transfer) != bool(core.length):
        raise BadFrame("a payload in parts has a transfer, an index and a length, all three")


def check_time(core: Core, now_ms: int) -> None:
    """Check a job's times, at admission and again before it runs.

    Raises:
        Expired: Its deadline has passed.
        FromTheFuture: It was issued more than five minutes ahead of this clock.
    """
    if core.issued > now_ms + MAX_SKEW_MS:
        raise FromTheFuture("signed more than 5 minutes ahead of this clock; check both clocks")
    if now_ms >= core.expires:
        raise Expired("its deadline has passed")


def spell_time(time_ms: int) -> str:
    """A time for people, ISO 8601 to the second; one that no calendar has is the last that it has."""
    return _spell(min(time_ms // 1000, _LAST_S))


@lru_cache(64)
def _spell(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


# --- fields ----------------------------------------------------------------------------------------

_WORKER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, 3.2: neither id is all zeros. Another version than 00 could be longer, and is refused."""

_TIME: Final = whole(2**53 - 1)


_time: Final = whole(2**53 - 1, 1)
"""A time that says something: an absent one is left out, and never 0."""


_ABOUT: Final[Mapping[str, Field]] = {
    "queue": plain("queue", read_name),
    "kind": plain("kind", read_name),
    "generation": plain("generation", whole(2**31)),
    "from": plain("sender", read_name),
    "from_kid": known("sender_kid", 32),
    "to": plain("recipient", read_name),
}
_EACH: Final[Mapping[str, Field]] = {
    "job": plain("job", read_job_id),
    "issued": plain("issued", _TIME),
    "expires": plain("expires", _TIME),
}
"""What is another in each message, and so comes last (`bridge.stems`), but for a digest and what few messages have."""
_ANSWER: Final[Mapping[str, Field]] = {
    "attempt": plain("attempt", whole(2**31)),
    "worker": plain("worker", lru_cache(REMEMBERED)(matching(_WORKER))),
}
_WRAPPED: Final[Mapping[str, Field]] = {"wrap_id": known("wrap_id", 16)}
_OF_JOB: Final[Mapping[str, Field]] = {**_EACH, "job_digest": raw("job_digest", 32)}
_CHAIN: Final[Mapping[str, Field]] = {
    "run": plain("run", whole(2**31, 1)),
    "segment": plain("segment", whole(2**31)),
    "previous": raw("previous", 32),
    "records": plain("records", whole(2**53 - 1, 1)),
    "bytes": plain("size", whole(MAX_PAYLOAD)),
}
_FIELDS: Final[Mapping[str, Mapping[str, Field]]] = {
    "job": {**_ABOUT, **_WRAPPED, "priority": plain("priority", one_of(*PRIORITIES)), **_EACH},
    "result": {**_ABOUT, **_WRAPPED, **_ANSWER, **_OF_JOB},
    "start": {**_ABOUT, **_ANSWER, **_OF_JOB},
    "event": {**_ABOUT, **_WRAPPED, **_ANSWER, **_OF_JOB},
    "segment": {**_ABOUT, **_WRAPPED, **_ANSWER, **_OF_JOB, **_CHAIN},
    "control": {**_ABOUT, **_WRAPPED, "action": plain("action", one_of(*ACTIONS)), **_OF_JOB},
    "replay": {**_ABOUT, **_WRAPPED, "producer": plain("producer", read_name), **_OF_JOB},
}
_TRACED: Final[Mapping[str, Field]] = {"traceparent": plain("traceparent", matching(_TRACEPARENT))}
_TAGGED: Final[Mapping[str, Field]] = {"args_tag": raw("args_tag", 32)}
_LATER: Final[Mapping[str, Field]] = {
    "not_before": plain("not_before", _time),
    "concurrency_key": raw("concurrency_key", 32),
}
_IN_PARTS: Final[Mapping[str, Field]] = {
    "transfer": raw("transfer", 16),
    "index": raw("index", 32),
    "length": plain("length", whole(MAX_PAYLOAD, 1)),
}
_OPTIONAL: Final[Mapping[str, Mapping[str, Field]]] = {
    "job": {**_TRACED, **_LATER, **_TAGGED, **_IN_PARTS},
    "result": {**_TRACED, **_TAGGED, **_IN_PARTS},
    "start": {},
    "event": {},
    "segment": {**_TAGGED},
    "control": {},
    "replay": {},
}
"""Fields that may be left out."""


def _absent(type_: str) -> tuple[Callable[[Core], Any], Any]:
    """What reads all that a type has not, and what it must find."""
    has = {"type", *(each.attribute for names in (_FIELDS, _OPTIONAL) for each in names[type_].values())}
    rest = {name: value for name, value in _NOTHING.items() if name not in has}
    return attrgetter(*rest), tuple(rest.values())


_NOTHING: Final = {each.name: each.default for each in fields(Core) if each.init}
_NAMES: Final = tuple(_NOTHING)
_ALL: Final = attrgetter(*_NAMES)
_KID, _WRAP = _NAMES.index("sender_kid"), _NAMES.index("wrap_id")
_JOB, _ISSUED, _EXPIRES, _JOB_DIGEST = map(_NAMES.index, ("job", "issued", "expires", "job_digest"))
_COMMON: Final = attrgetter(*(name for name in _NAMES if name not in ("job", "issued", "expires", "job_digest")))
_READ: Final[dict[bytes, tuple[Any, ...]]] = {}
"""Values of a core that was accepted, by its stem."""
_WRITTEN: Final[dict[tuple[Any, ...], bytes]] = {}
"""The stem of a core that was written, by what its tail does not say."""
_ABSENT: Final[Mapping[str, tuple[Callable[[Core], Any], Any]]] = {type_: _absent(type_) for type_ in _FIELDS}
