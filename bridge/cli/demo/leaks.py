"""Looks for pieces of the input in the servers' stores, every byte of them, wherever a piece may lie.

A sample of 32 bytes covers a whole aligned block of 16 wherever it lies. So a set of all blocks that some sample
holds is asked for each aligned block of a store, and only where it answers are the bytes around compared.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from struct import iter_unpack
from typing import Final

SAMPLE: Final = 32
"""Bytes of one sample."""
BLOCK: Final = 16
MOST_SAMPLES: Final = 8_192
"""About 25 MiB of memory."""
PER_FILE: Final = 4
_TRIES: Final = 16
_LEAST_DIFFERENT: Final = 12
"""Different bytes in a sample: runs of zeros or blanks occur anywhere and say nothing."""
_CHUNK: Final = 1 << 20
_OVERLAP: Final = 2 * SAMPLE


@dataclass(frozen=True, slots=True)
class Found:
    """What one look at a store showed."""

    bytes_read: int
    files: int
    samples: Counter[bytes]
    """How often each sample occurs; those that do not are absent."""

    @property
    def occurrences(self) -> int:
        """Of all samples together."""
        return self.samples.total()


def pick(data: bytes, most: int = PER_FILE) -> set[bytes]:
    """Up to ``most`` samples from random places of a file, such as would not occur by chance."""
    picked: set[bytes] = set()
    if len(data) < SAMPLE:
        return picked
    for _ in range(_TRIES):
        at = random.randrange(len(data) - SAMPLE + 1)  # noqa: S311  # where to look; nothing secret
        sample = data[at : at + SAMPLE]
        if len(set(sample)) >= _LEAST_DIFFERENT:
            picked.add(sample)
        if len(picked) >= most:
            break
    return picked


class Search:
    """Samples to look for.

    Args:
        samples: Each of 32 bytes.
    """

    def __init__(self, samples: Iterable[bytes]) -> None:
        self._samples = frozenset(samples)
        self._blocks = {s[at : at + BLOCK] for s in self._samples for at in range(BLOCK)}

    def __len__(self) -> int:
        return len(self._samples)

    def look(self, folder: Path) -> Found:
        """Read every file below ``folder`` from end to end. Memory stays bounded whatever their size."""
        found: Counter[bytes] = Counter()
        size = files = 0
        for path in sorted(folder.rglob("*")):
            try:
                with path.open("rb") as file:
                    files += 1
                    size += self._read(iter(lambda: file.read(_CHUNK), b""), found)
            except (IsADirectoryError, FileNotFoundError):
                continue  # a server removes blocks that it no longer needs
        return Found(size, files, found)

    def _read(self, chunks: Iterable[bytes], found: Counter[bytes]) -> int:
        """Each chunk begins with the end of the one before; an occurrence counts where it ends first."""
        tail, size = b"", 0
        for chunk in chunks:
            size += len(chunk)
            data = tail + chunk
            for at in self._occurrences(data):
                if at + SAMPLE > len(tail):
                    found[data[at : at + SAMPLE]] += 1
            tail = data[-_OVERLAP:]
        return size

    def _occurrences(self, data: bytes) -> set[int]:
        whole = len(data) - len(data) % BLOCK
        aligned = iter_unpack(f"{BLOCK}s", memoryview(data)[:whole])
        hits = [index * BLOCK for index, (block,) in enumerate(aligned) if block in self._blocks]
        starts = {start for hit in hits for start in range(max(0, hit - BLOCK + 1), hit + 1)}
        return {start for start in starts if data[start : start + SAMPLE] in self._samples}
