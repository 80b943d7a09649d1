"""Break the verifying code in every small way, and see that a test fails: ``make mutate``, ``python -m tests.mutate``.

Mutants that no quick test kills are tried with slower ones. Those that live must stand in
``docs/mutants.md`` with the reason. What was found is kept, so a run goes on where the last one ended, and tries again
only what lived. Exit codes: 0 all others are killed, 1 some live. One that could not be tried lives.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import hypothesis
import pytest

from tests.mutate.changes import Change, changes
from tests.mutate.forks import apart
from tests.mutate.held import HELD, Held
from tests.mutate.record import Excuse, Record, excuses
from tests.mutate.trials import OPTIONS, UNRUN, Trials, imported

ROOT: Final = Path(__file__).resolve().parents[2]
JUSTIFIED: Final = ROOT / "docs" / "mutants.md"
KEPT: Final = ROOT / ".cache" / "mutants"
SAID: Final = 4_000
"""Characters of pytest's words that are shown where it fails."""


def tried(
    root: Path, module: str, wanted: Sequence[Change], tests: Sequence[str], record: Record, at_once: int
) -> None:
    """Try mutants of one module with these tests."""
    path, files = root / module, [root / "tests" / name for name in tests]
    name = ".".join(Path(module).with_suffix("").parts)
    exchanged = [change for change in wanted if change.code]
    if exchanged:
        plugin = Trials(path, exchanged, record.hints(), at_once, record.note)
        _in_a_fork(lambda: pytest.main([*OPTIONS, *map(str, files)], plugins=[plugin]), path)
    unrun = record.told(UNRUN)
    anew = [change for change in wanted if not change.code or (change.function, change.what) in unrun]
    for change, outcome in apart([(each, partial(imported, name, path, each, files)) for each in anew], at_once):
        record.note(change, outcome)


def _in_a_fork(do: Callable[[], int], path: Path) -> None:
    """What imports ours does so apart: this process must know nothing of it."""
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 1)
            os._exit(do())
        if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            said.seek(0)
            words = said.read().decode(errors="replace")[-SAID:]
            sys.stderr.write(f"{words}\n{path.name}: not all were tried: pytest ended with code {code}\n")


def judged(root: Path, module: str, held: Held, excused: set[Excuse], chosen: argparse.Namespace) -> tuple[int, str]:
    """Try the mutants of one module; how many live that may not, and the line that tells of it."""
    source = (root / module).read_text()
    found, record = changes(source), Record(chosen.dir, module, source)
    if chosen.anew:
        record.forget()
    for tests in (held.quick, () if chosen.quick else held.slow):
        left = _left(found, record)
        if left and tests:
            tried(root, module, left, tests, record, chosen.at_once)
    living = _left(found, record)
    mine = {(each.function, each.what) for each in excused if each.module == module}
    bad = [change for change in living if (change.function, change.what) not in mine]
    for change in bad:
        sys.stdout.write(f"  {module}:{change.line} {change.function or '(module)'}: {change.what}\n")
    gone = mine - {(change.function, change.what) for change in found}
    idle = mine - {(change.function, change.what) for change in living} - gone
    for function, what in sorted(gone):
        sys.stdout.write(f"  docs/mutants.md: {module} {function}: {what}: there is no such mutant any more\n")
    for function, what in sorted(idle):
        sys.stdout.write(f"  docs/mutants.md: {module} {function}: {what}: a test kills it now\n")
    dead = len(found) - len(living)
    return len(bad), f"| `{module}` | {len(found)} | {dead} | {len(living) - len(bad)} | {len(bad)} |\n"


def _left(found: list[Change], record: Record) -> list[Change]:
    dead = {(change.function, change.what) for change in record.killed(found)}
    return [change for change in found if (change.function, change.what) not in dead]


def prepare() -> None:
    """Have examples that are the same each time."""
    hypothesis.settings.register_profile(
        "mutate",
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],  # how small it can be made is of no interest
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="make mutate", description="Break the verifying code, and see that a test fails."
    )
    parser.add_argument("--module", choices=HELD, action="append", help="this one alone; repeat")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="mutants at a time")
    parser.add_argument("--anew", action="store_true", help="try those again, too, that were killed before")
    parser.add_argument("--quick", action="store_true", help="without the slower tests: more will live")
    parser.add_argument("--dir", type=Path, default=KEPT, help="where what was found is kept")
    chosen = parser.parse_args()
    prepare()
    began, excused, lines, living = time.monotonic(), excuses(JUSTIFIED.read_text()), list[str](), 0
    for module in chosen.module or HELD:
        bad, line = judged(ROOT, module, HELD[module], excused, chosen)
        living += bad
        lines.append(line)
        sys.stdout.write(line)
        sys.stdout.flush()
    sys.stdout.write(f"{living} live that may not; {time.monotonic() - began:.0f} s\n")
    return 1 if living else 0


if __name__ == "__main__":
    sys.exit(main())
