"""A second verifier of trust bundles, written from ``docs/spec.md`` alone; it imports nothing from ``bridge``."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.vectors import strictness as strict
from tests.vectors.strictness import Refused
from tests.vectors.xwing import passes_modulus_check

AHEAD_MS = 5 * 60 * 1_000
TRUST_TYPE = "application/vnd.bunny-bridge.trust.v1+json"
P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


# --- 2 Keys ----------------------------------------------------------------------------------------


def kid(kind: str, public: bytes) -> bytes:
    return hashlib.sha256(b"bunny-bridge/v1/kid/" + kind.encode() + b"\0" + public).digest()


def _root(square: int) -> int | None:
    root = pow(square, (P + 3) // 8, P)
    for candidate in (root, root * pow(2, (P - 1) // 4, P) % P):
        if candidate * candidate % P == square % P:
            return candidate
    return None


def _small_order() -> frozenset[int]:
    """The y of the eight points: 1 and -1 (orders 1 and 2), 0 (order 4), and four roots of d y^4 + 2 y^2 = 1."""
    found = {0, 1, P - 1}
    half = _root(1 + D)
    for sign in (1, -1):
        y = _root((sign * half - 1) * pow(D, -1, P) % P) if half is not None else None
        found |= {y, P - y} if y is not None else set()
    return frozenset(found)


SMALL_ORDER = _small_order()


def signing_key(public: bytes) -> Ed25519PublicKey:
    y = int.from_bytes(public, "little") & (2**255 - 1)
    if len(public) != 32 or y >= P or y in SMALL_ORDER:
        raise Refused("WeakKey", "length, small order or not canonical")
    return Ed25519PublicKey.from_public_bytes(public)


def verifies(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


# --- 3 Trust ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signer:
    principal: str
    key: Ed25519PublicKey
    not_before: int
    not_after: int


@dataclass(frozen=True)
class Bundle:
    """What a verified bundle says that an opener needs."""

    version: int
    issued: int
    expires: int
    signers: dict[bytes, Signer]
    grants: dict[tuple[str, str, str], frozenset[str]]
    principals: dict[str, tuple[str, str]]
    """Role and cloud."""

    def check(self, now: int) -> None:
        if now >= self.expires or self.issued > now + AHEAD_MS:
            raise Refused("BundleExpired", "outside its times")


def verify_bundle(trust: bytes, roots: bytes, now: int, floor: int = 0) -> Bundle:
    """Section 3.3, in its order."""
    bridge, threshold, keys = _roots(roots)
    outer = strict.read(trust, "BadBundle")
    strict.fields(
        outer,
        "BadBundle",
        payloadType=strict.one_of(TRUST_TYPE),
        payload=strict.text,
        signatures=strict.list_of(lambda _: True, 1, 16),
    )
    payload = strict.base64_padded(outer["payload"], "BadBundle")
    signatures = []
    for entry in outer["signatures"]:
        strict.fields(entry, "BadBundle", keyid=strict.hex_of(32), sig=strict.text)
        signatures.append((bytes.fromhex(entry["keyid"]), strict.base64_padded(entry["sig"], "BadBundle")))
    if len({by for by, _ in signatures}) != len(signatures):
        raise Refused("RepeatedSigner", "a root twice")
    signed = b"DSSEv1 %d %s %d %s" % (len(TRUST_TYPE), TRUST_TYPE.encode(), len(payload), payload)
    if sum(by in keys and verifies(keys[by], signature, signed) for by, signature in signatures) < threshold:
        raise Refused("BelowThreshold", "too few roots")
    value, bundle = _payload(payload)
    if value["bridge"] != bridge:
        raise Refused("BadBundle", "of another bridge")
    if bundle.version < floor:
        raise Refused("BundleRolledBack", "below the floor")
    bundle.check(now)
    return bundle


def _roots(raw: bytes) -> tuple[str, int, dict[bytes, Ed25519PublicKey]]:
    value = strict.read(raw, "BadBundle")
    strict.fields(
        value,
        "BadBundle",
        version=strict.one_of(1),
        bridge=strict.name,
        threshold=strict.whole(1, 16),
        keys=strict.list_of(lambda _: True, 1, 16),
    )
    keys: dict[bytes, Ed25519PublicKey] = {}
    for entry in value["keys"]:
        strict.fields(entry, "BadBundle", kid=strict.hex_of(32), public=strict.text)
        by, public = _key(entry, "ed25519")
        if by in keys:
            raise Refused("BadBundle", "a root twice")
        keys[by] = signing_key(public)
    if value["threshold"] > len(keys):
        raise Refused("BadBundle", "threshold")
    return value["bridge"], value["threshold"], keys


def _key(entry: dict[str, Any], kind: str) -> tuple[bytes, bytes]:
    public = strict.base64url(entry["public"], "BadBundle")
    if entry["kid"] != kid(kind, public).hex():
        raise Refused("BadBundle", "a kid that is not its key's")
    return bytes.fromhex(entry["kid"]), public


def _payload(raw: bytes) -> tuple[dict[str, Any], Bundle]:
    value = strict.read(raw, "BadBundle")
    anything = strict.list_of(lambda _: True)
    strict.fields(
        value,
        "BadBundle",
        v=strict.one_of(1),
        bridge=strict.name,
        version=strict.whole(1, strict.TIME_END - 1),
        issued=strict.time,
        expires=strict.time,
        principals=anything,
        grants=anything,
    )
    if not value["issued"] < value["expires"]:
        raise Refused("BadBundle", "times")
    names: set[str] = set()
    kids: set[bytes] = set()
    signers: dict[bytes, Signer] = {}
    for principal in value["principals"]:
        strict.fields(
            principal, "BadBundle", name=strict.name, cloud=strict.name, role=_role, sign=anything, kem=anything
        )
        if principal["name"] in names:
            raise Refused("BadBundle", "a principal twice")
        names.add(principal["name"])
        form = {"kid": strict.hex_of(32), "public": strict.text, "not_before": strict.time, "not_after": strict.time}
        for entry in principal["sign"]:
            strict.fields(entry, "BadBundle", **form)
            by, public = _key(entry, "ed25519")
            key = signing_key(public)
            signers[by] = Signer(principal["name"], key, entry["not_before"], entry["not_after"])
            _once(by, kids)
        for entry in principal["kem"]:
            strict.fields(entry, "BadBundle", **form, epoch=strict.whole(0, strict.TIME_END - 1))
            by, public = _key(entry, "xwing")
            if not passes_modulus_check(public):
                raise Refused("WeakKey", "an X-Wing key")
            _once(by, kids)
    grants: dict[tuple[str, str, str], frozenset[str]] = {}
    for grant in value["grants"]:
        kinds = strict.list_of(strict.name)
        known = strict.one_of(*names)
        strict.fields(grant, "BadBundle", queue=strict.name, from_=known, to=known, kinds=kinds)
        key_of = (grant["queue"], grant["from"], grant["to"])
        if key_of in grants:
            raise Refused("BadBundle", "a grant twice")
        grants[key_of] = frozenset(grant["kinds"])
    principals = {each["name"]: (each["role"], each["cloud"]) for each in value["principals"]}
    return value, Bundle(value["version"], value["issued"], value["expires"], signers, grants, principals)


def _role(value: Any) -> bool:  # noqa: ANN401
    return strict.text(value) and len(value) <= 128


def _once(by: bytes, kids: set[bytes]) -> None:
    if by in kids:
        raise Refused("BadBundle", "a kid twice")
    kids.add(by)
