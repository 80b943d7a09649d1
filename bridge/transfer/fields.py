"""Arguments and results as they travel: in their message, or in parts before it, whatever they are made of."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any, BinaryIO, Final, Protocol

from bridge import composite, keyed
from bridge.composite import COMPOSITE, MAX_FIELDS, PLACE, Field, Table
from bridge.errors import InvalidArguments, PayloadTooLarge
from bridge.job import INLINE_LIMIT, JSON, Content, declares, decode, encode
from bridge.payload import PART
from bridge.transfer.value import Fields, Payload, closed, is_source, read_chunks

JSON_IN_MEMORY: Final = 8 * 1024 * 1024
"""Bytes of JSON that are made values of, at most. Both parsers keep Python's global lock to their end, so that neither
the event loop nor what renews leases goes on meanwhile, in whichever thread they run: 0.5 s where they are objects,
2.5 s where they are empty lists, on a busy machine. What comes of them takes up to 25 times as much memory."""
_AS_THEY_ARE: Final = (Payload, Content, bytes)
"""Nothing is made of these but what came."""
_UNTYPED: Final = (Payload, Content, bytes, object, Any)
"""None of them says where a payload is."""


class _Whole(Protocol):
    """All bytes of arguments or of a result, in one row."""

    length: int | None
    again: bool

    def chunks(self) -> AsyncIterator[bytes]: ...

    def content(self) -> Content:
        """What the message itself holds where these are in parts, once they were gone through."""

    def tag(self, secret: bytes) -> bytes:
        """That of a keyed job, once they were gone through."""

    def check(self, type_: object) -> None:
        """Raise InvalidArguments where a reader who wants a type would."""


class Large:
    """What is too long for its message: stored in parts before it, as the one payload that a message may have.

    Args:
        whole: Its bytes.
        begun: What of them was read already, and what goes on after it.
    """

    def __init__(self, whole: _Whole, begun: tuple[bytes, AsyncIterator[bytes]] | None = None) -> None:
        self._whole, self._begun = whole, begun
        self.length = whole.length
        """How many there are; None where only the end will tell."""
        self.again = whole.again and begun is None
        """Whether they can be gone through more than once."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._whole.chunks() if self._begun is None else _after(*self._begun)

    def content(self) -> Content:
        """What the message holds, once all bytes were gone through."""
        return self._whole.content()

    def tag(self, secret: bytes) -> bytes:
        """What they are the same by, once all were gone through, of what was packed to be ``tagged``.

        Raises:
            InvalidArguments: They say that they are JSON, and are not.
        """
        return self._whole.tag(secret)

    def check(self, type_: Any) -> None:  # noqa: ANN401  a type, or what stands for one
        """Check that a reader who wants a type would take it, as far as can be said before it is sent.

        Raises:
            InvalidArguments: It would not.
            PayloadTooLarge: It would have to be read into memory.
        """
        self._whole.check(type_)


class _Plain:
    """A payload that is all there is."""

    def __init__(self, payload: Payload, *, tagged: bool) -> None:
        self._payload, self._hash = payload, _Hash() if tagged else None
        self.length, self.again = payload.length, payload.again

    def chunks(self) -> AsyncIterator[bytes]:
        return _hashed(self._payload, self._hash)

    def content(self) -> Content:
        return Content(self._payload.content_type, b"")

    def tag(self, secret: bytes) -> bytes:
        if self._payload.content_type == JSON:
            if not self.again:
                raise InvalidArguments("JSON of a keyed job that can be read once; pass it as bytes, or as a Path")
            _check_decoded(self.length or 0)
            return keyed.tag_of_json(secret, self._payload.read())
        return keyed.tag_of_bytes(secret, self._payload.content_type, _digest(self._hash))

    def check(self, type_: Any) -> None:  # noqa: ANN401
        if self._payload.content_type == JSON and self.again and type_ not in _UNTYPED:
            _check_decoded(self.length or 0)
            decode(Content(JSON, self._payload.read()), type_)


class _Joined:
    """A document, and the payloads among its fields after it."""

    def __init__(self, document: bytes, payloads: Sequence[Payload], *, tagged: bool) -> None:
        self._document, self._payloads = document, payloads
        self._hashes = [_Hash() if tagged else None for _ in payloads]
        self._lengths: list[int] = []
        lengths = [payload.length for payload in payloads]
        known = [length for length in lengths if length is not None]
        self.length = len(document) + sum(known) if len(known) == len(lengths) else None
        self.again = all(payload.again for payload in payloads)

    async def chunks(self) -> AsyncIterator[bytes]:
        self._lengths = []
        yield self._document
        for payload, hashed in zip(self._payloads, self._hashes, strict=True):
            length = 0
            async with closed(_hashed(payload, hashed)) as chunks:
                async for chunk in chunks:
                    length += len(chunk)
                    yield chunk
            self._lengths.append(length)

    def content(self) -> Content:
        rows = zip(self._payloads, self._lengths, strict=True)  # of fewer lengths than payloads it was not gone through
        fields = tuple(Field(payload.content_type, length) for payload, length in rows)
        return Content(COMPOSITE, Table(len(self._document), fields).encode())

    def tag(self, secret: bytes) -> bytes:
        pairs = zip(self._payloads, self._hashes, strict=True)
        digests = [(payload.content_type, _digest(hashed)) for payload, hashed in pairs]
        return keyed.tag_of_composite(secret, self._document, digests)

    def check(self, type_: Any) -> None:  # noqa: ANN401
        if type_ in _AS_THEY_ARE:
            raise _untyped()
        _check_decoded(len(self._document))
        if type_ not in (object, Any):
            _decode(self._document, self._payloads, type_)


async def pack(value: object, *, tagged: bool = False) -> Content | Large:
    """Turn arguments or a result into what travels inline, or in parts where that is too long.

    Args:
        value: A `Payload`, or what one is made of; a value with payloads among its fields; or anything that
            `bridge.job.encode` takes.
        tagged: Whether `Large.tag` will be asked for.

    Raises:
        InvalidArguments: It cannot be written so that the other side reads the same.
        UsageError: A file of it cannot be read.
    """
    if isinstance(value, Payload):
        payload = value
    elif is_source(value) and not isinstance(value, bytes | bytearray | memoryview):
        payload = Payload(value)
    else:
        fields = Fields()
        try:
            content = encode(value, fields)
        except InvalidArguments:
            if fields.problem is not None:
                raise fields.problem from None
            raise
        if fields.payloads:
            return await _joined(content.body, fields.payloads, tagged=tagged)
        if len(content.body) <= INLINE_LIMIT:
            return content
        payload = Payload(content.body, content.content_type)
    _check_media_type(payload)
    return await _short(_Plain(payload, tagged=tagged))


def unpack(content: Content, type_: Any, whole: Payload | None = None) -> Any:  # noqa: ANN401  what was asked for
    """What arrived, as a value of a declared type.

    Args:
        content: What the message holds.
        type_: As of `bridge.job.decode`; or `Payload`; or a type with payloads among its fields.
        whole: The message's payload in parts, verified; None where it has none.

    Raises:
        InvalidArguments: It does not fit.
        BadPrelude: The message speaks of other bytes than there are.
        PayloadTooLarge: It is longer than what is read into memory.
    """
    check_type(content, type_, 0 if whole is None else whole.length or 0)
    if content.content_type == COMPOSITE:
        table, rest = composite.decode(content.body)
        if whole is None:
            whole = Payload(rest)
        else:
            composite.check_apart(rest)
        composite.check_length(table, whole.length or 0)
        payloads = [
            Payload.received(_Slice(whole, at, field.length), field.content_type) for at, field in table.places()
        ]
        return _decode(_document(whole, table.document), payloads, type_)
    if whole is not None:
        if type_ is Payload:
            return whole
        content = Content(content.content_type, whole.read())
    elif type_ is Payload:
        return Payload(content.body, content.content_type)
    return decode(content, type_)


def takes_payloads(type_: Any) -> bool:  # noqa: ANN401  an annotation
    """Whether a type is `Payload`, or has one among its fields."""
    return type_ is Payload or declares(type_, PLACE)


def check_body(content: Content) -> None:
    """Check what a message holds whose payload is in parts: nothing, or the table of a composite value.

    Raises:
        BadPrelude: It holds something else.
    """
    if content.content_type != COMPOSITE:
        composite.check_apart(content.body)


def check_type(content: Content, type_: object, length: int = 0) -> None:
    """Check that what arrives may be read as a type, as far as can be said before its payload is fetched.

    Args:
        content: What the message holds.
        type_: The type.
        length: Bytes of its payload.

    Raises:
        InvalidArguments: It has payloads among its fields, and the type declares none.
        PayloadTooLarge: It would have to be decoded, and is longer than what is.
    """
    if content.content_type.partition(";")[0].strip() == JSON and type_ not in _AS_THEY_ARE:
        _check_decoded(length)
    if content.content_type == COMPOSITE and type_ in _UNTYPED:
        raise _untyped()


def _check_decoded(length: int) -> None:
    if length > JSON_IN_MEMORY:
        raise PayloadTooLarge(
            f"{length} bytes of JSON, and {JSON_IN_MEMORY} are made a value of (JSON_IN_MEMORY); send and take more "
            "as bytes or as a Payload"
        )


def _untyped() -> InvalidArguments:
    return InvalidArguments(
        "a value with payloads among its fields; name its type, a model or dataclass that declares them"
    )


def _document(whole: Payload, length: int) -> bytes:
    _check_decoded(length)
    with whole.open() as file:
        return file.read(length)


def _decode(document: bytes, payloads: Sequence[Payload], type_: Any) -> Any:  # noqa: ANN401
    return decode(Content(JSON, document), type_, Fields(payloads))


async def _joined(document: bytes, payloads: list[Payload], *, tagged: bool) -> Content | Large:
    if len(payloads) > MAX_FIELDS:
        raise InvalidArguments(f"{len(payloads)} payloads in one value; it may have {MAX_FIELDS} (MAX_FIELDS)")
    for payload in payloads:
        _check_media_type(payload)
    return await _short(_Joined(document, payloads, tagged=tagged))


async def _short(whole: _Whole) -> Content | Large:
    """Inline if it turns out to be short."""
    if whole.length is not None and whole.length > INLINE_LIMIT:
        return Large(whole)
    chunks, begun = whole.chunks(), bytearray()
    async for chunk in chunks:
        begun += chunk
        if len(begun) > INLINE_LIMIT:
            return Large(whole, (bytes(begun), chunks))
    content = whole.content()
    if len(content.body) + len(begun) > INLINE_LIMIT:
        return Large(whole, (bytes(begun), chunks))
    return Content(content.content_type, content.body + begun)


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async with closed(rest) as chunks:
        async for chunk in chunks:
            yield chunk


def _check_media_type(payload: Payload) -> None:
    encode(Content(payload.content_type, b""))  # before anything is read


class _Slice:
    """Some of what a payload holds, for as long as that does."""

    again = True

    def __init__(self, whole: Payload, at: int, length: int) -> None:
        self._whole, self._at, self._length = whole, at, length
        self.length: int | None = length

    def open(self) -> BinaryIO:
        return io.BufferedReader(_SliceReader(self._whole.open(), self._at, self._length), PART)

    async def chunks(self) -> AsyncIterator[bytes]:
        with self.open() as file:
            async with closed(read_chunks(file)) as chunks:
                async for chunk in chunks:
                    yield chunk


class _SliceReader(io.RawIOBase):
    """A file within another."""

    def __init__(self, whole: BinaryIO, begin: int, length: int) -> None:
        self._whole, self._begin, self._length, self._at = whole, begin, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        if start + offset < 0:
            raise ValueError("before the beginning")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any writable buffer; it is made one
        view = memoryview(buffer).cast("B")
        self._whole.seek(self._begin + self._at)
        found = self._whole.read(max(0, min(len(view), self._length - self._at)))
        view[: len(found)] = found
        self._at += len(found)
        return len(found)

    def close(self) -> None:
        self._whole.close()
        super().close()


class _Hash:
    """The SHA-256 of what was gone through last."""

    def __init__(self) -> None:
        self.digest = b""


async def _hashed(payload: Payload, into: _Hash | None) -> AsyncIterator[bytes]:
    state = hashlib.sha256() if into is not None else None
    async with closed(aiter(payload)) as chunks:
        async for chunk in chunks:
            if state is not None:
                state.update(chunk)
            yield chunk
    if into is not None and state is not None:
        into.digest = state.digest()


def _digest(hashed: _Hash | None) -> bytes:
    if hashed is None or not hashed.digest:
        raise ValueError("it was not packed to be tagged, or not gone through")
    return hashed.digest
