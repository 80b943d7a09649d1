"""Makes trouble for real, asks ``bunny doctor`` about it, and holds ``docs/doctor.md`` to what it said.

``BUNNY_WRITE_DOCS=1 pytest tests/integration -k doctor`` writes its table anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bridge.devserver import Folder, prepare
from bridge.doctor import CATALOGUE
from bridge.identity import CONNECTION_FILE, IDENTITY_FILE, Connection, Identity
from tests.acceptance.typed import CHECKOUT, environment
from tests.support import write_policy

TIMEOUT_S: Final = 40.0
DOCUMENT: Final = CHECKOUT / "docs/doctor.md"
_HEAD: Final = "| trap made | what `bunny doctor` said |\n|---|---|\n"


@dataclass(frozen=True, slots=True)
class Report:
    """What one run of the doctor said."""

    code: int
    findings: Sequence[Mapping[str, str]]
    tmp_path: Path

    def names(self) -> set[str]:
        """Every trap that was named, but what this Python is like."""
        return {each["trap"] for each in self.findings if each["trap"]} - {"no-hybrid-group"}

    def verdicts(self, check: str, about: str = "") -> set[str]:
        """The verdicts of a check on what is called ``about``."""
        return {f["verdict"] for f in self.findings if f["check"] == check and f["about"].startswith(about)}

    def told(self, trap: str, how: str) -> None:
        """The trap was named, with the words that the document has for it.

        Args:
            trap: Its name in the catalogue.
            how: How it was made: the first column of the table.
        """
        named = [each for each in self.findings if each["trap"] == trap]
        assert named, (trap, [each for each in self.findings if each["verdict"] != "ok"])
        codes = {"problem": {3}, "warning": {1, 3}, "info": {0, 1, 3}}
        assert self.code in codes[named[0]["verdict"]]
        row = _row(how, named[0], _plain(named[0]["seen"], self.tmp_path))
        if os.environ.get("BUNNY_WRITE_DOCS") == "1":
            _write(trap, row)
        assert row in DOCUMENT.read_text().splitlines(), row


def _row(how: str, said: Mapping[str, str], seen: str) -> str:
    cells = f"{seen}<br>means: {said['means']}<br>do: {said['do']}".replace("|", "\\|")
    return f"| {how} | {said['check']}: {said['verdict']}, **{said['trap']}**: {cells} |"


def _plain(seen: str, tmp_path: Path) -> str:
    """What was seen, without what differs from run to run."""
    plain = seen.replace(str(tmp_path), "")
    for pattern, instead in (
        (r"127\.0\.0\.1:\d+", "127.0.0.1:4222"),
        (r"process \d+ \(\w+[\w.]*\)", "process 4711 (python3)"),
        (r"OpenSSL \S+ [\w ]+? (does|offers)", r"OpenSSL 3.0.19 \1"),
        (r"clock is \d+\.\d s", "clock is … s"),
        (r": \d+ s ago", ": 6 s ago"),
        (r"has \d+ links", "has 1 links"),
        (r"(\d+) of (\d+) are refused", "some are refused"),
        (r" and \d+ more:", " and more:"),
        (r"TLS ended with \w+", "TLS ended with an alert"),
        (r"(\[Errno \d+\] [A-Z][a-z ]+|TLS ended with an alert|the server closed .*)(; process.*)?", "TLS ended"),
    ):
        plain = re.sub(pattern, instead, plain)
    digests = dict.fromkeys(re.findall(r"\b[0-9a-f]{12,16}\b", plain))
    for digest, instead in zip(digests, ("1a2b3c4d5e6f", "f6e5d4c3b2a1"), strict=False):
        plain = plain.replace(digest, instead)
    return plain


def _write(trap: str, row: str) -> None:
    text = DOCUMENT.read_text()
    before, head, rest = text.partition(_HEAD)
    assert head, "docs/doctor.md has lost its table"
    rows = rest.partition("\n\n")[0].splitlines()
    after = rest[len("\n".join(rows)) :]
    known = {name: each for each in rows if (name := each.partition("**")[2].partition("**")[0]) in CATALOGUE}
    known[trap] = row
    DOCUMENT.write_text(before + head + "\n".join(known[name] for name in CATALOGUE if name in known) + after)


# --- asking ----------------------------------------------------------------------------------------


async def doctor(
    tmp_path: Path, *arguments: str | Path, under: Sequence[str] = (), cwd: Path | None = None, **env: str
) -> Report:
    """Run ``bunny doctor --json`` while this loop's own servers go on.

    Args:
        tmp_path: Where the test's files are.
        arguments: More of the command line.
        under: A command that runs it, such as ``faketime``.
        cwd: Where it is run; a folder of its own, where nothing is at hand, if not given.
        env: More of the environment.
    """
    empty = tmp_path / "elsewhere"
    empty.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(*under, sys.executable, "-m", "bridge.cli", "doctor", "--json", *map(str, arguments)),
        cwd=cwd or empty,
        env=environment(**env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    assert out, err.decode()
    assert process.returncode is not None
    return Report(process.returncode, json.loads(out)["findings"], tmp_path)


def needs(*command: str) -> None:
    """Skip the test where a tool is missing or may not do this; in CI that fails."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    if done.returncode != 0:
        pytest.skip(f"{' '.join(command)}: {done.stderr.decode().strip()}")


# --- folders ---------------------------------------------------------------------------------------


def prepared(tmp_path: Path) -> Folder:
    """Everything that both clouds need, without a server."""
    folder = Folder.at(tmp_path / ".bunny")
    prepare(write_policy(tmp_path), folder)
    for rendered in folder.rendered.glob("*/connections/*.yaml"):
        shutil.copy(rendered, folder.identity(rendered.stem) / CONNECTION_FILE)
    return folder


def rekey(identity: Path) -> Path:
    """Give an identity folder new keys."""
    (identity / IDENTITY_FILE).unlink()
    Identity.generate(Connection.load(identity).identity).save(identity)
    return identity


def copy_of(folder: Path, to: Path, *, server: str | None = None, **connection: object) -> Path:
    """A copy of an identity folder to spoil, with other words in its ``connection.yaml``."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    path = to / CONNECTION_FILE
    words = json.loads(path.read_text()) | connection | ({"server": server} if server is not None else {})
    path.write_text(json.dumps(words))
    return to


# --- names -----------------------------------------------------------------------------------------

Zone = Mapping[str, str | int | None]
"""Names and their addresses; a number is a response code, None is silence. Any other name is NXDOMAIN."""


class _Dns(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self.zone, self.asked = zone, list[str]()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ANN401 - an address
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        question, name = data[12 : at + 5], ".".join(labels)
        self.asked.append(name)
        answer = self.zone.get(name, 3)
        if answer is None:
            return
        code, records = (answer, b"") if isinstance(answer, int) else (0, b"")
        if isinstance(answer, str) and question[-4:-2] == b"\0\1":
            records = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + ipaddress.ip_address(answer).packed
        head = data[:2] + bytes([0x81, 0x80 | code]) + b"\0\1" + (b"\0\1" if records else b"\0\0") + b"\0\0\0\0"
        self.transport.sendto(head + question + records, addr)


@contextlib.asynccontextmanager
async def resolver(zone: Zone) -> AsyncIterator[tuple[str, list[str]]]:
    """A resolver on loopback: its ``host:port``, and every name that it is asked for."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: _Dns(zone), local_addr=("127.0.0.1", 0))
    try:
        yield f"127.0.0.1:{transport.get_extra_info('sockname')[1]}", server.asked
    finally:
        transport.abort()


# --- listeners -------------------------------------------------------------------------------------

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@contextlib.asynccontextmanager
async def listener(serve: Serve, **options: Any) -> AsyncIterator[int]:  # noqa: ANN401 - those of asyncio
    """Something that listens on loopback and is no server of ours; its port."""
    serving: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def closed_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def full_listener() -> Any:  # noqa: ANN401 - an iterator of one port
    """A listener whose queue is full: the kernel drops every further SYN, as a firewall does."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield int(listening.getsockname()[1])


# --- certificates ----------------------------------------------------------------------------------

DAY: Final = dt.timedelta(days=1)


def certify(
    place: Path,
    name: str,
    *,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    begins: dt.timedelta = -DAY,
    ends: dt.timedelta = 6 * DAY,
) -> None:
    """Replace a certificate of a cloud's pki folder by another of the same issuer.

    Args:
        place: The cloud's folder.
        name: ``clients``, ``leafnodes`` or ``link``.
        hosts: Names and addresses it is for.
        usage: Its extended key usage.
        begins: Start of its validity, from now.
        ends: End of it.
    """
    issuer = x509.load_pem_x509_certificates((place / "issuer.pem").read_bytes())[0]
    authority = serialization.load_pem_private_key((place / "ca.key").read_bytes(), None)
    assert isinstance(authority, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    names = [_general_name(host) for host in hosts]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (place / f"{name}.pem").write_bytes(certificate.public_bytes(pem) + issuer.public_bytes(pem))
    (place / f"{name}.key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
