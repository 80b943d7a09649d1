"""Identity folders: private files stay private, public halves are checked, and nothing shows a key."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigurationError
from bridge.identity import IDENTITY_FILE, LEAF_SEED_FILE, Connection, Identity, PublicIdentity, load_keys

SECRETS = ("nkey_seed", "dedup_secret")


def test_an_identity_reads_back_as_it_was_saved(tmp_path: Path) -> None:
    identity = Identity.generate("relay-api")
    path = identity.save(tmp_path / "relay-api")
    again = Identity.load(tmp_path / "relay-api")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (again.name, again.nkey_seed, again.dedup_secret) == ("relay-api", identity.nkey_seed, identity.dedup_secret)
    assert [k.kid for k in again.sign] == [k.kid for k in identity.sign]
    assert [k.kid for k in again.kem] == [k.kid for k in identity.kem]


def test_private_keys_are_never_overwritten(tmp_path: Path) -> None:
    Identity.generate("relay").save(tmp_path)
    before = (tmp_path / IDENTITY_FILE).read_bytes()
    with pytest.raises(ConfigurationError, match="never overwritten"):
        Identity.generate("relay").save(tmp_path)
    assert (tmp_path / IDENTITY_FILE).read_bytes() == before


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o444, 0o601])
def test_h42_a_private_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = Identity.generate("relay").save(tmp_path)
    os.chmod(path, mode)
    with pytest.raises(ConfigurationError, match=f"{mode:04o} lets others read"):
        Identity.load(tmp_path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440])
def test_a_private_file_may_be_read_by_its_owner_or_a_kubernetes_group(tmp_path: Path, mode: int) -> None:
    path = Identity.generate("relay").save(tmp_path)
    os.chmod(path, mode)
    assert Identity.load(tmp_path).name == "relay"


def test_nothing_shows_a_private_key(tmp_path: Path) -> None:
    identity = Identity.generate("relay")
    stored = json.loads(identity.save(tmp_path).read_text())
    shown = repr(identity) + str(identity) + repr(identity.sign) + repr(identity.kem) + identity.public().to_json()
    secrets = [stored[name] for name in SECRETS]
    secrets += [key["seed"] for key in (*stored["sign"], *stored["kem"])]
    assert not [secret for secret in secrets if secret in shown]


def _damaged(change: dict[str, Any], tmp_path: Path) -> None:
    path = Identity.generate("relay").save(tmp_path)
    value = json.loads(path.read_text())
    value.update(change)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "change",
    [
        {"version": True},
        {"extra": "x"},
        {"name": "Not A Name"},
        {"nkey_seed": "SUAWRONG"},
        {"sign": [{"kid": "00", "seed": "AAAA"}]},
        {"kem": None},
        {"dedup_secret": "!!"},
    ],
    ids=str,
)
def test_a_damaged_identity_is_refused_without_echo(tmp_path: Path, change: dict[str, Any]) -> None:
    _damaged(change, tmp_path)
    with pytest.raises(ConfigurationError, match="not an identity") as refusal:
        Identity.load(tmp_path)
    assert "SUAWRONG" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_a_public_half_is_checked_against_its_own_ids_and_its_file(tmp_path: Path) -> None:
    public = Identity.generate("relay").public()
    path = tmp_path / "relay.json"
    path.write_text(public.to_json())
    assert PublicIdentity.load(path).to_json() == public.to_json()
    (tmp_path / "other.json").write_text(public.to_json())
    with pytest.raises(ConfigurationError, match="another name"):
        PublicIdentity.load(tmp_path / "other.json")
    value = json.loads(public.to_json())
    value["sign"][0]["kid"] = "00" * 32
    path.write_text(json.dumps(value))
    with pytest.raises(ConfigurationError, match="not a public identity"):
        PublicIdentity.load(path)
    value["sign"][0]["public"] = "AQ" + "A" * 41
    path.write_text(json.dumps(value))
    with pytest.raises(ConfigurationError, match="small order"):
        PublicIdentity.load(path)


def test_every_identity_has_keys_of_its_own(tmp_path: Path) -> None:
    identity = Identity.generate("relay")
    for name in ("relay", "twin"):
        copy = json.loads(identity.public().to_json())
        (tmp_path / f"{name}.json").write_text(json.dumps({**copy, "name": name}))
    with pytest.raises(ConfigurationError, match="shares a key"):
        load_keys(tmp_path, ["relay", "twin"])
    with pytest.raises(ConfigurationError, match="bunny keys new absent"):
        load_keys(tmp_path, ["absent"])


def test_a_link_has_a_seed_for_the_server_and_nothing_to_sign_with(tmp_path: Path) -> None:
    link = Identity.generate("azure-link", link=True)
    link.save(tmp_path)
    seed = tmp_path / LEAF_SEED_FILE
    assert stat.S_IMODE(seed.stat().st_mode) == 0o600
    assert seed.read_text() == f'LEAF_NKEY_SEED: "{link.nkey_seed}"\n'
    assert (link.public().sign, link.public().kem) == ((), ())


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "the whole"),
        ("version: 1", "bridge"),
        ("version: 2\nbridge: a\nidentity: a\ncloud: a\nrole: service\nserver: tls://x", "version"),
        ("version: 1\nbridge: a\nidentity: a\ncloud: a\nrole: service\nserver: 5", "server"),
        ("a: [", "not YAML"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_a_malformed_connection_file_is_named(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "connection.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=where):
        Connection.load(tmp_path)
