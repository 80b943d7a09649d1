"""The same jobs through the same hub and leaf with nats-py alone: nothing sealed, nothing signed, nothing looked up.

As a careful user of nats-py would write it: ``js.publish`` for each job and result, ``fetch`` in batches, an ack
once the result is stored, results pushed to the producer by the republished subject.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NoMessages

from bench.pace import Drive, Result
from bridge import subjects
from bridge.identity import CA_FILE, Connection, Identity
from bridge.subjects import JobKey

FETCH = 100
EXPIRES_S = 5


@contextlib.asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[Client]:
    """nats-py, connected as an identity of the bridge."""
    identity, connection = Identity.load(folder), Connection.load(folder)
    context = ssl.create_default_context(cafile=str(folder / CA_FILE))
    client = await nats.connect(
        connection.server,
        tls=context,
        tls_handshake_first=True,
        nkeys_seed_str=identity.nkey_seed,
        inbox_prefix=subjects.inbox_prefix(identity.name),
    )
    try:
        yield client
    finally:
        await client.close()


async def work(folder: Path) -> None:
    """Pull, echo, ack, until killed."""
    connection = Connection.load(folder)
    settings = connection.queues["bench"]
    async with connected(folder) as client:
        local, remote = client.jetstream(), client.jetstream(domain=settings.home)
        pull = await remote.pull_subscribe_bind(
            subjects.jobs_consumer(connection.identity, "normal"), stream=subjects.jobs_stream("bench")
        )
        print("ready", flush=True)

        async def echo(message: Msg) -> None:
            parsed = subjects.parse_job(message.subject)
            assert parsed is not None
            await local.publish(subjects.result(parsed[0]), message.data)
            await message.ack()

        while True:
            with contextlib.suppress(NoMessages):
                messages = await pull.fetch(FETCH, timeout=EXPIRES_S)
                await asyncio.gather(*map(echo, messages))


async def produce(folder: Path, args: dict[str, str], drive: Drive) -> Result:
    """The same jobs, unsealed."""
    identity, body = Identity.load(folder), json.dumps(args, separators=(",", ":")).encode()
    session, waiting = secrets.token_hex(12), dict[int, asyncio.Future[bytes]]()
    async with connected(folder) as client:
        stream = client.jetstream()

        async def arrived(message: Msg) -> None:
            key = subjects.parse_result(message.subject)
            assert key is not None
            waiting.pop(key.n).set_result(message.data)

        await client.subscribe(subjects.done_of_session("bench", identity.name, session), cb=arrived)
        await client.flush()

        async def submit(n: int) -> None:
            answer = waiting[n] = asyncio.get_running_loop().create_future()
            subject = subjects.job(JobKey("bench", identity.name, session, n), "normal")
            await stream.publish(subject, body, headers={"Nats-Msg-Id": secrets.token_hex(16)})
            assert await answer == body

        return await drive(submit)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(work(Path(sys.argv[1])))
