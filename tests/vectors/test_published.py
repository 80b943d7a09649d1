"""Published test vectors, from the package ``cryptography-vectors``, against what the suite is built from."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bridge import crypto
from bridge.crypto import KemKey, SigningKey, VerifyKey
from bridge.errors import WeakKey
from tests.vectors.chunked import open_chunked

FOLDER = Path(cryptography_vectors.__file__).parent
KDFS = {1: hpke.KDF.HKDF_SHA256, 2: hpke.KDF.HKDF_SHA384, 3: hpke.KDF.HKDF_SHA512}
KDFS |= {16: hpke.KDF.SHAKE128, 17: hpke.KDF.SHAKE256}
AEADS = {1: hpke.AEAD.AES_128_GCM, 2: hpke.AEAD.AES_256_GCM, 3: hpke.AEAD.CHACHA20_POLY1305}
XWING = 0x647A


def _json(name: str) -> Any:  # noqa: ANN401  a JSON document
    return json.loads((FOLDER / name).read_text())


def _private(vector: dict[str, Any]) -> tuple[hpke.KEM, Any] | None:
    secret = bytes.fromhex(vector["skRm"])
    match vector["kem_id"]:
        case 0x20:
            return hpke.KEM.X25519, x25519.X25519PrivateKey.from_private_bytes(secret)
        case 0x10:
            return hpke.KEM.P256, ec.derive_private_key(int.from_bytes(secret), ec.SECP256R1())
        case 0x12:
            return hpke.KEM.P521, ec.derive_private_key(int.from_bytes(secret), ec.SECP521R1())
        case 0x647A:
            return hpke.KEM.MLKEM768_X25519, KemKey(secret)._key
    return None


def _base_mode() -> Iterator[Any]:
    for name in ("HPKE/test-vectors.json", "HPKE/hpke-pq-test-vectors.json"):
        for at, vector in enumerate(_json(name)):
            usable = vector["mode"] == 0 and vector["kdf_id"] in KDFS and vector["aead_id"] in AEADS
            if usable and _private(vector) is not None:
                yield pytest.param(vector, id=f"{name[5:]}-{at}-kem{vector['kem_id']:#x}")


@pytest.mark.parametrize("vector", list(_base_mode()))
def test_hpke_base_mode(vector: dict[str, Any]) -> None:
    found = _private(vector)
    assert found is not None
    kem, private = found
    suite = hpke.Suite(kem, KDFS[vector["kdf_id"]], AEADS[vector["aead_id"]])
    first = vector["encryptions"][0]
    # The vectors use an aad, which the public single-shot call has no parameter for.
    opened = openssl.hpke._decrypt_with_aad(
        suite,
        bytes.fromhex(vector["enc"]) + bytes.fromhex(first["ct"]),
        private,
        bytes.fromhex(vector["info"]),
        bytes.fromhex(first["aad"]),
    )
    assert opened == bytes.fromhex(first["pt"])


def test_an_x_wing_seed_expands_to_the_published_public_key() -> None:
    vectors = [v for v in _json("HPKE/hpke-pq-test-vectors.json") if v["kem_id"] == XWING]
    assert len(vectors) == 2
    for vector in vectors:
        assert KemKey(bytes.fromhex(vector["skRm"])).public.hex() == vector["pkRm"]


@pytest.mark.parametrize("vector", _json("chunked-encryption/vectors.json")["vectors"], ids=lambda v: v["name"])
def test_chunked_encryption(vector: dict[str, Any]) -> None:
    sealed = base64.b64decode(vector["ciphertext"] or "")
    if vector.get("compressed"):
        sealed = zlib.decompress(sealed)
    arguments = (
        vector["aead"],
        hashes.SHA256(),
        bytes.fromhex(vector["key"]),
        vector["context"].encode(),
        sealed,
    )
    if vector["expect"] == "failure":
        with pytest.raises(ValueError, match=r"commitment|tag|nonce|data"):
            open_chunked(*arguments)
        return
    message = open_chunked(*arguments)
    assert (len(message), hashlib.sha256(message).hexdigest()) == (vector["payload_length"], vector["payload_sha256"])


@pytest.mark.parametrize("length", [0, 1, 16_383, 16_384, 20_000, 32_768, 100_000])
def test_the_library_seals_what_the_specification_opens(length: int) -> None:
    key, body = crypto.random_bytes(32), crypto.random_bytes(length)
    sealed = crypto.seal_body(key, b"context", body)
    assert open_chunked("AEAD_AES_256_GCM", hashes.SHA512(), key, b"context", sealed) == body


def _ed25519() -> list[list[str]]:
    return [line.split(":") for line in (FOLDER / "asymmetric/Ed25519/sign.input").read_text().splitlines()]


def test_ed25519() -> None:
    vectors = _ed25519()
    assert len(vectors) == 1024
    for secret, public, message, signed, _ in vectors:
        key = SigningKey(bytes.fromhex(secret)[:32])
        signature = bytes.fromhex(signed)[:64]
        assert key.public.hex() == public
        assert key.sign(bytes.fromhex(message)) == signature
        assert VerifyKey(key.public).verify(signature, bytes.fromhex(message))


def test_no_published_key_is_taken_for_a_weak_one() -> None:
    for _, public, *_ in _ed25519():
        VerifyKey(bytes.fromhex(public))
    with pytest.raises(WeakKey):
        VerifyKey(bytes(32))


def test_hkdf_of_rfc_5869_with_sha_256() -> None:
    text = (FOLDER / "KDF/rfc-5869-HKDF-SHA256.txt").read_text()
    seen = 0
    for block in text.split("COUNT")[1:]:
        values = dict(line.split(" = ") for line in block.splitlines()[1:] if " = " in line)
        ikm, salt, info, okm = (bytes.fromhex(values.get(k, "")) for k in ("IKM", "salt", "info", "OKM"))
        assert HKDF(hashes.SHA256(), len(okm), salt or None, info).derive(ikm) == okm
        if not salt:
            assert crypto.derive_key(ikm, info) == HKDF(hashes.SHA256(), 32, None, info).derive(ikm)
        seen += 1
    assert seen == 3
