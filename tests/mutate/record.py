"""What is known of mutants: what came of each, kept between runs, and which may live, in ``docs/mutants.md``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from tests.mutate.changes import Change
from tests.mutate.forks import Outcome

_ROW: Final = re.compile(r"(?m)^\| `([\w/.]+\.py)` \| (?:`([\w.]+)`|\(module\)) \| `(.+?)` \| .+ \|$")


class Excuse(NamedTuple):
    """A mutant that may live, as its row names it."""

    module: str
    function: str
    what: str


def excuses(table: str) -> set[Excuse]:
    """Those of a table of Markdown."""
    return {Excuse(module, function, what.replace(r"\|", "|")) for module, function, what in _ROW.findall(table)}


class Record:
    """What came of the mutants of one module: a line each, so that a run that was ended is gone on with.

    Args:
        folder: Where it is kept.
        module: The module's path in the repository.
        source: Its text. What was found of another text only says which test to begin with.
    """

    def __init__(self, folder: Path, module: str, source: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{module.replace('/', '.')}.jsonl"
        self._source = hashlib.sha256(source.encode()).hexdigest()

    def note(self, change: Change, outcome: Outcome) -> None:
        """Keep what came of a mutant."""
        line = {"source": self._source, "function": change.function, "what": change.what, **outcome._asdict()}
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def forget(self) -> None:
        """Begin anew."""
        self._file.unlink(missing_ok=True)

    def hints(self) -> dict[tuple[str, str], str]:
        """Which test killed a mutant when it was tried last, of whatever source."""
        return {(line["function"], line["what"]): line["by"] for line in self._lines() if line["killed"]}

    def killed(self, changes: Iterable[Change]) -> list[Change]:
        """Those that a test has killed in the module as it is now."""
        dead = {
            (line["function"], line["what"])
            for line in self._lines()
            if line["killed"] and line["source"] == self._source
        }
        return [change for change in changes if (change.function, change.what) in dead]

    def told(self, by: str) -> set[tuple[str, str]]:
        """Those in the module as it is now of which this was said last."""
        last = {
            (line["function"], line["what"]): line["by"] for line in self._lines() if line["source"] == self._source
        }
        return {name for name, said in last.items() if said == by}

    def _lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.is_file() else []
