"""A real identity over plain nats-py, as an attacker with a stolen identity folder would use it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from bridge.devserver import Bridge
from bridge.identity import CA_FILE, Connection, Identity

_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')


class Plain:
    """One connection, and what the server refused it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.client = Client()
        self.refused: Counter[tuple[str, str]] = Counter()
        """Verb and subject, in the lower case that nats-py reports."""

    async def on_error(self, error: Exception) -> None:
        """nats-py's ``error_cb``: the only place where a permission violation shows."""
        if found := _VIOLATION.search(str(error)):
            self.refused["subscribe" if found[1] == "subscription" else "publish", found[2]] += 1

    async def settled(self) -> None:
        """Wait until the server has answered everything sent so far, refusals included: it answers in order.

        nats-py writes a PING ahead of what it has buffered, so one flush alone is no such barrier.
        """
        while self.client.pending_data_size:
            await self.client.flush(timeout=30)
        await self.client.flush(timeout=30)

    async def ask(self, subject: str, body: Any = None) -> Msg:  # noqa: ANN401 - JSON
        """A request; the test fails if the server refuses or does not answer it."""
        payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return await self.client.request(subject, payload, timeout=5)

    async def api(self, call: str, body: Any = None) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """A JetStream API call that must succeed."""
        answer = json.loads((await self.ask(f"$JS.API.{call}", body)).data)
        assert "error" not in answer, (call, answer["error"])
        return dict(answer)

    async def pull(self, stream: str, consumer: str, cloud: str | None = None) -> Msg:
        """The next message of a consumer, of the other cloud where that is named."""
        api = "$JS.API" if cloud is None else f"$JS.{cloud}.API"
        inbox = self.client.new_inbox()
        found = await self.client.subscribe(inbox)
        body = json.dumps({"batch": 1, "expires": 5_000_000_000, "idle_heartbeat": 1_000_000_000}).encode()
        await self.client.publish(f"{api}.CONSUMER.MSG.NEXT.{stream}.{consumer}", body, reply=inbox)
        async with asyncio.timeout(10):
            while True:
                message = await found.next_msg(timeout=5)
                if not status(message):
                    await found.unsubscribe()
                    return message


@contextlib.asynccontextmanager
async def plain(bridge: Bridge, name: str) -> AsyncIterator[Plain]:
    """Connect as an identity of a running bridge."""
    folder = bridge.identity(name)
    me = Plain(name)
    await me.client.connect(
        Connection.load(folder).server,
        tls=ssl.create_default_context(cafile=str(folder / CA_FILE)),
        tls_handshake_first=True,
        nkeys_seed_str=Identity.load(folder).nkey_seed,
        inbox_prefix=f"_INBOX_{name}".encode(),
        error_cb=me.on_error,
        allow_reconnect=False,
        connect_timeout=5,
    )
    try:
        yield me
    finally:
        await me.client.close()


def status(message: Msg) -> str:
    """The status of a server's answer that is no message; empty if it is one."""
    return (message.headers or {}).get("Status", "")


async def stored(bridge: Bridge) -> dict[str, Any]:
    """Every stream and consumer of both clouds with what it holds, as the inspectors see it."""
    found: dict[str, Any] = {}
    for inspector in ("ops-aws", "ops-azure"):
        async with plain(bridge, inspector) as ops:
            for stream in (await ops.api("STREAM.LIST"))["streams"]:
                name = stream["config"]["name"]
                consumers = (await ops.api(f"CONSUMER.LIST.{name}"))["consumers"]
                held = {key: stream["state"][key] for key in ("messages", "first_seq", "last_seq")}
                cursors = {c["name"]: (c["config"], c["ack_floor"]["stream_seq"], c["num_pending"]) for c in consumers}
                found[f"{inspector} {name}"] = (stream["config"], held, cursors)
    return found
