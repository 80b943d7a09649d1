"""Commands are found by their first word."""

from __future__ import annotations

import pytest
import typer

from bridge.cli.commands import MODULES, commands_for
from bridge.cli.frame import build


def registered(*arguments: str) -> list[str]:
    """The commands that there are for a command line, in their order."""
    return list(typer.main.get_group(build(commands_for(arguments))).commands)


@pytest.mark.parametrize("name", MODULES)
def test_a_command_line_loads_the_command_that_it_names_and_no_other(name: str) -> None:
    assert registered(name, "--help") == [name]


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--version",), ("quue", "ls")])
def test_a_command_line_that_names_none_loads_all_in_their_order(arguments: tuple[str, ...]) -> None:
    assert sorted(registered(*arguments)) == sorted(MODULES)
