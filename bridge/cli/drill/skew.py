"""A wrong clock for processes of the drill: libfaketime, loaded into them. The servers keep theirs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.devserver import Folder, prepare
from bridge.errors import ConfigurationError
from bridge.policy import load_policy

PROGRAM: Final = "faketime"
OFF_S: Final = 3600
AGE_S: Final = 2 * OFF_S
"""How old certificates and trust bundle are, as in production: brand-new ones are of the future an hour ago."""

_TELLS: Final = """
import os, sys
print(os.environ["LD_PRELOAD"], os.environ["FAKETIME_SHARED"], sep="\\n", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Skew:
    """What gives a process another clock.

    Args:
        library: libfaketime.
        shared: The names of the semaphore and the memory that its processes share. A process that is told of none makes
            its own, by its id, and leaves them in ``/dev/shm``, where they are in the way of who has that id next.
    """

    library: str
    shared: str

    @classmethod
    @asynccontextmanager
    async def found(cls) -> AsyncGenerator[Skew]:
        """Find it; its program keeps what its processes share until the end.

        Raises:
            ConfigurationError: It is not there.
        """
        if (program := shutil.which(PROGRAM)) is None:
            raise ConfigurationError(f"{PROGRAM} is not installed")
        asked = (program, "-f", "+0s", sys.executable, "-c", _TELLS)
        process = await asyncio.create_subprocess_exec(*asked, stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018  # for the type checker
        try:
            library, shared = [(await process.stdout.readline()).decode().strip() for _ in range(2)]
            if not shared:
                raise ConfigurationError(f"{PROGRAM} does not run here")
            yield cls(library, shared)
        finally:
            process.stdin.close()
            await process.wait()

    def off(self, seconds: int) -> Mapping[str, str]:
        """The variables of a process whose clock is so many seconds ahead; not the monotonic one, nor its timers."""
        return {
            "LD_PRELOAD": self.library,
            "FAKETIME_SHARED": self.shared,
            "FAKETIME": f"{seconds:+d}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # as earlier releases call it
        }

    async def prepare(self, folder: Path) -> None:
        """Make keys, certificates and trust bundle of a folder, as if some hours ago.

        Raises:
            ConfigurationError: They could not be made.
        """
        command = (sys.executable, "-m", __name__, str(folder))
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **self.off(-AGE_S)})
        if await process.wait() != 0:
            raise ConfigurationError(f"{folder}: keys and certificates could not be made under {PROGRAM}")


def main() -> None:
    """Make keys, certificates and trust bundle of the folder named."""
    folder = Path(sys.argv[1])
    prepare(load_policy(folder / "bridge.yaml"), Folder.at(folder))


if __name__ == "__main__":
    main()
