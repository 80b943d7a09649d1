"""Results that stream while their job runs: records in segments, each signed, each naming the one before. No I/O.

A stream is a chain of envelopes of type ``segment``. Each says in its signed core which *run* of the stream it belongs
to, its number, the digest of the segment before it, and how many records and bytes the run has with it. The result
says how the chain ends (`End`). So a reader takes records while the job runs, in order, and none that its worker did
not sign in this place; and it knows, once the job is done, that it has them all.

An attempt either goes on with the run that stands, or begins the next run; nothing is ever written over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final, NamedTuple, Self

from pydantic import Field

from bridge import subjects
from bridge.core import MAX_PAYLOAD, Core
from bridge.errors import BadPrelude, BadSegment, UsageError
from bridge.job import INLINE_LIMIT, JSON, Content, decode, encode
from bridge.subjects import JobKey

MAX_RECORDS: Final = 1_000
"""Records of one segment: what a reader decodes between two looks at anything else."""
MAX_BYTES: Final = INLINE_LIMIT
"""Bytes of one segment, with 4 more for each record: what travels in one envelope."""
MAX_RECORD: Final = MAX_BYTES - 4
"""Bytes of the longest record."""
MAX_RUNS: Final = 1_000
"""Times that the stream of one job may begin: far more than attempts, and few enough to look for the last."""

ENDED: Final = "application/vnd.bunny-bridge.records+json"
"""The content type of the result of a job that streamed its records."""
HINT: Final = b"RH1\0"
"""Told where events of the job are, when a segment was stored: look now. Nothing in it is believed."""

SEGMENTS: Final = "segments"
"""Where a payload's parts have the name of their transfer: all segments of a queue can be asked for by it."""
_NOTHING: Final = bytes(32)


def subject(key: JobKey, run: int, number: int) -> str:
    """``parts.<queue>.<producer>.<session>.<n>.segments.<generation>-<run>-<number>``: where a segment is stored."""
    return f"{subjects.part(key, SEGMENTS, key.generation)}-{run}-{number}"


def any_segment(queue: str) -> str:
    """The segments of a queue's jobs, among the parts of payloads."""
    return f"parts.{queue}.*.*.*.{SEGMENTS}.*"


@dataclass(frozen=True, slots=True)
class Chain:
    """How far a run of a stream is known: what the next segment must follow."""

    run: int
    """Which beginning of the stream, from 1; 0 where there is none."""
    segments: int = 0
    """How many there are so far: the number of the next."""
    records: int = 0
    """How many are in them."""
    size: int = 0
    """How many bytes these have."""
    last: bytes = _NOTHING
    """The digest of the last of them."""

    def core(self, answer: Core, lengths: Sequence[int]) -> Core:
        """What the next segment is to say, with records of these lengths.

        Args:
            answer: What any answer says of its job and attempt.
            lengths: Bytes of each record.
        """
        return replace(
            answer,
            run=self.run,
            segment=self.segments,
            previous=self.last,
            records=self.records + len(lengths),
            size=self.size + sum(lengths),
        )

    def follow(self, core: Core, digest: bytes) -> Chain:
        """The chain with one segment more, whose author and job were verified.

        Raises:
            BadSegment: It is not the one that follows.
        """
        if (core.run, core.segment, core.previous) != (self.run, self.segments, self.last):
            raise BadSegment(f"what stands as segment {self.segments} of run {self.run} does not follow the one before")
        if core.records <= self.records or core.size < self.size:
            raise BadSegment(f"segment {self.segments} of run {self.run} counts backwards")
        return Chain.at(core, digest)

    @classmethod
    def at(cls, core: Core, digest: bytes) -> Chain:
        """A chain whose last segment is this one."""
        return cls(core.run, core.segment + 1, core.records, core.size, digest)

    def contents(self, core: Core, content: Content) -> list[Content]:
        """The records of the segment that follows.

        Args:
            core: What `follow` has accepted.
            content: What it seals.

        Raises:
            BadPrelude: Its author has sealed something else than the core says.
        """
        bodies = unpack(content.body)
        if len(bodies) != core.records - self.records or sum(map(len, bodies)) != core.size - self.size:
            raise BadPrelude("a segment holds other records than its core counts")
        return [Content(content.content_type, body) for body in bodies]

    def check_end(self, end: End) -> None:
        """Check that a stream of which all segments were read ended here.

        Raises:
            BadSegment: Its result says otherwise.
        """
        if (end.segments, end.records, end.bytes, end.last) != (
            self.segments,
            self.records,
            self.size,
            self.last.hex(),
        ):
            raise BadSegment("the records of a job do not end as its result says")


class Position(NamedTuple):
    """Where a reader is in a stream: kept with what was made of the records, another process goes on after it."""

    run: int
    segments: int
    records: int
    size: int
    given: int
    """Records that were given out: of the next segment, those beyond ``records``."""
    last: str

    def __str__(self) -> str:
        return ".".join(map(str, self))

    @classmethod
    def of(cls, chain: Chain, given: int) -> Self:
        """That of a reader that has read a chain, and of what follows as many records as are missing to ``given``."""
        return cls(chain.run, chain.segments, chain.records, chain.size, given, chain.last.hex())

    @property
    def chain(self) -> Chain:
        """What had been read to its end."""
        return Chain(self.run, self.segments, self.records, self.size, bytes.fromhex(self.last))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` wrote.

        Raises:
            UsageError: It is no position.
        """
        *numbers, last = text.split(".")
        found = [subjects.parse_decimal(each) for each in numbers]
        if len(found) == len(cls._fields) - 1 and None not in found and len(last) == 64 and set(last) <= set(_HEX):
            run, segments, records, size, given = (each or 0 for each in found)
            if run and given >= records:
                return cls(run, segments, records, size, given, last)
        raise UsageError("not a position in a stream of records; take it as `Records.position` gave it")


_HEX: Final = "0123456789abcdef"
_Whole = Annotated[int, Field(ge=0, lt=2**53)]


@dataclass(frozen=True, slots=True)
class End:
    """What the result of a job that streamed says of its stream."""

    run: Annotated[int, Field(ge=1, le=MAX_RUNS)]
    segments: _Whole
    records: _Whole
    bytes: Annotated[int, Field(ge=0, le=MAX_PAYLOAD)]
    last: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """The digest of the last segment, hex; zeros where there is none."""

    @classmethod
    def of(cls, chain: Chain) -> Self:
        """That of a chain to which nothing comes any more."""
        return cls(chain.run, chain.segments, chain.records, chain.size, chain.last.hex())

    def content(self) -> Content:
        """What the result holds."""
        return Content(ENDED, encode(self).body)

    @classmethod
    def read(cls, content: Content) -> Self | None:
        """What a result says; None where its job did not stream.

        Raises:
            InvalidArguments: Its author has written something else.
        """
        return decode(Content(JSON, content.body), cls) if content.content_type == ENDED else None


def pack(records: Sequence[bytes]) -> bytes:
    """The body of a segment: each record after its length, u32."""
    return b"".join(piece for record in records for piece in (len(record).to_bytes(4), record))


def unpack(body: bytes) -> list[bytes]:
    """The records of a segment.

    Raises:
        BadPrelude: It is not what `pack` writes.
    """
    records, at = list[bytes](), 0
    while at < len(body):
        begin = at + 4
        at = begin + int.from_bytes(body[at:begin])
        if begin > len(body) or at > len(body) or len(records) == MAX_RECORDS:
            raise BadPrelude("the body of a segment is not as specified")
        records.append(body[begin:at])
    return records


async def last(there: Callable[[int], Awaitable[bool]], first: int, most: int) -> int:
    """The greatest number up to which all are there, in few looks; below ``first`` if that is not.

    Args:
        there: Whether one is.
        first: Where to begin.
        most: Where to end.
    """
    found, step = first - 1, 1
    while found + step <= most and await there(found + step):
        found, step = found + step, step * 2
    missing = min(found + step, most + 1)
    while missing - found > 1:
        middle = (found + missing) // 2
        found, missing = (middle, missing) if await there(middle) else (found, middle)
    return found
