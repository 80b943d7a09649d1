"""``bunny rotate`` where no bridge runs: each run does the next step of a folder, and says who must do what then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_cli_files import EVERYONE
from tests.acceptance.typed import bunny


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first policy, everyone's keys, and a bundle that lies in bunny's folder; to be copied."""
    folder = tmp_path_factory.mktemp("rotated")
    bunny("init", folder)
    for name in EVERYONE:
        bunny("keys new", folder, name)
    bunny("trust init", folder)
    deliver(folder)
    return folder


@pytest.fixture
def keyed(once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(once, tmp_path / "keyed"))


def deliver(folder: Path) -> None:
    bunny("trust sign", folder)
    for file in ("trust.json", "roots.json"):
        shutil.copy(folder / file, folder / "identities" / "bunny")


def rotate(folder: Path, kind: str, *more: str) -> dict[str, Any]:
    return dict(json.loads(bunny(f"rotate {kind}", folder, "--identity", "identities/bunny", "--json", *more).out))


def half(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "keys" / "bunny.json").read_text()))


def private(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "identities" / "bunny" / "identity.json").read_text()))


def test_a_signing_key_is_replaced_in_steps_that_may_be_repeated(keyed: Path) -> None:
    old = private(keyed)["sign"][0]["kid"]
    assert rotate(keyed, "sign", "--dry-run")["step"] == "make a new key"
    assert rotate(keyed, "sign")["changed"]
    new = half(keyed)["sign"][1]["kid"]
    assert [each["kid"] for each in half(keyed)["sign"]] == [old, new]
    assert [each["kid"] for each in private(keyed)["sign"]] == [old], "nobody knows the new one yet"
    said = bunny("rotate sign", keyed, "--identity", "identities/bunny", code=1)
    assert "has not the new signing key of bunny; sign and deliver one that has it first" in said.err
    deliver(keyed)
    assert rotate(keyed, "sign")["changed"]
    assert [each["kid"] for each in private(keyed)["sign"]] == [new]
    assert [each["kid"] for each in half(keyed)["sign"]] == [old, new], "what it signed may still be waiting"
    said = bunny("rotate sign", keyed, "--identity", "identities/bunny", "--retire", code=1)
    assert "nobody looked what is stored in aws, azure" in said.err


def test_a_folder_that_cannot_be_written_is_copied_and_the_copy_is_changed(keyed: Path) -> None:
    before = private(keyed)
    said = rotate(keyed, "kem", "--out", "next")
    assert (said["folder"], private(keyed)) == ("next", before)
    assert "put next in its place" in said["next"][0]
    made = json.loads((keyed / "next" / "identity.json").read_text())
    assert [each["epoch"] for each in made["kem"]] == [each["epoch"] for each in half(keyed)["kem"]] == [0, 1]
    assert made["kem"][0] == before["kem"][0]


def test_a_copy_that_is_changed_again_has_what_was_delivered_meanwhile_and_no_older_keys(keyed: Path) -> None:
    place, copy = keyed / "identities" / "bunny", keyed / "next"
    rotate(keyed, "sign", "--out", "next")
    shutil.copy(copy / "rotation.json", place)
    deliver(keyed)
    assert rotate(keyed, "sign", "--out", "next")["changed"]
    assert (copy / "trust.json").read_bytes() == (place / "trust.json").read_bytes()
    shutil.copytree(copy, place, dirs_exist_ok=True)
    rotate(keyed, "kem")
    said = bunny("rotate kem", keyed, "--identity", "identities/bunny", "--out", "next", code=1)
    assert "older keys" in said.err


def test_root_keys_are_replaced_by_a_bundle_that_old_and_new_have_signed(keyed: Path) -> None:
    new = keyed / "new"
    new.mkdir()
    shutil.copy(keyed / "bridge.yaml", new)
    bunny("trust init", new)
    (root,) = (new / "roots").glob("*.json")
    bunny("trust sign", keyed)
    said = bunny("trust sign --add", keyed, "--roots", new / "roots.json", "--root", root, "--json").json
    assert (said["signatures"], said["complete"]) == (1, True)
    for roots in (keyed / "roots.json", new / "roots.json"):
        assert bunny("trust show", keyed, "--roots", roots, "--json").json["valid"]


def test_a_revocation_is_written_down_and_says_who_must_do_what(keyed: Path) -> None:
    before = (keyed / "bridge.yaml").read_text()
    bunny("revoke bunny --dry-run", keyed)
    assert (keyed / "bridge.yaml").read_text() == before
    said = bunny("revoke bunny --json", keyed).json
    assert said["revoked"] == ["bunny"]
    assert "BOTH clouds" in said["next"][1]
    assert (keyed / "bridge.yaml").read_text() == before.rstrip() + (
        "\n\n# Refused everywhere, whatever else names them.\nrevoked: [bunny]\n"
    )
    said = bunny("revoke leaf --json", keyed).json
    assert (keyed / "bridge.yaml").read_text().endswith("\nrevoked: [azure-link, bunny]\n")
    assert any("restarted" in line for line in said["next"])
    bunny("trust sign", keyed)
    assert "bunny" not in bunny("trust show", keyed).out.split()
    assert "revoked in bridge.yaml" in bunny("explain bunny publish jobs.x", keyed, code=1).error
