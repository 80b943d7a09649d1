"""Both clouds as containers on networks of their own, with mutual TLS between them: what only separate hosts show.

It needs the extra ``containers`` (testcontainers) and a container engine on this machine. The servers are reached
from the test through ports on loopback, and reach each other on the network ``link`` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from bridge import pki
from bridge.devserver import Folder, Ports, monitor, prepare
from bridge.devserver.assets import copied_streams, provision_all
from bridge.devserver.ports import free_port
from bridge.devserver.servers import quoted, server_names, servers_of, variables
from bridge.errors import ConfigurationError
from bridge.files import read_file, write_file
from bridge.identity import CONNECTION_FILE
from bridge.policy import Cloud, Policy, Role
from bridge.testing.container import MONITOR_PORT, Attached, ServerContainer
from bridge.testing.folders import FLOWING_TIMEOUT_S, FolderRig, given_or_temporary
from bridge.testing.rig import known, read_policy

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

NATS_IMAGE: Final = "nats:2.15.1-alpine"
"""The official image; ``BUNNY_NATS_IMAGE`` names another, or the parameter ``image``."""

LINK: Final = "link"
_ETC: Final = PurePosixPath("/etc/bunny")
_STORE: Final = PurePosixPath("/store")
_PUBLISHED: Final = range(16_000, 20_000)
"""Ports of this machine: none that a server outside may choose in the seconds that a container takes to start."""


class ContainersRig(FolderRig):
    """Both clouds as containers.

    Args:
        policy: What they were made from.
        folder: Where everyone's keys are.
        servers: The servers by name: a single one has its cloud's, those of a cluster are ``<cloud>.<n>``.
        networks: The engine's name of each network: those of the clouds, and ``link``.
    """

    def __init__(
        self, policy: Policy, folder: Folder, servers: Mapping[str, ServerContainer], networks: Mapping[str, str]
    ) -> None:
        super().__init__(policy)
        self.folder, self.servers, self.networks = folder, servers, networks

    def of(self, cloud: str) -> tuple[ServerContainer, ...]:
        """The servers of a cloud."""
        return tuple(self.servers[name] for name in server_names(self.policy.clouds[cloud]))

    def identity(self, name: str) -> Path:
        """See `FolderRig.identity`."""
        return self.folder.identity(known(self.policy, name))

    async def cut_link(self) -> None:
        """See `Rig.cut_link`: every server of the leaf is taken off the network that it shares with the hub's."""
        for server in self.of(self.policy.leaf.name):
            await server.disconnect(LINK)

    async def heal_link(self) -> None:
        """See `Rig.heal_link`."""
        for server in self.of(self.policy.leaf.name):
            await server.connect(LINK)

    async def until_flowing(self, timeout: float = FLOWING_TIMEOUT_S) -> None:
        """See `FolderRig.until_flowing`. Of a cluster, servers that do not run are not waited for."""
        await monitor.until(self._linked, timeout, f"the link from {self.policy.leaf.name} to {self.policy.hub.name}")
        await monitor.until(self._copying, timeout, "results flowing home")

    async def _pages(self, cloud: str, page: str) -> list[Any]:
        running = [server for server in self.of(cloud) if await server.running()]
        return list(await asyncio.gather(*(server.ask(page) for server in running)))

    async def _linked(self) -> bool:
        ends = {cloud: await self._pages(cloud, "/leafz") for cloud in self.policy.clouds}
        hub, leaf = ends[self.policy.hub.name], ends[self.policy.leaf.name]
        return sum(int(each["leafnodes"]) for each in hub) >= len(leaf) > 0 and all(each["leafnodes"] for each in leaf)

    async def _copying(self) -> bool:
        for cloud in self.policy.clouds:
            found = [monitor.read_copies(body) for body in await self._pages(cloud, monitor.COPIES)]
            if not all(any(copies.get(name) for copies in found) for name in copied_streams(self.folder, cloud)):
                return False
        return True


@contextlib.asynccontextmanager
async def containers_bridge(
    policy: Policy | Path | str = "bridge.yaml", *, folder: Path | None = None, image: str | None = None
) -> AsyncIterator[ContainersRig]:
    """Both clouds as containers, until the block ends. It needs ``bunny-bridge[containers]`` and an engine.

    Each cloud has a network of its own. Servers have the names, there and on the network ``link``, that the policy
    gives them, so the rendered configuration is used as it is.

    Args:
        policy: The policy, or its file.
        folder: Where keys are kept; a temporary folder if it is not given.
        image: Of the servers; `NATS_IMAGE`, or what ``BUNNY_NATS_IMAGE`` names, if it is not given.

    Raises:
        PolicyError: The policy is wrong.
        ConfigurationError: testcontainers is not installed, or no engine answers.
        TransportError: A server or the link did not come up in time.
    """
    _check_engine()
    values = read_policy(policy)
    with given_or_temporary(folder) as place:
        at = Folder.at(place)
        at.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        prepare(values, at, hosts=pki.DEVELOPMENT_HOSTS)
        taken: set[int] = set()
        published = {name: free_port(taken, _PUBLISHED) for name in servers_of(values)}
        _point(values, at, published)
        async with _networks(values) as networks, contextlib.AsyncExitStack() as stack:
            servers = {
                name: _server(values, cloud, name, at, image or _image(), published[name], networks, stack)
                for name, cloud in servers_of(values).items()
            }
            for cloud in (values.hub, values.leaf):
                await _start([servers[name] for name in server_names(cloud)])
            rig = ContainersRig(values, at, servers, {name: each.name for name, each in networks.items()})
            await provision_all(values, at)
            await rig.until_flowing()
            yield rig


def _check_engine() -> None:
    try:
        from testcontainers.core.docker_client import DockerClient
    except ImportError:
        raise ConfigurationError("testcontainers: not installed; run `pip install bunny-bridge[containers]`") from None
    from docker.errors import DockerException

    try:
        DockerClient().client.ping()
    except (DockerException, OSError):
        raise ConfigurationError("no container engine answers; start one, or let DOCKER_HOST name it") from None


def _image() -> str:
    return os.environ.get("BUNNY_NATS_IMAGE") or NATS_IMAGE


@contextlib.asynccontextmanager
async def _networks(policy: Policy) -> AsyncIterator[dict[str, Network]]:
    from testcontainers.core.network import Network

    made: dict[str, Network] = {}
    try:
        for name in policy.clouds:
            made[name] = await asyncio.to_thread(Network().create)
        # Nothing outside is reached from it; the clouds' own networks publish the ports that the test dials.
        made[LINK] = await asyncio.to_thread(Network(docker_network_kw={"internal": True}).create)
        yield made
    finally:
        for network in made.values():
            await asyncio.to_thread(network.remove)


def _server(
    policy: Policy,
    cloud: Cloud,
    name: str,
    folder: Folder,
    image: str,
    port: int,
    networks: Mapping[str, Network],
    stack: contextlib.AsyncExitStack,
) -> ServerContainer:
    n = server_names(cloud).index(name)
    clients, link, route = (_nth(each, n) for each in (cloud.clients, cloud.leafnodes, ",".join(cloud.routes)))
    listens = Ports(clients=_port(clients), monitor=MONITOR_PORT, leafnodes=_port(link), routes=_port(route))
    environment = variables(policy, cloud, name, host="0.0.0.0", ports=listens, pki=_ETC / "pki", store=_STORE)  # noqa: S104 - in a container
    volume = f"bunny-{secrets.token_hex(8)}"
    here, there = tuple(filter(None, {_host(clients): 0, _host(route): 0})), tuple(filter(None, [_host(link)]))

    def make() -> DockerContainer:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(image).with_command(["-c", str(_ETC / "server.conf")])
        container.with_envs(**{key: quoted(value) for key, value in environment.items()})
        container.with_network(networks[cloud.name]).with_network_aliases(*here)
        container.with_volume_mapping(volume, str(_STORE), "rw")
        # A port of this machine's loopback, and always the same: clients find a container that was started again.
        ports: dict[str, Any] = container.ports
        ports[f"{listens.clients}/tcp"] = ("127.0.0.1", port)
        for path, content in _files(policy, cloud, folder).items():
            # Whoever the image runs as must read them. They are keys of this test alone.
            container.with_copy_into_container(content, str(_ETC / path), 0o444)
        return container

    attached = {cloud.name: Attached(networks[cloud.name].name, here), LINK: Attached(networks[LINK].name, there)}
    server = ServerContainer(name, make, attached)

    async def clean() -> None:
        await server.remove()
        await asyncio.to_thread(_remove_volume, volume)

    stack.push_async_callback(clean)
    return server


async def _start(servers: list[ServerContainer]) -> None:
    """At once: none of a cluster is healthy before another has joined it."""
    await asyncio.gather(*(server.create() for server in servers))
    await asyncio.gather(*(server.until_healthy() for server in servers))
    if len(servers) > 1:

        async def led() -> bool:
            pages = await asyncio.gather(*(server.ask("/jsz") for server in servers))
            return all(page.get("meta_cluster", {}).get("leader") for page in pages)

        await monitor.until(led, FLOWING_TIMEOUT_S, f"{servers[0].name}: a leader of the cluster")


def _remove_volume(name: str) -> None:
    from docker.errors import NotFound
    from testcontainers.core.docker_client import DockerClient

    with contextlib.suppress(NotFound):
        DockerClient().client.volumes.get(name).remove()


def _files(policy: Policy, cloud: Cloud, folder: Folder) -> dict[str, bytes]:
    """What a server reads, by its path in the container."""
    other = policy.leaf if cloud == policy.hub else policy.hub
    rendered = folder.rendered / cloud.name
    files = {"server.conf": rendered / f"{cloud.role}.conf"}
    files |= {path.name: path for path in rendered.glob("*.conf") if path != files["server.conf"]}
    files |= {
        f"pki/{path.parent.name}/{path.name}": path
        for path in [*(folder.pki / cloud.name).iterdir(), folder.pki / other.name / "ca.pem"]
        if path.name not in ("root.key", "ca.key")
    }
    return {path: file.read_bytes() for path, file in files.items()}


def _point(policy: Policy, folder: Folder, published: Mapping[str, int]) -> None:
    """Let everyone's connection dial the published ports; the servers keep to the policy's addresses."""
    for name, entry in policy.identities.items():
        if entry.role is not Role.LINK:
            rendered = json.loads(read_file(folder.rendered / entry.cloud / "connections" / f"{name}.yaml"))
            names = server_names(policy.clouds[entry.cloud])
            rendered["server"] = ",".join(f"tls://127.0.0.1:{published[server]}" for server in names)
            write_file(folder.identity(name) / CONNECTION_FILE, json.dumps(rendered, indent=2) + "\n")


def _nth(addresses: str | None, n: int) -> str:
    """A server's own address; one that stands alone is for all of them, as a service's name is."""
    found = (addresses or "").split(",")
    return found[n] if n < len(found) else found[-1]


def _host(address: str) -> str:
    return (urlsplit(address).hostname or "").rstrip(".")


def _port(address: str) -> int:
    return urlsplit(address).port or 0
