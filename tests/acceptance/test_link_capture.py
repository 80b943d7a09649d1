"""What an eavesdropper between the clouds sees while a demo runs, by tshark's word and not ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_link_shows_nothing_but_tls_1_3_with_the_hybrid_key_exchange() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "capture_link.py", ROOT / "docs"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "yes key exchange" in done.stdout
