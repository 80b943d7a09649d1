"""A wrong clock for processes of the drill: libfaketime, loaded into them. The servers keep theirs."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class Skew:
    """What gives a process another clock.

    Args:
        library: libfaketime.
    """

    library: str

    @classmethod
    async def find(cls) -> Skew:
        """Find it.

        Raises:
            ConfigurationError: It is not there.
        """
        if (program := shutil.which(PROGRAM)) is None:
            raise ConfigurationError(f"{PROGRAM} is not installed")
        asked = (program, "-f", "+0s", sys.executable, "-c", "import os; print(os.environ['LD_PRELOAD'])")
        process = await asyncio.create_subprocess_exec(*asked, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        if process.returncode != 0:
            raise ConfigurationError(f"{PROGRAM} does not run here")
        return cls(said.decode().strip())

    def off(self, seconds: int) -> Mapping[str, str]:
        """The variables of a process whose clock is so many seconds ahead; not the monotonic one, nor its timers."""
        return {
            "LD_PRELOAD": self.library,
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
