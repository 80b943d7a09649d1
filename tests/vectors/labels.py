"""The identities of the test vectors. Their keys are derived from labels: anyone can, so they protect nothing."""

from __future__ import annotations

import hashlib
from typing import Any

from bridge import strict_json
from bridge.bundle import build_roots, sign_payload
from bridge.crypto import KemKey, SigningKey, VerifyKey
from bridge.identity import Identity
from bridge.strict_json import b64

NOW = 1_760_000_000_000
HOUR = 3_600_000
SESSION = "0123456789abcdef01234567"
BRIDGE = "acme"
ALWAYS = (NOW - HOUR, NOW + HOUR)

SIGN = {
    "relay": ("relay sign",),
    "relay-retired": ("relay-retired sign",),
    "relay-future": ("relay-future sign",),
    "other": ("other sign",),
    "bunny": ("bunny sign",),
    "stranger": ("stranger sign",),
    "outsider": ("outsider sign",),
}
KEM = {name: (f"{name} kem 0",) for name in SIGN} | {"bunny": ("bunny kem 0", "bunny kem 1")}
LIVES = {"relay-retired": (NOW - HOUR, NOW - 1), "relay-future": (NOW + 1, NOW + HOUR)}


def seed(label: str) -> bytes:
    """The private seed that a label stands for."""
    return hashlib.sha256(f"bunny-bridge test vector: {label}".encode()).digest()


def identity(name: str) -> Identity:
    sign = tuple(SigningKey(seed(label)) for label in SIGN[name])
    kem = tuple(KemKey(seed(label), epoch) for epoch, label in enumerate(KEM[name]))
    return Identity(name, "", sign, kem, seed(f"{name} dedup"))


IDENTITIES = {name: identity(name) for name in SIGN}
ROOTS = [SigningKey(seed(f"root {n}")) for n in range(16)]


def signing_entry(key: SigningKey, life: tuple[int, int] = ALWAYS) -> dict[str, Any]:
    return {"kid": key.kid.hex(), "public": b64(key.public), "not_before": life[0], "not_after": life[1]}


def kem_entry(key: KemKey) -> dict[str, Any]:
    entry = {"kid": key.kid.hex(), "public": b64(key.public), "epoch": key.epoch}
    return entry | {"not_before": ALWAYS[0], "not_after": ALWAYS[1]}


def principal(name: str) -> dict[str, Any]:
    who = IDENTITIES[name]
    return {
        "name": name,
        "cloud": "azure" if name in ("bunny", "stranger") else "aws",
        "role": "service",
        "sign": [signing_entry(key, LIVES.get(name, ALWAYS)) for key in who.sign],
        "kem": [kem_entry(key) for key in who.kem],
    }


def grant(sender: str, recipient: str = "bunny") -> dict[str, Any]:
    return {"queue": "thumbs", "from": sender, "to": recipient, "kinds": ["probe", "resize"]}


def payload() -> dict[str, Any]:
    """The payload of the bundle that the envelopes are judged by; an outsider is in none."""
    producers = ("relay", "relay-retired", "relay-future", "other")
    return {
        "v": 1,
        "bridge": BRIDGE,
        "version": 7,
        "issued": ALWAYS[0],
        "expires": ALWAYS[1],
        "principals": [principal(name) for name in (*producers, "bunny", "stranger")],
        "grants": [grant(name) for name in producers],
    }


def trust() -> bytes:
    return sign_payload(strict_json.dump(payload()), ROOTS[:2])


def roots(threshold: int = 2, count: int = 3) -> bytes:
    return build_roots(BRIDGE, threshold, [VerifyKey(key.public) for key in ROOTS[:count]])
