"""What the documents say of the files beside them and of the code is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bridge.errors import Refusal

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def anchor(heading: str) -> str:
    """The fragment by which renderers of Markdown link to a heading."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", document.read_text())
    for target, fragment in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        path = document.parent / target if target else document
        assert path.exists(), target
        if fragment:
            headings = re.findall(r"(?m)^#+ (.+)$", path.read_text())
            assert fragment in map(anchor, headings), fragment


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(document: Path) -> None:
    named = set(
        re.findall(r"\b(?:tests|docs|examples|nats|bench|bridge)/[\w./-]+\.(?:py|md|conf|sh)\b", document.read_text())
    )
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_the_readme_shows_the_examples_as_they_are() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks == [(ROOT / "examples" / name).read_text() for name in ("submit.py", "work.py")]


def test_the_specification_names_every_refusal_and_no_other() -> None:
    section = (ROOT / "docs/spec.md").read_text().partition("## 8 Refusals")[2].partition("\n## ")[0]
    assert set(re.findall(r"(?m)^\| `(\w+)` \|", section)) == {refusal.__name__ for refusal in Refusal.__subclasses__()}
