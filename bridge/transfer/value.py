"""A payload as those who send it and those who get it hold it: bytes that need not fit into memory."""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from types import AsyncGeneratorType
from typing import Any, BinaryIO, Final, Protocol, TypeAlias, TypeGuard

from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from bridge.composite import PLACE
from bridge.errors import InvalidArguments, PayloadTooLarge, UsageError
from bridge.job import BYTES
from bridge.payload import PART, PartOpener
from bridge.transfer.aside import Aside, target
from bridge.transfer.spool import Spool

IN_MEMORY: Final = 64 * 1024 * 1024
"""Bytes of the longest payload that is handed out in one piece, as ``bytes`` or read as JSON."""
READ: Final = 4 * PART
"""Bytes that are read at once of a file that is sent: a thread's while each."""

Source: TypeAlias = bytes | bytearray | memoryview | Path | BinaryIO | AsyncIterable[bytes]


class Store(Protocol):
    """Where a payload's bytes are."""

    length: int | None
    again: bool
    """Whether they can be read more than once, from their beginning."""

    def open(self) -> BinaryIO: ...

    def chunks(self) -> AsyncIterator[bytes]: ...


class Payload:
    """Bytes of any number: what is sent, or what came and has been verified to its end.

    Nothing is read when one is made. What came is good for as long as its handler runs.

    Args:
        source: Bytes, a path, a file opened for reading bytes, or an asynchronous iterator of bytes, which gives them
            once.
        content_type: A lower-case media type.
    """

    __slots__ = ("_store", "content_type")

    def __init__(self, source: Source, content_type: str = BYTES) -> None:
        self.content_type = content_type
        self._store = _store(source)

    @classmethod
    def received(cls, store: Store, content_type: str) -> Payload:
        """What came, as the bridge keeps it."""
        made = cls(b"", content_type)
        made._store = store
        return made

    @property
    def length(self) -> int | None:
        """How many bytes; None where only the end will tell."""
        return self._store.length

    @property
    def again(self) -> bool:
        """Whether it can be read more than once: an iterator and an open file cannot."""
        return self._store.again

    def open(self) -> BinaryIO:
        """A file to read it from, from its beginning, and to seek in; each call opens another.

        Raises:
            UsageError: It is an iterator: read it with ``async for``.
        """
        return self._store.open()

    def read(self, most: int = IN_MEMORY) -> bytes:
        """All of it.

        Raises:
            PayloadTooLarge: It has more bytes than ``most``; read it by the piece.
        """
        if (self.length or 0) > most:
            raise PayloadTooLarge(
                f"a payload of {self.length} bytes, and {most} are read into memory; read it by the piece"
            )
        with self.open() as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise PayloadTooLarge(f"a payload of more than {most} bytes; read it by the piece")
        return data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._store.chunks()

    async def save(self, path: Path | str) -> Path:
        """Write it to a file, which appears under its name once all of it is on the disk."""
        return await save(self._store.chunks(), target(path))

    @contextlib.contextmanager
    def as_file(self) -> Iterator[Path]:
        """A temporary file of it, for programs that take a path; gone with the block. Blocks, as files do."""
        with tempfile.NamedTemporaryFile(prefix="bunny-", suffix=".payload") as file:
            with self.open() as source:
                while chunk := source.read(READ):
                    file.write(chunk)
            file.flush()
            yield Path(file.name)

    def __repr__(self) -> str:
        return f"<Payload {self.content_type}, {'?' if self.length is None else self.length} bytes>"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> core_schema.CoreSchema:
        return core_schema.json_or_python_schema(
            json_schema=core_schema.with_info_plain_validator_function(_found),
            python_schema=core_schema.no_info_plain_validator_function(_made),
            serialization=core_schema.plain_serializer_function_ser_schema(_placed, info_arg=True),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> JsonSchemaValue:
        return {"type": "object", "properties": {PLACE: {"type": "integer"}}, "required": [PLACE]}


class Fields:
    """The payloads among the fields of one value, numbered in the order in which they are met.

    Args:
        payloads: Those that came, for a value that is read.
    """

    def __init__(self, payloads: Iterable[Payload] = ()) -> None:
        self.payloads = list(payloads)
        self.problem: UsageError | None = None
        """What kept one from being taken: whoever writes a field cannot say it."""
        self._numbers: dict[int, int] = {}
        self._written: list[object] = []  # so that none is gone while its id stands for it

    def number(self, value: object) -> int:
        """That of a payload, or of what one is made of; the same each time."""
        if id(value) not in self._numbers:
            try:
                payload = _made(value)
            except UsageError as error:
                self.problem = error
                raise
            self._numbers[id(value)] = len(self.payloads)
            self._written.append(value)
            self.payloads.append(payload)
        return self._numbers[id(value)]


def _made(value: object) -> Payload:
    """A payload of what somebody gave a field that is declared as one; what is none is a ValueError."""
    if isinstance(value, Payload):
        return value
    if is_source(value):
        return Payload(value)
    raise ValueError("not a payload, nor what one is made of")


def _placed(value: object, info: core_schema.SerializationInfo[Any]) -> dict[str, int]:
    """What stands for a payload in the document that it is a field of."""
    if not isinstance(info.context, Fields):
        raise ValueError
    return {PLACE: info.context.number(value)}


def _found(place: object, info: core_schema.ValidationInfo[Any]) -> Payload:
    """The payload that a place in a document stands for."""
    fields = info.context
    number = place.get(PLACE) if isinstance(place, dict) and len(place) == 1 else None
    if isinstance(fields, Fields) and type(number) is int and 0 <= number < len(fields.payloads):
        return fields.payloads[number]
    raise ValueError("no payload stands for it")


async def save(chunks: AsyncIterator[bytes], path: Path) -> Path:
    """Write bytes aside, have them on the disk, then give them their name.

    Raises:
        OSError: The file cannot be written; nothing of it is left.
    """
    with Aside(path) as aside:
        async for chunk in chunks:
            await asyncio.to_thread(aside.write, chunk)
        return await asyncio.to_thread(aside.land)


# --- where the bytes are ---------------------------------------------------------------------------


def is_source(value: object) -> TypeGuard[Source]:
    """Whether a payload can be made of it."""
    bytes_or_file = isinstance(value, bytes | bytearray | memoryview | Path) or callable(getattr(value, "read", None))
    return bytes_or_file or isinstance(value, AsyncIterable)


def _store(source: Source) -> Store:
    if isinstance(source, bytes | bytearray | memoryview):
        return _Bytes(bytes(source))
    if isinstance(source, Path):
        return _File(source)
    if isinstance(source, AsyncIterable):
        return Once(source)
    if callable(getattr(source, "read", None)):
        return _Opened(source)
    raise UsageError(
        f"a payload is bytes, a Path, a binary file or an iterator of bytes, and not {type(source).__name__}"
    )


class _Bytes:
    """In memory."""

    again = True

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length: int | None = len(data)

    def open(self) -> BinaryIO:
        return io.BytesIO(self._data)

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), PART):
            yield self._data[at : at + PART]


class _File:
    """A file that is there to be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.again = path.is_file()  # and no pipe
            self.length: int | None = path.stat().st_size if self.again else None
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
        if not path.exists():
            raise UsageError(f"{path}: no such file")

    def open(self) -> BinaryIO:
        return self._path.open("rb")

    async def chunks(self) -> AsyncIterator[bytes]:
        with self.open() as file:
            async with closed(read_chunks(file)) as chunks:
                async for chunk in chunks:
                    yield chunk


class _Opened:
    """A file that somebody else opened, and closes."""

    again = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.length: int | None = None

    def open(self) -> BinaryIO:
        return self._file

    def chunks(self) -> AsyncIterator[bytes]:
        return read_chunks(self._file)


class Once:
    """An iterator: it can be gone through once."""

    again = False

    def __init__(self, source: AsyncIterable[bytes], length: int | None = None) -> None:
        self._source: AsyncIterable[bytes] | None = source
        self.length = length

    def open(self) -> BinaryIO:
        raise UsageError("this payload comes as it is read; read it with `async for`")

    async def chunks(self) -> AsyncIterator[bytes]:
        source, self._source = self._source, None
        if source is None:
            raise UsageError("this payload was read already, and can be read once")
        async with closed(aiter(source)) as chunks:
            async for chunk in chunks:
                if not isinstance(chunk, bytes | bytearray | memoryview):
                    raise InvalidArguments(f"an iterator of a payload gave {type(chunk).__name__}; let it give bytes")
                yield bytes(chunk)


class Spooled:
    """Verified parts in a spool, opened as they are read; what has changed since does not open."""

    again = True

    def __init__(self, spool: Spool, opener: PartOpener) -> None:
        self._spool, self._opener = spool, opener
        self.length: int | None = opener.manifest.content

    def open(self) -> BinaryIO:
        return io.BufferedReader(_Reader(self._spool, self._opener), PART)

    async def chunks(self) -> AsyncIterator[bytes]:
        for number in range(self._opener.manifest.parts):
            if data := self._opener.unseal(number, self._spool.read(number)):  # what is padding is looked at, too
                yield data
            await asyncio.sleep(0)


class _Reader(io.RawIOBase):
    """A file over sealed parts."""

    def __init__(self, spool: Spool, opener: PartOpener) -> None:
        self._spool, self._opener, self._at = spool, opener, 0
        self._number, self._part = -1, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._opener.manifest.content}[whence]
        if start + offset < 0:
            raise ValueError("before the beginning")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer; it is made one
        view = memoryview(buffer).cast("B")
        if self._at >= self._opener.manifest.content:
            return 0
        number, within = divmod(self._at, PART)
        if number != self._number:
            self._number, self._part = number, self._opener.unseal(number, self._spool.read(number))
        found = self._part[within : within + len(view)]
        view[: len(found)] = found
        self._at += len(found)
        return len(found)


@contextlib.asynccontextmanager
async def closed(chunks: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Bytes to go through, and what gives them closed at the end: else its own end would come some time later."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGeneratorType):
            await chunks.aclose()


async def read_chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    """What is left of a file, read by a thread."""
    read: Callable[[int], bytes] = file.read
    while chunk := await asyncio.to_thread(read, READ):
        if not isinstance(chunk, bytes):
            raise InvalidArguments("a file of text cannot be a payload; open it for reading bytes")
        yield chunk
