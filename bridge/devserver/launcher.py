"""Run as a script: tie this process to its parent's life, then become the program named.

``python -I -S launcher.py PARENT_PID PROGRAM ARGUMENT…``. It runs alone, before the server, rather than between fork
and exec of the parent, where Python code may deadlock if the parent has threads. It imports nothing of the bridge.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Ask the kernel for SIGKILL at the parent's death (Linux), then exec."""
    parent, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        # SIGKILL, since no parent is left to escalate after a SIGTERM. It survives exec, but not a setuid one.
        # The kernel watches the *thread* that started us: the event loop's, which outlives its servers.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        sys.exit("the parent has ended already")
    os.execv(program[0], program)  # noqa: S606 - the program is the server the parent chose, run without a shell


if __name__ == "__main__":
    main(sys.argv[1:])
