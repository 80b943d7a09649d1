"""Hostile bytes against the envelope: each is refused by name, and before any private key is used."""

from __future__ import annotations

import dataclasses
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import core as cores
from bridge import crypto, strict_json
from bridge.core import Core
from bridge.crypto import KemKey, KemPublicKey, SigningKey
from bridge.envelope import Draft, Opener, Sealed
from bridge.errors import (
    BadFrame,
    BadPrelude,
    BadSeal,
    BadSignature,
    BundleExpired,
    NotAuthorised,
    Refusal,
    UnknownKey,
    UnknownVersion,
    WrongRecipient,
)
from bridge.frame import MAGIC
from bridge.identity import Identity
from bridge.job import Content
from tests.world import World

WORLD = World()
JOB = WORLD.sealer("relay").seal(WORLD.job(), WORLD.now)
RESULT = WORLD.sealer("bunny").seal(WORLD.result(JOB), WORLD.now)
BATCHED = WORLD.sealer("relay").seal_batch([WORLD.job(n=n) for n in range(1, 12)], WORLD.now)[9]


class Tripwire(KemKey):
    """A private key that must not be used."""

    def unwrap(self, wrap: bytes, info: bytes) -> bytes:
        raise AssertionError("a private key was used on an unauthenticated message")


def guarded(name: str) -> Opener:
    """An opener whose private keys may not be used."""
    identity = WORLD.identities[name]
    keys = tuple(Tripwire(key.seed, key.epoch) for key in identity.kem)
    return Opener(dataclasses.replace(identity, kem=keys), WORLD.trust())


@pytest.mark.parametrize(
    ("message", "reader"), [(JOB, "bunny"), (RESULT, "relay"), (BATCHED, "bunny")], ids=["job", "result", "batched"]
)
def test_h9_every_byte_flipped_is_refused_by_name_before_a_private_key_is_used(message: Sealed, reader: str) -> None:
    opener = guarded(reader)
    opener.authenticate(message.data, WORLD.now)
    for at in range(len(message.data)):
        for bit in (0x01, 0x80):
            forged = bytearray(message.data)
            forged[at] ^= bit
            with pytest.raises(Refusal) as refusal:
                opener.open(opener.authenticate(bytes(forged), WORLD.now))
            assert isinstance(refusal.value, BadFrame | UnknownVersion | UnknownKey | BadSignature), at


def test_h1_every_truncation_is_refused() -> None:
    opener = guarded("bunny")
    for length in range(len(JOB.data)):
        with pytest.raises((BadFrame, BadSignature)):
            opener.authenticate(JOB.data[:length], WORLD.now)


def test_h2_bad_magic() -> None:
    for magic in (b"RB2\0", b"RB1\x01", b"\x80\x04\x95\0", b"PK\x03\x04"):
        with pytest.raises(BadFrame, match="version 1"):
            guarded("bunny").authenticate(magic + JOB.data[4:], WORLD.now)


def test_h3_huge_lengths_are_refused_without_allocation() -> None:
    head = MAGIC + (0xFFFF).to_bytes(2)
    with pytest.raises(BadFrame):
        guarded("bunny").authenticate(head, WORLD.now)
    at = JOB.data.index(crypto.sha256(JOB.data[-_ciphertext_len(JOB) :])) - 8
    for huge in (2**64 - 1, 2**63, 2**32):
        with pytest.raises(BadFrame, match="as long as"):
            guarded("bunny").authenticate(JOB.data[:at] + struct.pack(">Q", huge) + JOB.data[at + 8 :], WORLD.now)


def test_h4_trailing_bytes() -> None:
    with pytest.raises(BadFrame):
        guarded("bunny").authenticate(JOB.data + b"\0", WORLD.now)


def test_h5_recipient_counts_and_doubled_kids() -> None:
    core_len = int.from_bytes(JOB.data[4:6])
    at = 6 + core_len
    for n in (0, 2, 9, 255):
        with pytest.raises(BadFrame):
            guarded("bunny").authenticate(JOB.data[:at] + bytes([n]) + JOB.data[at + 1 :], WORLD.now)
    wrap = JOB.data[at + 1 : at + 1 + 32 + 1168]
    with pytest.raises(BadFrame, match="two wraps"):
        guarded("bunny").authenticate(JOB.data[:at] + b"\x02" + wrap + wrap + JOB.data[at + 1 + 1200 :], WORLD.now)


def _ciphertext_len(message: Sealed) -> int:
    return len(WORLD.opener("bunny").authenticate(message.data, WORLD.now).ciphertext)


CORE = dataclasses.replace(WORLD.job().core, sender_kid=bytes(32), wrap_id=bytes(16)).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xef\xbb\xbf" + CORE,
        CORE + b" x",
        CORE.replace(b'"generation":0', b'"generation":0.0'),
        CORE.replace(b'"generation":0', b'"generation":-0'),
        CORE.replace(b'"generation":0', b'"generation":1e400'),
        CORE.replace(b'"generation":0', b'"generation":NaN'),
        CORE.replace(b'"generation":0', b'"generation":true'),
        CORE.replace(b'"generation":0', b'"generation":"0"'),
        CORE.replace(b'"generation":0', b'"generation":null'),
        CORE.replace(b'"generation":0', b'"generation":0,"generation":0'),
        CORE.replace(b'"generation":0', b'"generation":0,"extra":1'),
        CORE.replace(b'"generation":0,', b""),
        CORE.replace(b'"queue":"thumbs"', b'"queue":"th\\u0000mbs"'),
        CORE.replace(b'"queue":"thumbs"', b'"queue":"\\ud800"'),
        CORE.replace(b'"queue":"thumbs"', b'"queue":"thumbs.>"'),
        CORE.replace(b'"queue":"thumbs"', b'"queue":\xff'),
        CORE.replace(b'"type":"job"', b'"type":"bundle"'),
        CORE.replace(b'"type":"job"', b'"type":["job"]'),
        CORE.replace(b'"type":"job"', b'"type":"result"'),
        b"[" * 4000,
        b'{"a":' * 800,
        b'{"v":' + b"9" * 4000,
        CORE + b" " * 4096,
    ],
    ids=lambda data: data[:8].hex() + str(len(data)),
)
def test_h6_h7_a_core_that_is_not_as_specified(data: bytes) -> None:
    if data == CORE.replace(b'"generation":0', b'"generation":-0'):
        assert cores.decode(data).generation == 0  # an integer to every parser: -0 is 0
        return
    with pytest.raises((BadFrame, UnknownVersion)):
        cores.decode(data)


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_h6_arbitrary_bytes_raise_nothing_but_refusals(data: bytes) -> None:
    for attempt in (data, MAGIC + data, MAGIC + len(data).to_bytes(2) + data):
        with pytest.raises(Refusal):
            guarded("bunny").authenticate(attempt, WORLD.now)


@given(st.data())
@settings(max_examples=200)
def test_h6_spliced_envelopes_raise_nothing_but_refusals(data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(JOB.data)))
    other = data.draw(st.integers(0, len(RESULT.data)))
    spliced = JOB.data[:cut] + RESULT.data[other:]
    if spliced in (JOB.data, RESULT.data):
        return
    with pytest.raises(Refusal):
        guarded("bunny").authenticate(spliced, WORLD.now)


def test_h10_a_malleated_signature_is_refused() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    at = len(JOB.data) - _ciphertext_len(JOB) - 32
    s = int.from_bytes(JOB.data[at : at + 32], "little")
    forged = JOB.data[:at] + (s + order).to_bytes(32, "little") + JOB.data[at + 32 :]
    with pytest.raises(BadSignature):
        guarded("bunny").authenticate(forged, WORLD.now)


def resigned(message: Sealed, key: SigningKey) -> bytes:
    """The same message with a signature block of another key."""
    ciphertext = _ciphertext_len(message)
    head = message.data[: len(message.data) - ciphertext - 105]
    signed = b"bunny-bridge/v1/batch\0" + key.kid + struct.pack(">Q", 1) + crypto.leaf_hash(head)
    block = key.kid + struct.pack(">QB", 1, 0) + key.sign(signed)
    return head + block + message.data[len(message.data) - ciphertext :]


def test_h11_resigned_by_another_authorised_sender() -> None:
    with pytest.raises(BadSignature, match="another author"):
        guarded("bunny").authenticate(resigned(JOB, WORLD.identities["other"].sign[0]), WORLD.now)


def test_signed_by_a_key_outside_the_bundle() -> None:
    with pytest.raises(UnknownKey):
        guarded("bunny").authenticate(resigned(JOB, SigningKey.generate()), WORLD.now)


def test_resigning_with_the_true_key_is_what_the_forger_lacks() -> None:
    guarded("bunny").authenticate(resigned(JOB, WORLD.identities["relay"].sign[0]), WORLD.now)


def test_h12_a_result_is_not_a_job_and_opens_in_no_other_context() -> None:
    key = crypto.random_bytes(32)
    sealed = crypto.seal_body(key, b"bunny-bridge/v1/result", b"body")
    with pytest.raises(BadSeal):
        crypto.open_body(key, b"bunny-bridge/v1/job", sealed)


def test_h14_a_key_or_bundle_past_its_time() -> None:
    with pytest.raises(BundleExpired):
        guarded("bunny").authenticate(JOB.data, WORLD.now + 3_600_000)
    with pytest.raises(BundleExpired):
        guarded("bunny").authenticate(JOB.data, WORLD.now - 300_001)


def _as(sender: str, change: dict[str, Any], recipient: str = "bunny") -> Sealed:
    draft = WORLD.job(sender=sender, recipient=recipient)
    return WORLD.sealer(sender).seal(
        dataclasses.replace(draft, core=dataclasses.replace(draft.core, **change)),
        WORLD.now,
    )


@pytest.mark.parametrize(
    ("sender", "change", "recipient"),
    [
        ("relay", {"queue": "other"}, "bunny"),
        ("relay", {"kind": "delete"}, "bunny"),
        ("stranger", {}, "bunny"),
        ("bunny", {}, "bunny"),
        ("relay", {}, "stranger"),
        ("relay", {}, "other"),
    ],
    ids=str,
)
def test_h27_what_the_bundle_does_not_grant_is_refused(sender: str, change: dict[str, Any], recipient: str) -> None:
    sealed = _as(sender, change, recipient)
    with pytest.raises(NotAuthorised):
        guarded("bunny").authenticate(sealed.data, WORLD.now)


def test_h33_a_result_from_one_who_may_not_answer() -> None:
    forged = WORLD.sealer("stranger").seal(WORLD.result(JOB, sender="stranger"), WORLD.now)
    with pytest.raises(NotAuthorised):
        guarded("relay").authenticate(forged.data, WORLD.now)
    backwards = WORLD.sealer("relay").seal(WORLD.result(JOB, sender="relay", recipient="relay"), WORLD.now)
    with pytest.raises(NotAuthorised):
        guarded("relay").authenticate(backwards.data, WORLD.now)


def test_h17_another_recipient_cannot_open_and_says_so() -> None:
    for name in ("other", "stranger", "relay"):
        opener = WORLD.opener(name)
        with pytest.raises(WrongRecipient, match="addressed"):
            opener.open(opener.authenticate(JOB.data, WORLD.now))
    stale = Opener(dataclasses.replace(Identity.generate("bunny"), name="bunny"), WORLD.trust())
    with pytest.raises(WrongRecipient, match="no key"):
        stale.open(stale.authenticate(JOB.data, WORLD.now))


def _crafted(draft: Draft, wraps: list[tuple[bytes, bytes]], ciphertext: bytes) -> bytes:
    """An envelope that a malicious but authorised sender signs over parts of its choosing."""
    key = WORLD.identities["relay"].sign[0]
    core = dataclasses.replace(draft.core, sender_kid=key.kid, wrap_id=b"w" * 16).encode()
    head = MAGIC + len(core).to_bytes(2) + core + bytes([len(wraps)]) + b"".join(a + b for a, b in wraps)
    head += len(ciphertext).to_bytes(8) + crypto.sha256(ciphertext)
    signed = b"bunny-bridge/v1/batch\0" + key.kid + struct.pack(">Q", 1) + crypto.leaf_hash(head)
    return head + key.kid + struct.pack(">QB", 1, 0) + key.sign(signed) + ciphertext


def _opens(data: bytes) -> Content:
    opener = WORLD.opener("bunny")
    return opener.open(opener.authenticate(data, WORLD.now)).content


def test_h17_h18_h19_relabelled_transplanted_and_mutated_wraps_do_not_open() -> None:
    bunny = KemPublicKey(WORLD.identities["bunny"].kem[0].public)
    other = KemPublicKey(WORLD.identities["other"].kem[0].public)
    relay_kid = WORLD.identities["relay"].sign[0].kid
    info = b"bunny-bridge/v1/wrap\0" + relay_kid + bunny.kid + b"w" * 16
    good = bunny.wrap(b"s" * 32, info)
    cases = {
        "relabelled": other.wrap(b"s" * 32, info),
        "of another sender": bunny.wrap(b"s" * 32, info.replace(relay_kid, b"x" * 32)),
        "of another wrap id": bunny.wrap(b"s" * 32, info[:-1] + b"x"),
        "mutated ML-KEM share": bytes([good[0] ^ 1]) + good[1:],
        "mutated X25519 share": good[:1100] + bytes([good[1100] ^ 1]) + good[1101:],
        "mutated tag": good[:-1] + bytes([good[-1] ^ 1]),
    }
    for name, wrap in cases.items():
        with pytest.raises(BadSeal):
            _opens(_crafted(WORLD.job(), [(bunny.kid, wrap)], b"c" * 100))
        assert name


def _sealed_by_hand(prelude: bytes, body: bytes) -> bytes:
    """A job with any prelude whatever, sealed and signed as it should be."""
    bunny = KemPublicKey(WORLD.identities["bunny"].kem[0].public)
    relay = WORLD.identities["relay"].sign[0]
    wrap = bunny.wrap(b"s" * 32, b"bunny-bridge/v1/wrap\0" + relay.kid + bunny.kid + b"w" * 16)
    core = dataclasses.replace(WORLD.job().core, sender_kid=relay.kid, wrap_id=b"w" * 16).encode()
    before = MAGIC + len(core).to_bytes(2) + core + b"\x01" + bunny.kid + wrap
    key = crypto.derive_key(b"s" * 32, b"bunny-bridge/v1/body\0" + crypto.sha256(before))
    plain = len(prelude).to_bytes(2) + prelude + body
    return _crafted(WORLD.job(), [(bunny.kid, wrap)], crypto.seal_body(key, b"bunny-bridge/v1/job", plain))


def test_h21_a_body_of_another_envelope_does_not_open() -> None:
    first, second = (WORLD.sealer("relay").seal(WORLD.job(n=n), WORLD.now) for n in (1, 2))
    one = WORLD.opener("bunny").authenticate(first.data, WORLD.now)
    two = WORLD.opener("bunny").authenticate(second.data, WORLD.now)
    with pytest.raises(BadSeal):
        _opens(_crafted(WORLD.job(), list(one.wraps), two.ciphertext))


@pytest.mark.parametrize(
    ("change", "body"),
    [
        ({}, b"other"),
        ({"length": 4}, b"other"),
        ({"length": 1e3}, b"body"),
        ({"sha256": "00" * 32}, b"body"),
        ({"status": "succeeded"}, b"body"),
        ({"content_type": ""}, b"body"),
        ({"content_type": None}, b"body"),
        ({"extra": 1}, b"body"),
    ],
    ids=str,
)
def test_h25_a_false_prelude(change: dict[str, object], body: bytes) -> None:
    value = {"content_type": "text/plain", "length": 4, "sha256": crypto.sha256(b"body").hex()}
    assert _opens(_sealed_by_hand(strict_json.dump(value), b"body")).body == b"body"
    with pytest.raises(BadPrelude):
        _opens(_sealed_by_hand(strict_json.dump({**value, **change}), body))


@pytest.mark.parametrize("prelude", [b"", b"{}", b"[]", b"\xff", b'{"length":' * 50], ids=len)
def test_h25_a_prelude_that_is_none(prelude: bytes) -> None:
    with pytest.raises(BadPrelude):
        _opens(_sealed_by_hand(prelude, b"body"))


def test_a_sender_cannot_claim_to_be_another() -> None:
    key = WORLD.identities["relay"].sign[0]
    core: Core = dataclasses.replace(WORLD.job().core, sender="other")
    draft = dataclasses.replace(WORLD.job(), core=core)
    sealed = WORLD.sealer("relay").seal(draft, WORLD.now)
    assert sealed.core.sender_kid == key.kid
    with pytest.raises(BadSignature, match="another author"):
        guarded("bunny").authenticate(sealed.data, WORLD.now)
