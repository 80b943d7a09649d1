"""What the servers' streams hold, asked as an inspector: beside the ledger, a second witness."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from bridge.devserver import Bridge, monitor
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import JetStreamTransport, connect

CONNECT_S: Final = 20.0
WORKED_S: Final = 60.0


async def count(bridge: Bridge, inspector: str, stream: str) -> int:
    """How many messages a stream holds."""
    async with _inspecting(bridge, inspector) as transport:
        return int((await _state(transport, stream))["messages"])


async def last(bridge: Bridge, inspector: str, stream: str) -> int:
    """How many messages a stream has ever taken."""
    async with _inspecting(bridge, inspector) as transport:
        return int((await _state(transport, stream))["last_seq"])


async def until_last(bridge: Bridge, inspector: str, stream: str, number: int) -> None:
    """Wait until a stream has taken so many messages.

    Raises:
        TransportError: Not in time.
    """
    await _until(bridge, inspector, stream, lambda state: state["last_seq"] >= number, f"{number} messages")


async def until_empty(bridge: Bridge, inspector: str, stream: str) -> None:
    """Wait until a stream is empty.

    Raises:
        TransportError: Not in time.
    """
    await _until(bridge, inspector, stream, lambda state: state["messages"] == 0, "nothing")


async def _until(bridge: Bridge, inspector: str, stream: str, holds: Callable[[Any], bool], what: str) -> None:
    async with _inspecting(bridge, inspector) as transport:

        async def ask() -> bool:
            return holds(await _state(transport, stream))

        await monitor.until(ask, WORKED_S, f"{stream} to hold {what}")


async def _state(transport: JetStreamTransport, stream: str) -> dict[str, Any]:
    answer = json.loads(await transport.request(f"$JS.API.STREAM.INFO.{stream}", b""))
    return dict(answer["state"])


@contextlib.asynccontextmanager
async def _inspecting(bridge: Bridge, inspector: str) -> AsyncIterator[JetStreamTransport]:
    place = bridge.identity(inspector)
    seed, connection = Identity.load(place).nkey_seed, Connection.load(place)
    async with await connect(connection, seed, place / CA_FILE, name="drill", timeout=CONNECT_S) as transport:
        yield transport
