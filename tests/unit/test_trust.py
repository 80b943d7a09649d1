"""The trust bundle verifies or raises by name; each refusal is made for real."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import strict_json
from bridge.bundle import add_signatures, build_payload, build_roots, read_payload, sign_payload
from bridge.crypto import SigningKey, VerifyKey
from bridge.errors import (
    BadBundle,
    BelowThreshold,
    BundleExpired,
    BundleRolledBack,
    ConfigurationError,
    NotAuthorised,
    RepeatedSigner,
    TrustError,
    UnknownKey,
    WeakKey,
)
from bridge.identity import Identity
from bridge.job import CANARY
from bridge.policy import IdentityEntry, Role
from bridge.trust import FLOOR_FILE, MIN_VERSION_ENVIRONMENT, Trust
from tests.world import POLICY, World

WORLD = World(roots=[SigningKey.generate() for _ in range(3)])
PAYLOAD = WORLD.payload()


def verify(bundle: bytes, threshold: int = 1, now: int = WORLD.now, least: int = 0) -> Trust:
    return Trust.verify(bundle, WORLD.roots_json(threshold), now, least)


def test_a_bundle_says_who_may_send_what_to_whom() -> None:
    trust = verify(sign_payload(PAYLOAD, WORLD.roots[:1]))
    trust.authorise("job", "thumbs", "resize", "relay", "bunny")
    trust.authorise("result", "thumbs", "resize", "bunny", "relay")
    trust.authorise("start", "thumbs", "probe", "bunny", "other")
    for wrong in (
        ("job", "thumbs", "resize", "bunny", "relay"),
        ("result", "thumbs", "resize", "relay", "bunny"),
        ("start", "thumbs", "resize", "relay", "bunny"),
        ("job", "thumbs", "format", "relay", "bunny"),
        ("job", "lookup", "resize", "relay", "bunny"),
        ("job", "thumbs", "resize", "stranger", "bunny"),
    ):
        with pytest.raises(NotAuthorised) as refused:
            trust.authorise(*wrong)
        assert all(word in str(refused.value) for word in (*wrong, "trust.json: version 1 ", "`bunny trust show`"))


def test_an_agent_is_granted_canaries_alone() -> None:
    identities = {**POLICY.identities, "watch": IdentityEntry("watch", "aws", Role.AGENT)}
    queues = {"thumbs": replace(POLICY.queues["thumbs"], canary_ms=30_000)}
    known = {**WORLD.identities, "watch": Identity.generate("watch")}
    keys = {name: each.public() for name, each in known.items()}
    payload = build_payload(replace(POLICY, identities=identities, queues=queues), keys, 1, WORLD.now)
    trust = verify(sign_payload(payload, WORLD.roots[:1]))
    trust.authorise("job", "thumbs", CANARY, "watch", "bunny")
    trust.authorise("result", "thumbs", CANARY, "bunny", "watch")
    for wrong in (("resize", "watch"), (CANARY, "relay")):
        with pytest.raises(NotAuthorised):
            trust.authorise("job", "thumbs", *wrong, "bunny")


def test_the_link_is_no_principal() -> None:
    trust = verify(sign_payload(PAYLOAD, WORLD.roots[:1]))
    assert "azure-link" not in trust.peers
    with pytest.raises(
        NotAuthorised, match=r"^trust\.json: version 1 does not know azure-link; see `bunny trust show`"
    ):
        trust.peer("azure-link")


def test_a_signers_key_is_known_within_its_lifetime_only() -> None:
    trust = verify(sign_payload(PAYLOAD, WORLD.roots[:1]))
    kid = WORLD.identities["relay"].sign[0].kid
    assert trust.signer(kid, WORLD.now)[0].name == "relay"
    for when in (WORLD.now - 300_001, WORLD.now + 3_600_001):
        with pytest.raises(UnknownKey):
            trust.signer(kid, when)
    with pytest.raises(UnknownKey):
        trust.signer(bytes(32), WORLD.now)


@pytest.mark.parametrize("threshold", [1, 2, 3])
def test_h16_h38_the_threshold_is_of_different_roots(threshold: int) -> None:
    verify(sign_payload(PAYLOAD, WORLD.roots[:threshold]), threshold)
    if threshold > 1:
        with pytest.raises(BelowThreshold):
            verify(sign_payload(PAYLOAD, WORLD.roots[: threshold - 1]), threshold)


def test_holders_of_roots_sign_one_after_another() -> None:
    bundle = sign_payload(PAYLOAD, WORLD.roots[:1])
    bundle = add_signatures(bundle, WORLD.roots[1:2])
    verify(bundle, 2)
    with pytest.raises(RepeatedSigner):
        add_signatures(bundle, WORLD.roots[:1])


def test_h38_a_root_that_signs_twice_counts_as_an_attack() -> None:
    with pytest.raises(RepeatedSigner):
        verify(sign_payload(PAYLOAD, [WORLD.roots[0], WORLD.roots[0]]), 2)


def test_signatures_of_strangers_and_broken_ones_do_not_count() -> None:
    strangers = [SigningKey.generate() for _ in range(3)]
    with pytest.raises(BelowThreshold, match="0 of the roots"):
        verify(sign_payload(PAYLOAD, strangers), 1)
    value = json.loads(sign_payload(PAYLOAD, WORLD.roots[:1]))
    value["signatures"][0]["sig"] = value["signatures"][0]["sig"][:-4] + "AAA="
    with pytest.raises(BelowThreshold):
        verify(json.dumps(value).encode())


def test_h38_an_expired_bundle_fails_closed() -> None:
    trust = verify(sign_payload(PAYLOAD, WORLD.roots[:1]))
    trust.check(WORLD.now + 3_599_999)
    for when in (WORLD.now + 3_600_000, WORLD.now - 300_001):
        with pytest.raises(BundleExpired):
            trust.check(when)
        with pytest.raises(BundleExpired):
            verify(sign_payload(PAYLOAD, WORLD.roots[:1]), now=when)


def test_h38_an_older_bundle_is_refused() -> None:
    with pytest.raises(BundleRolledBack, match="version 1 is older than 2"):
        verify(sign_payload(PAYLOAD, WORLD.roots[:1]), least=2)


def test_h38_a_folder_remembers_the_highest_version_it_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MIN_VERSION_ENVIRONMENT, raising=False)
    (tmp_path / "roots.json").write_bytes(WORLD.roots_json())

    def deliver(version: int) -> Trust:
        (tmp_path / "trust.json").write_bytes(sign_payload(WORLD.payload(version), WORLD.roots[:1]))
        return Trust.load(tmp_path, WORLD.now)

    assert deliver(3).version == 3
    with pytest.raises(BundleRolledBack):
        deliver(2)
    assert deliver(4).version == 4
    (tmp_path / FLOOR_FILE).write_text("damaged")
    with pytest.raises(ConfigurationError, match="not a version"):
        deliver(5)


def test_h38_a_pod_without_memory_pins_the_least_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "roots.json").write_bytes(WORLD.roots_json())
    (tmp_path / "trust.json").write_bytes(sign_payload(WORLD.payload(6), WORLD.roots[:1]))
    monkeypatch.setenv(MIN_VERSION_ENVIRONMENT, "7")
    with pytest.raises(BundleRolledBack):
        Trust.load(tmp_path, WORLD.now)
    monkeypatch.setenv(MIN_VERSION_ENVIRONMENT, "six")
    with pytest.raises(ConfigurationError, match="not a version"):
        Trust.load(tmp_path, WORLD.now)


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"trust\.json"):
        Trust.load(tmp_path, WORLD.now)
    assert os.listdir(tmp_path) == []


Change = Callable[[dict[str, Any]], object]


def _resigned(change: Change) -> bytes:
    value = strict_json.parse_object(PAYLOAD)
    change(value)
    return sign_payload(strict_json.dump(value), WORLD.roots[:1])


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(v=2),
        lambda v: v.update(extra=1),
        lambda v: v.pop("grants"),
        lambda v: v.update(version=0),
        lambda v: v.update(version="1"),
        lambda v: v.update(version=True),
        lambda v: v.update(expires=v["issued"]),
        lambda v: v.update(bridge="evil"),
        lambda v: v["principals"].append(v["principals"][0]),
        lambda v: v["principals"][1].update(sign=v["principals"][0]["sign"]),
        lambda v: v["principals"][1].update(kem=v["principals"][0]["kem"]),
        lambda v: v["principals"][0]["sign"][0].update(kid="00" * 32),
        lambda v: v["principals"][0]["kem"][0].update(kid="00" * 32),
        lambda v: v["principals"][0].update(name="Not A Name"),
        lambda v: v["principals"][0]["sign"][0].update(not_after=None),
        lambda v: v["grants"][0].update(to="nobody"),
        lambda v: v["grants"].append(v["grants"][0]),
        lambda v: v["grants"][0].update(kinds="resize"),
        lambda v: v["grants"][0].update(kinds=[1]),
    ],
)
def test_a_signed_bundle_that_is_not_as_specified_is_refused(change: Change) -> None:
    with pytest.raises(BadBundle):
        verify(_resigned(change))


def test_h13_a_small_order_key_in_a_signed_bundle_is_refused_by_name() -> None:
    def plant(value: dict[str, Any]) -> None:
        value["principals"][0]["sign"][0]["public"] = "AQ" + "A" * 41

    with pytest.raises(WeakKey):
        verify(_resigned(plant))


def test_h13_a_small_order_root_is_refused_by_name() -> None:
    roots = json.loads(WORLD.roots_json())
    roots["keys"][0]["public"] = "AQ" + "A" * 41
    with pytest.raises(WeakKey):
        Trust.verify(sign_payload(PAYLOAD, WORLD.roots[:1]), json.dumps(roots).encode(), WORLD.now)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 0},
        {"threshold": 4},
        {"threshold": True},
        {"version": 2},
        {"extra": 1},
        {"keys": []},
        {"bridge": ""},
    ],
    ids=str,
)
def test_a_roots_file_that_is_not_as_specified_is_refused(change: dict[str, object]) -> None:
    roots = {**json.loads(WORLD.roots_json()), **change}
    with pytest.raises(BadBundle, match=r"roots\.json"):
        Trust.verify(sign_payload(PAYLOAD, WORLD.roots[:1]), json.dumps(roots).encode(), WORLD.now)


def test_h15_a_repeated_root_is_refused() -> None:
    key = VerifyKey(WORLD.roots[0].public)
    with pytest.raises(BadBundle):
        Trust.verify(sign_payload(PAYLOAD, WORLD.roots[:1]), build_roots("acme", 2, [key, key]), WORLD.now)


@pytest.mark.parametrize("bundle", [b"", b"{}", b"[]", PAYLOAD, b"\xff", b"[" * 100_000], ids=len)
def test_what_is_no_bundle_is_refused(bundle: bytes) -> None:
    with pytest.raises(BadBundle):
        verify(bundle)
    with pytest.raises(BadBundle):
        read_payload(bundle)


def test_h9_every_byte_of_a_bundle_flipped_is_refused_or_changes_nothing() -> None:
    bundle = sign_payload(PAYLOAD, WORLD.roots[:1])
    good = verify(bundle)
    step = max(1, len(bundle) // 2000)
    for at in range(0, len(bundle), step):
        forged = bytearray(bundle)
        forged[at] ^= 0x01
        try:
            seen = verify(bytes(forged))
        except TrustError:
            continue
        assert (seen.grants, seen.version) == (good.grants, good.version), at
