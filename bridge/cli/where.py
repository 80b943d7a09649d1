"""Finds the policy, and the bridge that runs on this machine, from wherever in their folders one stands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridge.cli.frame import PolicyMistakes
from bridge.devserver import Folder
from bridge.errors import ConfigurationError, PolicyError
from bridge.identity import PublicIdentity, load_keys
from bridge.policy import Policy, check_policy, load_policy

POLICY_FILE: Final = "bridge.yaml"
BRIDGE_FOLDER: Final = ".bunny"


@dataclass(frozen=True, slots=True)
class RunningBridge:
    """A bridge that ``bunny up`` runs, as its ``ready.json`` describes it."""

    folder: Path
    pid: int
    clouds: dict[str, dict[str, Any]]
    """By name: pid, clients (an address), monitor (a port), store."""
    link: Any
    identities: dict[str, Path]
    """The identity folders, by name."""

    def identity(self, name: str) -> Path:
        """The folder of an identity.

        Raises:
            ConfigurationError: There is none of that name.
        """
        try:
            return self.identities[name]
        except KeyError:
            known = ", ".join(sorted(self.identities))
            raise ConfigurationError(f"{name}: no identity of the bridge in {self.folder}; it has {known}") from None


def find_policy(given: Path | None) -> Path:
    """The policy file: the one given, or ``bridge.yaml`` here or in the nearest folder above.

    A file that is not there is returned all the same, so that loading it says so.
    """
    if given is not None:
        return given
    return _upwards(Path(POLICY_FILE)) or Path(POLICY_FILE)


def read_policy(path: Path) -> Policy:
    """Load a policy.

    Raises:
        PolicyMistakes: Every mistake in it.
    """
    try:
        return load_policy(path)
    except PolicyError:
        raise PolicyMistakes(check_policy(path)) from None


def find_bridge(given: Path | None) -> RunningBridge:
    """The bridge that runs in the folder given, or in ``.bunny`` here or in the nearest folder above.

    Raises:
        ConfigurationError: None runs there.
    """
    if given is not None:
        ready = Folder(given).ready
    else:
        ready = _upwards(Folder(Path(BRIDGE_FOLDER)).ready) or Folder(Path(BRIDGE_FOLDER)).ready
    if not ready.is_file():
        where = f"in {ready.parent}" if given is not None else "here"
        raise ConfigurationError(f"no bridge runs {where}: start one with `bunny up`, or name its folder with --dir")
    value = Folder(ready.parent).read_ready()
    return RunningBridge(
        folder=ready.parent,
        pid=value["pid"],
        clouds=value["clouds"],
        link=value["link"],
        identities={name: Path(path) for name, path in value["identities"].items()},
    )


def keys_of(policy: Policy, path: Path) -> dict[str, PublicIdentity]:
    """The public halves of all identities of a policy that are not revoked, from ``keys/`` beside it."""
    return load_keys(path.parent / "keys", policy.accepted)


def private_folder(folder: Path) -> None:
    """Make a folder for private files: 0700, and never committed by a careless ``git add``."""
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True)
        (folder / ".gitignore").write_text("*\n")


def _upwards(name: Path) -> Path | None:
    """The first that exists of ``name`` here and in each folder above, relative where it is here."""
    if name.is_file():
        return name
    found = next((path for folder in Path.cwd().parents if (path := folder / name).is_file()), None)
    if found is not None and found.stat().st_uid not in (0, os.geteuid()):
        # In /tmp, say: whoever put it there would be sent our jobs, or have us render and sign its policy.
        raise ConfigurationError(f"{found}: belongs to another user; if it is meant, name it with --dir or --policy")
    return found
