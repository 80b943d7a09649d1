"""A program that submits jobs, as a process: its event loop, what it says, its exit code."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from bridge.errors import BridgeError, told

T = TypeVar("T")

INTERRUPTED: Final = 130
"""What a shell reports for a program ended by Ctrl-C."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program as `asyncio.run` does: ``run(main())``. What goes wrong with the bridge is told, and no traceback.

    Args:
        main: The program.

    Returns:
        What it returns.

    Raises:
        SystemExit: It raised a `BridgeError`, whose line is on standard error and whose exit code this has; or Ctrl-C
            ended it, with 130.
    """
    try:
        return asyncio.run(main)
    except BridgeError as error:
        print(told(error), file=sys.stderr)  # noqa: T201  # for whoever started the process
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
