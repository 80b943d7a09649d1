# What both teams agree on: the queue, the kind of job, what it takes and what it gives.
from dataclasses import dataclass

from bridge.job import Kind


@dataclass
class Counts:
    sha256: str
    lines: int
    words: int


COUNT = Kind("files", "count", bytes, Counts)
