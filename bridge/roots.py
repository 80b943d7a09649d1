"""Root keys of the trust bundle: private files, kept offline, one for each holder."""

from __future__ import annotations

import json
from pathlib import Path

from bridge import strict_json
from bridge.crypto import SigningKey
from bridge.errors import ConfigurationError
from bridge.files import check_private, read_file, write_file
from bridge.strict_json import b64, unb64


def save_root(key: SigningKey, folder: Path) -> Path:
    """Write a root key to ``FOLDER/<first 16 digits of its kid>.json`` (0600), and never over another."""
    path = folder / f"{key.kid.hex()[:16]}.json"
    if path.exists():
        raise ConfigurationError(f"{path}: exists already; root keys are never overwritten")
    value = {"version": 1, "kid": key.kid.hex(), "seed": b64(key.seed)}
    write_file(path, json.dumps(value, indent=2) + "\n", private=True)
    return path


def load_root(path: Path) -> SigningKey:
    """Read a root key.

    Raises:
        ConfigurationError: It is missing, readable by others, or not a root key.
    """
    check_private(path)
    try:
        value = strict_json.parse_object(read_file(path))
        key = SigningKey(unb64(value["seed"]))
        if set(value) != {"version", "kid", "seed"} or value["version"] != 1 or value["kid"] != key.kid.hex():
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{path}: not a root key; make one with `bunny trust init`") from None
    return key


def load_roots(folder: Path) -> list[SigningKey]:
    """Every root key in a folder, in the order of their names; none if there is no such folder."""
    return [load_root(path) for path in sorted(folder.glob("*.json"))]
