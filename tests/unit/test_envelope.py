"""What is sealed opens again, for its recipient, alone or in a batch, with wraps used again."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import crypto
from bridge.core import Core, check_time, decode
from bridge.crypto import KemPublicKey
from bridge.envelope import WRAP_MAX_AGE_MS, Draft
from bridge.errors import BadFrame, Expired, FromTheFuture, PayloadTooLarge
from bridge.identity import Identity
from bridge.job import INLINE_LIMIT, Content, Status
from tests.world import SESSION, World

WORLD = World()


@given(st.binary(max_size=5000))
@settings(max_examples=25)
def test_a_job_and_its_result_open_to_what_was_sealed(body: bytes) -> None:
    job = WORLD.sealer("relay").seal(WORLD.job(body), WORLD.now)
    bunny = WORLD.opener("bunny")
    opened = bunny.open(bunny.authenticate(job.data, WORLD.now))
    assert (opened.content, opened.status, opened.digest) == (Content("application/json", body), None, job.digest)
    assert opened.core == job.core
    result = WORLD.sealer("bunny").seal(WORLD.result(job, body), WORLD.now)
    relay = WORLD.opener("relay")
    answer = relay.open(relay.authenticate(result.data, WORLD.now))
    assert (answer.content.body, answer.status) == (body, Status.SUCCEEDED)
    assert answer.core.job_digest == job.digest
    assert answer.core.key == job.core.key


def test_a_start_is_signed_and_seals_nothing() -> None:
    job = WORLD.sealer("relay").seal(WORLD.job(), WORLD.now)
    start = WORLD.sealer("bunny").seal(WORLD.start(job), WORLD.now)
    seen = WORLD.opener("bunny").authenticate(start.data, WORLD.now)
    assert (seen.core.attempt, seen.core.job_digest, seen.core.key) == (2, job.digest, job.core.key)
    assert seen.ciphertext == b""


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 255, 256])
def test_each_message_of_a_batch_verifies_without_the_others(size: int) -> None:
    sealed = WORLD.sealer("relay").seal_batch([WORLD.job(b"%d" % n, n=n) for n in range(1, size + 1)], WORLD.now)
    for n in (1, (size + 1) // 2, size):
        bunny = WORLD.opener("bunny")
        opened = bunny.open(bunny.authenticate(sealed[n - 1].data, WORLD.now))
        assert (opened.content.body, opened.core.job) == (b"%d" % n, f"{SESSION}.{n}")


@pytest.mark.parametrize("size", [0, 257])
def test_a_batch_has_one_to_256_messages(size: int) -> None:
    with pytest.raises(ValueError, match="1 to 256"):
        WORLD.sealer("relay").seal_batch([WORLD.job(n=n) for n in range(1, size + 1)], WORLD.now)


def test_the_root_of_a_batch_is_verified_once() -> None:
    sealed = WORLD.sealer("relay").seal_batch([WORLD.job(n=n) for n in (1, 2, 3)], WORLD.now)
    bunny = WORLD.opener("bunny")
    for message in sealed:
        bunny.authenticate(message.data, WORLD.now)
    assert len(bunny._roots) == 1
    bunny.trust = WORLD.trust(2)
    assert not bunny._roots


def test_a_wrap_is_used_again_for_five_minutes_and_no_longer() -> None:
    sealer = WORLD.sealer("relay")
    first, again = (sealer.seal(WORLD.job(n=n), WORLD.now + n).core.wrap_id for n in (1, 2))
    late = sealer.seal(WORLD.job(n=3), WORLD.now + WRAP_MAX_AGE_MS + 1).core.wrap_id
    back = sealer.seal(WORLD.job(n=4), WORLD.now).core.wrap_id
    assert first == again
    assert len({first, late, back}) == 3


def test_one_wrap_opened_is_remembered_by_its_own_hash() -> None:
    sealer, bunny = WORLD.sealer("relay"), WORLD.opener("bunny")
    for n in (1, 2):
        bunny.open(bunny.authenticate(sealer.seal(WORLD.job(n=n), WORLD.now).data, WORLD.now))
    assert len(bunny._secrets) == 1


def test_a_message_may_be_sealed_to_eight_keys_and_any_of_them_opens_it() -> None:
    mine = KemPublicKey(WORLD.identities["bunny"].kem[-1].public)
    others = tuple(KemPublicKey(Identity.generate("x").kem[0].public) for _ in range(8))
    draft = WORLD.job()
    eight = dataclasses.replace(draft, recipients=(*others[:7], mine))
    bunny = WORLD.opener("bunny")
    sealed = WORLD.sealer("relay").seal(eight, WORLD.now)
    assert bunny.open(bunny.authenticate(sealed.data, WORLD.now)).content.body == b'{"width":320}'
    for recipients in ((*others, mine), (mine, mine)):
        with pytest.raises(ValueError, match="1 to 8 different"):
            WORLD.sealer("relay").seal(dataclasses.replace(draft, recipients=recipients), WORLD.now)


def test_content_above_the_inline_limit_is_refused_by_the_limits_name() -> None:
    with pytest.raises(PayloadTooLarge, match="INLINE_LIMIT"):
        WORLD.sealer("relay").seal(WORLD.job(bytes(INLINE_LIMIT + 1)), WORLD.now)
    fitting = WORLD.job(bytes(INLINE_LIMIT))
    sealed = WORLD.sealer("relay").seal(fitting, WORLD.now)
    assert len(sealed.data) < 768 * 1024


def test_the_digest_is_of_every_byte_before_the_signature_block() -> None:
    job = WORLD.sealer("relay").seal(WORLD.job(), WORLD.now)
    seen = WORLD.opener("bunny").authenticate(job.data, WORLD.now)
    before = len(job.data) - len(seen.ciphertext) - (32 + 8 + 1 + 64)
    assert job.digest == seen.digest == crypto.sha256(job.data[:before])


def test_times_are_checked_with_skew_only_towards_the_future() -> None:
    core = WORLD.job().core
    check_time(core, WORLD.now)
    check_time(core, WORLD.now - 300_000)
    check_time(core, WORLD.now + 59_999)
    with pytest.raises(FromTheFuture):
        check_time(core, WORLD.now - 300_001)
    with pytest.raises(Expired):
        check_time(core, WORLD.now + 60_000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue": "Thumbs"},
        {"queue": "a.b"},
        {"kind": ""},
        {"priority": "urgent"},
        {"job": f"{SESSION}.0"},
        {"job": f"{SESSION}.01"},
        {"job": "short.1"},
        {"generation": -1},
        {"issued": -1},
        {"expires": 0},
        pytest.param({"expires": WORLD.now + 32 * 24 * 3600 * 1000}, id="expires too late"),
        {"sender": "a" * 64},
        {"wrap_id": b"short"},
    ],
    ids=str,
)
def test_a_core_that_breaks_the_specification_is_not_sent(wrong: dict[str, Any]) -> None:
    core = dataclasses.replace(WORLD.job().core, sender_kid=bytes(32), wrap_id=bytes(16))
    broken = dataclasses.replace(core, **wrong)
    with pytest.raises(BadFrame):
        broken.encode()


def test_a_core_reads_back_as_it_was_written() -> None:
    core = dataclasses.replace(WORLD.job().core, sender_kid=bytes(32), wrap_id=bytes(16))
    assert decode(core.encode()) == core
    assert isinstance(core, Core)


def test_a_draft_without_content_seals_an_empty_body() -> None:
    draft = WORLD.job()
    sealed = WORLD.sealer("relay").seal(Draft(draft.core, draft.recipients), WORLD.now)
    bunny = WORLD.opener("bunny")
    assert bunny.open(bunny.authenticate(sealed.data, WORLD.now)).content.body == b""


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_job_and_its_result_carry_a_signed_traceparent_or_none() -> None:
    draft = WORLD.job()
    plain = WORLD.sealer("relay").seal(draft, WORLD.now)
    traced = WORLD.sealer("relay").seal(with_core(draft, traceparent=TRACEPARENT), WORLD.now)
    result = WORLD.sealer("bunny").seal(with_core(WORLD.result(traced), traceparent=TRACEPARENT), WORLD.now)
    bunny, relay = WORLD.opener("bunny"), WORLD.opener("relay")
    assert bunny.authenticate(traced.data, WORLD.now).core.traceparent == TRACEPARENT
    assert relay.authenticate(result.data, WORLD.now).core.traceparent == TRACEPARENT
    assert bunny.authenticate(plain.data, WORLD.now).core.traceparent is None
    assert b"traceparent" not in plain.data


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        TRACEPARENT.upper(),
        TRACEPARENT + "\n",
        TRACEPARENT + "-more",
        TRACEPARENT.replace("00-", "01-", 1),
        TRACEPARENT.replace("00-", "ff-", 1),
        TRACEPARENT[:-1],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
def test_a_malformed_traceparent_is_neither_sent_nor_taken(traceparent: str) -> None:
    core = dataclasses.replace(WORLD.job().core, traceparent=traceparent, sender_kid=bytes(32), wrap_id=bytes(16))
    with pytest.raises(BadFrame):
        core.encode()
    good = dataclasses.replace(core, traceparent=TRACEPARENT).encode()
    with pytest.raises(BadFrame):
        decode(good.replace(TRACEPARENT.encode(), traceparent.encode()))


def test_a_start_carries_no_traceparent() -> None:
    core = WORLD.start(WORLD.sealer("relay").seal(WORLD.job(), WORLD.now)).core
    with pytest.raises(BadFrame):
        dataclasses.replace(core, traceparent=TRACEPARENT, sender_kid=bytes(32)).encode()


def with_core(draft: Draft, **fields: Any) -> Draft:  # noqa: ANN401  fields of Core
    return dataclasses.replace(draft, core=dataclasses.replace(draft.core, **fields))
