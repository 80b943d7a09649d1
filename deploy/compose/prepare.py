"""Makes what compose.yaml mounts, in a folder of this machine: keys, trust bundle, certificates, rendered files.

``python deploy/compose/prepare.py [POLICY] [FOLDER]``. Run again, it renews what is due and keeps every key. In
production each service makes its own keys where it runs; here one machine plays everyone.
"""

from __future__ import annotations

import json
import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

from bridge import bundle
from bridge.devserver import Folder, prepare
from bridge.errors import BridgeError
from bridge.files import write_file
from bridge.identity import CONNECTION_FILE, IDENTITY_FILE, LEAF_SEED_FILE, NATS_SEED_FILE, TRUST_FILE
from bridge.policy import Policy, Role, load_policy

HERE: Final = Path(__file__).resolve().parent
CONTAINER_USER: Final = 10001


def main(arguments: list[str]) -> int:
    """Make or renew the folder, and say where it is."""
    policy_file = Path(arguments[0]) if arguments else HERE / "bridge.yaml"
    place = Path(arguments[1]) if len(arguments) > 1 else HERE.parents[1] / ".compose"
    try:
        policy, folder = load_policy(policy_file), Folder.at(place)
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        prepare(policy, folder, hosts=())
        _connections(policy, folder)
    except BridgeError as error:
        print(f"compose: {error}", file=sys.stderr)
        return 2
    group = _hand_over(folder)
    write_file(folder.path / "env", _environment(policy_file, folder, group))
    return 0


def _connections(policy: Policy, folder: Folder) -> None:
    for name, entry in policy.identities.items():
        if entry.role is not Role.LINK:
            rendered = folder.rendered / entry.cloud / "connections" / f"{name}.yaml"
            write_file(folder.identity(name) / CONNECTION_FILE, rendered.read_bytes())


def _hand_over(folder: Folder) -> int:
    """Let the containers' user read the private files, and nobody else; the group through which it does.

    The folder itself is this user's alone, so no other user of this machine reaches what the group could read.
    """
    group = CONTAINER_USER if os.geteuid() == 0 else os.getegid()
    private = [*folder.path.glob(f"identities/*/{IDENTITY_FILE}"), *folder.path.glob(f"identities/*/{NATS_SEED_FILE}")]
    private += folder.rendered.glob(f"*/{LEAF_SEED_FILE}")
    private += [key for key in folder.pki.glob("*/*.key") if key.stem not in ("ca", "root")]
    for path in private:
        os.chown(path, -1, group)
        path.chmod(0o440)
    return group


def _environment(policy_file: Path, folder: Folder, group: int) -> str:
    """Variables of compose.yaml. The digest makes Compose replace the containers of changed files."""
    trust = bundle.read_payload((folder.path / TRUST_FILE).read_bytes())
    mounted = (path for top in ("rendered", "pki", "identities") for path in (folder.path / top).rglob("*"))
    names = sorted(path for path in mounted if path.is_file())
    digest = sha256(b"".join(sha256(path.read_bytes()).digest() for path in names)).hexdigest()
    values = {
        "BUNNY_POLICY": policy_file.resolve(),
        "BUNNY_FOLDER": folder.path,
        "BUNNY_GROUP": group,
        "BUNNY_TRUST_MIN_VERSION": int(trust["version"]),
        "BUNNY_FILES_DIGEST": digest[:16],
    }
    return "".join(f"{name}={json.dumps(str(value))}\n" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
