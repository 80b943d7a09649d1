"""``bunny render``: write what follows from the policy, or check that it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.frame import AsJson, NotAsAsked, PolicyFile, example
from bridge.cli.out import Out
from bridge.cli.where import find_policy, keys_of, read_policy
from bridge.errors import ConfigurationError
from bridge.files import write_file
from bridge.identity import LEAF_SEED_FILE
from bridge.render import render as render_files


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("render", epilog=example("bunny render --out rendered", "bunny render --out rendered --check"))(render)


def render(
    folder: Annotated[Path, typer.Option("--out", help="A folder per cloud is written in it.", metavar="DIR")],
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if DIR is not up to date.")] = False,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Write what the servers, the services and `bunny provision` need, from bridge.yaml and keys/.

    The same policy and keys always give the same bytes, and no private key is needed. Files that are not the
    policy's are named and left alone.
    """
    path = find_policy(policy)
    values = read_policy(path)
    files = {folder / name: text.encode() for name, text in render_files(values, keys_of(values, path)).items()}
    found = {file: _what(file, text) for file, text in files.items()}
    others = _others(folder, set(files), list(values.clouds))
    differ = [file for file, what in sorted(found.items()) if what != "unchanged"]
    if not check:
        for file in differ:
            write_file(file, files[file])
    out = Out(as_json)
    for file in differ:
        out.say(f"{found[file]:9} {file}")
    for file in others:
        out.say(f"left      {file} (not of this policy: remove it by hand if nothing needs it)")
    out.say(f"{len(files)} files, {len(differ)} of them {'not up to date' if check else 'written'}, in {folder}")
    out.result(
        {
            "policy": values.digest,
            "out": str(folder),
            "files": {str(file.relative_to(folder)): what for file, what in sorted(found.items())},
            "left": [str(file.relative_to(folder)) for file in others],
            "written": not check,
        }
    )
    if check and differ:
        more = f", nor are {len(differ) - 1} more" if len(differ) > 1 else ""
        raise NotAsAsked(
            ConfigurationError(f"{differ[0]}: is not what {path} says{more}; run `bunny render --out {folder}`")
        )


def _what(file: Path, text: bytes) -> str:
    try:
        return "unchanged" if file.read_bytes() == text else "changed"
    except FileNotFoundError:
        return "new"


def _others(folder: Path, ours: set[Path], clouds: list[str]) -> list[Path]:
    """Files in the clouds' folders that the policy does not give; the leaf's seed belongs there."""
    there = {file for cloud in clouds for file in (folder / cloud).rglob("*") if file.is_file()}
    return sorted(file for file in there - ours if file.name != LEAF_SEED_FILE)
