"""The project's own vectors: the bridge, and an opener written from the specification alone, agree on every one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import segments, subjects
from bridge.core import check_time
from bridge.crypto import KemKey, SigningKey
from bridge.envelope import Authenticated, Opener
from bridge.errors import BridgeError, WrongSubject
from bridge.identity import Identity
from bridge.strict_json import b64
from bridge.trust import Trust
from tests.vectors import independent
from tests.vectors.bundles import payload as small_payload
from tests.vectors.bundles import signed
from tests.vectors.forge import Forgery, spread
from tests.vectors.independent_trust import verify_bundle
from tests.vectors.labels import NOW, roots
from tests.vectors.refused_envelopes import BUNNY, OTHER, RELAY, TRACE, core, job, result, sign_key, start
from tests.vectors.strictness import Refused

FOLDER = Path(__file__).parent
ENVELOPES: dict[str, Any] = json.loads((FOLDER / "envelopes.json").read_text())
BUNDLES: dict[str, Any] = json.loads((FOLDER / "trust.json").read_text())
BUNDLE = verify_bundle(ENVELOPES["trust"].encode(), ENVELOPES["roots"].encode(), NOW)
TRUST = Trust.verify(ENVELOPES["trust"].encode(), ENVELOPES["roots"].encode(), NOW)
NAMES = list(ENVELOPES["identities"])


def seeds(name: str, use: str) -> list[bytes]:
    entries = ENVELOPES["identities"][name][use]
    return [hashlib.sha256(f"bunny-bridge test vector: {entry['label']}".encode()).digest() for entry in entries]


def identity(name: str) -> Identity:
    sign = tuple(SigningKey(seed) for seed in seeds(name, "sign"))
    return Identity(name, "", sign, tuple(KemKey(seed) for seed in seeds(name, "kem")), bytes(32))


KEYS = {name: independent.keys_of(seeds(name, "kem")) for name in NAMES}
WARM = {name: Opener(identity(name), TRUST) for name in NAMES}
"""Openers that remember roots and secrets of all that came before: it must change nothing."""


def by_specification(data: bytes, reader: str, now: int = NOW, subject: str | None = None) -> dict[str, Any]:
    try:
        return independent.receive(data, BUNDLE, now, reader, KEYS[reader], subject).summary()
    except Refused as refused:
        return {"refusal": refused.name}


def by_bridge(opener: Opener, data: bytes, now: int = NOW, subject: str | None = None) -> dict[str, Any]:
    try:
        message = opener.authenticate(data, now)
        _check_subject(message, subject)
        value: dict[str, Any] = {"core": json.loads(message.core.encode()), "digest": message.digest.hex()}
        if message.core.type == "start":
            return value
        if message.core.type == "job":
            check_time(message.core, now)
        opened = opener.open(message)
    except BridgeError as refusal:
        return {"refusal": type(refusal).__name__}
    body = opened.content.body
    value |= {"content_type": opened.content.content_type, "length": len(body)}
    value |= {"sha256": hashlib.sha256(body).hexdigest()}
    return value if opened.status is None else value | {"status": str(opened.status)}


def _check_subject(message: Authenticated, subject: str | None) -> None:
    if subject is None:
        return
    core, key = message.core, message.core.key
    match core.type:
        case "job":
            right = subject == subjects.of_job(key, core.priority, core.not_before > 0)
        case "control":
            right = subject == subjects.control(key)
        case "event":
            right = subject == subjects.event(key)
        case "segment":
            right = subject == segments.subject(key, core.run, core.segment)
        case "replay":
            right = subject == subjects.replay(key)
        case _:
            right = subjects.parse_result(subject) == key
    if not right:
        raise WrongSubject


def agreed(data: bytes, reader: str) -> dict[str, Any]:
    """What both say of an envelope, and a bridge with a memory too."""
    expected = by_specification(data, reader)
    assert by_bridge(Opener(identity(reader), TRUST), data) == expected
    assert by_bridge(WARM[reader], data) == expected
    return expected


# --- published -------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", ENVELOPES["vectors"], ids=lambda vector: vector["name"])
def test_envelope(vector: dict[str, Any]) -> None:
    data = base64.b64decode(vector["envelope"])
    reader, now, subject = vector["reader"], vector["now"], vector.get("subject")
    assert by_specification(data, reader, now, subject) == vector["expect"]
    assert by_bridge(Opener(identity(reader), TRUST), data, now, subject) == vector["expect"]
    assert by_bridge(WARM[reader], data, now, subject) == vector["expect"]


def bundle_by_specification(trust: bytes, roots: bytes, now: int = NOW, floor: int = 0) -> dict[str, Any]:
    try:
        return {"version": verify_bundle(trust, roots, now, floor).version}
    except Refused as refused:
        return {"refusal": refused.name}


def bundle_by_bridge(trust: bytes, roots: bytes, now: int = NOW, floor: int = 0) -> dict[str, Any]:
    try:
        return {"version": Trust.verify(trust, roots, now, floor).version}
    except BridgeError as refusal:
        return {"refusal": type(refusal).__name__}


@pytest.mark.parametrize("vector", BUNDLES["vectors"], ids=lambda vector: vector["name"])
def test_bundle(vector: dict[str, Any]) -> None:
    trust, roots = base64.b64decode(vector["trust"]), base64.b64decode(vector["roots"])
    assert bundle_by_specification(trust, roots, vector["now"], vector["floor"]) == vector["expect"]
    assert bundle_by_bridge(trust, roots, vector["now"], vector["floor"]) == vector["expect"]


def test_every_label_derives_the_key_beside_it() -> None:
    for name, entry in ENVELOPES["identities"].items():
        mine = identity(name)
        assert [e["public"] for e in entry["sign"]] == [b64(key.public) for key in mine.sign]
        assert [e["public"] for e in entry["kem"]] == [b64(key.public) for key in mine.kem]
        assert KEYS[name].keys() == {key.kid for key in mine.kem}


def test_every_refusal_has_vectors() -> None:
    named = {vector["expect"].get("refusal") for vector in ENVELOPES["vectors"] + BUNDLES["vectors"]}
    assert named >= {"BadFrame", "UnknownVersion", "UnknownKey", "BadSignature", "NotAuthorised", "WrongSubject"}
    assert named >= {"WrongRecipient", "Expired", "FromTheFuture", "BadSeal", "BadPrelude", "BundleExpired"}
    assert named >= {"BadBundle", "WeakKey", "RepeatedSigner", "BelowThreshold", "BundleRolledBack", None}


def test_the_independent_opener_shares_no_code_with_the_bridge() -> None:
    for name in ("independent", "independent_payload", "independent_trust", "strictness", "xwing", "chunked"):
        imported = re.findall(r"(?m)^\s*(?:from|import) ([\w.]+)", (FOLDER / f"{name}.py").read_text())
        assert not [module for module in imported if module.split(".")[0] == "bridge"]


def test_the_limit_of_an_envelope() -> None:
    data = job().with_(ciphertext=b"").encode()
    fits = job().with_(ciphertext=bytes(768 * 1024 - len(data))).encode()
    assert agreed(fits, "bunny") == {"refusal": "BadSeal"}
    assert agreed(job().with_(ciphertext=bytes(768 * 1024 - len(data) + 1)).encode(), "bunny") == {
        "refusal": "BadFrame"
    }


# --- made up ---------------------------------------------------------------------------------------

READERS = st.sampled_from(["bunny", "relay", "other"])
FORGERIES = st.sampled_from([job(), job("other"), result(), start(), job("stranger"), result("relay", "bunny")])
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 2),
    st.sampled_from([2**31, 2**31 + 1, 2**53 - 1, 2**53, 10**30, NOW, NOW + 1, NOW + 300_001, NOW - 1]),
    st.floats(allow_nan=True),
    st.sampled_from(
        ["", "job", "result", "start", "relay", "bunny", "other", "normal", "a.b", "\ud800", "é", "0" * 32]
    ),
    st.sampled_from([sign_key("relay").kid.hex(), sign_key("other").kid.hex(), "AB" * 32, "ab" * 32, "ab" * 16, TRACE]),
    st.from_regex(r"\A0[01]-[01ab]{32}-[01ab]{16}-[0-9a-f]{2}\Z"),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.just(...),
)
FIELDS = sorted({*core("job", "relay", "bunny"), *core("result", "bunny", "relay"), "traceparent"})


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """The same bytes with a few changed, put in, taken out or moved."""
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        until = draw(st.integers(at, min(len(data), at + draw(st.sampled_from([0, 1, 2, 8, 64, 2000])))))
        put = draw(st.one_of(st.binary(max_size=4), st.sampled_from([data[until:], data[at:until] * 2])))
        data = data[:at] + put + data[until:]
    return data


@settings(max_examples=200)
@given(st.data(), FORGERIES, READERS)
def test_mutated_envelopes(draw: st.DataObject, forgery: Forgery, reader: str) -> None:
    agreed(draw.draw(mutated(forgery.encode())), reader)


@settings(max_examples=300)
@given(FORGERIES, st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=2), READERS)
def test_signed_cores_with_odd_fields(forgery: Forgery, changes: dict[str, object], reader: str) -> None:
    agreed(forgery.with_core(**changes).encode(), reader)


@settings(max_examples=200)
@given(st.data(), FORGERIES, READERS)
def test_signed_cores_of_mutated_text(draw: st.DataObject, forgery: Forgery, reader: str) -> None:
    text = draw.draw(mutated(spread(forgery.core)))
    agreed(forgery.with_(core=text[:65_535]).encode(), reader)


@settings(max_examples=200)
@given(
    st.data(),
    st.sampled_from([job(), result()]),
    st.dictionaries(st.sampled_from(["content_type", "length", "sha256", "status"]), ODD, max_size=2),
)
def test_sealed_preludes(draw: st.DataObject, forgery: Forgery, changes: dict[str, object]) -> None:
    body = draw.draw(st.binary(max_size=40))
    prelude: dict[str, object] = {
        "content_type": "a/b",
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    if forgery.signer.kid == sign_key("bunny").kid:
        prelude["status"] = draw.draw(st.sampled_from(["succeeded", "failed", "expired"]))
    prelude = {name: value for name, value in (prelude | changes).items() if value is not ...}
    text = draw.draw(st.one_of(st.just(spread(prelude)), mutated(spread(prelude))))
    expected = agreed(
        forgery.with_(body=body, prelude=text[:65_535]).encode(),
        "bunny" if forgery.signer.kid == sign_key("relay").kid else "relay",
    )
    assert "refusal" not in expected or expected["refusal"] == "BadPrelude"


@settings(max_examples=150)
@given(st.data(), FORGERIES, READERS)
def test_signed_frames_with_odd_parts(draw: st.DataObject, forgery: Forgery, reader: str) -> None:
    parts: dict[str, st.SearchStrategy[object]] = {
        "magic": st.sampled_from([b"RB1\0", b"RB1 ", b""]),
        "core_len": st.integers(0, 5_000),
        "count": st.integers(0, 9),
        "recipients": st.lists(st.sampled_from([BUNNY, RELAY, OTHER]), max_size=3).map(tuple),
        "ct_len": st.integers(0, 2**64 - 1),
        "ct_sha256": st.binary(min_size=32, max_size=32),
        "kid": st.sampled_from([sign_key("other").kid, sign_key("outsider").kid, sign_key("relay-retired").kid]),
        "signer": st.sampled_from([sign_key(name) for name in NAMES]),
        "size": st.one_of(st.integers(0, 300), st.just(2**63)),
        "index": st.integers(0, 255),
        "path": st.lists(st.just(bytes(32)), max_size=9).map(tuple),
        "ciphertext": st.binary(max_size=80),
        "sent_ciphertext": st.binary(max_size=80),
        "context": st.sampled_from([b"bunny-bridge/v1/job", b"bunny-bridge/v1/result"]),
        "trailing": st.binary(max_size=2),
    }
    chosen = draw.draw(st.lists(st.sampled_from(sorted(parts)), max_size=3, unique=True))
    agreed(forgery.with_(**{name: draw.draw(parts[name]) for name in chosen}).encode(), reader)


@settings(max_examples=200)
@given(st.data(), st.dictionaries(st.sampled_from(sorted(small_payload())), ODD, max_size=1))
def test_mutated_bundles(draw: st.DataObject, changes: dict[str, object]) -> None:
    text = draw.draw(mutated(spread(small_payload(**changes))))
    trust = draw.draw(st.one_of(st.just(signed(text)), mutated(signed(text))))
    anchors = draw.draw(st.one_of(st.just(roots()), mutated(roots())))
    expected, found = bundle_by_specification(trust, anchors), bundle_by_bridge(trust, anchors)
    # Of several things wrong in one row of the specification's table, any may be named.
    assert found == expected or {*found.values(), *expected.values()} == {"WeakKey", "BadBundle"}
