"""Keys, Merkle proofs and sealing, against arithmetic and definitions written apart from the code."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import crypto
from bridge.crypto import KemKey, KemPublicKey, SigningKey, VerifyKey
from bridge.errors import BadSeal, WeakKey

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def _points_of_small_order() -> list[tuple[int, int]]:
    """All points with 8·Q = 0, found by multiplying arbitrary points by the group's large prime order."""
    order = 2**252 + 27742317777372353535851937790883648493
    found: set[tuple[int, int]] = set()
    y = 2
    while len(found) < 8:
        x = _recover_x(y)
        if x is not None:
            found.add(_multiply(order, (x, y)))
        y += 1
    return sorted(found)


def _recover_x(y: int) -> int | None:
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if (x * x - x2) % P == 0 else None


def _add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P
    return x, y


def _multiply(k: int, point: tuple[int, int]) -> tuple[int, int]:
    total = (0, 1)
    while k:
        if k & 1:
            total = _add(total, point)
        point = _add(point, point)
        k >>= 1
    return total


def test_h13_every_encoding_of_every_small_order_point_is_refused() -> None:
    points = _points_of_small_order()
    assert len(points) == 8
    encodings = set()
    for _, y in points:
        for value in (y, y + P):
            if value < 2**255:
                for sign in (0, 1):
                    encodings.add((value | sign << 255).to_bytes(32, "little"))
    assert len(encodings) == 14
    for encoding in encodings:
        with pytest.raises(WeakKey):
            VerifyKey(encoding)


@pytest.mark.parametrize("public", [b"", b"\x05" * 31, b"\x05" * 33, (P + 5).to_bytes(32, "little")])
def test_a_public_key_of_the_wrong_length_or_form_is_refused(public: bytes) -> None:
    with pytest.raises(WeakKey):
        VerifyKey(public)


def test_a_signature_verifies_only_for_its_message_and_key() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    signature = key.sign(b"message")
    assert VerifyKey(key.public).verify(signature, b"message")
    assert not VerifyKey(key.public).verify(signature, b"massage")
    assert not VerifyKey(other.public).verify(signature, b"message")


def test_private_keys_do_not_show_themselves() -> None:
    sign, kem = SigningKey.generate(), KemKey.generate()
    for key in (sign, kem):
        assert key.seed.hex() not in repr(key)
        assert repr(key.seed) not in repr(key)


def test_kinds_of_key_never_share_an_id() -> None:
    assert crypto.kid_of("ed25519", b"x" * 32) != crypto.kid_of("xwing", b"x" * 32)


def _reference_root(leaves: list[bytes]) -> bytes:
    """RFC 9162, 2.1.1, as it is written."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + _reference_root(leaves[:k]) + _reference_root(leaves[k:])).digest()


@given(st.integers(1, 256))
def test_a_tree_has_the_root_of_rfc_9162_and_every_path_leads_to_it(size: int) -> None:
    data = [i.to_bytes(2) for i in range(size)]
    leaves = [crypto.leaf_hash(item) for item in data]
    root, paths = crypto.merkle_tree(leaves)
    assert root == _reference_root(data)
    for index, path in enumerate(paths):
        assert len(path) == crypto.path_length(index, size)
        assert crypto.root_of(leaves[index], index, size, path) == root


def test_a_wrap_opens_only_with_its_key_and_info() -> None:
    key, other = KemKey.generate(), KemKey.generate()
    wrap = KemPublicKey(key.public).wrap(b"s" * 32, b"info")
    assert len(wrap) == crypto.WRAP_LEN
    assert key.unwrap(wrap, b"info") == b"s" * 32
    for opener, info in ((key, b"other"), (other, b"info")):
        with pytest.raises(BadSeal):
            opener.unwrap(wrap, info)


def test_a_seed_makes_the_same_key_again() -> None:
    key = KemKey.generate()
    assert KemKey(key.seed).public == key.public


@pytest.mark.parametrize("length", [0, 1, 16_383, 16_384, 16_385, 32_768, 40_000])
def test_a_sealed_body_has_the_length_foretold(length: int) -> None:
    sealed = crypto.seal_body(b"k" * 32, b"context", bytes(length))
    assert len(sealed) == crypto.sealed_length(length)
    assert crypto.open_body(b"k" * 32, b"context", sealed) == bytes(length)


def test_a_body_opens_only_whole_and_in_its_context() -> None:
    sealed = crypto.seal_body(b"k" * 32, b"context", bytes(20_000))
    for wrong in (sealed[:-1], sealed + b"\0", sealed[:16_000], b""):
        with pytest.raises(BadSeal):
            crypto.open_body(b"k" * 32, b"context", wrong)
    with pytest.raises(BadSeal):
        crypto.open_body(b"k" * 32, b"other", sealed)


def test_a_nkey_seed_has_a_public_half_and_anything_else_is_refused_without_echo() -> None:
    assert crypto.is_nkey(crypto.nkey_public(crypto.new_nkey()))
    for wrong in ("", "SUAXYZ", "hello", "SAAOZ"):
        with pytest.raises(ValueError, match="not a NKey seed"):
            crypto.nkey_public(wrong)
