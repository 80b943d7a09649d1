"""Whose keys a message is sealed and signed with, when they are replaced meanwhile, and what is remembered of it."""

from __future__ import annotations

import dataclasses

import pytest

from bridge import crypto, envelope
from bridge.crypto import KemKey, KemPublicKey, SigningKey, VerifyKey
from bridge.envelope import CACHE_ENTRIES, WRAP_MAX_AGE_MS, WRAP_MAX_USES, Opened, Opener, Sealed, Sealer
from bridge.errors import BadSignature, BundleExpired, IdentityRevoked, NotAuthorised, WrongRecipient
from bridge.keyring import Keyring
from bridge.payload import Manifest
from tests.world import World

OLD = World()
SECOND = SigningKey.generate()
OF_BOTH = dataclasses.replace(OLD.identities["relay"], sign=(*OLD.identities["relay"].sign, SECOND))
WORLD = World({**OLD.identities, "relay": OF_BOTH}, OLD.roots, OLD.now)
FIRST = OF_BOTH.sign[0]
BUNNY = KemPublicKey(WORLD.identities["bunny"].kem[-1].public)


def opened(message: Sealed) -> Opened:
    bunny = WORLD.opener("bunny")
    return bunny.open(bunny.authenticate(message.data, WORLD.now))


def test_the_limits_of_a_wrap_and_of_what_is_remembered_are_those_of_the_specification() -> None:
    assert (WRAP_MAX_AGE_MS, WRAP_MAX_USES, CACHE_ENTRIES) == (5 * 60 * 1000, 2**20, 4096)


def test_a_wrap_is_used_so_often_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "WRAP_MAX_USES", 3)
    sealer = WORLD.sealer("relay")
    wraps = [sealer.seal(WORLD.job(n=n), WORLD.now).core.wrap_id for n in range(1, 8)]
    assert [wraps.index(each) for each in wraps] == [0, 0, 0, 3, 3, 3, 6]


def test_what_was_sealed_before_the_key_was_replaced_is_signed_with_it_each_alone() -> None:
    ring = Keyring(OLD.identities["relay"])
    sealer = Sealer(ring)
    closed = [sealer.close(WORLD.job(b"%d" % n, n=n), WORLD.now) for n in (1, 2)]
    ring.take_up(OF_BOTH)
    closed.append(sealer.close(WORLD.job(b"3", n=3), WORLD.now))
    signed = sealer.sign(closed)
    assert [each.core.sender_kid for each in signed] == [FIRST.kid, FIRST.kid, SECOND.kid]
    assert [opened(each).content.body for each in signed] == [b"1", b"2", b"3"]
    assert len({len(each.data) for each in signed}) == 1  # no path


def test_the_last_signing_key_signs_a_start_too() -> None:
    job = WORLD.sealer("relay").seal(WORLD.job(), WORLD.now)
    assert job.core.sender_kid == SECOND.kid
    other = SigningKey.generate()
    bunny = dataclasses.replace(WORLD.identities["bunny"], sign=(*WORLD.identities["bunny"].sign, other))
    start = Sealer(bunny).seal(WORLD.start(job), WORLD.now)
    assert start.core.sender_kid == other.kid
    assert Opener(bunny, World({**WORLD.identities, "bunny": bunny}, WORLD.roots, WORLD.now).trust()).authenticate(
        start.data, WORLD.now
    )


def test_a_secret_is_wrapped_for_somebody() -> None:
    with pytest.raises(ValueError, match="1 to 8 different"):
        WORLD.sealer("relay").wrap((), WORLD.now)


# --- a payload that was sealed before its message ------------------------------------------------------


def test_a_message_is_sealed_under_the_secret_of_its_payload() -> None:
    sealer = WORLD.sealer("relay")
    wrap, draft = sealer.wrap((BUNNY,), WORLD.now), WORLD.job(b"")
    manifest = Manifest(bytes(range(16)), bytes(range(32)), 7)
    named = draft.naming(manifest, wrap)
    core = named.core
    assert (core.transfer, core.index, core.length) == (manifest.transfer, manifest.index, manifest.length)
    assert (named.wrap, named.payload, named.content) == (wrap, manifest, draft.content)
    assert named.recipients is draft.recipients
    sealed = sealer.seal(named, WORLD.now + WRAP_MAX_AGE_MS)  # however long that took
    assert sealed.core.wrap_id == wrap.wrap_id
    assert _secret(sealed) == wrap.secret
    assert opened(sealed).payload is not None
    assert opened(sealer.seal(draft, WORLD.now)).payload is None
    assert sealer.seal(draft, WORLD.now).core.wrap_id != wrap.wrap_id  # it is of that message alone


def test_a_secret_is_wrapped_anew_under_a_key_that_came_meanwhile() -> None:
    ring = Keyring(OLD.identities["relay"])
    sealer = Sealer(ring)
    wrap = sealer.wrap((BUNNY,), WORLD.now)
    ring.take_up(OF_BOTH)
    signed_anew = sealer.seal(dataclasses.replace(WORLD.job(), wrap=wrap), WORLD.now)
    assert (signed_anew.core.sender_kid, _secret(signed_anew)) == (SECOND.kid, wrap.secret)
    assert signed_anew.core.wrap_id != wrap.wrap_id

    other = KemPublicKey(KemKey.generate().public)
    for_another = Sealer(OF_BOTH).wrap((other,), WORLD.now)
    for recipients in ((BUNNY,), (BUNNY, other), (other, BUNNY)):
        draft = dataclasses.replace(WORLD.job(), recipients=recipients, wrap=for_another)
        sealed = Sealer(OF_BOTH).seal(draft, WORLD.now)
        assert (opened(sealed).content, _secret(sealed)) == (draft.content, for_another.secret)


def _secret(message: Sealed) -> bytes:
    """What its wrap for the worker holds."""
    bunny = WORLD.opener("bunny")
    bunny.open(bunny.authenticate(message.data, WORLD.now))
    (held,) = bunny._secrets.values()
    return held.secret


# --- what an opener remembers --------------------------------------------------------------------------


def test_a_signature_that_was_verified_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = WORLD.sealer("relay").seal_batch([WORLD.job(n=n) for n in (1, 2)], WORLD.now)
    bunny = WORLD.opener("bunny")
    bunny.authenticate(first.data, WORLD.now)
    monkeypatch.setattr(VerifyKey, "verify", lambda *_: False)
    assert bunny.authenticate(second.data, WORLD.now).digest == second.digest


def test_a_wrap_that_was_opened_is_not_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sealer, bunny = WORLD.sealer("relay"), WORLD.opener("bunny")
    first, second = (sealer.seal(WORLD.job(b"%d" % n, n=n), WORLD.now) for n in (1, 2))
    bunny.open(bunny.authenticate(first.data, WORLD.now))
    monkeypatch.setattr(KemKey, "unwrap", lambda *_: crypto.random_bytes(32))
    assert bunny.open(bunny.authenticate(second.data, WORLD.now)).content.body == b"2"


def test_what_is_remembered_is_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "CACHE_ENTRIES", 2)
    bunny, remembered = WORLD.opener("bunny"), list[object]()
    for n in range(1, 4):
        bunny.open(bunny.authenticate(WORLD.sealer("relay").seal(WORLD.job(n=n), WORLD.now).data, WORLD.now))
        remembered.append((list(bunny._roots)[-1], list(bunny._secrets)[-1]))
        assert list(zip(bunny._roots, bunny._secrets, strict=True)) == remembered[-2:]
    sealer = WORLD.sealer("relay")
    for key in (KemPublicKey(KemKey.generate().public) for _ in range(3)):
        sealer.seal(dataclasses.replace(WORLD.job(), recipients=(key,)), WORLD.now)
    assert len(sealer._wraps) == 2


# --- whether others take what is signed ----------------------------------------------------------------


def test_who_signs_with_a_key_that_others_do_not_take_is_told() -> None:
    trust = OLD.trust()
    Opener(OLD.identities["relay"], trust).check_mine(WORLD.now)
    with pytest.raises(BundleExpired):
        Opener(OLD.identities["relay"], trust).check_mine(trust.expires_ms)
    nobody = dataclasses.replace(OF_BOTH, sign=())
    for mine in (OF_BOTH, nobody):  # the last signs, and the bundle has the first alone
        opener = Opener(mine, trust)
        assert opener.trust is trust
        with pytest.raises(IdentityRevoked):
            opener.check_mine(WORLD.now)


# --- whom a message is for -----------------------------------------------------------------------------


def test_what_is_addressed_to_another_does_not_open_with_the_key_it_is_sealed_to() -> None:
    job = WORLD.sealer("other").seal(WORLD.job(sender="other"), WORLD.now)
    mine = (KemPublicKey(OF_BOTH.kem[-1].public),)
    result = WORLD.sealer("bunny").seal(dataclasses.replace(WORLD.result(job), recipients=mine), WORLD.now)
    relay = WORLD.opener("relay")
    with pytest.raises(WrongRecipient, match="addressed to another"):
        relay.open(relay.authenticate(result.data, WORLD.now))


def test_what_is_sealed_to_others_does_not_open_for_whom_it_is_addressed_to() -> None:
    theirs = (KemPublicKey(OF_BOTH.kem[-1].public),)
    sealed = WORLD.sealer("relay").seal(dataclasses.replace(WORLD.job(), recipients=theirs), WORLD.now)
    with pytest.raises(WrongRecipient, match="sealed to no key"):
        opened(sealed)


def test_neither_bytes_nor_secrets_show_themselves() -> None:
    sealer, draft = WORLD.sealer("relay"), WORLD.job(b"a body")
    wrap = sealer.wrap(draft.recipients, WORLD.now)
    closed = sealer.close(draft, WORLD.now)
    sealed = sealer.sign([closed])[0]
    for shown in (wrap, closed, sealed, WORLD.opener("bunny").authenticate(sealed.data, WORLD.now)):
        for hidden in ("keys", "wrapping", "head", "data", "wraps", "head_digest", "ciphertext"):
            assert f"{hidden}=" not in repr(shown)


# --- who wrote it --------------------------------------------------------------------------------------


def test_a_core_names_the_key_that_signs_it_and_whose_that_is() -> None:
    sealer, bunny = WORLD.sealer("relay"), WORLD.opener("bunny")
    closed = sealer.close(WORLD.job(), WORLD.now)
    by_the_other_key = sealer.sign([dataclasses.replace(closed, key=FIRST)])[0]
    in_anothers_name = sealer.seal(WORLD.job(sender="other"), WORLD.now)
    for forged in (by_the_other_key, in_anothers_name):
        with pytest.raises(BadSignature, match="names another author"):
            bunny.authenticate(forged.data, WORLD.now)


def test_what_is_sealed_is_what_was_signed() -> None:
    data = WORLD.sealer("relay").seal(WORLD.job(), WORLD.now).data
    with pytest.raises(BadSignature, match="the ciphertext is not"):
        WORLD.opener("bunny").authenticate(data[:-1] + bytes([data[-1] ^ 1]), WORLD.now)


def test_nothing_is_taken_without_a_grant_or_under_a_bundle_that_has_expired() -> None:
    bunny = WORLD.opener("bunny")
    with pytest.raises(NotAuthorised):
        bunny.authenticate(WORLD.sealer("stranger").seal(WORLD.job(sender="stranger"), WORLD.now).data, WORLD.now)
    with pytest.raises(BundleExpired):
        bunny.authenticate(WORLD.sealer("relay").seal(WORLD.job(), WORLD.now).data, bunny.trust.expires_ms)
