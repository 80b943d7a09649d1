"""What an author with true keys, or a broker with the bytes, can do to a seal: refused by name, and the next opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from bridge import crypto, strict_json
from bridge.bundle import sign_payload
from bridge.core import MAX_LIFETIME_MS, check_time
from bridge.crypto import KemPublicKey, SigningKey
from bridge.envelope import Opener
from bridge.errors import (
    BadBundle,
    BadFrame,
    BadPrelude,
    BadSeal,
    BadSignature,
    Expired,
    FromTheFuture,
    NotAuthorised,
    UnknownKey,
)
from bridge.identity import Identity
from bridge.trust import Trust
from tests.vectors import labels
from tests.vectors.forge import SECRET, WRAP_ID, Forgery
from tests.vectors.refused_envelopes import BUNNY, OTHER, job, sign_key
from tests.world import World

NOW = labels.NOW
TRUST = Trust.verify(labels.trust(), labels.roots(), NOW)
CHUNK = 16 * 1024 + 16
"""Bytes of a sealed chunk, its tag included."""


def opens(forgery: Forgery | bytes, reader: str = "bunny") -> bytes:
    """The body of an envelope, as its reader comes to it."""
    opener = Opener(labels.IDENTITIES[reader], TRUST)
    data = forgery if isinstance(forgery, bytes) else forgery.encode()
    return opener.open(opener.authenticate(data, NOW)).content.body


@pytest.fixture(autouse=True)
def _the_next_good_one_opens() -> Iterator[None]:
    yield
    assert opens(job()) == b'{"width":320}'


# --- JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"[" * 100_000], ids=["[", "{", "{["])
def test_h6_depth_is_no_recursion_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not strict JSON"):
        strict_json.parse_object(data)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "{", "}", '{"a"', '{"a":', '{"a":1', '{"a":1,}', '{,"a":1}', '{"a" 1}', '{"a":1 "b":2}', "{1:1}"),
        *("{a:1}", "{'a':1}", '{"a":01}', '{"a":+1}', '{"a":-}', '{"a":.5}', '{"a":1.}', '{"a":1e}', '{"a":0x10}'),
        *('{"a":1.0}', '{"a":1e400}', '{"a":-1e400}', '{"a":1E+2}', '{"a":NaN}', '{"a":Infinity}', '{"a":-Infinity}'),
        *('{"a":True}', '{"a":nul}', '{"a":"\t"}', '{"a":"\n"}', '{"a":"\0"}', '{"a":"\\x41"}', '{"a":"\\u12"}'),
        *('{"a":"\\ud800"}', '{"a":"\\udc00\\ud800"}', '{"a":"\\"}', '{"a":"}', '{"a":1}x', '{"a":1}{}', "[1]", '"a"'),
        *(
            '{"a":1}/**/',
            '{"a":1}#',
            '{"a":1,"a":1}',
            '{"a":{"b":1,"b":2}}',
            '{"\\u0061":1,"a":2}',
            "\ufeff{}",
            "\x0c{}",
        ),
        *(
            "\x0c{}",
            '{"a":[1,]}',
            '{"a":[,1]}',
            '{"a":[1}',
            '{"a":]}',
            "null",
            "true",
            "1",
            '{"a":[1 2]}',
            '{"a":\u00a01}',
        ),
    ],
)
def test_h6_what_parsers_read_differently_is_refused(text: str) -> None:
    """The classes of JSONTestSuite's files that must, and of those that may, be refused."""
    with pytest.raises(ValueError, match=r"not (strict JSON|a JSON object|Unicode text)"):
        strict_json.parse_object(text.encode())


@pytest.mark.parametrize(
    "data", [b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\xaf"}', b"{\0}", b"\xff\xfe{\0}\0"]
)
def test_h6_bytes_that_are_not_utf_8(data: bytes) -> None:
    with pytest.raises(ValueError, match="not strict JSON"):
        strict_json.parse_object(data)


# --- signatures and keys ---------------------------------------------------------------------------


def test_h10_a_signature_that_is_stripped() -> None:
    good = job()
    head, ciphertext = good.parts()
    block = good.with_(ciphertext=ciphertext).encode()[len(head) : -len(ciphertext)]
    for stripped in (b"", block[:41], block[:-1], block[:41] + bytes(64), bytes(len(block))):
        with pytest.raises((BadFrame, BadSignature, UnknownKey)):
            opens(head + stripped + ciphertext)


def test_h14_a_key_that_left_the_bundle_is_unknown_even_where_its_signature_was_seen() -> None:
    world = World()
    sealed = world.sealer("relay").seal(world.job(), world.now)
    opener = world.opener("bunny")
    assert opener.authenticate(sealed.data, world.now).core.sender == "relay"
    world.identities["relay"] = Identity.generate("relay")
    opener.trust = world.trust(version=2)
    with pytest.raises(UnknownKey):
        opener.authenticate(sealed.data, world.now)
    again = world.sealer("relay").seal(world.job(), world.now)
    assert opener.open(opener.authenticate(again.data, world.now)).content.body


@pytest.mark.parametrize("kind", ["sign", "kem"])
@pytest.mark.parametrize("whose", [0, 1])
def test_h15_a_bundle_with_a_kid_twice(kind: str, whose: int) -> None:
    payload = labels.payload()
    payload["principals"][whose][kind] += payload["principals"][0][kind]
    bundle = sign_payload(strict_json.dump(payload), labels.ROOTS[:2])
    with pytest.raises(BadBundle):
        Trust.verify(bundle, labels.roots(), NOW)


# --- wraps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [lambda wrap: wrap[:-1], lambda wrap: wrap + b"x", lambda wrap: wrap[1:]])
def test_h20_a_wrap_of_another_length(change: Callable[[bytes], bytes]) -> None:
    kid, wrap = job().wrap(BUNNY)
    for more in ((), (job().wrap(OTHER),)):
        with pytest.raises(BadFrame):
            opens(job().with_(wraps=((kid, change(wrap)), *more)))


def test_h24_other_secrets_for_each_recipient_give_no_second_plaintext() -> None:
    """The body commits to its key: whoever was given another secret reads nothing, never something else."""
    good = job()
    info = b"bunny-bridge/v1/wrap\0" + good.signer.kid + BUNNY.kid + WRAP_ID
    mine, another = good.wrap(OTHER), (BUNNY.kid, BUNNY.wrap(b"x" * len(SECRET), info))
    with pytest.raises(BadSeal):
        opens(good.with_(wraps=(another, mine)))
    # Sealed twice, under each secret, in one ciphertext: it is one seal, and the second is an end that does not verify.
    twice = good.with_(wraps=(another, mine))
    _, ciphertext = twice.parts()
    with pytest.raises(BadSeal):
        opens(twice.with_(ciphertext=ciphertext * 2))


# --- the body's chunks -----------------------------------------------------------------------------

KEY, CONTEXT = bytes(range(32)), b"bunny-bridge/v1/job"
BODY = bytes(range(256)) * 160  # two chunks and a half
SEALED = crypto.seal_body(KEY, CONTEXT, BODY)
HEADER = len(SEALED) - (len(BODY) + 16 * 3)
FIRST, SECOND, LAST = (SEALED[a:b] for a, b in pairwise([HEADER, HEADER + CHUNK, HEADER + 2 * CHUNK, len(SEALED)]))
CHUNKS = {
    "swapped": (SECOND, FIRST, LAST),
    "doubled": (FIRST, FIRST, SECOND, LAST),
    "first dropped": (SECOND, LAST),
    "middle dropped": (FIRST, LAST),
    "last dropped": (FIRST, SECOND),
    "last cut": (FIRST, SECOND, LAST[:-1]),
    "last cut to its tag": (FIRST, SECOND, LAST[-16:]),
    "last doubled": (FIRST, SECOND, LAST, LAST),
    "extended": (FIRST, SECOND, LAST, b"x"),
    "none": (),
    "first alone": (FIRST,),
}


def test_h22_chunks_as_they_were_sealed_open() -> None:
    assert HEADER > 32  # a salt and a commitment
    assert crypto.open_body(KEY, CONTEXT, SEALED) == BODY


@pytest.mark.parametrize("name", CHUNKS)
def test_h22_chunks_in_another_order_or_number(name: str) -> None:
    with pytest.raises(BadSeal):
        crypto.open_body(KEY, CONTEXT, SEALED[:HEADER] + b"".join(CHUNKS[name]))


def test_h22_salt_and_commitment_flipped_or_of_another_body() -> None:
    other = crypto.seal_body(KEY, CONTEXT, BODY)
    for at in range(HEADER):
        with pytest.raises(BadSeal):
            crypto.open_body(KEY, CONTEXT, SEALED[:at] + bytes([SEALED[at] ^ 1]) + SEALED[at + 1 :])
    with pytest.raises(BadSeal):
        crypto.open_body(KEY, CONTEXT, other[:HEADER] + SEALED[HEADER:])
    for length in range(HEADER):
        with pytest.raises(BadSeal):
            crypto.open_body(KEY, CONTEXT, SEALED[:length])


def test_h22_a_signed_envelope_of_spliced_chunks_does_not_open() -> None:
    good = job().with_(body=BODY)
    _, sealed = good.parts()
    at = len(sealed) - (len(sealed) - HEADER) % CHUNK
    for spliced in (sealed[:at], sealed[:HEADER] + sealed[HEADER + CHUNK :], sealed + sealed[HEADER:]):
        with pytest.raises(BadSeal):
            opens(good.with_(ciphertext=spliced))


# --- time ------------------------------------------------------------------------------------------


def test_h29_a_job_that_is_good_for_longer_than_any_may_be() -> None:
    core = {"issued": NOW, "expires": NOW + MAX_LIFETIME_MS}
    opens(job().with_core(**core))
    with pytest.raises(BadFrame):
        opens(job().with_core(**{**core, "expires": NOW + MAX_LIFETIME_MS + 1}))


@pytest.mark.parametrize(
    ("off", "refusal"), [(3_600_000, FromTheFuture), (-3_600_000, Expired)], ids=["ahead", "behind"]
)
def test_h30_an_author_whose_clock_is_an_hour_off(off: int, refusal: type[Exception]) -> None:
    world = World()
    draft = world.job()
    core = replace(draft.core, issued=draft.core.issued + off, expires=draft.core.expires + off)
    sealed = world.sealer("relay").seal(replace(draft, core=core), world.now + off)
    message = world.opener("bunny").authenticate(sealed.data, world.now)
    with pytest.raises(refusal):
        check_time(message.core, world.now)


def test_h11_no_key_of_a_bundle_signs_for_another_principal() -> None:
    for name in ("other", "bunny", "stranger"):
        with pytest.raises((BadSignature, NotAuthorised)):
            opens(job().with_(signer=sign_key(name), kid=sign_key(name).kid))
    with pytest.raises(UnknownKey):
        opens(job().with_(signer=SigningKey.generate(), kid=KemPublicKey(BUNNY.public).kid))


@pytest.mark.parametrize("name", ["encoding", "content_encoding", "padding"])
def test_h26_a_body_that_is_compressed_in_another_way(name: str) -> None:
    body = b"x" * 28
    prelude = {"content_type": "a/b", "length": 1028 * len(body), "sha256": crypto.sha256(body).hex(), name: "zstd"}
    with pytest.raises(BadPrelude):
        opens(job().with_(body=body, prelude=prelude))
