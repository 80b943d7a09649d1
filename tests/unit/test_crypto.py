"""Keys, Merkle proofs and sealing, against arithmetic and definitions written apart from the code."""

from __future__ import annotations

import hashlib
import hmac

import nkeys
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


@pytest.mark.parametrize("length", [0, 1, 16_384, 40_000])
def test_a_body_is_sealed_into_room_that_is_used_again(length: int) -> None:
    room = bytearray(b"\xff" * (crypto.sealed_length(40_000) + 1))
    for body in (b"a" * length, b"b" * length):
        sealed = crypto.seal_body(b"k" * 32, b"context", body, room)
        assert len(sealed) == crypto.sealed_length(length)
        assert crypto.open_body(b"k" * 32, b"context", sealed) == body
        assert len(room) == crypto.sealed_length(40_000) + 1


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="an Ed25519 seed has 32 bytes"):
        SigningKey(bytes(length))
    with pytest.raises(ValueError, match="an X-Wing seed has 32 bytes"):
        KemKey(bytes(length))


def test_a_new_key_is_another_and_of_the_epoch_that_is_asked_for() -> None:
    assert len({key.seed for key in (SigningKey.generate(), SigningKey.generate(), KemKey.generate())}) == 3
    assert (KemKey.generate().epoch, KemKey.generate(3).epoch, KemKey(bytes(32)).epoch) == (0, 3, 0)


def test_every_encoding_of_y_that_is_not_the_least_is_refused() -> None:
    for y in range(P, 2**255):  # 19 of them
        for sign in (0, 1):
            with pytest.raises(WeakKey):
                VerifyKey((y | sign << 255).to_bytes(32, "little"))
    for y in (2, P - 2):
        assert VerifyKey(y.to_bytes(32, "little")).public == y.to_bytes(32, "little")


def test_an_encapsulation_key_is_as_long_as_it_must_be_and_below_its_modulus() -> None:
    public = KemKey.generate().public
    for wrong in (b"", public[:-1], public + b"\0", b"\xff" * len(public)):
        with pytest.raises(WeakKey):
            KemPublicKey(wrong)


@pytest.mark.parametrize("wrap", [b"", b"short", bytes(crypto.WRAP_LEN), bytes(crypto.WRAP_LEN - 1)])
def test_what_is_no_wrap_does_not_open(wrap: bytes) -> None:
    with pytest.raises(BadSeal):
        KemKey(bytes(32)).unwrap(wrap, b"info")


def test_hashes_are_of_what_they_say() -> None:
    framed = b"\0\0\0\2ab\0\0\0\0\0\0\0\1c"
    assert crypto.keyed_hash(b"secret", b"ab", b"", b"c") == hmac.new(b"secret", framed, "sha256").digest()
    assert crypto.sha256_twice(b"ab", b"c") == (hashlib.sha256(b"ab").digest(), hashlib.sha256(b"abc").digest())
    assert crypto.hashing(b"ab").digest() == crypto.sha256(b"ab") == hashlib.sha256(b"ab").digest()
    assert crypto.leaf_hash(memoryview(b"ab")) == hashlib.sha256(b"\0ab").digest()
    assert crypto.kid_of("xwing", b"ab") == hashlib.sha256(b"bunny-bridge/v1/kid/xwing\0ab").digest()
    assert (len(crypto.random_bytes(16)), len({crypto.random_bytes(16) for _ in range(10)})) == (16, 10)


def test_a_nkey_is_a_users_and_signs_what_a_server_sends() -> None:
    seed = crypto.new_nkey()
    assert seed != crypto.new_nkey()
    public = crypto.nkey_public(seed)
    assert nkeys.from_seed(seed.encode()).verify(b"nonce", crypto.nkey_sign(seed, b"nonce"))
    of_an_account = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_ACCOUNT).decode()
    for act in (lambda: crypto.nkey_public(of_an_account), lambda: crypto.nkey_sign(of_an_account, b"nonce")):
        with pytest.raises(ValueError, match="of a user"):
            act()
    for wrong in (public[:-1], public + "A", f"A{public[1:]}", public.lower(), f"{public[:-1]}1", f"{public}\n", ""):
        assert not crypto.is_nkey(wrong)
