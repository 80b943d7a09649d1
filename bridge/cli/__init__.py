"""The command ``bunny``: parse, call one function, print.

``frame`` runs a command and turns what it raises into one line and an exit code, ``out`` prints tables or JSON,
``where`` finds the policy and the bridge that runs here. Every other module is one command or one group of them,
and has a ``register(app)``.
"""

from __future__ import annotations

import sys

from bridge.cli.frame import INTERRUPTED, build, run_command

__all__ = ["main"]


def main() -> None:
    """The console script: run the command line of this process, and exit."""
    try:
        from bridge.cli.commands import commands_for

        raise SystemExit(run_command(build(commands_for(sys.argv[1:]))))
    except KeyboardInterrupt:  # while it was imported
        raise SystemExit(INTERRUPTED) from None
