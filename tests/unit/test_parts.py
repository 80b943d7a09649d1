"""Parts and their index: how many, how long, and what is refused of an author who lies about either."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge import payload
from bridge.core import MAX_PAYLOAD
from bridge.errors import BadPacking, BadPart, PayloadTooLarge
from bridge.packing import Packing
from bridge.payload import PART, PIECE, Manifest, PartOpener, PartSealer, stored_length
from tests.world import World

SECRET = bytes(32)
SEALED = PART + 72 + 256
"""Bytes of a whole part once sealed: 72 of its own, and 16 for each 16 KiB but the first."""


def sealed(
    data: bytes, how: Packing | None = None, *, padded: bytes | None = None
) -> tuple[Manifest, list[bytes], list[bytes]]:
    """What is signed of a payload, its parts and the pieces of its index."""
    sealer = PartSealer(SECRET, how)
    room = data + (bytes(sealer.padding(len(data))) if padded is None else padded)
    parts = [sealer.seal(room[at : at + PART])[1] for at in range(0, len(room), PART)]
    return sealer.manifest(), parts, [piece for _, piece in sealer.pieces()]


def opener(manifest: Manifest, pieces: list[bytes]) -> PartOpener:
    made = PartOpener(SECRET, manifest)
    made.learn(pieces)
    return made


# --- numbers and lengths --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "parts", "pieces", "last", "last_piece"),
    [
        (1, 1, 1, 73, 32),
        (PART, 1, 1, SEALED, 32),
        (PART + 1, 2, 1, 73, 64),
        (PART * 8192, 8192, 1, SEALED, 32 * 8192),
        (PART * 8192 + 1, 8193, 2, 73, 32),
        (PART * 8193 + 1, 8194, 2, 73, 64),
    ],
)
def test_how_many_messages_and_of_which_length(
    length: int, parts: int, pieces: int, last: int, last_piece: int
) -> None:
    manifest = Manifest(bytes(16), bytes(32), length)
    assert (manifest.parts, manifest.pieces, manifest.messages) == (parts, pieces, parts + pieces)
    assert (manifest.size_of(parts - 1), manifest.size_of(parts + pieces - 1)) == (last, last_piece)
    assert manifest.content == length
    assert stored_length(length) == sum(map(manifest.size_of, range(manifest.messages)))
    for number in (0, parts - 1, parts, parts + pieces - 1):
        assert [manifest.fits(number, manifest.size_of(number) + more) for more in (-1, 0, 1)] == [False, True, False]


def test_a_compressed_part_may_be_shorter_and_its_index_not() -> None:
    manifest = Manifest(bytes(16), bytes(32), PART + 10, Packing.ZSTD)
    assert [manifest.fits(0, size) for size in (72, 73, SEALED, SEALED + 1)] == [False, True, True, False]
    assert [manifest.fits(1, size) for size in (72, 73, 82, 83)] == [False, True, True, False]
    assert [manifest.fits(2, size) for size in (63, 64, 65)] == [False, True, False]


def test_what_travels_inline_has_no_manifest() -> None:
    assert Manifest.of(World().job().core) is None


def test_an_index_of_many_parts_is_in_pieces() -> None:
    sealer = PartSealer(SECRET)
    sealer._digests = [number.to_bytes(32) for number in range(PIECE + 1)]
    (first, whole), (second, rest) = sealer.pieces()
    assert (first, second, len(whole), rest) == (PIECE + 1, PIECE + 2, 32 * PIECE, PIECE.to_bytes(32))


# --- sealing ------------------------------------------------------------------------------------------


def test_every_part_but_the_last_is_whole() -> None:
    sealer = PartSealer(SECRET)
    for wrong in (b"", bytes(PART + 1)):
        with pytest.raises(ValueError, match="every part but the last"):
            sealer.seal(wrong)
    assert sealer.seal(bytes(PART))[0] == 0
    assert sealer.seal(b"the last")[0] == 1
    with pytest.raises(ValueError, match="every part but the last"):
        sealer.seal(b"one more")
    assert sealer.manifest().length == PART + 8


def test_a_payload_has_a_byte_and_no_more_than_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="travels inline"):
        PartSealer(SECRET).manifest()
    assert MAX_PAYLOAD == 16 << 30
    monkeypatch.setattr(payload, "MAX_PAYLOAD", PART + 10)
    for last in (10, 11):
        sealer = PartSealer(SECRET)
        sealer.seal(bytes(PART))
        if last == 10:
            sealer.seal(bytes(last))
        else:
            with pytest.raises(PayloadTooLarge):
                sealer.seal(bytes(last))


@pytest.mark.parametrize("length", [10, PART - 1, PART, PART + 10])
@pytest.mark.parametrize("how", [None, Packing.ZSTD, Packing.PADME])
def test_there_and_back(how: Packing | None, length: int) -> None:
    data = (b"0123456789" * (length // 10 + 1))[:length]
    manifest, parts, pieces = sealed(data, how)
    reader = opener(manifest, pieces)
    assert b"".join(reader.open(number, part) for number, part in enumerate(parts)) == data
    assert (manifest.content, manifest.length - manifest.padding) == (length, length)
    assert (manifest.padding > 0) == (how is Packing.PADME and length != PART)
    assert (len(parts[0]) < PART - 1) == (how is Packing.ZSTD or length == 10)


# --- reading ------------------------------------------------------------------------------------------


def test_only_the_index_that_was_signed_is_learnt_and_nothing_is_read_before() -> None:
    manifest, (part,), (index,) = sealed(b"some bytes")
    reader = PartOpener(SECRET, manifest)
    with pytest.raises(ValueError, match="the index comes first"):
        reader.matches(0, part)
    for wrong in ([], [index, b""[:0], index], [bytes(32)], [index[:31]]):
        with pytest.raises(BadPart, match="the index"):
            reader.learn(wrong)
    reader.learn([index[:7], index[7:]])
    assert reader.open(0, part) == b"some bytes"


def test_an_index_of_another_length_than_the_payloads_is_refused_although_it_was_signed() -> None:
    manifest, _, pieces = sealed(bytes(PART + 1))
    with pytest.raises(BadPart, match="the index"):
        opener(replace(manifest, length=PART), pieces)


@pytest.mark.parametrize("length", [9, 11])
def test_a_part_of_another_length_than_was_signed_is_refused(length: int) -> None:
    manifest, (part,), pieces = sealed(b"some bytes")
    reader = opener(replace(manifest, length=length), pieces)
    with pytest.raises(BadPart, match="of another length"):
        reader.check(0, part)
    with pytest.raises(BadPart, match="of another length"):
        reader.unseal(0, part)  # whoever has checked it elsewhere


def test_each_of_several_parts_is_the_one_of_its_place() -> None:
    data = b"".join(bytes([number]) * PART for number in range(4))
    manifest, parts, pieces = sealed(data)
    reader = opener(manifest, pieces)
    for number, part in enumerate(parts):
        assert [reader.matches(place, part) for place in range(4)] == [place == number for place in range(4)]


def test_what_is_shorter_and_not_compressed_does_not_open_as_if() -> None:
    manifest, (part,), pieces = sealed(b"some bytes")
    with pytest.raises(BadPacking):
        opener(replace(manifest, length=11, packing=Packing.ZSTD), pieces).open(0, part)


@pytest.mark.parametrize("at", [0, 5])
def test_padding_that_says_something_is_refused(at: int) -> None:
    said = bytes(at) + b"x" + bytes(5 - at)
    sealer = PartSealer(SECRET, Packing.PADME)
    sealer.content = 10
    _, part = sealer.seal(b"some bytes" + said)
    manifest = sealer.manifest()
    assert (manifest.length, manifest.content, manifest.padding) == (16, 10, 6)
    with pytest.raises(BadPacking):
        opener(manifest, [sealer.pieces()[0][1]]).open(0, part)


def test_a_part_that_is_all_padding_has_none_of_the_payloads_bytes() -> None:
    sealer = PartSealer(SECRET, Packing.PADME)
    sealer.content = 10
    parts = [sealer.seal(b"some bytes" + bytes(PART - 10))[1], sealer.seal(bytes(5))[1]]
    reader = opener(sealer.manifest(), [piece for _, piece in sealer.pieces()])
    assert [reader.open(number, part) for number, part in enumerate(parts)] == [b"some bytes", b""]
