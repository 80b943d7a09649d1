"""A payload as those who send it and those who get it hold it: bytes that need not fit into memory."""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol, TypeAlias

from bridge.errors import InvalidArguments, PayloadTooLarge, UsageError
from bridge.job import BYTES, INLINE_LIMIT, Content, encode
from bridge.payload import PART, PartOpener
from bridge.transfer.aside import Aside
from bridge.transfer.spool import Spool

IN_MEMORY: Final = 64 * 1024 * 1024
"""Bytes of the longest payload that is handed out in one piece, as ``bytes`` or read as JSON."""
READ: Final = 4 * PART
"""Bytes that are read at once of a file that is sent: a thread's while each."""

Source: TypeAlias = bytes | bytearray | memoryview | Path | BinaryIO | AsyncIterable[bytes]


class _Store(Protocol):
    """Where a payload's bytes are."""

    length: int | None

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
    def received(cls, store: _Store, content_type: str) -> Payload:
        """What came, as the bridge keeps it."""
        made = cls(b"", content_type)
        made._store = store
        return made

    @property
    def length(self) -> int | None:
        """How many bytes; None where only the end will tell."""
        return self._store.length

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

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._store.chunks():
            yield chunk

    async def save(self, path: Path | str) -> Path:
        """Write it to a file, which appears under its name once all of it is on the disk."""
        return await save(self._store.chunks(), Path(path))

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


async def pack(value: object) -> Content | Payload:
    """Turn arguments or a result into what travels inline, or in parts where that is too long.

    Raises:
        InvalidArguments: It cannot be written so that the other side reads the same.
        UsageError: A file of it cannot be read.
    """
    if isinstance(value, Payload):
        payload = value
    elif isinstance(value, Path | io.IOBase) or (isinstance(value, AsyncIterable) and not isinstance(value, bytes)):
        payload = Payload(value)  # type: ignore[arg-type]  # a file is asked for bytes when it is read
    else:
        content = encode(value)
        return content if len(content.body) <= INLINE_LIMIT else Payload(content.body, content.content_type)
    encode(Content(payload.content_type, b""))  # its type is judged before anything is read
    if payload.length is not None and payload.length > INLINE_LIMIT:
        return payload
    return await _short(payload)


async def _short(payload: Payload) -> Content | Payload:
    """Inline if it turns out to be short."""
    chunks = aiter(payload)
    begun = bytearray()
    async for chunk in chunks:
        begun += chunk
        if len(begun) > INLINE_LIMIT:
            return Payload(_chained(bytes(begun), chunks), payload.content_type)
    return Content(payload.content_type, bytes(begun))


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


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


def _store(source: Source) -> _Store:
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
            self.length: int | None = path.stat().st_size if path.is_file() else None
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
        if not path.exists():
            raise UsageError(f"{path}: no such file")

    def open(self) -> BinaryIO:
        return self._path.open("rb")

    async def chunks(self) -> AsyncIterator[bytes]:
        with self.open() as file:
            async for chunk in _read(file):
                yield chunk


class _Opened:
    """A file that somebody else opened, and closes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.length: int | None = None

    def open(self) -> BinaryIO:
        return self._file

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in _read(self._file):
            yield chunk


class Once:
    """An iterator: it can be gone through once."""

    def __init__(self, source: AsyncIterable[bytes], length: int | None = None) -> None:
        self._source: AsyncIterable[bytes] | None = source
        self.length = length

    def open(self) -> BinaryIO:
        raise UsageError("this payload comes as it is read; read it with `async for`")

    async def chunks(self) -> AsyncIterator[bytes]:
        source, self._source = self._source, None
        if source is None:
            raise UsageError("this payload was read already, and can be read once")
        async for chunk in source:
            if not isinstance(chunk, bytes | bytearray | memoryview):
                raise InvalidArguments(f"an iterator of a payload gave {type(chunk).__name__}; let it give bytes")
            yield bytes(chunk)


class Spooled:
    """Verified parts in a spool, opened as they are read; what has changed since does not open."""

    def __init__(self, spool: Spool, opener: PartOpener) -> None:
        self._spool, self._opener = spool, opener
        self.length: int | None = opener.manifest.length

    def open(self) -> BinaryIO:
        return io.BufferedReader(_Reader(self._spool, self._opener), PART)

    async def chunks(self) -> AsyncIterator[bytes]:
        for number in range(self._opener.manifest.parts):
            yield self._opener.unseal(number, self._spool.read(number))
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
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._opener.manifest.length}[whence]
        if start + offset < 0:
            raise ValueError("before the beginning")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer; it is made one
        view = memoryview(buffer).cast("B")
        if self._at >= self._opener.manifest.length:
            return 0
        number, within = divmod(self._at, PART)
        if number != self._number:
            self._number, self._part = number, self._opener.unseal(number, self._spool.read(number))
        found = self._part[within : within + len(view)]
        view[: len(found)] = found
        self._at += len(found)
        return len(found)


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    read: Callable[[int], bytes] = file.read
    while chunk := await asyncio.to_thread(read, READ):
        if not isinstance(chunk, bytes):
            raise InvalidArguments("a file of text cannot be a payload; open it for reading bytes")
        yield chunk
