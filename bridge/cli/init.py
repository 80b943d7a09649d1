"""``bunny init``: write a policy to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.frame import AsJson, example
from bridge.cli.out import Out
from bridge.cli.where import POLICY_FILE
from bridge.errors import ConfigurationError
from bridge.files import write_file
from bridge.policy import SCAFFOLD


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("bunny init", "bunny init --policy infra/bridge.yaml"))(init)


def init(
    policy: Annotated[Path, typer.Option("--policy", help="The file to write.")] = Path(POLICY_FILE),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented bridge.yaml: the policy that both teams review."""
    if policy.exists() and not force:
        raise ConfigurationError(f"{policy}: exists already; edit it, or overwrite it with --force")
    write_file(policy, SCAFFOLD)
    out = Out(as_json)
    out.say(f"wrote {policy}")
    out.say("Edit it, then try it on this machine with `bunny up`.")
    out.say("For production: `bunny keys new NAME` where each identity will run, then `bunny trust init`.")
    out.result({"policy": str(policy)})
