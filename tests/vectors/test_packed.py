"""What is compressed or padded: the bridge and what was written from the specification say the same."""

from __future__ import annotations

import base64
import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import packing
from bridge.envelope import Opener
from bridge.errors import BadPacking, Refusal
from bridge.packing import Packing
from tests.vectors import independent, independent_packing
from tests.vectors.independent_payload import read_payload
from tests.vectors.labels import NOW
from tests.vectors.packed import ACCEPTED, CASES, PART, endless, framed, inline, wide
from tests.vectors.payloads import sent
from tests.vectors.strictness import Refused
from tests.vectors.test_own import BUNDLE, KEYS, TRUST, identity

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "packed.json").read_text())


def by_specification(envelope: bytes, stored: list[bytes]) -> bytes | str:
    try:
        message = independent.receive(envelope, BUNDLE, NOW, "bunny", KEYS["bunny"])
        return read_payload(message, stored) if stored else message.body
    except Refused as refused:
        return refused.name


def by_bridge(envelope: bytes, stored: list[bytes]) -> bytes | str:
    opener = Opener(identity("bunny"), TRUST)
    try:
        opened = opener.open(opener.authenticate(envelope, NOW))
        if opened.payload is None:
            return opened.content.body
        parts = opened.payload.manifest.parts
        opened.payload.learn(stored[parts:])
        return b"".join(opened.payload.open(number, stored[number]) for number in range(parts))
    except Refusal as refusal:
        return refusal.name


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_published(vector: dict[str, Any]) -> None:
    envelope = base64.b64decode(vector["envelope"])
    stored = [base64.b64decode(each) for each in vector["messages"]]
    found = by_specification(envelope, stored)
    assert by_bridge(envelope, stored) == found
    if isinstance(found, str):
        assert vector["expect"] == {"refusal": found}
    else:
        assert vector["expect"] == {"length": len(found), "sha256": hashlib.sha256(found).hexdigest()}


@pytest.mark.parametrize("name", CASES)
def test_made_anew(name: str) -> None:
    refusal, make = CASES[name]
    made = make()
    assert by_specification(*made) == by_bridge(*made) == (refusal or ACCEPTED[name])


@pytest.mark.parametrize("how", Packing)
@pytest.mark.parametrize("length", [1_023, 262_143, 262_145, 600_000])
def test_payloads_of_several_parts(how: Packing, length: int) -> None:
    payload = (bytes(range(256)) * 4_000)[:length]
    envelope, stored = sent(payload, packing=how)
    assert by_specification(envelope, stored) == by_bridge(envelope, stored) == payload
    assert sum(map(len, stored)) < length if how is Packing.ZSTD else sum(map(len, stored)) > length


def test_lengths_of_one_size_look_the_same() -> None:
    assert len({len(inline(bytes(length), Packing.PADME)[0]) for length in (0, 9, 10, 500, 800)}) == 1
    sizes = {tuple(map(len, sent(bytes(length), packing=Packing.PADME)[1])) for length in (590_000, 596_001, 606_208)}
    assert len(sizes) == 1
    assert len({len(sent(bytes(length), packing=Packing.PADME)[0]) for length in (999_999, 1_000_001)}) == 1


@given(st.integers(0, 2**34))
def test_padded_lengths(length: int) -> None:
    padded = packing.padded_length(length)
    assert padded == independent_packing.padded(length) == packing.padded_length(padded)
    assert length <= padded <= 2**34
    assert length < 1024 or padded < length * 1.0625


@given(st.binary(max_size=3000))
def test_compressed_and_back(data: bytes) -> None:
    packed = bytes(packing.compressed(data))
    assert len(packed) <= len(data)
    assert packed == data or packing.decompressed(packed, len(data)) == data


@pytest.mark.parametrize("claimed", [0, 255, 65_536, PART])
def test_h26_a_bomb_is_never_more_than_it_was_declared_to_be(claimed: int) -> None:
    bomb = framed(bytes(64 << 20), window_log=18)
    assert (64 << 20) / len(bomb) > 1028
    tracemalloc.start()
    try:
        with pytest.raises(BadPacking, match="of the length"):
            packing.decompressed(bomb, claimed)
        assert tracemalloc.get_traced_memory()[1] < 3 * PART
    finally:
        tracemalloc.stop()


def test_a_frame_that_does_not_end_is_refused() -> None:
    with pytest.raises(BadPacking, match="of the length"):
        packing.decompressed(endless(b"a" * 1_000), 1_000)


def test_what_asks_for_more_memory_than_a_part_is_refused() -> None:
    data = bytes(1 << 20)
    assert packing.decompressed(wide(data, window_log=18), len(data)) == data
    with pytest.raises(BadPacking, match="does not open"):
        packing.decompressed(wide(data, window_log=19), len(data))
