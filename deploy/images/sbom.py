"""The bill of materials of the services' image: CycloneDX 1.6, from the locked requirements alone.

``python sbom.py LOCK VERSION [SITE]`` prints it. The same lock gives the same bytes, so that its digest can be a label
of the image. With SITE, a folder of installed packages, it fails unless exactly what is locked is installed there.
It runs in the build, before anything is installed, and so imports the standard library alone.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

PROJECT: Final = "bunny-bridge"
_PIN: Final = re.compile(r"^(?P<name>[a-z0-9][a-z0-9-]*)==(?P<version>[^\s;\\]+)")
_HASH: Final = re.compile(r"--hash=sha256:(?P<hash>[0-9a-f]{64})")


def locked(text: str) -> dict[str, tuple[str, list[str]]]:
    """Version and accepted hashes of each requirement, by name."""
    found: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for line in text.splitlines():
        if pin := _PIN.match(line):
            name = pin["name"]
            found[name] = (pin["version"], [])
        if digest := _HASH.search(line):
            found[name][1].append(digest["hash"])
    return found


def bill(lock: dict[str, tuple[str, list[str]]], version: str) -> dict[str, Any]:
    """The document. A component's hashes are those that the lock accepts for its files, whatever the platform."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component("application", PROJECT, version)},
        "components": [
            {
                **_component("library", name, pinned),
                "properties": [{"name": "locked:sha256", "value": each} for each in hashes],
            }
            for name, (pinned, hashes) in sorted(lock.items())
        ],
        "dependencies": [
            {"ref": _purl(PROJECT, version), "dependsOn": [_purl(n, v) for n, (v, _) in sorted(lock.items())]}
        ],
    }


def differences(lock: dict[str, tuple[str, list[str]]], version: str, site: Path) -> list[str]:
    """What is installed and not locked, or the other way round."""
    installed = {
        f"{re.sub('[-_.]+', '-', each.metadata['Name']).lower()} {each.version}"
        for each in metadata.distributions(path=[str(site)])
    }
    wanted = {f"{name} {pinned}" for name, (pinned, _) in lock.items()} | {f"{PROJECT} {version}"}
    return [f"installed, not locked: {each}" for each in sorted(installed - wanted)] + [
        f"locked, not installed: {each}" for each in sorted(wanted - installed)
    ]


def _component(kind: str, name: str, version: str) -> dict[str, Any]:
    purl = _purl(name, version)
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"


def main(arguments: list[str]) -> int:
    """Print the bill, or what contradicts it."""
    lock, version = locked(Path(arguments[0]).read_text(encoding="utf-8")), arguments[1]
    wrong = differences(lock, version, Path(arguments[2])) if len(arguments) > 2 else []
    for each in wrong:
        print(each, file=sys.stderr)
    print(json.dumps(bill(lock, version), indent=1))
    return 1 if wrong or not lock else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
