"""A worker with a ledger, as a process that a test has killed at a given step: ``DATA EFFECTS STEP``.

STEP is ``before`` (its result is not recorded yet), ``between`` (recorded, and not published yet), or ``never``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from consumers import Worker
from consumers.ledger import Ledger
from consumers.settle import Settler

data, effects, step = sys.argv[1:]
worker = Worker.from_env(data=data, drain_timeout=20)


@worker.on_startup
def started() -> None:
    """Tell the test."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


@worker.handler("thumbs", "resize")
def resize(width: int) -> int:
    """An effect that is seen from outside: a line of a file."""
    with Path(effects).open("a") as file:
        file.write(f"{width}\n")
    return width + 1


def _die(*_: Any, **__: Any) -> None:  # noqa: ANN401
    os.kill(os.getpid(), signal.SIGKILL)


if step == "before":
    Ledger.answered = _die  # type: ignore[assignment, method-assign]  # the fault that is tested
if step == "between":
    Settler._publish = _die  # type: ignore[assignment, method-assign]
if __name__ == "__main__":
    worker.main()
