"""Keys of jobs, under a secret that only their producer has: which are the same, which must not run together. No I/O.

The session of a keyed job follows from its key, so that whoever submits it again, in any process of the producer and
after any restart, names the same subjects. The tag follows from the arguments: it says whether it is the same job.
Brokers see both, and learn no key and no argument from them.
"""

from __future__ import annotations

import json
from typing import Final

from bridge import crypto
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
    return crypto.keyed_hash(secret, content.content_type.encode() + b"\0" + _canonical(content))


def _text(key: str, what: str) -> bytes:
    try:
        data = key.encode()
    except UnicodeEncodeError:
        data = b""
    if not 0 < len(data) <= MAX_KEY_BYTES:
        raise UsageError(f"{what} of {len(key)} characters; it must be text of 1 to {MAX_KEY_BYTES} bytes of UTF-8")
    return data


def _canonical(content: Content) -> bytes:
    if content.content_type != JSON:
        return crypto.sha256(content.body)
    try:
        value = json.loads(content.body.decode(), parse_constant=_refuse)
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (ValueError, RecursionError):
        pass
    raise InvalidArguments("arguments of a keyed job that say they are JSON, and are not, or hold NaN or Infinity")


def _refuse(_: str) -> None:
    raise ValueError
