"""Trust, field by field: the least that is refused, the most that is taken, and who is meant by it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge import strict_json
from bridge.bundle import build_roots, sign_payload
from bridge.crypto import SigningKey, VerifyKey
from bridge.errors import BadBundle, BundleExpired, ConfigurationError, IdentityRevoked, NotAuthorised, UnknownKey
from bridge.identity import ROOTS_FILE, TRUST_FILE, Identity
from bridge.trust import FLOOR_FILE, MIN_VERSION_ENVIRONMENT, Lifetime, Peer, Trust, least_version, read_roots
from tests.fleet import Fleet, policy
from tests.world import World

WORLD = World()
PAYLOAD = WORLD.payload()
MOST = 2**53 - 1
Change = Callable[[dict[str, Any]], object]


def resigned(change: Change) -> Trust:
    value = strict_json.parse_object(PAYLOAD)
    change(value)
    return Trust.verify(sign_payload(strict_json.dump(value), WORLD.roots), WORLD.roots_json(), WORLD.now)


# --- the bundle ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["principals"][0].update(role="r"),
        lambda v: v["principals"][0].update(role="r" * 128),
        lambda v: v["principals"][0]["sign"][0].update(not_before=0, not_after=MOST),
        lambda v: v.update(version=MOST),
    ],
)
def test_what_is_just_within_is_taken(change: Change) -> None:
    resigned(change)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["principals"][0].update(role=""),
        lambda v: v["principals"][0].update(role="r" * 129),
        lambda v: v["principals"][0].update(role=["r"]),
        lambda v: v["principals"][0]["sign"][0].update(not_after=MOST + 1),
        lambda v: v["principals"][0]["sign"][0].update(not_before=-1),
        lambda v: v["principals"][0]["kem"][0].update(epoch=True),
        lambda v: v["principals"][0].update(name=7),
        lambda v: v["principals"][0].update(cloud="Not A Name"),
        lambda v: v["principals"][0].update(also=1),
        lambda v: v["principals"][0].pop("cloud"),
        lambda v: v["principals"][0]["sign"][0].update(also=1),
        lambda v: v["principals"][0]["sign"][0].update(public=7),
        lambda v: v["principals"][0]["kem"][0].update(also=1),
        lambda v: v["principals"][0].update(sign={}),
        lambda v: v["grants"][0].update(also=1),
        lambda v: v["grants"][0].pop("kinds"),
        lambda v: v.update(grants={}),
    ],
)
def test_what_is_just_beyond_is_refused(change: Change) -> None:
    with pytest.raises(BadBundle):
        resigned(change)


def test_a_newer_format_is_named_as_one() -> None:
    with pytest.raises(BadBundle, match=r"format version 2.*upgrade this side"):
        resigned(lambda value: value.update(v=2))


@pytest.mark.parametrize("version", [0, 2**31])
def test_what_is_no_format_version_is_refused(version: int) -> None:
    with pytest.raises(BadBundle, match="not a trust bundle of version 1"):
        resigned(lambda value: value.update(v=version))


def test_the_ends_of_versions_and_times_are_included() -> None:
    bundle, roots = sign_payload(PAYLOAD, WORLD.roots), WORLD.roots_json()
    assert Trust.verify(bundle, roots, WORLD.now - 300_000, min_version=1).version == 1
    with pytest.raises(BundleExpired, match="in the future"):
        Trust.verify(bundle, roots, WORLD.now - 300_001)


def test_a_folder_that_cannot_be_written_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / TRUST_FILE).write_bytes(sign_payload(PAYLOAD, WORLD.roots))
    (tmp_path / ROOTS_FILE).write_bytes(WORLD.roots_json())
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    Trust.load(tmp_path, WORLD.now)
    assert not (tmp_path / FLOOR_FILE).exists()


def test_a_folder_remembers_from_the_first_version_on(tmp_path: Path) -> None:
    (tmp_path / TRUST_FILE).write_bytes(sign_payload(PAYLOAD, WORLD.roots))
    (tmp_path / ROOTS_FILE).write_bytes(WORLD.roots_json())
    assert least_version(tmp_path) == 0
    Trust.load(tmp_path, WORLD.now)
    assert (tmp_path / FLOOR_FILE).read_text() == "1\n"


@pytest.mark.parametrize("text", ["", "-1", "1.0", "²", "1" * 17, "one"])
def test_a_version_is_a_whole_number(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MIN_VERSION_ENVIRONMENT, "9" * 16)
    assert least_version(tmp_path) == int("9" * 16)
    monkeypatch.setenv(MIN_VERSION_ENVIRONMENT, text)
    with pytest.raises(ConfigurationError, match=MIN_VERSION_ENVIRONMENT):
        least_version(tmp_path)


# --- keys ---------------------------------------------------------------------------------------------


def test_what_is_sealed_to_is_the_valid_key_of_the_highest_epoch() -> None:
    keys = [Identity.generate("bunny").public().kem[0][1] for _ in range(3)]
    lives = (Lifetime(0, 1_000), Lifetime(0, 1_000), Lifetime(500, 900))
    for order in ((0, 1, 2), (2, 1, 0)):
        peer = Peer("bunny", "azure", "service", (), tuple((keys[e], e, lives[e]) for e in order))
        assert [peer.kem_key(now) for now in (499, 500, 900, 901)] == [keys[1], keys[2], keys[2], keys[1]]
        with pytest.raises(UnknownKey):
            peer.kem_key(1_001)


def test_whose_a_key_is_does_not_depend_on_the_time() -> None:
    trust, kid = WORLD.trust(), WORLD.identities["relay"].sign[0].kid
    peer, key, lifetime = trust.owner(kid)
    assert peer is trust.peers["relay"]
    assert key is not None
    assert key.kid == kid
    assert lifetime == Lifetime(WORLD.now - 300_000, trust.expires_ms)
    assert trust.owner(bytes(32)) == (None, None, None)


def test_ones_own_key_must_be_ones_own_and_valid() -> None:
    trust = resigned(
        lambda value: [
            p["sign"][0].update(not_after=WORLD.now + 10) for p in value["principals"] if p["name"] == "relay"
        ]
    )
    mine, theirs = WORLD.identities["relay"].sign[0].kid, WORLD.identities["bunny"].sign[0].kid
    trust.check_mine("relay", mine, WORLD.now + 10)
    for kid, now, words in (
        (theirs, WORLD.now, "has not the key that relay signs with"),
        (bytes(32), WORLD.now, "has not the key that relay signs with"),
        (mine, WORLD.now + 11, "but not for now"),
    ):
        with pytest.raises(IdentityRevoked, match=words):
            trust.check_mine("relay", kid, now)
    with pytest.raises(BundleExpired):
        trust.check_mine("bunny", theirs, trust.expires_ms)


# --- who may --------------------------------------------------------------------------------------------


def test_a_replay_is_ordered_by_an_operator_of_the_workers_cloud_for_a_job_that_is_granted() -> None:
    trust = Fleet.make(policy()).trust
    trust.authorise("replay", "thumbs", "resize", "boss", "bunny", "relay")
    for sender, queue, kind, recipient, producer in (
        ("boss-aws", "thumbs", "resize", "bunny", "relay"),  # of the other cloud
        ("ops", "thumbs", "resize", "bunny", "relay"),  # of the cloud, and no operator
        ("bunny", "thumbs", "resize", "bunny", "relay"),
        ("boss", "thumbs", "find", "bunny", "relay"),
        ("boss", "lookup", "resize", "bunny", "relay"),
        ("boss", "thumbs", "resize", "bunny", "bunny"),
        ("boss", "thumbs", "resize", "ops", "relay"),
        ("nobody", "thumbs", "resize", "bunny", "relay"),
    ):
        with pytest.raises(NotAuthorised):
            trust.authorise("replay", queue, kind, sender, recipient, producer)


def test_what_has_no_rule_is_not_allowed() -> None:
    trust = WORLD.trust()
    for type_ in ("receipt", "part", "", "Job"):
        with pytest.raises(NotAuthorised):
            trust.authorise(type_, "thumbs", "resize", "relay", "bunny")


# --- roots ------------------------------------------------------------------------------------------------


def roots(count: int, threshold: int) -> dict[str, Any]:
    keys = [VerifyKey(SigningKey.generate().public) for _ in range(count)]
    return json.loads(build_roots("acme", threshold, keys))  # type: ignore[no-any-return]


def test_sixteen_roots_are_the_most() -> None:
    assert len(read_roots(json.dumps(roots(16, 16)).encode())[0]) == 16
    with pytest.raises(BadBundle):
        read_roots(json.dumps(roots(17, 1)).encode())


def test_while_holders_still_add_theirs_fewer_will_do_but_none() -> None:
    two = json.dumps(roots(2, 3)).encode()
    assert read_roots(two, partial=True)[1] == 3
    with pytest.raises(BadBundle):
        read_roots(two)
    for count, threshold in ((0, 1), (2, 17), (2, 0)):
        with pytest.raises(BadBundle):
            read_roots(json.dumps(roots(count, threshold)).encode(), partial=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v["keys"][0].update(also=1),
        lambda v: v["keys"][0].update(kid=v["keys"][1]["kid"]),
        lambda v: v["keys"].append(v["keys"][0]),
        lambda v: v.update(keys=7),
        lambda v: v["keys"][0].update(public=7),
    ],
)
def test_a_key_that_is_not_as_specified_is_refused(change: Change) -> None:
    value = roots(2, 1)
    change(value)
    with pytest.raises(BadBundle):
        read_roots(json.dumps(value).encode())
