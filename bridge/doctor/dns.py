"""Asks a resolver as the system's library would, and tells every query it took (RFC 1035, over UDP)."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

DNS_PORT: Final = 53
RESOLV_CONF: Final = Path("/etc/resolv.conf")
HOSTS: Final = Path("/etc/hosts")
TRIES: Final = 2
"""A datagram may be lost once."""

_A, _AAAA, _IN = 1, 28, 1
_RECURSION_DESIRED: Final = 0x0100


class Outcome(StrEnum):
    """What became of a question."""

    FOUND = "found"
    NO_NAME = "NXDOMAIN"
    NO_ADDRESS = "no address"
    FAILED = "SERVFAIL"
    SILENT = "no answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one complete name."""

    name: str
    outcome: Outcome
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolver:
    """Where names are asked for, and how short ones are completed.

    Args:
        servers: Addresses and ports, in order.
        search: Domains that a short name is tried in.
        ndots: A name with fewer dots is short.
        hosts: Names that are known without asking.
    """

    servers: tuple[tuple[str, int], ...]
    search: tuple[str, ...] = ()
    ndots: int = 1
    hosts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def system(cls, resolv_conf: Path = RESOLV_CONF, hosts: Path = HOSTS) -> Resolver:
        """This machine's; what cannot be read counts as empty, as it does for the system's library."""
        servers: list[tuple[str, int]] = []
        search: tuple[str, ...] = ()
        ndots = 1
        for line in _lines(resolv_conf):
            match line.split():
                case ["nameserver", address, *_]:
                    servers.append((address, DNS_PORT))
                case ["search" | "domain", *domains]:
                    search = tuple(domain.rstrip(".") for domain in domains)
                case ["options", *options]:
                    given = [o.removeprefix("ndots:") for o in options if o.startswith("ndots:")]
                    ndots = int(given[-1]) if given and given[-1].isdigit() else ndots
        known = [(name, words[0]) for line in _lines(hosts) if (words := line.split()) for name in words[1:]]
        # The system's library asks its own machine where no server is named (resolv.conf(5)).
        return cls(tuple(servers) or (("127.0.0.1", DNS_PORT),), search, ndots, tuple(known))

    def asking(self, host: str, port: int) -> Resolver:
        """The same, but asking another server, and it alone: what this machine knows by itself does not count."""
        return replace(self, servers=((host, port),), hosts=())

    def candidates(self, host: str) -> list[str]:
        """The complete names that a name is tried as, in order (resolv.conf(5))."""
        if host.endswith("."):
            return [host.rstrip(".")]
        completed = [f"{host}.{domain}" for domain in self.search if domain]
        return [host, *completed] if host.count(".") >= self.ndots else [*completed, host]

    def known(self, host: str) -> str | None:
        """The address of a name that needs no asking."""
        return next((address for name, address in self.hosts if name.lower() == host.rstrip(".").lower()), None)

    async def ask(self, name: str, timeout: float) -> Answer:
        """Look up the addresses of one complete name, at each server in turn, for ``timeout`` seconds in all."""
        share = timeout / len(self.servers) / TRIES
        failed = Outcome.SILENT
        for server in self.servers * TRIES:
            try:
                async with asyncio.timeout(share):
                    found = await _both(server, name)
            except (OSError, ValueError):  # a timeout is an OSError; a server that answers nonsense is as good as none
                continue
            if found.outcome is not Outcome.FAILED:
                return found
            failed = Outcome.FAILED
        return Answer(name, failed)

    @property
    def where(self) -> str:
        """The servers, for people."""
        return ", ".join(host if port == DNS_PORT else f"{host}:{port}" for host, port in self.servers)


def is_address(host: str) -> bool:
    """Whether it is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _both(server: tuple[str, int], name: str) -> Answer:
    four = await _query(server, name, _A)
    if four.outcome is not Outcome.NO_ADDRESS:
        return four
    return await _query(server, name, _AAAA)


class _Client(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.reply.done():
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


async def _query(server: tuple[str, int], name: str, kind: int) -> Answer:
    asked = secrets.token_bytes(2)
    question = b"".join(bytes([len(label)]) + label for label in _labels(name)) + b"\0"
    question += kind.to_bytes(2, "big") + _IN.to_bytes(2, "big")
    head = asked + _RECURSION_DESIRED.to_bytes(2, "big") + b"\0\1" + b"\0\0" * 3
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(_Client, remote_addr=server)
    try:
        transport.sendto(head + question)
        data = await client.reply
    finally:
        transport.abort()
    if data[:2] != asked or data[12 : 12 + len(question)].lower() != question.lower():
        raise ValueError("an answer to another question")
    return _read(data, name, kind, 12 + len(question))


def _labels(name: str) -> list[bytes]:
    labels = [label.encode("idna") for label in name.split(".")]
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError("not a name of the DNS")
    return labels


def _read(data: bytes, name: str, kind: int, at: int) -> Answer:
    code, records = data[3] & 0x0F, int.from_bytes(data[6:8], "big")
    if code == 3:
        return Answer(name, Outcome.NO_NAME)
    if code != 0:
        return Answer(name, Outcome.FAILED)
    found = []
    try:
        for _ in range(records):
            at = _past_name(data, at)
            got, length = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 8 : at + 10], "big")
            if got == kind:  # an alias is answered together with the address it leads to
                found.append(str(ipaddress.ip_address(data[at + 10 : at + 10 + length])))
            at += 10 + length
    except IndexError:
        raise ValueError("a broken answer") from None
    return Answer(name, Outcome.FOUND if found else Outcome.NO_ADDRESS, tuple(found))


def _past_name(data: bytes, at: int) -> int:
    while (length := data[at]) != 0:
        if length >= 0xC0:
            return at + 2
        at += 1 + length
    return at + 1


def _lines(path: Path) -> list[str]:
    try:
        return [line.partition("#")[0] for line in path.read_text(errors="replace").splitlines()]
    except OSError:
        return []
