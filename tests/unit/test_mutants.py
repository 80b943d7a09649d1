"""Mutants are what they say, one that a test notices is killed, and one that nobody notices must be excused."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutate.changes import changed, changes
from tests.mutate.held import HELD
from tests.mutate.trials import UNRUN

ROOT = Path(__file__).resolve().parents[2]
SOURCE = '''
"""A module."""
LIMIT: int = 16

def check(data: bytes, kind: str, n: int = 0) -> bytes:
    """Refuse it."""
    if len(data) > LIMIT and not n:
        raise ValueError(f"{n + 1} is too much")
    if (kind, n) != ("job", 0):
        return data + b"."
    seen.add(data)
    _log.info("seen", size=len(data) + 1)
    return data
'''
MUTANTS = """
: LIMIT: int = 16 → LIMIT: int = 17
check: data: bytes, kind: str, n: int=0 → data: bytes, kind: str, n: int=1
check: len(data) > LIMIT and (not n) → True
check: len(data) > LIMIT and (not n) → False
check: len(data) > LIMIT and (not n) → not n
check: len(data) > LIMIT and (not n) → len(data) > LIMIT
check: len(data) > LIMIT → len(data) >= LIMIT
check: not n → n
check: (kind, n) != ('job', 0) → True
check: (kind, n) != ('job', 0) → False
check: (kind, n) != ('job', 0) → (kind, n) == ('job', 0)
check: (kind, n) != ('job', 0) → (n,) != (0,)
check: (kind, n) != ('job', 0) → (kind,) != ('job',)
check: ('job', 0) → ('job', 1)
check: return data + b'.' → return None
check: data + b'.' → data - b'.'
check: data + b'.' → data + b'.x'
check: seen.add(data) → pass
check: return data → return None
"""


def test_every_small_way_is_tried_but_for_words() -> None:
    found = [f"{change.function}: {change.what}" for change in changes(SOURCE)]
    assert sorted(found) == sorted(MUTANTS.strip().splitlines())


def test_each_is_one_other_module() -> None:
    whole = {ast.unparse(changed(SOURCE, change)) for change in changes(SOURCE)}
    assert len(whole) == len(changes(SOURCE))
    assert ast.unparse(ast.parse(SOURCE)) not in whole


@pytest.mark.parametrize("module", HELD)
def test_what_is_held_can_be_broken_in_ways_that_have_names(module: str) -> None:
    found = changes((ROOT / module).read_text())
    assert len({(change.function, change.what) for change in found}) == len(found) > 0
    for name in HELD[module].quick + HELD[module].slow:
        assert (ROOT / "tests" / name).exists()


GUARDED = """
LIMIT = 16

def check(data: bytes) -> bytes:
    if len(data) > LIMIT:
        raise ValueError
    tidy(data)
    return data

def tidy(data: bytes) -> None:
    data.count(0)

def below(most):
    def fits(n: int) -> bool:
        return n < most
    return fits

fits = below(18)
"""
TESTS = """
import pytest
from guarded import check, fits

def test_what_is_too_long_is_refused():
    assert check(b"x" * 16) == b"x" * 16
    with pytest.raises(ValueError):
        check(b"x" * 17)
    assert fits(17) and not fits(18)
"""
TABLE = r"""
| `guarded.py` | `check` | `tidy(data) → pass` | equivalent |
| `guarded.py` | `check` | `old \| code → pass` | gone |
"""
RUN = """
import argparse, sys
from pathlib import Path
from tests.mutate.__main__ import judged, prepare
from tests.mutate.held import Held
from tests.mutate.record import excuses
root = Path(sys.argv[1])
prepare()
chosen = argparse.Namespace(dir=root / "kept", at_once=2, anew=False, quick=False)
print(judged(root, "guarded.py", Held(("test_guarded.py",)), excuses((root / "table.md").read_text()), chosen))
"""


def test_mutants_are_killed_justified_or_told(tmp_path: Path) -> None:
    """Of thirteen, the suite kills ten: six in what an import runs or makes, four in a function that is exchanged."""
    (tmp_path / "tests").mkdir()
    for name, text in (("guarded.py", GUARDED), ("tests/test_guarded.py", TESTS), ("table.md", TABLE)):
        (tmp_path / name).write_text(text)
    told = [run(tmp_path) for _ in range(2)]
    assert told[0] == told[1]  # the second tried again only what lived
    assert told[0] == [
        "  guarded.py:11 tidy: data.count(0) → pass",
        "  guarded.py:11 tidy: data.count(0) → data.count(1)",
        "  docs/mutants.md: guarded.py check: old | code → pass: there is no such mutant any more",
        "(2, '| `guarded.py` | 13 | 10 | 1 | 2 |\\n')",
    ]
    lines = [json.loads(line) for line in (tmp_path / "kept" / "guarded.py.jsonl").read_text().splitlines()]
    made = sum(line["by"] == UNRUN for line in lines)  # exchanging what made them would be too late
    assert (len(lines), sum(line["killed"] for line in lines), made) == (13 + 4 + 3, 10, 4)
    assert {line["by"].rpartition("::")[2] for line in lines if line["killed"]} == {"test_what_is_too_long_is_refused"}


def run(folder: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
