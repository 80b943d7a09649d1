"""`docs/inspect.md` is a transcript: every command of it is typed into a shell beside a running bridge."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.transcript import Shell, Step, missing, steps
from tests.acceptance.typed import CHECKOUT, bunny, environment, up
from tests.nats_cli import binary

DOCUMENT = CHECKOUT / "docs" / "inspect.md"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A terminal in a folder where ``bunny up`` runs, with both commands on its path."""
    nats, folder = binary(), tmp_path_factory.mktemp("inspected")
    commands = folder / "bin"
    commands.mkdir()
    (commands / "bunny").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bridge.cli "$@"\n')
    (commands / "bunny").chmod(0o755)
    (commands / "nats").symlink_to(nats)
    path = f"{commands}:{os.environ['PATH']}"
    bunny("init", folder)
    with up("up", folder, timeout=600.0) as running:
        running.until("bunny queue ls")
        terminal = Shell(folder, environment(PATH=path, HOME=str(folder)))
        yield terminal
        terminal.close()


@pytest.mark.parametrize("step", steps(DOCUMENT), ids=lambda step: f"line-{step.line}")
def test_the_document_shows_what_is_said(step: Step, shell: Shell) -> None:
    said = shell.run(step.command)
    assert "Traceback" not in said
    assert missing(step.shown, said) is None, said


def test_every_question_has_a_command(tmp_path: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    questions = [part for part in text.split("\n## ") if part.splitlines()[0].endswith("?")]
    assert len(questions) >= 6
    assert all("```console\n$ " in question for question in questions)
