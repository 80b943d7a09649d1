"""What a run costs: the processor time of every process that takes part, for each job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def processor_s(pid: int) -> float:
    """Seconds of processor that a process and all its threads have used, those that ended included as far as known."""
    total = 0.0
    for each in Path(f"/proc/{pid}/task").iterdir():
        total += int((each / "schedstat").read_text().split()[0]) / 1e9
    return total


class Meter:
    """Reads all of them before and after.

    Args:
        pids: The processes, by name.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = {name: processor_s(pid) for name, pid in self._pids.items()}

    def per_job(self, jobs: int) -> dict[str, float]:
        """Microseconds for each of so many jobs, since it was made."""
        return {name: (processor_s(pid) - self._before[name]) / jobs * 1e6 for name, pid in self._pids.items()}
