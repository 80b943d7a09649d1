"""A package of the user's that has one of our three names fails with a word that names it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("bridge", "producers", "consumers")
ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in ``folder``, which comes first on its path, with ours behind it."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
@pytest.mark.parametrize(("namesake", "imported"), list(itertools.permutations(PACKAGES, 2)))
def test_a_namesake_fails_with_its_path(tmp_path: Path, namesake: str, imported: str, form: str) -> None:
    path = tmp_path / form.format(namesake)
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine = True\n")
    done = run(tmp_path, "-c", f"import {imported}")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: another module named")
    assert repr(namesake) in last
    assert str(path) in last
    assert "rename it" in last


@pytest.mark.parametrize("namesake", ["producers", "consumers"])
def test_the_command_fails_the_same_way(tmp_path: Path, namesake: str) -> None:
    (tmp_path / f"{namesake}.py").write_text("")
    done = run(tmp_path, "-m", "bridge.cli", "--help")
    assert done.returncode != 0
    assert f"another module named {namesake!r}" in done.stderr


def test_folders_that_are_no_packages_do_no_harm(tmp_path: Path) -> None:
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.txt").write_text("")
    done = run(tmp_path, "-c", "import bridge, producers, consumers")
    assert done.returncode == 0, done.stderr
