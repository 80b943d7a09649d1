"""The floor: the same jobs through the same hub and leaf by nats-py alone, as fast as we know to make it go.

Nothing is sealed, signed, fenced, renewed or tried again. One inbox hears all PubAcks and a future waits for each,
the pull's credit is renewed at half, an ack follows its result's PubAck, JSON is pydantic's own in Rust. What is left
is what a job costs in nats-py and in the servers, whoever sends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
from pathlib import Path

import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic_core import from_json, to_json

from bench.pace import Drive, Result
from bench.plain import connected
from bridge import subjects
from bridge.identity import Connection, Identity
from bridge.subjects import JobKey

CREDIT = 1000
EXPIRES_S = 3


class Puller:
    """Jobs as they come, echoed; requests overlap, so that credit never runs out."""

    def __init__(self, client: Client, connection: Connection) -> None:
        self._client = client
        settings = connection.queues["bench"]
        consumer = subjects.jobs_consumer(connection.identity, "normal")
        self._next = subjects.next_message(subjects.jobs_stream("bench"), consumer, settings.home)
        self._jobs, self._stored = client.new_inbox(), client.new_inbox() + "."
        self._left, self._sent = 0, 0
        self._acks: dict[str, str] = {}
        self.ended = asyncio.Event()

    async def start(self) -> None:
        """Ask for the first jobs."""
        await self._client.subscribe(self._stored + "*", cb=self._acked, pending_bytes_limit=0)
        await self._client.subscribe(self._jobs, cb=self._arrived, pending_bytes_limit=0)
        await self._ask()

    async def _ask(self) -> None:
        batch, self._left = CREDIT - self._left, CREDIT
        request = {"batch": batch, "expires": int(EXPIRES_S * 1e9)}
        await self._client.publish(self._next, json.dumps(request).encode(), self._jobs)

    async def _arrived(self, message: Msg) -> None:
        if not message.reply:  # a request's time is up
            self._left -= int((message.headers or {}).get("Nats-Pending-Messages", CREDIT))
        else:
            self._left -= 1
            _, queue, _, producer, session, n = message.subject.split(".")
            self._sent += 1
            token = str(self._sent)
            self._acks[token] = message.reply
            result = f"results.{queue}.{producer}.{session}.{n}.0"
            await self._client.publish(result, to_json(from_json(message.data)), self._stored + token)
        if self._left <= CREDIT // 2:
            await self._ask()

    async def _acked(self, message: Msg) -> None:
        await self._client.publish(self._acks.pop(message.subject.rpartition(".")[2]), b"+ACK")


async def work(folder: Path) -> None:
    """Pull, echo, ack, until killed."""
    async with connected(folder) as client:
        puller = Puller(client, Connection.load(folder))
        await puller.start()
        await puller.ended.wait()


async def produce(folder: Path, args: dict[str, str], drive: Drive) -> Result:
    """The same jobs, unsealed."""
    name, session = Identity.load(folder).name, secrets.token_hex(12)
    waiting: dict[str, asyncio.Future[bytes]] = {}
    stored: dict[str, asyncio.Future[None]] = {}
    loop = asyncio.get_running_loop()
    async with connected(folder) as client:
        inbox = client.new_inbox() + "."

        async def acked(message: Msg) -> None:
            stored.pop(message.subject.rpartition(".")[2]).set_result(None)

        async def arrived(message: Msg) -> None:
            waiting.pop(message.subject.split(".")[4]).set_result(message.data)

        await client.subscribe(inbox + "*", cb=acked, pending_bytes_limit=0)
        await client.subscribe(subjects.done_of_session("bench", name, session), cb=arrived, pending_bytes_limit=0)
        await client.flush()

        async def submit(n: int) -> None:
            token = str(n)
            answer = waiting[token] = loop.create_future()
            puback = stored[token] = loop.create_future()
            await client.publish(
                subjects.job(JobKey("bench", name, session, n), "normal"), to_json(args), inbox + token
            )
            await puback
            assert from_json(await answer) == args

        return await drive(submit)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work(Path(sys.argv[1])))
