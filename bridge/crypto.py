"""The suite: keys, signatures, Merkle proofs, key derivation, sealing. One of each, never negotiated. No I/O.

With `bridge.pki` the only importer of ``cryptography``. Byte layouts are in ``docs/spec.md``.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal

import nkeys
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from bridge.errors import BadSeal, WeakKey

SEED_LEN: Final = 32
ED25519_PUBLIC_LEN: Final = 32
XWING_PUBLIC_LEN: Final = 1216
"""ML-KEM-768 encapsulation key (1,184) ‖ X25519 public key (32), as draft-connolly-cfrg-xwing-kem has it."""
SIGNATURE_LEN: Final = 64
WRAP_LEN: Final = 1168
"""HPKE enc (1,088 + 32) ‖ AES-256-GCM of a 32-byte secret (32 + 16)."""
SEAL_OVERHEAD: Final = 72
"""Bytes that Cobblestone adds to a body below 16 KiB; each full 16 KiB chunk adds 16."""
MAX_TREE: Final = 256

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_NO_SALT: Final = bytes(32)
_IPAD: Final = bytes(each ^ 0x36 for each in range(256))
_OPAD: Final = bytes(each ^ 0x5C for each in range(256))
_NKEY: Final = re.compile(r"U[A-Z2-7]{55}")
_P: Final = 2**255 - 19
# The y coordinates of the eight points of small order: 0 and the two of order 8 stand for two points each.
# OpenSSL accepts them as keys, and then anyone can sign for such a "key".
_SMALL_ORDER_Y: Final = frozenset(
    {
        0,
        1,
        _P - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    }
)


def sha256(data: bytes | memoryview) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(data).digest()


def hashing(data: bytes) -> hashlib._Hash:
    """SHA-256 of the first bytes of what is to be hashed whole as well."""
    return hashlib.sha256(data)


def sha256_twice(first: bytes | memoryview, rest: bytes | memoryview) -> tuple[bytes, bytes]:
    """SHA-256 of the first bytes, and of all of them, in one pass."""
    digest = hashlib.sha256(first)
    of_first = digest.digest()
    digest.update(rest)
    return of_first, digest.digest()


def keyed_hash(secret: bytes, *parts: bytes) -> bytes:
    """HMAC-SHA256 of parts, each after its length, so that no two sequences of parts are the same bytes."""
    return hmac.digest(secret, b"".join(len(part).to_bytes(4) + part for part in parts), "sha256")


def random_bytes(n: int) -> bytes:
    """Bytes from the operating system's generator."""
    return os.urandom(n)


def kid_of(kind: Literal["ed25519", "xwing"], public: bytes) -> bytes:
    """The key id of a raw public key: 32 bytes, different for the two kinds by construction."""
    return sha256(f"bunny-bridge/v1/kid/{kind}\0".encode() + public)


# --- signatures ------------------------------------------------------------------------------------


class VerifyKey:
    """An Ed25519 public key that is canonical and not of small order.

    Raises:
        WeakKey: It is neither, or not a key at all.
    """

    __slots__ = ("_key", "kid", "public")

    def __init__(self, public: bytes) -> None:
        y = int.from_bytes(public, "little") & ((1 << 255) - 1)
        if len(public) != ED25519_PUBLIC_LEN or y >= _P or y in _SMALL_ORDER_Y:
            raise WeakKey("an Ed25519 public key is not canonical or has small order; make a new key")
        self._key = Ed25519PublicKey.from_public_bytes(public)
        self.public = public
        self.kid = kid_of("ed25519", public)

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature is this key's over the message."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """An Ed25519 private key, from a 32-byte seed. Its ``repr`` shows the key id alone."""

    __slots__ = ("_key", "kid", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_LEN:
            raise ValueError("an Ed25519 seed has 32 bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.seed = seed
        self.public = self._key.public_key().public_bytes_raw()
        self.kid = kid_of("ed25519", self.public)

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key."""
        return cls(random_bytes(SEED_LEN))

    def sign(self, message: bytes) -> bytes:
        """64 bytes, RFC 8032."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.kid.hex()[:16]}…)"


# --- Merkle trees (RFC 9162, 2.1) ------------------------------------------------------------------


def leaf_hash(data: bytes | memoryview) -> bytes:
    """The hash of a leaf: SHA-256(0x00 ‖ data)."""
    return hashlib.sha256(b"".join((b"\x00", data))).digest()


def _node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def merkle_tree(leaves: Sequence[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """The root over leaf hashes, and each leaf's inclusion path from the bottom up.

    Built level by level: a node without a sibling rises unchanged, which gives the same tree as the
    recursive definition of RFC 9162 for any size.
    """
    paths: list[list[bytes]] = [[] for _ in leaves]
    level = list(leaves)
    members = [[i] for i in range(len(leaves))]
    while len(level) > 1:
        parents: list[bytes] = []
        parent_members: list[list[int]] = []
        for i in range(0, len(level) - 1, 2):
            for leaf in members[i]:
                paths[leaf].append(level[i + 1])
            for leaf in members[i + 1]:
                paths[leaf].append(level[i])
            parents.append(_node_hash(level[i], level[i + 1]))
            parent_members.append(members[i] + members[i + 1])
        if len(level) % 2:
            parents.append(level[-1])
            parent_members.append(members[-1])
        level, members = parents, parent_members
    return level[0], paths


@lru_cache(4096)
def path_length(index: int, size: int) -> int:
    """How many hashes the inclusion path of leaf ``index`` has in a tree of ``size`` leaves."""
    length, last = 0, size - 1
    while last:
        # The last node of a level with an even index has no sibling there, and adds none.
        if index % 2 or index < last:
            length += 1
        index, last = index >> 1, last >> 1
    return length


def root_of(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an inclusion path leads to (RFC 9162, 2.1.3.2); the path has `path_length` hashes."""
    node, last, used = leaf, size - 1, 0
    while last:
        if index % 2:
            node = _node_hash(path[used], node)
            used += 1
        elif index < last:
            node = _node_hash(node, path[used])
            used += 1
        index, last = index >> 1, last >> 1
    return node


# --- sealing ---------------------------------------------------------------------------------------


class KemPublicKey:
    """An X-Wing public key (ML-KEM-768 with X25519): what a secret is wrapped to.

    Raises:
        WeakKey: It is not a valid encapsulation key.
    """

    __slots__ = ("_key", "kid", "public")

    def __init__(self, public: bytes) -> None:
        if len(public) != XWING_PUBLIC_LEN:
            raise WeakKey(f"an X-Wing public key has {XWING_PUBLIC_LEN} bytes, not {len(public)}")
        try:
            self._key = MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(public[:-32]),
                X25519PublicKey.from_public_bytes(public[-32:]),
            )
        except ValueError:
            raise WeakKey("an X-Wing public key fails the ML-KEM modulus check; make a new key") from None
        self.public = public
        self.kid = kid_of("xwing", public)

    def wrap(self, secret: bytes, info: bytes) -> bytes:
        """HPKE base mode, single shot: 1,168 bytes for a 32-byte secret."""
        return _SUITE.encrypt(secret, self._key, info)


class KemKey:
    """An X-Wing private key, from a 32-byte seed. Its ``repr`` shows the key id alone."""

    __slots__ = ("_key", "epoch", "kid", "public", "seed")

    def __init__(self, seed: bytes, epoch: int = 0) -> None:
        if len(seed) != SEED_LEN:
            raise ValueError("an X-Wing seed has 32 bytes")
        # draft-connolly-cfrg-xwing-kem, 5.2: d ‖ z for ML-KEM, then the X25519 scalar.
        expanded = hashlib.shake_256(seed).digest(96)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        self._key = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.seed = seed
        self.epoch = epoch
        self.public = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        self.kid = kid_of("xwing", self.public)

    @classmethod
    def generate(cls, epoch: int = 0) -> KemKey:
        """A new key."""
        return cls(random_bytes(SEED_LEN), epoch)

    def unwrap(self, wrap: bytes, info: bytes) -> bytes:
        """The wrapped secret.

        Raises:
            BadSeal: The wrap is not for this key and info.
        """
        try:
            return _SUITE.decrypt(wrap, self._key, info)
        except (InvalidTag, ValueError):
            raise BadSeal("a wrap does not open with the key it names") from None

    def __repr__(self) -> str:
        return f"KemKey({self.kid.hex()[:16]}…, epoch={self.epoch})"


class Derivation:
    """HKDF-SHA256 (RFC 5869) of one secret with an empty salt, extracted once. Its ``repr`` shows nothing of it.

    A key is one block, and so one call of HMAC (RFC 2104), from states that its key has gone into already: a third of
    what it takes to begin anew.
    """

    __slots__ = ("_inner", "_outer", "secret")

    def __init__(self, secret: bytes) -> None:
        key = hmac.digest(_NO_SALT, secret, "sha256")
        self.secret = secret
        self._inner = hashlib.sha256(key.translate(_IPAD) + _IPAD[:1] * 32)
        self._outer = hashlib.sha256(key.translate(_OPAD) + _OPAD[:1] * 32)

    def key(self, info: bytes) -> bytes:
        """32 bytes for one purpose."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(info + b"\x01")
        outer.update(inner.digest())
        return outer.digest()

    def __repr__(self) -> str:
        return "Derivation(…)"


def derive_key(secret: bytes, info: bytes) -> bytes:
    """A key of a secret that no other is derived of."""
    return Derivation(secret).key(info)


def sealed_length(length: int) -> int:
    """How long a body of ``length`` bytes is once sealed."""
    return length + SEAL_OVERHEAD + 16 * (length // 16_384)


def seal_body(key: bytes, context: bytes, body: bytes | memoryview, room: bytearray | None = None) -> bytes:
    """Cobblestone (c2sp.org/chunked-encryption, 16 KiB chunks): key-committing, bound to the context.

    Args:
        key: 32 bytes.
        context: What it is.
        body: What is sealed.
        room: Of the sealed length at least, for whoever seals one long body after another: fresh memory for each costs
            more than sealing it does.
    """
    encryptor = Cobblestone256Encryptor(key, context)
    if room is None:
        return encryptor.update(body) + encryptor.finalize()
    written = encryptor.update_into(body, room)
    end = encryptor.finalize()
    room[written : written + len(end)] = end
    return bytes(memoryview(room)[: written + len(end)])


def open_body(key: bytes, context: bytes, sealed: bytes | memoryview) -> bytes:
    """The body of `seal_body`.

    Raises:
        BadSeal: Any byte differs. Uses ``update``, never ``update_into``, which would leave unverified
            plaintext in a buffer.
    """
    try:
        decryptor = Cobblestone256Decryptor(key, context)
        return decryptor.update(sealed) + decryptor.finalize()
    except (InvalidTag, ValueError):
        raise BadSeal("the ciphertext does not open") from None


# --- NKeys -----------------------------------------------------------------------------------------


def new_nkey() -> str:
    """The seed (``SU…``) of a new NATS user key."""
    return str(nkeys.encode_seed(random_bytes(SEED_LEN), nkeys.PREFIX_BYTE_USER).decode())


def nkey_public(seed: str) -> str:
    """The public half (``U…``) of a NATS user seed.

    Raises:
        ValueError: It is not a user seed.
    """
    try:
        public = str(nkeys.from_seed(seed.encode()).public_key.decode())
    except Exception:  # nkeys raises many kinds, some of which carry the seed
        raise ValueError("not a NKey seed") from None
    if not is_nkey(public):
        raise ValueError("not a NKey seed of a user")
    return public


def nkey_sign(seed: str, nonce: bytes) -> bytes:
    """The signature over a server's nonce that proves possession of a NATS user seed.

    Raises:
        ValueError: It is not a user seed.
    """
    nkey_public(seed)
    return bytes(nkeys.from_seed(seed.encode()).sign(nonce))


def is_nkey(public: str) -> bool:
    """Whether the text looks like the public key of a NATS user: 56 characters of base32, from ``U``."""
    return _NKEY.fullmatch(public) is not None
