"""Both clouds, started from the same configurations as in production and provisioned, with real TLS between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bridge.devserver import monitor
from bridge.devserver.assets import copied_streams, provision_all, provision_cloud
from bridge.devserver.folder import Folder
from bridge.devserver.link import Relay
from bridge.devserver.ports import Ports
from bridge.devserver.prepare import prepare
from bridge.devserver.process import PortTaken, Server
from bridge.devserver.servers import choose_ports, keep_ports, server_names, servers_of, variables
from bridge.errors import ConfigurationError, TransportError
from bridge.files import read_file, write_file
from bridge.identity import CONNECTION_FILE, NATS_SEED_FILE, Identity
from bridge.policy import Cloud, Policy, Role
from bridge.provision import Report
from bridge.render.contexts import FOLDER, ROLES, context_file, context_json
from bridge.render.servers import cluster_conf, link_conf

LINK_TIMEOUT_S: Final = 30.0
RELOADS: Final = 2
"""SIGHUPs until an account that is new can use what it imports: nats-server 2.15.1 listens for it in the second."""
_PORT_TRIES: Final = 5
_HERE: Final = "127.0.0.1"


@dataclass(slots=True)
class Bridge:
    """Both clouds, running.

    Args:
        policy: What they were made from.
        folder: Where they run.
        servers: The servers by name: a single one has its cloud's, those of a cluster are ``<cloud>.<n>``.
        ports: Where each listens.
        relays: What the link goes through, for each server of the hub; empty if the leaf dials it directly.
    """

    policy: Policy
    folder: Folder
    servers: Mapping[str, Server]
    ports: Mapping[str, Ports]
    relays: tuple[Relay, ...]

    @property
    def relay(self) -> Relay | None:
        """What the link goes through, of a hub that is a single server."""
        return self.relays[0] if self.relays else None

    @property
    def hub(self) -> Server:
        """The server that is dialled; the first of a cluster."""
        return self.of(self.policy.hub.name)[0]

    @property
    def leaf(self) -> Server:
        """The server that dials out; the first of a cluster."""
        return self.of(self.policy.leaf.name)[0]

    def of(self, cloud: str) -> tuple[Server, ...]:
        """The servers of a cloud."""
        return tuple(self.servers[name] for name in server_names(self.policy.clouds[cloud]))

    def identity(self, name: str) -> Path:
        """An identity folder, ready to be named by ``BUNNY_IDENTITY``."""
        if name not in self.policy.identities:
            raise ConfigurationError(f"{name}: no identity of the policy")
        return self.folder.identity(name)

    async def provision(self, cloud: str, *, dry_run: bool = False) -> Report:
        """Make one cloud's server match its plan, as that cloud's provisioner."""
        return await provision_cloud(self.policy, self.folder, cloud, dry_run=dry_run)

    async def until_flowing(self, timeout: float = LINK_TIMEOUT_S) -> None:
        """Wait until every leaf server has its link and every stream that copies from the other cloud hears from it.

        Of a cluster, servers that were stopped are not waited for.

        Args:
            timeout: Seconds for the link, and then for the next stream: while some come, the rest are waited for.

        Raises:
            ConfigurationError: The link is revoked: nothing will flow.
            TransportError: Not in time.
        """
        if not any(entry.role is Role.LINK for entry in self.policy.accepted.values()):
            raise ConfigurationError(
                "the link is revoked, so nothing crosses it; move its identity folder away, so that it "
                "gets new keys, and take its name out of `revoked` in bridge.yaml"
            )
        await monitor.until(self._linked, timeout, f"the link from {self.policy.leaf.name} to {self.policy.hub.name}")
        await monitor.until_none_is_missing(self._silent, timeout, "results flowing home")

    async def take_up(self, policy: Policy) -> None:
        """Change the policy of servers that run, in the order and with the signals of ``docs/deploy.md``.

        Raises:
            ConfigurationError: A server refused its configuration, or the streams cannot be changed to it.
            TransportError: A server does not run, or jobs cannot flow in time.
        """
        prepare(policy, self.folder)
        _point(policy, self.folder, self.ports, self._dialled)
        self.policy = policy
        # The hub first: what may cross is its word when the leaf's reload dials anew.
        for cloud in (policy.hub, policy.leaf):
            for server in self.of(cloud.name):
                server.queues = len(policy.queues)
                for _ in range(RELOADS):
                    await server.reload()
        await provision_all(policy, self.folder)
        await self.until_flowing()
        if self.folder.ready.exists():
            self.say_ready()

    async def restart(self, server: str) -> None:
        """Stop a server if it runs, start it on the same ports and store, and say so in ``ready.json``."""
        await self.servers[server].restart()
        self.say_ready()

    async def ended(self) -> None:
        """Wait until a server ends by itself.

        Raises:
            TransportError: One did.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for server in self.servers.values():
                    group.create_task(server.ended(), name=f"{server.name} ended")
        except* TransportError as errors:
            raise errors.exceptions[0] from None

    def say_ready(self) -> None:
        """Write ``ready.json``."""
        clouds = {name: self._cloud(name) for name in (self.policy.hub.name, self.policy.leaf.name)}
        link = {
            "hub": self.policy.hub.name,
            "leaf": self.policy.leaf.name,
            "address": ",".join(_addresses(self._dialled)),
            "relay": bool(self.relays),
        }
        identities = {
            name: str(self.folder.identity(name))
            for name, entry in self.policy.accepted.items()
            if entry.role is not Role.LINK
        }
        self.folder.write_ready({"clouds": clouds, "link": link, "identities": identities})

    def _cloud(self, cloud: str) -> dict[str, Any]:
        """What ``ready.json`` says of a cloud: one server or, beside the addresses of them all, the first of three."""
        servers = [
            {
                "pid": server.pid,
                "clients": f"tls://{_HERE}:{self.ports[server.name].clients}",
                "monitor": f"http://{_HERE}:{server.monitor_port}",
                "store": str(self.folder.store(server.name)),
            }
            for server in self.of(cloud)
        ]
        if len(servers) == 1:
            return servers[0]
        return servers[0] | {"clients": ",".join(str(each["clients"]) for each in servers), "servers": servers}

    @property
    def _dialled(self) -> list[int]:
        relayed = [relay.port for relay in self.relays]
        return relayed or [self.ports[server.name].leafnodes for server in self.of(self.policy.hub.name)]

    def _running(self, cloud: str) -> list[int]:
        return [server.monitor_port for server in self.of(cloud) if server.pid is not None]

    async def _linked(self) -> bool:
        links = [await monitor.links(port) for port in self._running(self.policy.hub.name)]
        return sum(links) >= max(1, len(self._running(self.policy.leaf.name)))

    async def _silent(self) -> list[str]:
        """Streams that copy from the other cloud and hear nothing."""
        silent = []
        for cloud in self.policy.clouds:
            # A former policy's copies stay, and hear nothing any more.
            planned = copied_streams(self.folder, cloud)
            found = [await monitor.copies(port) for port in self._running(cloud)]
            silent += [name for name in sorted(planned) if not any(copies.get(name) for copies in found)]
        return silent


@contextlib.asynccontextmanager
async def running(
    policy: Policy,
    path: Path,
    *,
    relay: bool = False,
    ports: Mapping[str, Ports] | None = None,
    provisioned: bool = True,
) -> AsyncIterator[Bridge]:
    """Run both clouds in a folder until the block ends.

    Args:
        policy: The policy; what the folder lacks for it is made, what differs is made anew (`prepare`).
        path: The folder. One process at a time may use it.
        relay: Put a `Relay` into the link, before each server of the hub.
        ports: Ports to use, by server; those of the last time, or any free ones, where none are given.
        provisioned: Make the streams, wait until jobs can flow, and write ``ready.json``. Without it, none of that.

    Raises:
        ConfigurationError: The folder is in use, a port asked for is taken, nats-server is missing, or the streams
            cannot be changed to what the policy says.
        TransportError: A server or the link did not come up in time.
    """
    folder = Folder.at(path)
    async with contextlib.AsyncExitStack() as stack:
        lock = await stack.enter_async_context(folder.held())
        folder.ready.unlink(missing_ok=True)
        stack.callback(folder.ready.unlink, missing_ok=True)
        prepare(policy, folder)
        bridge = await _start(policy, folder, lock, relay, ports or {}, stack)
        if provisioned:
            await provision_all(policy, folder)
            await bridge.until_flowing()
            bridge.say_ready()
        yield bridge


async def _start(
    policy: Policy,
    folder: Folder,
    lock: int,
    relay: bool,
    asked: Mapping[str, Ports],
    stack: contextlib.AsyncExitStack,
) -> Bridge:
    """Start the servers, the hub first; on other ports if one that was not asked for has just been taken."""
    for _ in range(_PORT_TRIES):
        async with contextlib.AsyncExitStack() as attempt:
            ports = choose_ports(policy, folder, asked)
            links = [ports[name].leafnodes for name in server_names(policy.hub)]
            relays = [await attempt.enter_async_context(Relay(link)) for link in links] if relay else []
            _point(policy, folder, ports, [each.port for each in relays] or links)
            servers = {
                name: _server(policy, cloud, name, folder, ports[name], lock)
                for name, cloud in servers_of(policy).items()
            }
            bridge = Bridge(policy, folder, servers, ports, tuple(relays))
            try:
                for cloud in (policy.hub, policy.leaf):
                    await _start_cloud(bridge.of(cloud.name), attempt)
            except PortTaken as error:
                taken = error
                continue
            keep_ports(folder, ports)
            await stack.enter_async_context(attempt.pop_all())
            return bridge
    raise ConfigurationError(f"{taken}; stop what listens there, or ask for other ports")


async def _start_cloud(servers: tuple[Server, ...], stack: contextlib.AsyncExitStack) -> None:
    """Start the servers of a cloud, at once: none of a cluster is healthy before another has joined it.

    Raises:
        TransportError: Of the first that did not start, once the others have.
    """

    async def stop() -> None:
        await asyncio.gather(*(server.stop() for server in servers))

    stack.push_async_callback(stop)
    for ended in await asyncio.gather(*(server.start() for server in servers), return_exceptions=True):
        if ended is not None:
            raise ended
    if len(servers) > 1:
        for server in servers:
            await monitor.until(partial(monitor.led, server.monitor_port), LINK_TIMEOUT_S, f"{server.name}: a leader")


def _point(policy: Policy, folder: Folder, ports: Mapping[str, Ports], links: Sequence[int]) -> None:
    """Turn the rendered addresses, which are production's, into those on this machine."""
    write_file(folder.rendered / policy.leaf.name / "link.conf", link_conf(policy, _addresses(links)))
    for cloud in policy.clouds.values():
        # By name: that is what the servers of a cluster look for in each other's certificates.
        routes = [f"tls://localhost:{ports[name].routes}" for name in server_names(cloud)]
        write_file(folder.rendered / cloud.name / "cluster.conf", cluster_conf(policy, cloud, routes))
    for name, entry in policy.accepted.items():
        if entry.role is not Role.LINK:
            rendered = json.loads(read_file(folder.rendered / entry.cloud / "connections" / f"{name}.yaml"))
            rendered["server"] = _clients(policy, entry.cloud, ports)
            write_file(folder.identity(name) / CONNECTION_FILE, json.dumps(rendered, indent=2) + "\n")
    _contexts(policy, folder, ports)


def _contexts(policy: Policy, folder: Folder, ports: Mapping[str, Ports]) -> None:
    """Have the ``nats`` CLI find both clouds where ``XDG_CONFIG_HOME`` names the folder."""
    shutil.rmtree(folder.path / FOLDER, ignore_errors=True)  # those of a former policy
    for name, entry in policy.accepted.items():
        if entry.role in ROLES:
            place, server = folder.identity(name), _clients(policy, entry.cloud, ports)
            if not (place / NATS_SEED_FILE).exists():  # keys made by a release that did not write it
                write_file(place / NATS_SEED_FILE, f"{Identity.load(place).nkey_seed}\n", private=True)
            write_file(folder.path / context_file(policy, entry), context_json(policy, entry, str(place), server))


def _clients(policy: Policy, cloud: str, ports: Mapping[str, Ports]) -> str:
    return ",".join(_addresses(ports[name].clients for name in server_names(policy.clouds[cloud])))


def _addresses(ports: Iterable[int]) -> list[str]:
    return [f"tls://{_HERE}:{port}" for port in ports]


def _server(policy: Policy, cloud: Cloud, name: str, folder: Folder, ports: Ports, lock: int) -> Server:
    return Server(
        name,
        folder.rendered / cloud.name / f"{cloud.role}.conf",
        variables(policy, cloud, name, host=_HERE, ports=ports, pki=folder.pki, store=folder.store(name)),
        monitor_port=ports.monitor,
        log=folder.log(name),
        queues=len(policy.queues),
        keep_open=(lock,),
    )
