"""Chains of segments, value by value: what may follow, how a stream may end, and where a reader may go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridge import segments
from bridge.core import MAX_PAYLOAD
from bridge.errors import BadPrelude, BadSegment, InvalidArguments, UsageError
from bridge.job import JSON, Content
from bridge.segments import ENDED, HINT, MAX_RECORDS, Chain, End, Position, pack, unpack
from bridge.subjects import JobKey
from tests.world import World

DIGEST, BEFORE = b"\x02" * 32, b"\x01" * 32
CHAIN = Chain(2, 3, 10, 100, BEFORE)
CORE = replace(World().job().core, type="segment", run=2, segment=3, previous=BEFORE, records=11, size=100)
END = End.of(CHAIN)


def test_a_segment_is_stored_among_the_parts_of_its_queue() -> None:
    key = JobKey("thumbs", "relay", "0" * 24, 7, 1)
    assert segments.subject(key, 2, 3) == f"parts.thumbs.relay.{'0' * 24}.7.segments.1-2-3"
    assert segments.any_segment("thumbs") == "parts.thumbs.*.*.*.segments.*"


def test_the_next_segment_has_a_record_more_that_may_be_empty() -> None:
    assert CHAIN.follow(CORE, DIGEST) == Chain(2, 4, 11, 100, DIGEST)


@pytest.mark.parametrize(
    "change",
    [{"run": 3}, {"run": 1}, {"segment": 4}, {"segment": 2}, {"previous": DIGEST}, {"records": 10}, {"size": 99}],
    ids=str,
)
def test_what_does_not_follow_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadSegment):
        CHAIN.follow(replace(CORE, **change), DIGEST)


@pytest.mark.parametrize("change", [{"segments": 4}, {"records": 11}, {"bytes": 99}, {"last": DIGEST.hex()}], ids=str)
def test_a_stream_ends_as_its_result_says(change: dict[str, Any]) -> None:
    CHAIN.check_end(END)
    with pytest.raises(BadSegment):
        CHAIN.check_end(replace(END, **change))


def ended(**changes: object) -> Content:
    fields = {"run": 1, "segments": 0, "records": 0, "bytes": 0, "last": "0" * 64} | changes
    text = ",".join(f'"{name}":{value!r}'.replace("'", '"') for name, value in fields.items())
    return Content(ENDED, f"{{{text}}}".encode())


def test_the_numbers_of_an_end_have_bounds() -> None:
    most = 2**53 - 1
    for good in ({"run": 1_000}, {"segments": most}, {"records": most}, {"bytes": MAX_PAYLOAD}):
        assert End.read(ended(**good)) is not None
    for bad in (
        {"run": 0},
        {"run": 1_001},
        {"segments": most + 1},
        {"segments": -1},
        {"bytes": MAX_PAYLOAD + 1},
        {"bytes": -1},
        {"last": "0" * 63},
        {"last": "0" * 65},
        {"last": "G" * 64},
    ):
        with pytest.raises(InvalidArguments):
            End.read(ended(**bad))
    assert End.read(Content(JSON, b"{}")) is None


def test_a_segment_has_a_thousand_records_at_most_and_each_its_length() -> None:
    assert MAX_RECORDS == 1_000
    many = [b""] * MAX_RECORDS
    assert unpack(pack(many)) == many
    assert pack([b"ab", b""]) == bytes.fromhex("00000002") + b"ab" + bytes(4)
    for wrong in (pack([*many, b""]), bytes(3), bytes.fromhex("0000000261"), pack([b"a"]) + bytes(2)):
        with pytest.raises(BadPrelude):
            unpack(wrong)


def test_the_longest_record_fits_an_envelope_alone() -> None:
    assert segments.MAX_BYTES == 262_144
    assert len(pack([bytes(segments.MAX_RECORD)])) == segments.MAX_BYTES


def test_a_hint_is_four_bytes() -> None:
    assert HINT == b"RH1\0"


def test_a_position_is_read_as_it_was_written_and_nothing_else_is() -> None:
    position = Position.of(CHAIN, 12)
    assert (Position.parse(str(position)), position.chain) == (position, CHAIN)
    last = BEFORE.hex()
    assert Position.parse(f"1.0.0.0.0.{last}").given == 0
    assert Position.parse("1.0.0.0.0." + "0123456789abcdef" * 4).last == "0123456789abcdef" * 4
    for wrong in (
        f"0.0.0.0.0.{last}",
        f"2.3.10.100.9.{last}",
        f"2.3.10.100.{last}",
        f"2.3.10.100.12.1.{last}",
        f"2.3.10.-1.12.{last}",
        f"2.3.10.100.12.{last[1:]}",
        f"2.3.10.100.12.{last[:-1]}g",
        f"2.3.10.100.12.{last}0",
        "",
    ):
        with pytest.raises(UsageError):
            Position.parse(wrong)


@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize("most", [5, 8, 9, 1_000])
async def test_the_last_is_found_in_few_looks(first: int, most: int) -> None:
    for end in range(first - 1, min(most, 40) + 1):
        looked: list[int] = []

        async def there(number: int, end: int = end, looked: list[int] = looked) -> bool:
            assert first <= number <= most
            looked.append(number)
            return number <= end

        assert await segments.last(there, first, most) == end
        assert len(looked) <= 2 * (end - first + 2).bit_length()
