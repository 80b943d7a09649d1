"""The table of hostile cases is what the tests are."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "attacks.md").read_text()
CASES = [f"H{n}" for n in range(1, 43)]
NUMBERED = re.compile(r"test((?:_h\d+)+)_")


def covered() -> dict[str, set[str]]:
    """The files that have a test of each case, by the names of their tests."""
    found = defaultdict[str, set[str]](set)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (name := NUMBERED.match(node.name)):
                for case in name[1][1:].upper().split("_"):
                    found[case].add(str(path.relative_to(ROOT)))
    return found


def told() -> dict[str, list[str]]:
    """What each row of the table has in each of its columns."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in TABLE.splitlines() if line[:3] == "| H"]
    assert all(len(row) == 4 and all(row) for row in rows)
    return {row[0]: row[1:] for row in rows}


def test_every_case_is_in_the_table_once_and_in_order() -> None:
    assert re.findall(r"^\| (H\d+) \|", TABLE, re.MULTILINE) == CASES


def test_the_table_names_the_files_that_have_a_test_of_each_case() -> None:
    assert {case: re.findall(r"`(tests/[^`]+)`", cells[2]) for case, cells in told().items()} == {
        case: sorted(files) for case, files in covered().items()
    }


def test_what_a_case_comes_to_is_named_as_it_is_in_the_code() -> None:
    source = (ROOT / "bridge" / "errors.py").read_text() + "class RecursionError("
    for cells in told().values():
        for name in re.findall(r"`([A-Z]\w+)`", cells[1]):
            assert f"class {name}(" in source, name
