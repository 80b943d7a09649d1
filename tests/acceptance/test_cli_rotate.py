"""``bunny rotate`` where no bridge runs: each run does the next step of a folder, and says who must do what then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_cli_files import EVERYONE
from tests.acceptance.typed import bunny


@pytest.fixture
def keyed(tmp_path: Path) -> Path:
    """A folder with the first policy, everyone's keys, and a bundle that lies in bunny's folder."""
    bunny("init", tmp_path)
    for name in EVERYONE:
        bunny("keys new", tmp_path, name)
    bunny("trust init", tmp_path)
    deliver(tmp_path)
    return tmp_path


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
    said = bunny("rotate sign", keyed, "--identity", "identities/bunny", code=6)
    assert "has not the key that bunny signs with" in said.err
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
