"""Finds the policy, and the bridge that runs on this machine, from wherever in their folders one stands."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridge.cli.frame import PolicyMistakes
from bridge.errors import ConfigurationError, PolicyError
from bridge.files import read_file
from bridge.policy import Policy, check_policy, load_policy

POLICY_FILE: Final = "bridge.yaml"
BRIDGE_FOLDER: Final = ".bunny"
READY_FILE: Final = "ready.json"


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
    return _upwards(POLICY_FILE) or Path(POLICY_FILE)


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
        ready = given / READY_FILE
    else:
        ready = _upwards(f"{BRIDGE_FOLDER}/{READY_FILE}") or Path(BRIDGE_FOLDER, READY_FILE)
    if not ready.is_file():
        where = f"in {ready.parent}" if given is not None else "here"
        raise ConfigurationError(f"no bridge runs {where}: start one with `bunny up`, or name its folder with --dir")
    try:
        value = json.loads(read_file(ready))
        found = RunningBridge(
            folder=ready.parent,
            pid=value["pid"],
            clouds=value["clouds"],
            link=value["link"],
            identities={name: Path(path) for name, path in value["identities"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{ready}: not written by `bunny up`; remove it and start `bunny up` again") from None
    if not _alive(found.pid):
        raise ConfigurationError(
            f"{ready}: the bridge that wrote it (process {found.pid}) has ended; start it again with `bunny up`"
        )
    return found


def _upwards(name: str) -> Path | None:
    """The first that exists of ``name`` here and in each folder above, relative where it is here."""
    if Path(name).is_file():
        return Path(name)
    return next((path for folder in Path.cwd().parents if (path := folder / name).is_file()), None)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
