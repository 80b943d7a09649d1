"""Capture the link while a demo runs, and look at it with tshark: ``python tests/capture_link.py [PATH...]``.

Needs tshark, and the right to capture on loopback (root, or the group ``wireshark``). It prints what an eavesdropper
between the clouds would see, and ends with 0 only if that is TLS 1.3 with X25519MLKEM768 and nothing before it. A
datagram that holds the words looked for, sent in clear, shows that the search finds what is there.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TLS_1_3 = "0x0304"
X25519MLKEM768 = 4588
HANDSHAKE = b"\x16\x03"
"""Code points, and how a TLS handshake record begins."""
WORDS = (b"INFO {", b"server_id", b"CONNECT {", b"Nats-Msg-Id", b"$JS.API.", b"jobs.files.")
"""What a NATS connection in clear holds, its first line first; too long to occur in ciphertext by chance."""
DISCARD_PORT = 9


class CannotCapture(Exception):
    """tshark is missing, or may not capture."""


@contextmanager
def capturing(file: Path) -> Iterator[None]:
    """Capture loopback's TCP, and the datagram that proves it, until the block ends."""
    command = ["dumpcap", "-q", "-i", "lo", "-f", f"tcp or udp port {DISCARD_PORT}", "-w", str(file)]
    try:
        dumpcap = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise CannotCapture("dumpcap is not installed: install tshark") from None
    assert dumpcap.stderr is not None
    said = []
    try:
        for line in iter(dumpcap.stderr.readline, ""):
            said.append(line)
            if line.startswith("File:"):  # packets are taken from here on
                break
        else:
            raise CannotCapture(f"dumpcap may not capture: {''.join(said).strip()}")
        yield
    finally:
        dumpcap.terminate()
        dumpcap.communicate(timeout=30)


def fields(file: Path, port: int, condition: str, *names: str) -> list[list[str]]:
    """The named fields of the packets for which a display filter holds."""
    command = ["tshark", "-r", str(file), "-d", f"tcp.port=={port},tls", "-Y", condition, "-T", "fields"]
    for name in names:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return [line.split("\t") for line in done.stdout.splitlines()]


def look(file: Path, port: int) -> list[tuple[str, str, bool]]:
    """What was looked at, what was seen, and whether it is as promised."""
    hellos = fields(
        file,
        port,
        f"tcp.port == {port} and tls.handshake.type == 2",
        "tls.handshake.extensions.supported_version",
        "tls.handshake.extensions_key_share_group",
    )
    versions, groups = {hello[0] for hello in hellos}, {hello[1] for hello in hellos}
    packets = fields(file, port, f"tcp.port == {port} and tcp.len > 0", "tcp.stream", "tcp.srcport", "tcp.payload")
    first: dict[tuple[str, str], bytes] = {}
    sent: dict[tuple[str, str], bytearray] = {}
    for stream, source, payload in packets:
        data = bytes.fromhex(payload)
        first.setdefault((stream, source), data)
        sent.setdefault((stream, source), bytearray()).extend(data)
    opened = sum(data.startswith(HANDSHAKE) for data in first.values())
    in_clear = sum(data.count(word) for data in sent.values() for word in WORDS)
    control = fields(file, port, f"udp.port == {DISCARD_PORT}", "data.data")
    planted = sum(bytes.fromhex(data).count(word) for (data,) in control for word in WORDS)
    return [
        ("versions", ", ".join(versions), versions == {TLS_1_3}),
        ("key exchange", ", ".join(groups), {int(group, 0) for group in groups if group} == {X25519MLKEM768}),
        ("first bytes each way", f"TLS in {opened} of {len(first)}", 2 <= len(first) == opened),
        ("bytes on the link", str(sum(map(len, sent.values()))), bool(sent)),
        (
            "NATS in clear",
            f"{in_clear} times; in the datagram sent in clear: {planted}",
            not in_clear and planted >= len(WORDS),
        ),
    ]


def main(paths: list[str]) -> int:
    """Capture, run, look, print."""
    with tempfile.TemporaryDirectory(prefix="bunny-capture-") as folder:
        file, bridge = Path(folder) / "link.pcapng", Path(folder) / "bridge"
        try:
            with capturing(file):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as clear:
                    clear.sendto(b"\n".join(WORDS), ("127.0.0.1", DISCARD_PORT))
                demo = [sys.executable, "-m", "bridge.cli", "demo", "--dir", str(bridge), *paths]
                subprocess.run(demo, stdout=subprocess.DEVNULL, check=True, timeout=600)
        except CannotCapture as error:
            print(error, file=sys.stderr)
            return 3
        conf = (bridge / "rendered" / "azure" / "link.conf").read_text()
        found = re.search(r"HUB_LEAF_URLS: \[\"tls://127\.0\.0\.1:(\d+)#", conf)
        assert found is not None
        seen = look(file, int(found[1]))
    for what, text, holds in seen:
        print(f"{'yes' if holds else 'NO ':<4}{what}: {text}")
    return 0 if all(holds for _, _, holds in seen) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
