"""Five forbidden acts, tried with real identities, each beside something that the same identity may do."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from bridge import subjects
from bridge.cli.demo.stage import INSPECTOR, LINK, OTHER_PRODUCER, PRODUCER, QUEUE, WORKER
from bridge.devserver import Bridge
from bridge.errors import Denied, TransportError
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import JetStreamTransport, connect
from bridge.job import JobToken
from bridge.subjects import JobKey

CONNECT_TIMEOUT_S: Final = 10.0
REFUSED_TIMEOUT_S: Final = 1.5
"""How long a credential that the server does not know keeps trying."""

Act: TypeAlias = Callable[[JetStreamTransport], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One forbidden act, and what came of it."""

    identity: str
    act: str
    refused: bool
    """By the server, while it let the same identity do what it may."""
    words: str
    """The server's own, from its log; empty if it said nothing."""


async def try_forbidden(bridge: Bridge, token: JobToken) -> list[Attempt]:
    """Try them all.

    Args:
        bridge: Both clouds, running.
        token: Of a job of `PRODUCER` whose result stands.
    """
    results, jobs = subjects.results_stream(QUEUE), subjects.jobs_stream(QUEUE)
    theirs = subjects.result(token.key)
    mine = JobKey(QUEUE, WORKER, secrets.token_hex(12), 1)
    own = subjects.result(mine._replace(producer=OTHER_PRODUCER))
    consumer = json.dumps(
        {"stream_name": results, "config": {"deliver_subject": "mine", "ack_policy": "none"}}
    ).encode()
    purge, info = subjects.api_call("STREAM.PURGE", results), subjects.api_call("STREAM.INFO", results)
    create = subjects.api_call("CONSUMER.CREATE", results)
    tries = [
        _try(
            bridge,
            OTHER_PRODUCER,
            f"reads a result of {PRODUCER}",
            lambda t: t.lookup(results, own),
            lambda t: t.lookup(results, theirs),
        ),
        _try(
            bridge,
            PRODUCER,
            "makes a consumer that would copy it every result",
            lambda t: t.lookup(results, theirs),
            lambda t: t.request(create, consumer),
        ),
        _try(
            bridge,
            WORKER,
            "submits a job",
            lambda t: t.lookup(results, theirs),
            lambda t: t.publish(jobs, subjects.job(mine, subjects.PRIORITIES[0]), b"forged"),
        ),
        _try(bridge, INSPECTOR, "purges the results", lambda t: t.request(info, b""), lambda t: t.request(purge, b"")),
        _try_link(bridge),
    ]
    return list(await asyncio.gather(*tries))


async def _try(bridge: Bridge, name: str, act: str, allowed: Act, forbidden: Act) -> Attempt:
    folder = bridge.identity(name)
    identity, connection = Identity.load(folder), Connection.load(folder)
    log, start = _log(bridge, connection.cloud)
    transport = await connect(
        connection, identity.nkey_seed, folder / CA_FILE, name=f"{name}-forbidden", timeout=CONNECT_TIMEOUT_S
    )
    async with transport:
        await allowed(transport)  # or the refusal would prove nothing but a broken connection
        try:
            await forbidden(transport)
        except Denied:
            return Attempt(name, act, True, _words(log, start, identity.nkey))
    return Attempt(name, act, False, "")


async def _try_link(bridge: Bridge) -> Attempt:
    """The leaf's own credential, which holds the link up meanwhile, at the hub's door for services."""
    folder, link = bridge.identity(PRODUCER), Identity.load(bridge.identity(LINK))
    connection = Connection.load(folder).model_copy(update={"identity": LINK})
    act = "connects to the hub as a service"
    log, start = _log(bridge, connection.cloud)
    try:
        transport = await connect(connection, link.nkey_seed, folder / CA_FILE, name=LINK, timeout=REFUSED_TIMEOUT_S)
    except TransportError:  # the server may hang up before its reason is read; its log has it
        words = _words(log, start, link.nkey)
        return Attempt(LINK, act, bool(words), words)
    await transport.close()
    return Attempt(LINK, act, False, "")


def _log(bridge: Bridge, cloud: str) -> tuple[Path, int]:
    log = bridge.servers[cloud].log
    return log, log.stat().st_size


def _words(log: Path, start: int, nkey: str) -> str:
    """What the server said about this key since, without time, connection and key."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    said = [line for line in lines if "[ERR]" in line and nkey in line]
    if not said:
        return ""
    # [pid] time [ERR] address - cid:n - "client's name" - "user/nkey:…" - words
    words = re.sub(r'^.*?\[ERR\] \S+ - \w+:\d+ - ("[^"]*" - )*', "", said[0])
    return re.sub(r"[^ -~]", "?", words.replace(nkey, "its key"))[:200]
