"""The bridge that runs on this machine, with the policy that it runs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bridge.cli.where import find_bridge, find_policy, read_policy
from bridge.devserver import Folder
from bridge.devserver.standing import Standing, standing
from bridge.policy import SCAFFOLD, Policy, load_policy


@contextlib.contextmanager
def here(folder: Path | None, policy: Path | None, before: Policy | None = None) -> Iterator[Standing]:
    """The bridge that ``bunny up`` runs, for this command to change.

    Args:
        folder: Where it runs; found if not given.
        policy: The policy's file; found if not given.
        before: Another policy that it may still run.

    Raises:
        ConfigurationError: None runs here, it runs another policy, or another command is changing it.
    """
    place = find_bridge(folder).folder
    with standing(running_policy(policy), Folder.at(place), before) as at:
        yield at


def running_policy(given: Path | None) -> Policy:
    """The policy given or found, or the built-in one that `bunny up` runs where there is none."""
    path = find_policy(given)
    if given is not None or path.exists():
        return read_policy(path)
    with tempfile.TemporaryDirectory() as folder:
        built_in = Path(folder, "bridge.yaml")
        built_in.write_text(SCAFFOLD)
        return load_policy(built_in)
