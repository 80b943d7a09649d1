"""What is shipped is locked, licensed as it may be and listed; keys in history are found; an audit says what it did."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

from bridge.crypto import SigningKey, new_nkey
from bridge.strict_json import b64

ROOT = Path(__file__).resolve().parents[2]
SUPPLY = ROOT / "deploy" / "supply"
LOCK = (ROOT / "deploy" / "images" / "requirements.lock").read_text()
LICENCES: dict[str, str] = json.loads((SUPPLY / "licences.json").read_text())
ALLOWED = {"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "PSF-2.0"}
"""None asks that what is made with it be given away. Anything else is looked at before it is added."""


def run(script: str, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SUPPLY / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
    )


# --- licences and the bill -------------------------------------------------------------------------


def test_all_that_is_shipped_has_a_licence_that_may_be_shipped() -> None:
    assert set(LICENCES) == set(re.findall(r"(?m)^([\w.-]+)==", LOCK))
    for name, expression in LICENCES.items():
        assert set(re.split(r" OR | AND ", expression)) <= ALLOWED, name


@pytest.mark.parametrize("name", LICENCES)
def test_a_licence_is_the_one_that_its_package_names(name: str) -> None:
    told = metadata(name)
    if declared := told.get_all("License-Expression"):
        assert [LICENCES[name]] == declared
        return
    words = " ".join([*(told.get_all("License") or []), *(told.get_all("Classifier") or [])])
    families = {"Apache": "Apache", "BSD": "BSD", "MIT": "MIT", "ISC": "ISC", "GPL": "GPL", "MPL": "MPL"}
    named = {family for family, word in families.items() if re.search(rf"\b{word}", words)}
    assert named == {re.split(r"[- ]", each)[0] for each in re.split(r" OR | AND ", LICENCES[name])}


def test_the_bill_of_materials_is_the_lock() -> None:
    first, again = run("sbom.py"), run("sbom.py")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == again.stdout
    bill = json.loads(first.stdout)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    listed = {f"{each['name']}=={each['version']}" for each in bill["components"]}
    assert listed == set(re.findall(r"(?m)^([\w.-]+==\S+)", LOCK))
    hashes = [each["content"] for part in bill["components"] for each in part["hashes"]]
    assert sorted(hashes) == sorted(re.findall(r"sha256:([0-9a-f]{64})", LOCK))
    assert len({part["bom-ref"] for part in bill["components"]}) == len(bill["components"])


@pytest.mark.parametrize("lock", ["requirements.lock", "deploy/images/requirements.lock"])
def test_every_locked_version_has_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text()
    for entry in re.split(r"(?m)^(?=[A-Za-z0-9])", re.sub(r"(?m)^\s*#.*\n", "", text))[1:]:
        assert re.match(r"[\w.-]+==\S+", entry), entry[:60]
        assert "--hash=sha256:" in entry, entry[:60]


# --- history ---------------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t.test", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


PEM = "-----BEGIN PRIVATE {}-----\nMC4CAQAwBQYDK2VwBCIEINrhP/oAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END PRIVATE {}-----\n"
SECRETS = {
    "pem": (PEM.format("KEY", "KEY"), "a PEM private key"),
    "nkey": (f"seed: {new_nkey()}\n", "a NKey seed"),
    "identity": (json.dumps({"sign": [{"seed": b64(SigningKey.generate().seed)}]}), "a seed of an identity"),
    "aws": ("AKIA" + "ABCDEFGH12345678", "an access key of AWS"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_key_that_was_removed_is_found_in_history_and_not_shown(name: str, tmp_path: Path) -> None:
    text, shape = SECRETS[name]
    git(tmp_path, "init", "-q")
    (tmp_path / "good.txt").write_text(
        "SUAKEYKEYKEY " + "S" + "U" * 57 + " -----BEGIN PRIVATE KEY----- of which no more\n"
    )
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "clean")
    clean = run("history.py", tmp_path)
    assert (clean.returncode, clean.stdout) == (0, "1 versions of files looked at, 0 with the shape of a private key\n")
    (tmp_path / "key.txt").write_text(text)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "a mistake")
    git(tmp_path, "rm", "-q", "key.txt")
    git(tmp_path, "commit", "-qm", "and its removal")
    told = run("history.py", tmp_path)
    assert told.returncode == 1
    assert told.stdout.splitlines()[0] == f"key.txt: {shape}"
    assert text.strip() not in told.stdout + told.stderr


def test_where_there_is_no_history_nothing_was_looked_at(tmp_path: Path) -> None:
    told = run("history.py", tmp_path)
    assert (told.returncode, told.stdout) == (2, "")
    assert "nothing was looked at" in told.stderr


# --- the audit -------------------------------------------------------------------------------------

CLEAN = {"dependencies": [{"name": "a", "version": "1", "vulns": []}]}
KNOWN = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1"}]}]}
SKIPPED = {"dependencies": [{"name": "a", "skip_reason": "not found"}]}


@pytest.mark.parametrize(
    ("says", "code", "word"),
    [
        (json.dumps(CLEAN), 0, "no known vulnerability"),
        (json.dumps(KNOWN), 1, "a 1: CVE-1"),
        (json.dumps(SKIPPED), 2, "not checked"),
        ('{"dependencies": []}', 2, "not checked"),
        ("", 2, "not checked"),
        (None, 2, "not checked: pip-audit is not installed"),
    ],
    ids=["clean", "known", "skipped", "nothing", "unreachable", "absent"],
)
def test_an_audit_that_did_not_check_is_not_a_good_one(says: str | None, code: int, word: str, tmp_path: Path) -> None:
    if says is not None:
        program = tmp_path / "pip-audit"
        program.write_text(f"#!/bin/sh\ncat <<'E'\n{says}\nE\n")
        program.chmod(0o755)
    told = run("audit.py", PATH=f"{tmp_path}:/bin" if says is not None else str(tmp_path))
    assert told.returncode == code, told
    assert word in told.stdout + told.stderr
