"""The container engine of this machine: whether it answers, the images of this checkout, and Compose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD_TIMEOUT_S: Final = 900
COMMAND_TIMEOUT_S: Final = 120


@dataclass(frozen=True, slots=True)
class Images:
    """What `deploy/images/build` made of this checkout."""

    nats: str = "bunny-bridge/nats:dev"
    service: str = "bunny-bridge/service:dev"
    demo: str = "bunny-bridge/demo:dev"
    box: str = "bunny-bridge/box:dev"


def missing() -> str:
    """Why no container can run here; empty if one can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    try:
        asked = subprocess.run(["docker", "info"], capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return "the container engine does not answer"
    return "" if asked.returncode == 0 else "no container engine answers"


def build(*more: str) -> Images:
    """Make the images, and ``more`` that the script knows; what has not changed is in the engine's cache."""
    made = subprocess.run(
        [str(ROOT / "deploy/images/build"), *more],
        env={**os.environ, "VENV": sys.prefix},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return Images()


def compose_plugin(folder: Path) -> dict[str, str]:
    """Variables with which ``docker compose`` works: none if it does, else the locked one as a plugin in ``folder``."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return {}
    plugins = folder / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    (plugins / "docker-compose").symlink_to(Path(sysconfig.get_path("scripts")) / "docker-compose")
    return {"DOCKER_CONFIG": str(folder)}


def docker(*arguments: str, timeout: float = COMMAND_TIMEOUT_S) -> str:
    """What a docker command prints; it must succeed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout


def inspect(what: str) -> dict[str, Any]:
    """All that the engine says of a container, image or network."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", what))
    return found[0]


def health(container: str) -> str:
    """``starting``, ``healthy`` or ``unhealthy``."""
    return str(inspect(container)["State"]["Health"]["Status"])


def until(condition: Callable[[], bool], timeout: float, what: str) -> float:
    """Wait for what the engine tells nobody; the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, f"{what}: not within {timeout:g} s"
        time.sleep(0.25)
    return time.monotonic() - began
