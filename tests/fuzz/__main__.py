"""Coverage-guided fuzzing of what reads bytes from outside, by atheris: ``make fuzz``, ``python -m tests.fuzz``.

Each target runs in a process of its own, from the vectors on, and what it found worth keeping stays in a folder: the
next run goes on from there. An input that fails is kept in ``crashes/`` there. Exit codes: 0 none failed, 1 one did,
2 nothing was tried.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
NAMES: Final = ("json", "core", "frame", "envelope", "sealed", "bundle", "receipts", "policy")
LONGEST: Final = 64 * 1024
"""Bytes of an input."""
SLOWEST_S: Final = 20
"""An input that takes longer is a failure."""
MEMORY_MIB: Final = 2048
"""And so is one that takes more."""
_RUNS: Final = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_COVERED: Final = re.compile(r"cov: (\d+)")


def fuzz(name: str, folder: Path, seconds: int) -> None:
    """Fuzz one target in this process, which then ends."""
    import atheris

    with atheris.instrument_imports(include=["bridge"]):
        from tests.fuzz.targets import TARGETS
    target, seeds = TARGETS[name]
    corpus, crashes = folder / name, folder / "crashes"
    for place in (corpus, crashes):
        place.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed[:LONGEST])
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={SLOWEST_S}"]
    options += [f"-rss_limit_mb={MEMORY_MIB}", f"-artifact_prefix={crashes}/{name}-", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], target)
    atheris.Fuzz()


def told(name: str, folder: Path, seconds: int) -> bool:
    """Fuzz one target in a process, and print what came of it; whether nothing failed."""
    words = (sys.executable, "-m", "tests.fuzz", "--target", name, "--seconds", str(seconds), "--dir", str(folder))
    done = subprocess.run([*words, "--here"], cwd=ROOT, capture_output=True, text=True, check=False)
    runs, covered = _RUNS.search(done.stderr), _COVERED.findall(done.stderr)
    sys.stdout.write(
        f"{name:<10} {int(runs[1]) if runs else 0:>10,} inputs, {covered[-1] if covered else 0:>5} edges, "
    )
    sys.stdout.write("no failure\n" if done.returncode == 0 else f"exit code {done.returncode}\n")
    if done.returncode:
        sys.stdout.write("\n".join(done.stderr.splitlines()[-40:]) + "\n")
    sys.stdout.flush()
    return done.returncode == 0 and runs is not None


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="make fuzz", description="Fuzz what reads bytes from outside.")
    parser.add_argument("--minutes", type=float, default=7.0, help="in all, shared by the targets")
    parser.add_argument("--target", choices=NAMES, action="append", help="this one alone; repeat")
    parser.add_argument("--dir", type=Path, default=ROOT / ".cache" / "fuzz", help="what is kept between runs")
    parser.add_argument("--seconds", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write(
            "nothing was tried: atheris is not installed. It is not locked, as it has no wheel for every Python; "
            "where it has one: .venv/bin/pip install --only-binary :all: 'atheris>=3,<4'\n"
        )
        return 2
    targets = chosen.target or list(NAMES)
    if chosen.here:
        fuzz(targets[0], chosen.dir, chosen.seconds)
        return 0
    seconds = max(1, round(chosen.minutes * 60 / len(targets)))
    passed = [told(name, chosen.dir, seconds) for name in targets]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
