"""The prelude: what this release writes is read the short way and the long way alike, and what is wrong by neither."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from bridge import prelude
from bridge.core import Core
from bridge.errors import BadPacking, BadPrelude, PayloadTooLarge
from bridge.job import INLINE_LIMIT, Content, Status
from bridge.packing import Packing, compressed
from bridge.payload import Manifest
from tests.world import World

WORLD = World()
JOB = WORLD.job().core
RESULT = WORLD.result(WORLD.sealer("relay").seal(WORLD.job(), WORLD.now)).core


def said(body: bytes, data: bytes | None = None, /, more: int = 0, **changes: Any) -> bytes:  # noqa: ANN401
    """Sealed bytes, as an author may write them."""
    value = {"content_type": "text/plain", "length": len(body), "sha256": hashlib.sha256(body).hexdigest()} | changes
    encoded = json.dumps(
        {name: each for name, each in value.items() if each is not ...}, separators=(",", ":")
    ).encode()
    return (len(encoded) + more).to_bytes(2) + encoded + (body if data is None else data)


def with_payload(content: int, length: int) -> tuple[Core, bytes]:
    """A job with a padded payload, which says how much of it is its own."""
    core = replace(JOB, transfer=bytes(16), index=bytes(32), length=length)
    return core, said(b"", content_length=content, padding="padme").ljust(1_024, b"\0")


@pytest.mark.parametrize("body", [b"", b"a", b"a" * 100_000], ids=len)
@pytest.mark.parametrize(("core", "status"), [(JOB, None), *((RESULT, each) for each in Status)])
def test_what_is_written_is_read_alike_the_short_way_and_the_long(
    core: Core, status: Status | None, body: bytes
) -> None:
    data = prelude.write(core, Content("text/plain", body), status, None, None)
    found = prelude._read_usual(core, data)
    assert found is not None
    assert found == prelude._read(core, data) == prelude.read(core, data)
    assert (found.content, found.status, found.payload) == (Content("text/plain", body), status, None)


def test_the_short_way_leaves_all_else_to_the_long() -> None:
    with_parts, data = with_payload(1_024, 1_024)
    for core, each in (
        (with_parts, data),
        (with_parts, said(b"")),
        (JOB, said(b"body", b"boby")),
        (JOB, said(b"body", b"body2")),
        (JOB, said(b"body", length=5)),
        (JOB, said(b"body", status="succeeded")),
        (RESULT, said(b"body")),
        (JOB, said(b"", more=1)),
        (JOB, b""),
    ):
        assert prelude._read_usual(core, each) is None


@pytest.mark.parametrize(
    "data",
    [
        said(b"", more=1),
        said(b"body", more=-1),
        said(b"body", b"boby"),
        said(b"body", length=-1),
        said(b"a", length=True),
        said(b"body", length=5),
        said(b"body", content_type=""),
        said(b"body", content_type=7),
        said(b"body", also=1),
        said(b"body", sha256=...),
        said(b"body", status="succeeded"),
        said(b"body", content_type="t" * 1_024),
        b"",
        b"\0",
    ],
)
def test_what_is_not_as_specified_is_refused(data: bytes) -> None:
    with pytest.raises(BadPrelude):
        prelude.read(JOB, data)


def test_results_have_a_status_and_nothing_else_has() -> None:
    for core, status in ((JOB, Status.SUCCEEDED), (RESULT, None)):
        for how in (None, Packing.ZSTD):
            with pytest.raises(ValueError, match="results have a status"):
                prelude.write(core, Content("text/plain", b""), status, how, None)


def test_what_is_longer_than_travels_inline_is_not_written() -> None:
    body = bytes(INLINE_LIMIT)
    assert prelude.read(JOB, prelude.write(JOB, Content("text/plain", body), None, None, None)).content.body == body
    with pytest.raises(PayloadTooLarge, match="INLINE_LIMIT"):
        prelude.write(JOB, Content("text/plain", body + b"a"), None, None, None)


def test_a_prelude_has_1024_bytes_at_most() -> None:
    room = 1_024 - len(said(b"body", content_type="")) + 2 + len(b"body")
    data = prelude.write(JOB, Content("t" * room, b"body"), None, None, None)
    assert int.from_bytes(data[:2]) == 1_024
    assert prelude.read(JOB, data).content.body == b"body"
    with pytest.raises(PayloadTooLarge, match="1024 bytes"):
        prelude.write(JOB, Content("t" * (room + 1), b"body"), None, None, None)
    with pytest.raises(BadPrelude):
        prelude.read(JOB, said(b"body", content_type="t" * (room + 1)))


@pytest.mark.parametrize(("length", "smaller"), [(511, False), (512, True)])
def test_a_body_is_compressed_from_512_bytes_on_where_that_makes_it_shorter(length: int, smaller: bool) -> None:
    for core, status in ((JOB, None), (RESULT, Status.SUCCEEDED)):
        data = prelude.write(core, Content("text/plain", b"a" * length), status, Packing.ZSTD, None)
        assert (b'"compression":"zstd"' in data) == (len(data) < length) == smaller
        assert prelude.read(core, data).content.body == b"a" * length


def test_what_does_not_shrink_is_as_it_was() -> None:
    body = hashlib.shake_128(b"noise").digest(2_000)
    data = prelude.write(JOB, Content("text/plain", body), None, Packing.ZSTD, None)
    assert b"compression" not in data
    assert prelude.read(JOB, data).content.body == body


def test_a_compressed_body_holds_no_more_than_travels_inline() -> None:
    for length, taken in ((INLINE_LIMIT, True), (INLINE_LIMIT + 1, False)):
        body = b"a" * length
        data = said(body, bytes(compressed(body)), compression="zstd")
        if taken:
            assert prelude.read(JOB, data).content.body == body
        else:
            with pytest.raises(BadPacking, match="at most"):
                prelude.read(JOB, data)


def test_a_body_is_padded_to_its_own_length_and_no_other() -> None:
    for body in (b"", b"body", b"a" * 5_000):
        data = prelude.write(JOB, Content("text/plain", body), None, Packing.PADME, None)
        assert prelude.read(JOB, data).content.body == body
        for wrong in (data + b"\0", data[:-1], data + bytes(1_024)):
            with pytest.raises((BadPacking, BadPrelude)):
                prelude.read(JOB, wrong)
    body = b"a" * (1_024 - len(said(b"", padding="padme", length=900)))
    full = said(body, padding="padme")
    assert len(full) == 1_024  # without a byte of padding
    assert prelude.read(JOB, full).content.body == body


@pytest.mark.parametrize(
    ("content", "length", "taken"),
    [
        (1, 1_024, True),
        (1_024, 1_024, True),
        (0, 1_024, False),
        (1_025, 1_024, False),
        (-1, 1_024, False),
        (1, 1_025, False),
    ],
)
def test_a_payload_is_padded_as_its_own_length_says(content: int, length: int, taken: bool) -> None:
    core, data = with_payload(content, length)
    if taken:
        found = prelude.read(core, data).payload
        assert found == Manifest(bytes(16), bytes(32), length, Packing.PADME, length - content)
    else:
        with pytest.raises(BadPrelude):
            prelude.read(core, data)


def test_how_much_of_a_payload_is_its_own_is_a_whole_number() -> None:
    core, data = with_payload(1, 1_024)
    assert prelude.read(core, data).payload is not None
    with pytest.raises(BadPrelude):
        prelude.read(core, with_payload(True, 1_024)[1])
