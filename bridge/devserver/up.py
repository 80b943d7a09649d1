"""Both clouds, started from the same configurations as in production and provisioned, with real TLS between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bridge.devserver import monitor
from bridge.devserver.folder import Folder
from bridge.devserver.link import Relay
from bridge.devserver.ports import Ports, is_free
from bridge.devserver.prepare import prepare
from bridge.devserver.process import PortTaken, Server
from bridge.errors import ConfigurationError, TransportError
from bridge.files import read_file, write_file
from bridge.identity import CA_FILE, CONNECTION_FILE, NATS_SEED_FILE, Connection, Identity
from bridge.jetstream import connect
from bridge.policy import Cloud, Policy, Role
from bridge.provision import Report, load_plan, provision
from bridge.render.contexts import FOLDER, ROLES, context_file, context_json

LINK_TIMEOUT_S: Final = 30.0
_PORT_TRIES: Final = 5


@dataclass(slots=True)
class Bridge:
    """Both clouds, running.

    Args:
        policy: What they were made from.
        folder: Where they run.
        servers: A server per cloud, by name.
        ports: Where each listens.
        relay: What the link goes through; None if the leaf dials the hub directly.
    """

    policy: Policy
    folder: Folder
    servers: Mapping[str, Server]
    ports: Mapping[str, Ports]
    relay: Relay | None

    @property
    def hub(self) -> Server:
        """The server that is dialled."""
        return self.servers[self.policy.hub.name]

    @property
    def leaf(self) -> Server:
        """The server that dials out."""
        return self.servers[self.policy.leaf.name]

    def identity(self, name: str) -> Path:
        """An identity folder, ready to be named by ``BUNNY_IDENTITY``."""
        if name not in self.policy.identities:
            raise ConfigurationError(f"{name}: no identity of the policy")
        return self.folder.identity(name)

    async def provision(self, cloud: str, *, dry_run: bool = False) -> Report:
        """Make one cloud's server match its plan, as that cloud's provisioner."""
        names = [e.name for e in self.policy.identities.values() if e.cloud == cloud and e.role is Role.PROVISIONER]
        place = self.identity(names[0])
        seed, connection = Identity.load(place).nkey_seed, Connection.load(place)
        transport = await connect(connection, seed, place / CA_FILE, name=names[0], timeout=LINK_TIMEOUT_S)
        async with transport:
            return await provision(transport, self._plan(cloud), dry_run=dry_run)

    async def until_flowing(self, timeout: float = LINK_TIMEOUT_S) -> None:
        """Wait until the link is up and every stream that copies from the other cloud hears from it.

        Raises:
            TransportError: Not in time.
        """
        await monitor.until(self._linked, timeout, f"the link from {self.leaf.cloud} to {self.hub.cloud}")
        await monitor.until(self._copying, timeout, "results flowing home")

    async def restart(self, cloud: str) -> None:
        """Stop a server if it runs, start it on the same ports and store, and say so in ``ready.json``."""
        await self.servers[cloud].restart()
        self.say_ready()

    async def ended(self) -> None:
        """Wait until a server ends by itself.

        Raises:
            TransportError: One did.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for server in self.servers.values():
                    group.create_task(server.ended(), name=f"{server.cloud} ended")
        except* TransportError as errors:
            raise errors.exceptions[0] from None

    def say_ready(self) -> None:
        """Write ``ready.json``."""
        clouds = {
            name: {
                "pid": server.pid,
                "clients": f"tls://127.0.0.1:{self.ports[name].clients}",
                "monitor": f"http://127.0.0.1:{self.ports[name].monitor}",
                "store": str(self.folder.store(name)),
            }
            for name, server in self.servers.items()
        }
        link = {
            "hub": self.hub.cloud,
            "leaf": self.leaf.cloud,
            "address": f"tls://127.0.0.1:{self._dialled}",
            "relay": self.relay is not None,
        }
        identities = {
            name: str(self.folder.identity(name))
            for name, entry in self.policy.identities.items()
            if entry.role is not Role.LINK
        }
        self.folder.write_ready({"clouds": clouds, "link": link, "identities": identities})

    @property
    def _dialled(self) -> int:
        return self.relay.port if self.relay is not None else self.ports[self.hub.cloud].leafnodes

    async def _linked(self) -> bool:
        return await monitor.links(self.hub.monitor_port) > 0

    async def _copying(self) -> bool:
        for cloud, server in self.servers.items():
            # A former policy's copies stay, and hear nothing any more.
            planned = {stream["name"] for stream in self._plan(cloud)["streams"]}
            if planned & set(await monitor.idle_sources(server.monitor_port)):
                return False
        return True

    def _plan(self, cloud: str) -> Mapping[str, Any]:
        return load_plan(self.folder.rendered / cloud / "plan.json")


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
        relay: Put a `Relay` into the link.
        ports: Ports to use, by cloud; those of the last time, or any free ones, where none are given.
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
            await _provision(bridge)
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
            ports = _choose(policy, folder, asked)
            link = ports[policy.hub.name].leafnodes
            through = await attempt.enter_async_context(Relay(link)) if relay else None
            _point(policy, folder, ports, through.port if through else link)
            servers = {cloud.name: _server(policy, cloud, folder, ports[cloud.name], lock) for cloud in _order(policy)}
            try:
                for server in servers.values():
                    attempt.push_async_callback(server.stop)
                    await server.start()
            except PortTaken as error:
                taken = error
                continue
            write_file(folder.path / "ports.json", json.dumps({c: _fields(p) for c, p in ports.items()}) + "\n")
            await stack.enter_async_context(attempt.pop_all())
            return Bridge(policy, folder, servers, ports, through)
    raise ConfigurationError(f"{taken}; stop what listens there, or ask for other ports")


def _order(policy: Policy) -> tuple[Cloud, Cloud]:
    return policy.hub, policy.leaf


def _choose(policy: Policy, folder: Folder, asked: Mapping[str, Ports]) -> dict[str, Ports]:
    """The ports asked for, else those of the last time if they are free, so that clients find the way back."""
    try:
        last = {name: Ports(**each) for name, each in json.loads((folder.path / "ports.json").read_text()).items()}
    except (OSError, ValueError, TypeError):
        last = {}
    chosen: dict[str, Ports] = {}
    taken = {port for each in asked.values() for port in _fields(each).values()}
    for cloud in _order(policy):
        wanted, before = asked.get(cloud.name, Ports()), last.get(cloud.name, Ports())
        kept = {name: port or _again(getattr(before, name), taken) for name, port in _fields(wanted).items()}
        chosen[cloud.name] = replace(wanted, **kept).filled(taken)
    return chosen


def _again(port: int, taken: set[int]) -> int:
    if port in taken or not port or not is_free(port):
        return 0
    taken.add(port)
    return port


def _fields(ports: Ports) -> dict[str, int]:
    return {"clients": ports.clients, "monitor": ports.monitor, "leafnodes": ports.leafnodes}


def _point(policy: Policy, folder: Folder, ports: Mapping[str, Ports], link: int) -> None:
    """Turn the rendered addresses, which are production's, into those on this machine."""
    write_file(folder.rendered / policy.leaf.name / "link.conf", f'HUB_LEAF_URL: "tls://127.0.0.1:{link}"\n')
    for name, entry in policy.identities.items():
        if entry.role is not Role.LINK:
            rendered = json.loads(read_file(folder.rendered / entry.cloud / "connections" / f"{name}.yaml"))
            rendered["server"] = f"tls://127.0.0.1:{ports[entry.cloud].clients}"
            write_file(folder.identity(name) / CONNECTION_FILE, json.dumps(rendered, indent=2) + "\n")
    _contexts(policy, folder, ports)


def _contexts(policy: Policy, folder: Folder, ports: Mapping[str, Ports]) -> None:
    """Have the ``nats`` CLI find both clouds where ``XDG_CONFIG_HOME`` names the folder."""
    shutil.rmtree(folder.path / FOLDER, ignore_errors=True)  # those of a former policy
    for name, entry in policy.identities.items():
        if entry.role in ROLES:
            place, server = folder.identity(name), f"tls://127.0.0.1:{ports[entry.cloud].clients}"
            if not (place / NATS_SEED_FILE).exists():  # keys made by a release that did not write it
                write_file(place / NATS_SEED_FILE, f"{Identity.load(place).nkey_seed}\n", private=True)
            write_file(folder.path / context_file(policy, entry), context_json(policy, entry, str(place), server))


def _server(policy: Policy, cloud: Cloud, folder: Folder, ports: Ports, lock: int) -> Server:
    prefix, here = cloud.role.upper(), folder.pki / cloud.name
    variables: dict[str, str] = {
        f"{prefix}_NAME": f"{policy.bridge}-{cloud.name}",
        f"{prefix}_CLIENTS": f"127.0.0.1:{ports.clients}",
        f"{prefix}_MONITOR": f"127.0.0.1:{ports.monitor}",
        f"{prefix}_CLIENT_CERT": str(here / "clients.pem"),
        f"{prefix}_CLIENT_KEY": str(here / "clients.key"),
        f"{prefix}_STORE": str(folder.store(cloud.name)),
    }
    if cloud.role == "hub":
        variables |= {
            "HUB_LEAFNODES": f"127.0.0.1:{ports.leafnodes}",
            "HUB_LEAF_CERT": str(here / "leafnodes.pem"),
            "HUB_LEAF_KEY": str(here / "leafnodes.key"),
            "LEAF_LINK_CA": str(folder.pki / policy.leaf.name / "ca.pem"),
        }
    else:
        variables |= {
            "LEAF_LINK_CERT": str(here / "link.pem"),
            "LEAF_LINK_KEY": str(here / "link.key"),
            "HUB_LINK_CA": str(folder.pki / policy.hub.name / "ca.pem"),
        }
    return Server(
        cloud.name,
        folder.rendered / cloud.name / f"{cloud.role}.conf",
        variables,
        monitor_port=ports.monitor,
        log=folder.log(cloud.name),
        keep_open=(lock,),
    )


async def _provision(bridge: Bridge) -> None:
    reports = await asyncio.gather(*(bridge.provision(cloud) for cloud in bridge.servers))
    refusals = [line for report in reports for line in report.refusals]
    if refusals:
        more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
        raise ConfigurationError(f"{refusals[0]}{more}; nothing was changed")
