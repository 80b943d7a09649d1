"""Values with payloads among their fields, good and bad: made anew on each call, since sealing is random."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any, NamedTuple

from tests.vectors.independent_composite import CONTENT_TYPE, read_composite
from tests.vectors.payloads import sent

DOCUMENT = b'{"title":"a","film":{"$payload":0},"sound":{"$payload":1}}'
FILM, SOUND = bytes(range(250)), b"la la la"
REST = DOCUMENT + FILM + SOUND
ROWS = [{"content_type": "video/mp4", "length": len(FILM)}, {"content_type": "a/b", "length": len(SOUND)}]
TABLE = {"document": len(DOCUMENT), "payloads": ROWS}


class Case(NamedTuple):
    refusal: str
    body: bytes
    """Of the message."""
    parts: bytes | None = None
    """Its payload in parts; None where it has none."""


def head(table: object, length: int | None = None) -> bytes:
    data = table if isinstance(table, bytes) else json.dumps(table).encode()
    return (len(data) if length is None else length).to_bytes(2) + data


def _of(*lengths: int) -> dict[str, Any]:
    return {"document": lengths[0], "payloads": [{"content_type": "a/b", "length": each} for each in lengths[1:]]}


def _changed(**row: object) -> dict[str, Any]:
    return {**TABLE, "payloads": [{**ROWS[0], **row}, ROWS[1]]}


CASES: dict[str, Case] = {
    "inline": Case("", head(TABLE) + REST),
    "in-parts": Case("", head(TABLE), REST),
    "an-empty-payload": Case("", head(_of(len(DOCUMENT), 0)) + DOCUMENT),
    "as-many-as-there-may-be": Case("", head(_of(2, *[0] * 64)) + b"{}"),
    "the-longest-type": Case("", head(_changed(content_type="a/b;" + "c" * 253)) + REST),
    "one-too-many": Case("BadPrelude", head(_of(2, *[0] * 65)) + b"{}"),
    "no-payload": Case("BadPrelude", head(_of(2)) + b"{}"),
    "no-table": Case("BadPrelude", b""),
    "half-a-length": Case("BadPrelude", b"\0"),
    "an-empty-table": Case("BadPrelude", head(b"") + REST),
    "a-table-cut-short": Case("BadPrelude", head(TABLE)[:-1]),
    "a-table-of-another-length": Case("BadPrelude", head(json.dumps(TABLE).encode(), 9) + REST),
    "a-table-that-is-too-long": Case("BadPrelude", head(json.dumps(TABLE).encode().ljust(32_769)) + REST),
    "a-field-too-many": Case("BadPrelude", head({**TABLE, "x": 1}) + REST),
    "a-row-with-a-field-too-many": Case("BadPrelude", head(_changed(x=1)) + REST),
    "a-negative-length": Case("BadPrelude", head(_of(len(REST) + 1, -1)) + REST),
    "a-length-that-is-a-truth": Case("BadPrelude", head(_changed(length=True)) + REST),
    "a-length-beyond-all": Case("BadPrelude", head(_of(len(REST), 2**34 + 1)) + REST),
    "a-type-that-is-empty": Case("BadPrelude", head(_changed(content_type="")) + REST),
    "a-type-that-is-too-long": Case("BadPrelude", head(_changed(content_type="a" * 258)) + REST),
    "a-byte-less": Case("BadPrelude", head(TABLE) + REST[:-1]),
    "a-byte-more": Case("BadPrelude", head(TABLE) + REST + b"x"),
    "a-byte-less-in-parts": Case("BadPrelude", head(TABLE), REST[:-1]),
    "a-byte-more-in-parts": Case("BadPrelude", head(TABLE), REST + b"x"),
    "a-rest-beside-parts": Case("BadPrelude", head(TABLE) + REST, REST),
}


def made(case: Case) -> tuple[bytes, list[bytes]]:
    """The message of a case, and those of its transfer."""
    return sent(case.parts, content_type=CONTENT_TYPE, body=case.body)


def vectors() -> list[dict[str, Any]]:
    """As they are published."""
    found = []
    for name, case in CASES.items():
        envelope, stored = made(case)
        expect: dict[str, Any] = {"refusal": case.refusal}
        if not case.refusal:
            expect = summary(case)
        texts = {
            "envelope": base64.b64encode(envelope).decode(),
            "messages": [base64.b64encode(each).decode() for each in stored],
        }
        found.append({"name": name, "expect": expect, **texts})
    return found


def summary(case: Case) -> dict[str, Any]:
    """What is accepted of a good case."""
    document, payloads = read_composite(case.body, case.parts)
    rows = [
        {"content_type": type_, "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for type_, data in payloads
    ]
    return {"document": document.decode(), "payloads": rows}
