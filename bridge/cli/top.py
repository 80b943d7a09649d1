"""``bunny top``: both clouds, the link between them and every queue, live."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.live import Live

from bridge.cli.frame import AsJson, BridgeFolder, example, run
from bridge.cli.out import Out
from bridge.cli.queue import Inspectors
from bridge.cli.queuestate import TIMEOUT_S, Clouds, inspectors, look
from bridge.cli.topview import Rates, screen, snapshot
from bridge.cli.who import connect_soon
from bridge.errors import ConfigurationError, TransportError
from bridge.identity import Connection, Identity
from bridge.jetstream import JetStreamTransport
from bridge.policy import Role

SHORTEST_S: Final = 0.2
"""Between two looks: each asks for every stream and consumer."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("top", epilog=example("bunny top", "bunny top --once --json"))(top)


def top(
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=SHORTEST_S, max=60)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, an interval apart, print, and end.")] = False,
    identity: Inspectors = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Watch both clouds: what waits, runs, fails and lags. With --json, one object and the end.

    A cloud is asked by an inspector of its own; what cannot be asked is unknown, never 0. "pulls" are requests of
    workers that wait at the server: 0 means that no worker listens.
    """
    run(_watch(inspectors(identity, folder), interval, once or as_json, Out(as_json)))


async def _watch(folders: list[Path], interval: float, once: bool, out: Out) -> None:
    connections = [(folder, Connection.load(folder)) for folder in folders]
    for folder, connection in connections:
        if connection.role != Role.INSPECTOR:
            raise ConfigurationError(f"{folder}: {connection.identity} is no inspector; name the folder of one")
    looker, rates = _Looker(connections), Rates()
    bridge = connections[0][1].bridge
    async with looker:
        seen = await looker.look(rates)
        if once:
            await asyncio.sleep(interval)
            seen = await looker.look(rates)
            out.console.print(screen(bridge, seen))
            out.result(seen)
            return
        with Live(screen(bridge, seen), console=out.console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(screen(bridge, seen), refresh=True)
                await asyncio.sleep(interval)
                seen = await looker.look(rates)


class _Looker:
    """A connection for each cloud, kept from one look to the next, and made again where it was not to be had."""

    def __init__(self, connections: list[tuple[Path, Connection]]) -> None:
        self._connections = connections
        self._open: dict[str, JetStreamTransport] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> _Looker:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def look(self, rates: Rates) -> dict[str, Any]:
        """Ask every cloud; one that does not answer in time is unknown."""
        clouds = Clouds()
        for _, connection in self._connections:
            clouds.settings.update(connection.queues)
            clouds.asked.add(connection.cloud)
        await asyncio.gather(*(self._ask(clouds, *each) for each in self._connections))
        return snapshot(clouds, rates, asyncio.get_running_loop().time(), dt.datetime.now(dt.UTC))

    async def _ask(self, clouds: Clouds, folder: Path, connection: Connection) -> None:
        cloud = connection.cloud
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if cloud not in self._open:
                    seed = Identity.load(folder).nkey_seed
                    transport = await connect_soon(connection, seed, folder, "bunny-top", timeout=TIMEOUT_S)
                    self._open[cloud] = await self._stack.enter_async_context(transport)
                await look(clouds, self._open[cloud], connection)
        except (TransportError, TimeoutError) as error:
            clouds.problems[cloud] = f"unknown: {str(error) or 'no answer in time'}"
            for key in [key for key in clouds.answers if key[0] == cloud]:
                del clouds.answers[key]  # half an answer would read as a whole one
