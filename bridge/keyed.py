"""Keys of jobs, under a secret that only their producer has: which are the same, which must not run together. No I/O.

The session of a keyed job follows from its key, so that whoever submits it again, in any process of the producer and
after any restart, names the same subjects. The tag follows from the arguments: it says whether it is the same job.
Brokers see both, and learn no key and no argument from them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from bridge import composite, crypto
from bridge.composite import COMPOSITE
from bridge.errors import InvalidArguments, UsageError
from bridge.job import JSON, Content

MAX_KEY_BYTES: Final = 1024
_SESSION_BYTES: Final = 12


def session(secret: bytes, producer: str, queue: str, key: str) -> str:
    """The session of a keyed job; its number is 0.

    Raises:
        UsageError: The key is empty, too long, or no text that can be written as UTF-8.
    """
    data = _text(key, "a key")
    return crypto.keyed_hash(secret, producer.encode(), queue.encode(), data)[:_SESSION_BYTES].hex()


def concurrency_key(secret: bytes, producer: str, queue: str, key: str) -> bytes:
    """What jobs have in common that must not run together, or only so many of them.

    Raises:
        UsageError: As `session`.
    """
    return crypto.keyed_hash(secret, b"concurrency", producer.encode(), queue.encode(), _text(key, "a concurrency key"))


def args_tag(secret: bytes, content: Content) -> bytes:
    """The tag of a keyed job's arguments: the same for the same arguments, however they were written.

    Raises:
        InvalidArguments: They say that they are JSON, and are not.
    """
    body = content.body
    if content.content_type == JSON:
        return tag_of_json(secret, body)
    if content.content_type != COMPOSITE:
        return tag_of_bytes(secret, content.content_type, crypto.sha256(body))
    table, rest = composite.decode(body)
    payloads = [(field.content_type, crypto.sha256(rest[at : at + field.length])) for at, field in table.places()]
    return tag_of_composite(secret, rest[: table.document], payloads)


def tag_of_bytes(secret: bytes, content_type: str, digest: bytes) -> bytes:
    """As `args_tag`, of bytes that need not be there: their SHA-256 is."""
    return _tag(secret, content_type, digest)


def tag_of_json(secret: bytes, body: bytes) -> bytes:
    """As `args_tag`, of JSON."""
    return _tag(secret, JSON, _canonical(body))


def tag_of_composite(secret: bytes, document: bytes, payloads: Sequence[tuple[str, bytes]]) -> bytes:
    """As `args_tag`, of a document and the payloads among its fields.

    Args:
        secret: The identity's ``dedup_secret``.
        document: JSON.
        payloads: Content type and SHA-256 of each, in order.
    """
    hashes = [crypto.sha256(_canonical(document))]
    for content_type, digest in payloads:
        hashes += [crypto.sha256(content_type.encode()), digest]
    return _tag(secret, COMPOSITE, b"".join(hashes))


def _tag(secret: bytes, content_type: str, rest: bytes) -> bytes:
    return crypto.keyed_hash(secret, content_type.encode() + b"\0" + rest)


def _text(key: str, what: str) -> bytes:
    try:
        data = key.encode()
    except UnicodeEncodeError:
        data = b""
    if not 0 < len(data) <= MAX_KEY_BYTES:
        raise UsageError(f"{what} of {len(key)} characters; it must be text of 1 to {MAX_KEY_BYTES} bytes of UTF-8")
    return data


def _canonical(body: bytes) -> bytes:
    try:
        value = json.loads(body.decode(), parse_constant=_refuse)
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (ValueError, RecursionError):
        pass
    raise InvalidArguments("arguments of a keyed job that say they are JSON, and are not, or hold NaN or Infinity")


def _refuse(_: str) -> None:
    raise ValueError
