"""Trust bundles, accepted and refused, each refused for one reason."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, NamedTuple

from bridge import dsse
from bridge.bundle import sign_payload
from bridge.crypto import SigningKey, kid_of
from bridge.strict_json import b64
from tests.vectors.forge import spread
from tests.vectors.labels import HOUR, IDENTITIES, NOW, ROOTS, grant, principal, roots, seed, signing_entry

P = 2**255 - 19
ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
WEAK = {
    "order-1": 1,
    "order-1-with-a-sign": 1 + 2**255,
    "order-2": P - 1,
    "order-4": 0,
    "order-8": ORDER_8,
    "order-8-negated": P - ORDER_8 + 2**255,
    "of-p": P,
    "of-p-and-1": P + 1,
    "all-ones": 2**256 - 1,
}
"""Public keys, as numbers, by what is wrong with them."""


class Case(NamedTuple):
    """A bundle and its roots, and what becomes of them; no refusal where they are accepted."""

    name: str
    refusal: str | None
    trust: bytes
    roots: bytes
    now: int = NOW
    floor: int = 0


def payload(**changes: object) -> dict[str, Any]:
    """A small payload; a field that is ``...`` is left out."""
    value: dict[str, Any] = {"v": 1, "bridge": "acme", "version": 7, "issued": NOW - HOUR, "expires": NOW + HOUR}
    value["principals"] = [_small("relay"), _small("bunny")]
    value["grants"] = [grant("relay")]
    return {name: field for name, field in (value | changes).items() if field is not ...}


def _small(name: str) -> dict[str, Any]:
    # A key to be sealed to takes 1.6 KiB, and few of the cases are about one.
    return principal(name) | {"kem": []}


def signed(value: object, by: list[SigningKey] = ROOTS[:2]) -> bytes:
    return sign_payload(spread(value), by)


GOOD = signed(payload())


def _weak_entry(number: int) -> dict[str, str]:
    public = number.to_bytes(32, "little")
    return {"kid": kid_of("ed25519", public).hex(), "public": b64(public)}


def _signatures(*signatures: tuple[bytes, bytes]) -> bytes:
    return dsse.encode(spread(payload()), signatures)


def _signature(key: SigningKey, over: bytes | None = None) -> tuple[bytes, bytes]:
    return key.kid, key.sign(dsse.signed_bytes(spread(payload())) if over is None else over)


def accepted() -> Iterator[Case]:
    yield Case("two-of-three", None, GOOD, roots())
    yield Case("one-of-one", None, signed(payload(), ROOTS[:1]), roots(1, 1))
    yield Case("sixteen-of-sixteen", None, signed(payload(), ROOTS), roots(16, 16))
    yield Case("unknown-roots-do-not-count", None, signed(payload(), ROOTS[:4]), roots())
    wrong = _signatures(_signature(ROOTS[0]), (ROOTS[1].kid, bytes(64)), _signature(ROOTS[2]))
    yield Case("one-signature-more-that-does-not-verify", None, wrong, roots())
    short = _signatures(_signature(ROOTS[0]), (ROOTS[1].kid, b"short"), _signature(ROOTS[2]))
    yield Case("one-signature-more-of-another-length", None, short, roots())
    yield Case("with-keys-to-be-sealed-to", None, signed(payload(principals=[principal("bunny")], grants=[])), roots())
    yield Case("no-principals", None, signed(payload(principals=[], grants=[])), roots())
    yield Case("of-the-floor", None, GOOD, roots(), floor=7)
    yield Case("issued-5-minutes-ahead", None, GOOD, roots(), now=NOW - HOUR - 300_000)
    yield Case("in-its-last-millisecond", None, GOOD, roots(), now=NOW + HOUR - 1)
    spaced = spread(payload()).replace(b",", b" ,\n")
    yield Case("payload-with-spaces", None, signed(spaced), roots())


def bad_roots() -> Iterator[Case]:
    text = roots()
    bad = {
        "no-json": b"{",
        "field-too-many": text.replace(b'"version":1', b'"version":1,"extra":1'),
        "version-2": text.replace(b'"version":1', b'"version":2'),
        "version-true": text.replace(b'"version":1', b'"version":true'),
        "bridge-no-name": text.replace(b'"acme"', b'"Acme!"'),
        "threshold-0": text.replace(b'"threshold":2', b'"threshold":0'),
        "threshold-4-of-3": text.replace(b'"threshold":2', b'"threshold":4'),
        "threshold-true": text.replace(b'"threshold":2', b'"threshold":true'),
        "none": roots(1, 0),
        "kid-of-another": text.replace(ROOTS[0].kid.hex().encode(), ROOTS[3].kid.hex().encode()),
        "kid-upper-case": text.replace(ROOTS[0].kid.hex().encode(), ROOTS[0].kid.hex().upper().encode()),
        "one-twice": text.replace(ROOTS[0].kid.hex().encode(), ROOTS[1].kid.hex().encode()).replace(
            b64(ROOTS[0].public).encode(), b64(ROOTS[1].public).encode()
        ),
        "public-padded": text.replace(b64(ROOTS[0].public).encode(), b64(ROOTS[0].public).encode() + b"="),
    }
    yield from (Case(f"roots-{name}", "BadBundle", GOOD, roots_) for name, roots_ in bad.items())
    for name, number in WEAK.items():
        value = {"version": 1, "bridge": "acme", "threshold": 1, "keys": [_weak_entry(number)]}
        yield Case(f"root-{name}", "WeakKey", GOOD, spread(value))


def bad_envelopes() -> Iterator[Case]:
    written = base64.b64encode(spread(payload())).decode()
    bad = {
        "empty": b"",
        "no-json": b"{",
        "duplicate-key": GOOD.replace(b'"payload":', b'"payload":"","payload":'),
        "field-too-many": GOOD.replace(b'"payload":', b'"extra":1,"payload":'),
        "payload-type-of-another": GOOD.replace(b"bunny-bridge.trust.v1", b"bunny-bridge.trust.v2"),
        "no-signatures": _signatures(),
        "signature-with-a-field-too-many": GOOD.replace(b'"keyid":', b'"extra":1,"keyid":', 1),
        "seventeen-signatures": signed(payload(), [*ROOTS, SigningKey(seed("root 16"))]),
        "keyid-upper-case": GOOD.replace(ROOTS[0].kid.hex().encode(), ROOTS[0].kid.hex().upper().encode()),
        "keyid-short": GOOD.replace(ROOTS[0].kid.hex().encode(), b"00"),
        "payload-unpadded": sign_payload(
            spread(payload()) + b" " * (-len(spread(payload())) % 3 + 1), ROOTS[:2]
        ).replace(b'=",', b'",'),
        "payload-with-a-newline": GOOD.replace(
            written[:8].encode(), written[:4].encode() + b"\\n" + written[4:8].encode()
        ),
    }
    yield from (Case(f"envelope-{name}", "BadBundle", trust, roots()) for name, trust in bad.items())


def bad_signers() -> Iterator[Case]:
    one, two, stranger = _signature(ROOTS[0]), _signature(ROOTS[1]), _signature(ROOTS[5])
    repeated = {
        "root-twice": _signatures(one, one),
        "root-twice-and-enough-without": _signatures(one, two, one),
        "root-twice-first-invalid": _signatures((one[0], bytes(64)), one, two),
        "root-twice-second-invalid": _signatures(one, (one[0], bytes(64)), two),
        "unknown-root-twice": _signatures(one, two, stranger, stranger),
        "root-twice-over-a-payload-that-is-none": signed(b"{", [ROOTS[0], ROOTS[0]]),
    }
    yield from (Case(name, "RepeatedSigner", trust, roots()) for name, trust in repeated.items())
    other = dsse.signed_bytes(spread(payload(version=8)))
    below = {
        "one-of-two": _signatures(one),
        "one-and-a-stranger": _signatures(one, stranger),
        "one-and-an-invalid": _signatures(one, (ROOTS[1].kid, bytes(64))),
        "one-and-a-short": _signatures(one, (ROOTS[1].kid, two[1][:63])),
        "one-and-a-signature-of-another": _signatures(one, (ROOTS[1].kid, one[1])),
        "signatures-over-another-payload": _signatures(*(_signature(key, other) for key in ROOTS[:2])),
        "signatures-over-the-bare-payload": _signatures(*(_signature(key, spread(payload())) for key in ROOTS[:2])),
        "one-over-a-payload-that-is-none": signed(b"{", ROOTS[:1]),
    }
    yield from (Case(name, "BelowThreshold", trust, roots()) for name, trust in below.items())


def bad_payloads() -> Iterator[Case]:
    relay, bunny, key = _small("relay"), _small("bunny"), IDENTITIES["relay"].sign[0]
    entry, kem = signing_entry(key), principal("relay")["kem"][0]

    def with_relay(**changes: object) -> dict[str, Any]:
        return payload(principals=[relay | changes, bunny])

    bad: dict[str, object] = {
        "no-json": b"{",
        "v-2": payload(v=2),
        "v-true": payload(v=True),
        "v-missing": payload(v=...),
        "field-too-many": payload(extra=1),
        "bridge-of-another": payload(bridge="other"),
        "version-0": payload(version=0),
        "version-float": payload(version=7.0),
        "version-of-2-to-53": payload(version=2**53),
        "expires-is-issued": payload(issued=NOW, expires=NOW),
        "grants-missing": payload(grants=...),
        "grants-null": payload(grants=None),
        "duplicate-key": spread(payload()).replace(b'"version":7', b'"version":7,"version":7'),
        "principal-twice": payload(principals=[relay, bunny, relay | {"sign": []}]),
        "principal-with-a-field-too-many": with_relay(extra=1),
        "principal-of-no-name": with_relay(name="Relay"),
        "principal-of-no-cloud": with_relay(cloud=""),
        "principal-of-no-role": with_relay(role=""),
        "kid-of-two-principals": with_relay(sign=bunny["sign"]),
        "kid-of-another": with_relay(sign=[entry | {"kid": "00" * 32}]),
        "kid-of-the-other-kind": with_relay(sign=[entry | {"kid": kid_of("xwing", key.public).hex()}]),
        "kem-kid-of-another": with_relay(kem=[kem | {"kid": "00" * 32}]),
        "key-without-an-end": with_relay(sign=[{k: v for k, v in entry.items() if k != "not_after"}]),
        "key-valid-from-a-negative-time": with_relay(sign=[entry | {"not_before": -1}]),
        "epoch-true": with_relay(kem=[kem | {"epoch": True}]),
        "grant-from-nobody-known": payload(grants=[grant("nobody")]),
        "grant-to-nobody-known": payload(grants=[grant("relay", "nobody")]),
        "grant-twice": payload(grants=[grant("relay"), grant("relay") | {"kinds": []}]),
        "grant-of-no-kind": payload(grants=[grant("relay") | {"kinds": ["Resize"]}]),
        "grant-with-a-field-too-many": payload(grants=[grant("relay") | {"extra": 1}]),
    }
    yield from (Case(f"payload-{name}", "BadBundle", signed(value), roots()) for name, value in bad.items())
    life = {"not_before": 0, "not_after": NOW}
    for name, number in WEAK.items():
        yield Case(f"key-{name}", "WeakKey", signed(with_relay(sign=[_weak_entry(number) | life])), roots())
    whole = IDENTITIES["relay"].kem[0].public
    for name, public in {"modulus": b"\xff" * 3 + whole[3:], "length": whole[:-1]}.items():
        weak = {"kid": kid_of("xwing", public).hex(), "public": b64(public), "epoch": 0, **life}
        yield Case(f"kem-key-of-bad-{name}", "WeakKey", signed(with_relay(kem=[weak])), roots())
    short = {"kid": kid_of("ed25519", key.public[:31]).hex(), "public": b64(key.public[:31]), **life}
    yield Case("key-of-31-bytes", "WeakKey", signed(with_relay(sign=[short])), roots())


def out_of_time() -> Iterator[Case]:
    yield Case("below-the-floor", "BundleRolledBack", GOOD, roots(), floor=8)
    yield Case("below-the-floor-and-expired", "BundleRolledBack", GOOD, roots(), NOW + HOUR, 8)
    yield Case("of-another-bridge-and-below-the-floor", "BadBundle", signed(payload(bridge="other")), roots(), NOW, 8)
    yield Case("expired", "BundleExpired", GOOD, roots(), NOW + HOUR)
    yield Case("from-the-future", "BundleExpired", GOOD, roots(), NOW - HOUR - 300_001)


def all_cases() -> list[Case]:
    makers = (accepted, bad_roots, bad_envelopes, bad_signers, bad_payloads, out_of_time)
    return [case for maker in makers for case in maker()]
