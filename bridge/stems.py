"""What one author's cores have in common, and what is different in each. No I/O.

A core as this release writes it begins with what is the same from message to message, its *stem*, and ends with its
*tail*: the job, its times and, in an answer, the job's digest. A stem that was read or written once, with all that is
checked of a core, need not be read again: only the tail is. A core of another order, or of more, is read the long way.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeVar

from bridge.corefields import JOB_ID

MOST: Final = 512
"""Stems remembered; with one more all are forgotten. An author has a few: each kind, each wrap, each attempt."""
MAX_LEN: Final = 1024
"""Bytes of a stem that is remembered."""

_BEGINS: Final = b',"job":"'
_TIME: Final = "0|[1-9][0-9]{0,14}"
"""Below 10^15, which is below 2^53."""
_TAIL: Final = re.compile(
    rf',"job":"({JOB_ID.pattern})","issued":({_TIME}),"expires":({_TIME})(?:,"job_digest":"([0-9a-f]{{64}})")?\}}'.encode()
)

K = TypeVar("K")
V = TypeVar("V")


class Parted(NamedTuple):
    """A core in two."""

    stem: bytes
    job: str
    issued: int
    expires: int
    job_digest: bytes
    """Empty where there is none."""


def part(data: bytes) -> Parted | None:
    """The stem and the tail of a core; None where it has no such tail, or more than is remembered comes before it.

    What follows from a stem that was accepted with another tail is so only if neither has an escape: then each quote
    begins or ends a text, so that a tail begins between two fields wherever it stands, and what is in it are those
    fields, whatever they say.
    """
    at = data.rfind(_BEGINS)
    if not 0 < at <= MAX_LEN or b"\\" in data:
        return None
    found = _TAIL.fullmatch(data, at)
    if found is None:
        return None
    job, issued, expires, digest = found.groups()
    return Parted(data[:at], job.decode(), int(issued), int(expires), bytes.fromhex(digest.decode()) if digest else b"")


def join(stem: bytes, job: str, issued: int, expires: int, job_digest: bytes) -> bytes | None:
    """A stem with another tail; None where one of its values is none that a core may have, or is a rare one."""
    digest = f',"job_digest":"{job_digest.hex()}"' if job_digest else ""
    tail = f',"job":"{job}","issued":{issued},"expires":{expires}{digest}}}'.encode()
    return stem + tail if _TAIL.fullmatch(tail) else None


def remember(stems: dict[K, V], key: K, value: V) -> None:
    """Keep one more, and none of the others where there would be too many."""
    if len(stems) >= MOST:
        stems.clear()
    stems[key] = value
