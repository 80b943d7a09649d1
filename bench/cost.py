"""What a run costs: the processor time of every process that takes part, for each job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def processor_s(pid: int) -> float:
    """Seconds of processor that a process has used, in all threads that it has now."""
    total = 0.0
    for each in Path(f"/proc/{pid}/task").iterdir():
        total += int((each / "schedstat").read_text().split()[0]) / 1e9
    return total


class Meter:
    """Reads all of them before and after.

    Args:
        pids: The processes, by what they are.
    """

    def __init__(self, pids: Mapping[str, Sequence[int]]) -> None:
        self._pids = dict(pids)
        self._before = self._now()

    def per_job(self, jobs: int) -> dict[str, float]:
        """Microseconds for each of so many jobs, since it was made."""
        return {name: (used - self._before[name]) / jobs * 1e6 for name, used in self._now().items()}

    def _now(self) -> dict[str, float]:
        return {name: sum(map(processor_s, pids)) for name, pids in self._pids.items()}
