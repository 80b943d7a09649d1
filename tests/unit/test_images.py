"""What the services' image installs is what is tested here, and its bill of materials says what is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "deploy/images/requirements.lock"

_spec = importlib.util.spec_from_file_location("sbom", ROOT / "deploy/images/sbom.py")
assert _spec is not None
assert _spec.loader is not None
sbom = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sbom)


def test_the_image_has_the_versions_that_are_tested() -> None:
    image, tested = sbom.locked(LOCK.read_text()), sbom.locked((ROOT / "requirements.lock").read_text())
    assert image
    for name, (version, hashes) in image.items():
        assert version == tested[name][0], name
        assert set(hashes) <= set(tested[name][1]), name
        assert hashes, name


def test_the_bill_names_every_locked_requirement() -> None:
    lock = sbom.locked(LOCK.read_text())
    bill = sbom.bill(lock, "1.2.3")
    assert {(each["name"], each["version"]) for each in bill["components"]} == {(n, v) for n, (v, _) in lock.items()}
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/bunny-bridge@1.2.3"
    (root,) = bill["dependencies"]
    assert root["dependsOn"] == [each["bom-ref"] for each in bill["components"]]


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        ({"one": "1", "bunny-bridge": "0"}, []),
        ({"one": "2", "bunny-bridge": "0"}, ["installed, not locked: one 2", "locked, not installed: one 1"]),
        ({"one": "1", "bunny-bridge": "0", "Two_too": "3"}, ["installed, not locked: two-too 3"]),
        ({"one": "1"}, ["locked, not installed: bunny-bridge 0"]),
    ],
)
def test_what_is_installed_and_not_locked_is_told(tmp_path: Path, installed: dict[str, str], told: list[str]) -> None:
    for name, version in installed.items():
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    assert sbom.differences({"one": ("1", [])}, "0", tmp_path) == told
