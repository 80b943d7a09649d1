"""``bunny agent``: watch one cloud, tell the other's agent, show metrics and backlog."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer

from bridge import observe
from bridge.agent import watching
from bridge.agent.canaries import Ask
from bridge.agent.schedules import Submit
from bridge.cli.frame import BridgeFolder, example, run
from bridge.cli.out import Out
from bridge.cli.who import IdentityFolder, choose
from bridge.errors import JobFailed
from bridge.identity import ScheduleSettings
from bridge.job import CANARY, CANARY_PRIORITY, Kind
from bridge.policy import Role
from producers import Producer

IN_MEMORY = ""
"""The outbox of agents, whatever the environment names: a tick is submitted anew, and a canary is not missed."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=example(
            "bunny agent --identity /etc/bunny --listen 0.0.0.0:9464", "curl http://127.0.0.1:9464/scale/thumbnails"
        )
    )(agent)


def agent(
    identity: IdentityFolder = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where its pages are; they have no authentication.")
    ] = "127.0.0.1:9464",
    certificates: Annotated[
        list[Path] | None,
        typer.Option("--certificate", metavar="FILE", help="A certificate to watch besides its own server's; repeat."),
    ] = None,
    folder: BridgeFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Log, and say where it listens, in JSON.")] = False,
) -> None:
    """Watch a cloud's queues, link, trust and certificates until SIGTERM or Ctrl-C, as an identity with role: agent.

    It submits the recurring jobs that the policy's schedules name it for: one job a tick, however many of its agents
    run. It shows /metrics for Prometheus, /scale/QUEUE with the backlog for autoscalers (503 while that is unknown,
    never a 0 for it), /livez and /readyz. Agents of both clouds tell each other what they see, signed.
    """
    observe.configure(json=as_json or None)
    place = choose(identity, folder, lambda connection: connection.role == Role.AGENT, "be an agent")
    run(_until_stopped(place, listen, certificates or [], Out(as_json)))


@contextlib.asynccontextmanager
async def producing(folder: Path) -> AsyncIterator[Submit]:
    """What an agent's schedules submit through: a producer of its own identity."""
    async with Producer.open(folder, outbox=IN_MEMORY) as producer:

        async def submit(schedule: ScheduleSettings, key: str) -> None:
            args, deadline = json.loads(schedule.args), schedule.deadline_ms / 1000
            await producer.submit(schedule.queue, schedule.kind, args, deadline=deadline, key=key)

        yield submit


@contextlib.asynccontextmanager
async def proving(folder: Path) -> AsyncIterator[Ask]:
    """What an agent's canaries are sent by: a producer of its own identity."""
    async with Producer.open(folder, outbox=IN_MEMORY) as producer:

        async def ask(queue: str, text: str, deadline: float) -> None:
            canary = Kind(queue, CANARY, str, str)
            handle = await producer.submit(canary, text, priority=CANARY_PRIORITY, deadline=deadline)
            if await handle.result() != text:
                raise JobFailed("WrongAnswer", "a canary was answered with another text", 1)

        yield ask


async def _until_stopped(place: Path, listen: str, certificates: list[Path], out: Out) -> None:
    async with watching(place, listen, certificates, producing, proving) as (agent, port):
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, agent.ended.set)
        out.say(f"watching {agent.state.cloud}: http://{listen.rpartition(':')[0]}:{port}/metrics; Ctrl-C stops it")
        out.result({"cloud": agent.state.cloud, "port": port})
        await agent.ended.wait()
