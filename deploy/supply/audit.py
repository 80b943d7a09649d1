"""Ask for known vulnerabilities of every locked version, by pip-audit: `make audit`.

pip-audit is not among the locked tools: it asks an index for each package, which a machine apart cannot do. Exit codes:
0 all were checked and none is known, 1 some are known, 2 not checked. Nothing that was not checked is called good.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = (ROOT / "requirements.lock", ROOT / "deploy" / "images" / "requirements.lock")
OPTIONS = ("--disable-pip", "--require-hashes", "--no-deps", "--progress-spinner=off", "--format=json")
TIMEOUT_S = 600


def audited(program: str, lock: Path) -> list[str] | None:
    """What is known of the packages of a lock, a line each; None if they were not checked."""
    try:
        done = subprocess.run(
            [program, *OPTIONS, "-r", str(lock)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        packages = json.loads(done.stdout)["dependencies"]
        if any("skip_reason" in package for package in packages) or not packages:
            return None
        return [
            f"{lock.relative_to(ROOT)}: {package['name']} {package['version']}: {known['id']}"
            for package in packages
            for known in package["vulns"]
        ]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return None


def main() -> int:
    """See the module."""
    program = shutil.which("pip-audit")
    if program is None:
        print(
            "not checked: pip-audit is not installed; install it apart, as with 'pipx install pip-audit'",
            file=sys.stderr,
        )
        return 2
    found: list[str] = []
    for lock in LOCKS:
        known = audited(program, lock)
        if known is None:
            print(
                f"not checked: pip-audit could not look at all of {lock.relative_to(ROOT)}; run it by hand to see why",
                file=sys.stderr,
            )
            return 2
        found += known
    print("\n".join(found) if found else "no known vulnerability of a locked version")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
