"""Tries to cross from the wrong place, with stolen identities; every attempt must be refused.

``python attack.py PLACE [NETWORK=ADDRESS]...`` runs in a container on the network PLACE. The addresses are where the
servers are elsewhere: an attacker who knows them is no nearer. It prints what each attempt met, and its exit code
is 0 only if all were refused. Whether the engine drops packets or has no route for them depends on its release; that
the servers do answer at these addresses is shown by the jobs that pass.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import nats
from nats.errors import Error as NatsError

LOOT: Final = Path("/loot")
"""A folder for each stolen identity, and the link's certificate and key."""
TIMEOUT_S: Final = 3.0
CLIENTS: Final = {"aws": "relay-nats.relay.svc", "azure": "bunny-nats.bunny.svc"}
LINK: Final = "relay-leaf.bridge.internal"
OTHER: Final = {"aws": "azure", "azure": "aws"}
SERVERS: Final = {"aws": "hub", "azure": "leaf"}
CLIENT_PORT: Final = 4222
LEAF_PORT: Final = 7422
MONITOR_PORT: Final = 8222
ELSEWHERE: Final = "192.0.2.1"
"""Reserved for documentation: stands for any address of the internet, and is nobody's should it be reached."""


class Crossed(Exception):
    """An attempt succeeded."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing to try. ``run`` raises what refused it, or `Crossed`."""

    what: str
    run: Callable[[], Awaitable[None]]
    dropped: bool = False
    """Whether silence is a refusal: where packets can be dropped, and not where a server must say no."""


def attempts(place: str, addresses: dict[str, str]) -> list[Attempt]:
    """Everything that is tried from a network."""
    here, there = CLIENTS[place], OTHER[place]
    names = (CLIENTS[there], SERVERS[there], LINK, "example.com")
    far = [(address, port) for address in addresses.values() for port in (CLIENT_PORT, LEAF_PORT, MONITOR_PORT)]
    stolen = sorted(file.parent.name for file in LOOT.glob("*/identity.json"))
    return [
        *(Attempt(f"look up {name}", partial(resolve, name), dropped=True) for name in names),
        *(Attempt(f"dial {host}:{port}", partial(dial, host, port), dropped=True) for host, port in far),
        Attempt(f"dial {ELSEWHERE}:443, outside", partial(dial, ELSEWHERE, 443), dropped=True),
        *(Attempt(f"dial {here}:{port}", partial(dial, here, port)) for port in (LEAF_PORT, MONITOR_PORT)),
        Attempt(f"talk to {here} without TLS", partial(in_clear, here)),
        Attempt(f"connect to {here} as nobody", partial(connect, here, None)),
        *(Attempt(f"connect to {here} as {n}", partial(connect, here, n)) for n in stolen if cloud_of(n) != place),
    ]


# --- the attempts ---------------------------------------------------------------------------------------


async def resolve(name: str) -> None:
    """Look a name up."""
    found = await asyncio.get_running_loop().getaddrinfo(name, None)
    raise Crossed(f"it is {found[0][4][0]}")


async def dial(host: str, port: int) -> None:
    """Open a TCP connection."""
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    raise Crossed("connected")


async def in_clear(host: str) -> None:
    """Speak NATS without TLS, and see whether the server says anything."""
    reader, writer = await asyncio.open_connection(host, CLIENT_PORT)
    writer.write(b'CONNECT {"verbose":true,"pedantic":true}\r\nPING\r\n')
    answer = await reader.read(4096)
    writer.close()
    # A TLS alert (0x15) is all that a server that speaks TLS alone may say.
    if answer and answer[0] != 0x15:
        raise Crossed(f"it said {answer[:60]!r}")
    raise ConnectionResetError("the server hung up" + (" with a TLS alert" if answer else " without a word"))


async def connect(host: str, name: str | None) -> None:
    """Connect as NATS clients do, with the NKey of a stolen identity."""
    refused: list[Exception] = []

    async def on_error(error: Exception) -> None:
        refused.append(error)

    seed = json.loads((LOOT / name / "identity.json").read_text())["nkey_seed"] if name else ""
    context = ssl.create_default_context(cafile=LOOT / "ca.pem")
    try:
        client = await nats.connect(
            f"tls://{host}:{CLIENT_PORT}",
            tls=context,
            tls_handshake_first=True,
            allow_reconnect=False,
            connect_timeout=int(TIMEOUT_S),
            error_cb=on_error,
            nkeys_seed_str=seed or None,
        )
    except NatsError as error:
        if not (refused or "authorization" in str(error).lower()):
            raise
        raise (refused or [error])[-1] from None
    await client.close()
    raise Crossed("the server let it in")


# --- the verdict ----------------------------------------------------------------------------------------


async def judge(attempt: Attempt) -> tuple[bool, str]:
    """Whether an attempt was refused, and by what."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await attempt.run()
    except Crossed as crossed:
        return False, str(crossed)
    except TimeoutError:
        return attempt.dropped, f"no answer in {TIMEOUT_S:g} s"
    except socket.gaierror as error:
        return True, error.strerror or str(error)
    except OSError as error:
        return True, os.strerror(error.errno) if error.errno else str(error)
    except NatsError as error:
        return True, str(error)
    return False, "it did not say"


def cloud_of(name: str) -> str:
    """The cloud of a stolen identity; none for the link's, which belongs at another port."""
    file = LOOT / name / "connection.yaml"
    return str(json.loads(file.read_text())["cloud"]) if file.exists() else ""


async def main(arguments: list[str]) -> int:
    """Try everything, and tell."""
    place, addresses = arguments[0], dict(each.split("=", 1) for each in arguments[1:])
    tried = attempts(place, addresses)
    outcomes = await asyncio.gather(*map(judge, tried))
    for attempt, (refused, words) in zip(tried, outcomes, strict=True):
        print(f"{'refused' if refused else 'CROSSED':8} {attempt.what:56} {words}")
    held = sum(refused for refused, _ in outcomes)
    print(f"from {place}: {len(tried)} attempts, {held} refused")
    return 0 if held == len(tried) else 1


if __name__ == "__main__":
    logging.getLogger("asyncio").disabled = True  # it remarks on every TLS connection that ends
    sys.exit(asyncio.run(main(sys.argv[1:])))
