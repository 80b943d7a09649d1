"""One server in a container of its own: stopped, killed, paused, cut off, moved and replaced as machines are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from bridge.devserver import monitor
from bridge.errors import TransportError

if TYPE_CHECKING:
    from docker.models.containers import Container
    from testcontainers.core.container import DockerContainer

MONITOR_PORT: Final = 8222
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10


@dataclass(frozen=True, slots=True)
class Attached:
    """A network that a server stands on, by the engine's name for it, and the names that the server has there."""

    network: str
    aliases: tuple[str, ...]


class ServerContainer:
    """A server of one cloud in its container.

    The engine's calls block, so each is made in a thread.

    Args:
        name: The server's name: its cloud's, or ``<cloud>.<n>`` in a cluster.
        make: Makes the container anew, with the same volume, configuration and addresses.
        attached: The networks it stands on, by name (its cloud's, and ``link``); the first from when it starts.
    """

    def __init__(self, name: str, make: Callable[[], DockerContainer], attached: Mapping[str, Attached]) -> None:
        self.name = name
        self._make, self._attached = make, attached
        self._container: DockerContainer | None = None
        self._off: set[str] = set()

    @property
    def id(self) -> str:
        """The container's id."""
        return str(self._wrapped.id)

    # --- its life ----------------------------------------------------------------------------------

    async def create(self) -> None:
        """Make the container and start it, on all its networks."""
        await asyncio.to_thread(self._create)

    async def start(self) -> None:
        """Start it again after `stop` or `kill`, and wait until it is healthy."""
        await asyncio.to_thread(self._wrapped.start)
        await self.until_healthy()

    async def stop(self) -> None:
        """Stop the server as an orderly shutdown does; its volume stays."""
        await asyncio.to_thread(self._wrapped.stop, timeout=STOP_TIMEOUT_S)

    async def kill(self) -> None:
        """End the server at once, as a machine that loses power."""
        await asyncio.to_thread(self._wrapped.kill)

    async def pause(self) -> None:
        """Let it do nothing, and tell nobody: its connections stay open."""
        await asyncio.to_thread(self._wrapped.pause)

    async def unpause(self) -> None:
        """Let it go on after `pause`."""
        await asyncio.to_thread(self._wrapped.unpause)

    async def replace(self) -> None:
        """Put another container in its place, with the same volume: nothing else of the old one is left."""
        await self.stop()
        await self.remove()
        await self.create()
        await self.until_healthy()

    async def remove(self) -> None:
        """Remove the container if there is one; its volume stays."""
        if self._container is not None:
            await asyncio.to_thread(self._container.stop, delete_volume=False)
            self._container = None

    # --- its networks ------------------------------------------------------------------------------

    async def disconnect(self, network: str = "link") -> None:
        """Take it off a network, if it is on it: nobody there reaches it, and it reaches nobody."""
        if network not in self._off:
            self._off.add(network)
            await asyncio.to_thread(self._detach, network)

    async def connect(self, network: str = "link") -> None:
        """Put it back on a network, under its names; the engine may give it another address."""
        if network in self._off:
            self._off.remove(network)
            await asyncio.to_thread(self._attach, network)

    async def address(self, network: str = "link") -> str:
        """Its IP address on a network."""
        await asyncio.to_thread(self._wrapped.reload)
        networks = self._wrapped.attrs["NetworkSettings"]["Networks"]
        return str(networks[self._attached[network].network]["IPAddress"])

    # --- what it says ------------------------------------------------------------------------------

    async def ask(self, page: str) -> Any:  # noqa: ANN401 - JSON
        """A page of its monitor, which listens inside the container alone.

        Raises:
            TransportError: It does not answer.
        """
        url = f"http://127.0.0.1:{MONITOR_PORT}{page}"
        code, output = await self.execute("wget", "-q", "-O", "-", url)
        if code != 0:
            raise monitor.Unanswered(f"{self.name}: {page}: no answer from the server's monitor")
        return json.loads(output)

    async def execute(self, *command: str) -> tuple[int, str]:
        """Run a command in the container; its exit code, and what it printed.

        Raises:
            TransportError: The container does not run.
        """
        # Known only here: without the extra `containers` this module must still be importable.
        from docker.errors import APIError

        try:
            done = await asyncio.to_thread(self._wrapped.exec_run, list(command))
        except APIError as error:
            raise monitor.Unanswered(f"{self.name}: the container does not run: {error.explanation}") from None
        return int(done.exit_code), bytes(done.output or b"").decode(errors="replace")

    async def logs(self) -> str:
        """What the server has said."""
        return bytes(await asyncio.to_thread(self._wrapped.logs)).decode(errors="replace")

    async def running(self) -> bool:
        """Whether it runs, and is not paused."""
        await asyncio.to_thread(self._wrapped.reload)
        return bool(self._wrapped.status == "running")

    async def until_healthy(self, timeout: float = START_TIMEOUT_S) -> None:
        """Wait until it listens and has recovered its streams.

        Raises:
            TransportError: Not within ``timeout`` seconds; the end of its log is in the message.
        """

        async def healthy() -> bool:
            return bool((await self.ask("/healthz?js-server-only=true"))["status"] == "ok")

        try:
            await monitor.until(healthy, timeout, f"{self.name}: server ready")
        except TransportError as error:
            last = (await self.logs()).strip().rpartition("\n")[2][-200:]
            raise TransportError(f"{error} ({last})") from None

    @property
    def _wrapped(self) -> Container:
        if self._container is None:
            raise TransportError(f"{self.name}: has no container")
        return cast("Container", self._container.get_wrapped_container())

    def _create(self) -> None:
        self._container = self._make()
        self._container.start()
        first, *rest = self._attached
        for network in rest:
            if network not in self._off:
                self._attach(network)
        if first in self._off:
            self._detach(first)

    def _attach(self, network: str) -> None:
        self._network(network).connect(self.id, aliases=list(self._attached[network].aliases))

    def _detach(self, network: str) -> None:
        self._network(network).disconnect(self.id)

    def _network(self, network: str) -> Any:  # noqa: ANN401 - the engine's client has no types
        assert self._container is not None  # noqa: S101 - for the type
        return self._container.get_docker_client().client.networks.get(self._attached[network].network)
