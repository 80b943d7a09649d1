"""Look for private keys in every version of every file that git has: `make secrets`.

What is looked for are shapes: PEM private keys, NKey seeds (whose checksum must be right), the seeds of an
identity.json, and access keys of AWS. A secret of another shape, a password say, is not found. Prints where each was
seen, never what it is. Exit codes: 0 none was found, 1 some were, 2 nothing was looked at.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

AT_ONCE = 64
"""Files that are read at once."""
LARGEST = 8 * 1024 * 1024
"""Bytes of the largest file that is looked at; a larger one is named."""
SHAPES = {
    "a PEM private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{40}"),
    "a NKey seed": re.compile(rb"(?<![A-Z2-7])S[ACNOUX][A-Z2-7]{56}(?![A-Z2-7])"),
    "a seed of an identity": re.compile(rb"\"(?:seed|dedup_secret)\":\s*\"[A-Za-z0-9_-]{43}\""),
    "an access key of AWS": re.compile(rb"(?<![A-Z0-9])AKIA[A-Z0-9]{16}(?![A-Z0-9])"),
}


def is_nkey_seed(text: bytes) -> bool:
    """Whether its last two bytes are the CRC-16 of the others."""
    raw = base64.b32decode(text + b"=" * (-len(text) % 8))
    return binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")


def found(data: bytes) -> Iterator[str]:
    """What shapes some bytes have."""
    for name, shape in SHAPES.items():
        if any(name != "a NKey seed" or is_nkey_seed(match[0]) for match in shape.finditer(data)):
            yield name


def blobs(repository: Path) -> Iterator[tuple[str, int, bytes]]:
    """Path, size and bytes of each version of each file; no bytes of what is too large."""
    git = ("git", "-C", str(repository))
    listed = subprocess.run([*git, "rev-list", "--objects", "--all"], check=True, capture_output=True, text=True).stdout
    named = dict(line.split(" ", 1) for line in listed.splitlines() if " " in line)
    asked = "".join(f"{name}\n" for name in named)
    sizes = subprocess.run(
        [*git, "cat-file", "--batch-check"], check=True, input=asked, capture_output=True, text=True
    ).stdout
    small = []
    for line in sizes.splitlines():
        name, kind, size = line.split()
        if kind == "blob" and int(size) <= LARGEST:
            small.append(name)
        elif kind == "blob":
            yield named[name], int(size), b""
    for at in range(0, len(small), AT_ONCE):
        some = small[at : at + AT_ONCE]
        asked = "".join(f"{name}\n" for name in some)
        held = subprocess.run([*git, "cat-file", "--batch"], check=True, input=asked.encode(), capture_output=True)
        answer = io.BytesIO(held.stdout)
        for name in some:
            size = int(answer.readline().split()[2])
            yield named[name], size, answer.read(size)
            answer.read(1)  # the end of its line


def main(repository: Path) -> int:
    """See the module."""
    seen, total, kept = dict[str, None](), 0, 0
    try:
        for path, size, data in blobs(repository):
            total += 1
            if size > LARGEST:
                kept += 1
                print(f"{path}: not looked at, {size} bytes are more than {LARGEST}")
            seen.update(dict.fromkeys(f"{path}: {what}" for what in found(data)))
    except (OSError, subprocess.CalledProcessError):
        print(f"{repository}: nothing was looked at: git or its history is not here", file=sys.stderr)
        return 2
    for line in seen:
        print(line)
    print(f"{total - kept} versions of files looked at, {len(seen)} with the shape of a private key")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2]))
