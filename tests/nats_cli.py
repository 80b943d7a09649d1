"""The stock ``nats`` CLI, built once from the Go module proxy: ``python -m tests.nats_cli`` (or ``make natscli``).

Nothing here changes it: what the tests show, an operator's own binary does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

VERSION: Final = "v0.5.1"
MODULE: Final = f"github.com/nats-io/natscli/nats@{VERSION}"
BINARY: Final = Path(__file__).parents[1] / ".cache" / "natscli" / VERSION / "nats"
BUILD_TIMEOUT_S: Final = 900.0
COMMAND_TIMEOUT_S: Final = 60.0


def binary() -> Path:
    """The CLI; without it the test is skipped, saying how to build it."""
    if not BINARY.exists():
        pytest.skip(f"no nats CLI {VERSION} here: build it with `make natscli` (needs Go 1.21 or later)")
    return BINARY


@dataclass(frozen=True, slots=True)
class Nats:
    """The CLI with the contexts of one bridge.

    Args:
        home: The folder above ``nats/context``.
    """

    home: Path
    patience: str = "3s"
    """How long it waits for an answer; one that is not permitted never comes."""

    def __call__(self, context: str, *words: str, code: int | None = 0, timeout: float = COMMAND_TIMEOUT_S) -> str:
        """Run one command as one context and return what it says.

        Args:
            context: The name of the context.
            words: The command line.
            code: The exit code it must have; None for any.
            timeout: Seconds.
        """
        done = subprocess.run(
            [binary(), "--timeout", self.patience, "--context", context, *words],
            env={"XDG_CONFIG_HOME": str(self.home), "HOME": str(self.home), "PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert code is None or done.returncode == code, (words, done.returncode, done.stdout)
        return done.stdout


def build() -> int:
    """Build it if it is not there."""
    go = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if BINARY.exists():
        return 0
    if go is None:
        sys.stderr.write("natscli: building the nats CLI needs Go 1.21 or later, and there is no `go` here\n")
        return 1
    BINARY.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.write(f"building {MODULE} into {BINARY.parent}, which takes a minute or two\n")
    # GOTOOLCHAIN: a Go that is older than the CLI wants fetches the right one from the same proxy.
    # Static, so that it is also all that a container needs (deploy/images/build).
    flags = {"GOTOOLCHAIN": "auto", "GOFLAGS": "-trimpath", "CGO_ENABLED": "0"}
    environment = {**os.environ, "GOBIN": str(BINARY.parent), **flags}
    return subprocess.run([go, "install", MODULE], env=environment, timeout=BUILD_TIMEOUT_S, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(build())
