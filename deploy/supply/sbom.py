"""Write what the services' image installs, as a bill of materials in CycloneDX 1.6, to standard output: `make sbom`.

It is made from deploy/images/requirements.lock and licences.json beside this file alone, so the same files give the
same bytes. The hashes of a component are those that the lock allows: one of each file that the index has of that
version. What an image has beside Python packages, its base and nats-server, is not in it.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "deploy" / "images" / "requirements.lock"
LICENCES = Path(__file__).with_name("licences.json")
_ENTRY = re.compile(r"(?m)^([A-Za-z0-9_.-]+)==(\S+)((?: \\\n\s+--hash=sha256:[0-9a-f]{64})+)")


def locked(text: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of every package of a lock."""
    return {name: (version, re.findall("[0-9a-f]{64}", hashes)) for name, version, hashes in _ENTRY.findall(text)}


def component(name: str, version: str, hashes: list[str], licence: str) -> dict[str, Any]:
    """A package."""
    purl = f"pkg:pypi/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": each} for each in hashes],
        "licenses": [{"expression": licence}],
        "purl": purl,
    }


def bill(lock: str, licences: dict[str, str], project: dict[str, Any]) -> dict[str, Any]:
    """The whole of it."""
    parts = [component(name, *found, licences[name]) for name, found in sorted(locked(lock).items())]
    name, version = project["name"], project["version"]
    made = {
        "type": "application",
        "bom-ref": f"pkg:pypi/{name}@{version}",
        "name": name,
        "version": version,
        "licenses": [{"expression": project["license"]}],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # Of the content, so that another content has another and the same has the same.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([made, parts]))}",
        "version": 1,
        "metadata": {"component": made},
        "components": parts,
    }


def main() -> int:
    """See the module."""
    licences = json.loads(LICENCES.read_text())
    lock = LOCK.read_text()
    if unknown := sorted(set(locked(lock)) - set(licences)):
        print(f"{LICENCES}: no licence of {', '.join(unknown)}; look, and add it", file=sys.stderr)
        return 1
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    print(json.dumps(bill(lock, licences, project), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
