"""What is fuzzed holds for the vectors and for small changes of them, and a run that tried nothing says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import NAMES
from tests.fuzz.targets import TARGETS
from tests.vectors.test_own import mutated

ROOT = Path(__file__).resolve().parents[2]
SEEDS = {name: seeds() for name, (_, seeds) in TARGETS.items()}


def test_every_target_can_be_named() -> None:
    assert set(NAMES) == set(TARGETS)


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("envelope", "bundle")])  # test_own has these
def test_it_holds_for_what_fuzzing_begins_with(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name][0](seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25)
@given(draw=st.data())
def test_it_holds_for_small_changes(name: str, draw: st.DataObject) -> None:
    TARGETS[name][0](draw.draw(mutated(draw.draw(st.sampled_from(SEEDS[name])))))


def test_without_atheris_nothing_was_tried(tmp_path: Path) -> None:
    """As where it is not installed: a module of that name that cannot be found."""
    code = "import sys; sys.modules['atheris'] = None; sys.argv = ['fuzz']; from tests.fuzz import __main__ as f; "
    code += "f.importlib.util.find_spec = lambda _: None; sys.exit(f.main())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("nothing was tried: atheris is not installed")
