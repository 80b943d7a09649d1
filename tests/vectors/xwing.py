"""HPKE base mode (RFC 9180) over X-Wing (draft-connolly-cfrg-xwing-kem), the receiving side, written from the two.

The suite is MLKEM768_X25519, HKDF-SHA256, AES-256-GCM. The library offers the same as one call: this is what it is
held to.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

ENC = 1_120
MLKEM_ENC = 1_088
MLKEM_PUBLIC = 1_184
PUBLIC = 1_216
LABEL = b"\\.//^\\"
SUITE = b"HPKE" + bytes.fromhex("647a" "0001" "0002")  # fmt: skip  # KEM, KDF, AEAD


class XWing:
    """A private key, from its seed of 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        expanded = hashlib.shake_256(seed).digest(96)
        self._mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        self._x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        self._x25519_public = self._x25519.public_key().public_bytes_raw()
        self.public = self._mlkem.public_key().public_bytes_raw() + self._x25519_public

    def decapsulate(self, enc: bytes) -> bytes:
        """The shared secret; ValueError where the X25519 part is a point of small order."""
        mlkem = self._mlkem.decapsulate(enc[:MLKEM_ENC])
        x25519 = self._x25519.exchange(X25519PublicKey.from_public_bytes(enc[MLKEM_ENC:]))
        return hashlib.sha3_256(mlkem + x25519 + enc[MLKEM_ENC:] + self._x25519_public + LABEL).digest()


def open_single_shot(private: XWing, info: bytes, sealed: bytes) -> bytes:
    """What ``sealed`` (enc, ciphertext) holds, with an empty aad; ValueError where it does not open."""
    shared = private.decapsulate(sealed[:ENC])
    context = b"\0" + _extract(b"", b"psk_id_hash", b"") + _extract(b"", b"info_hash", info)
    secret = _extract(shared, b"secret", b"")
    key, nonce = _expand(secret, b"key", context, 32), _expand(secret, b"base_nonce", context, 12)
    try:
        return AESGCM(key).decrypt(nonce, sealed[ENC:], None)
    except InvalidTag:
        raise ValueError("tag") from None


def passes_modulus_check(public: bytes) -> bool:
    """Whether the ML-KEM half encodes integers below q, and the whole has its length (FIPS 203, 7.2)."""
    if len(public) != PUBLIC:
        return False
    bits = int.from_bytes(public[: MLKEM_PUBLIC - 32], "little")
    return all((bits >> (12 * at)) & 0xFFF < 3_329 for at in range(3 * 256))


def _extract(salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + SUITE + label + ikm, "sha256")


def _expand(secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2) + b"HPKE-v1" + SUITE + label + info
    return HKDFExpand(hashes.SHA256(), length, labelled).derive(secret)
