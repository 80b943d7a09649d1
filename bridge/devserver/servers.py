"""The servers of both clouds: their names, their ports, and what their configurations' variables stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePath

from bridge.devserver.folder import Folder
from bridge.devserver.ports import Ports, is_free
from bridge.files import write_file
from bridge.policy import Cloud, Policy


def server_names(cloud: Cloud) -> list[str]:
    """A single server has its cloud's name; those of a cluster end in a number, after a dot that no cloud can have."""
    return [cloud.name] if cloud.servers == 1 else [f"{cloud.name}.{n + 1}" for n in range(cloud.servers)]


def servers_of(policy: Policy) -> dict[str, Cloud]:
    """The cloud of each server by the server's name, the hub's first."""
    return {name: cloud for cloud in (policy.hub, policy.leaf) for name in server_names(cloud)}


def variables(
    policy: Policy, cloud: Cloud, name: str, *, host: str, ports: Ports, pki: PurePath, store: PurePath
) -> dict[str, str]:
    """What the ``$NAMES`` of a server's configuration stand for.

    Args:
        policy: The policy.
        cloud: The server's cloud.
        name: The server's name.
        host: The address to listen on. The monitor, which has no authentication, is on loopback whatever it is.
        ports: Where it listens.
        pki: The folder of both clouds' certificates, as the server sees it.
        store: The folder of its streams, as the server sees it.
    """
    prefix, here = cloud.role.upper(), pki / cloud.name
    found = {
        "NAME": f"{policy.bridge}-{name.replace('.', '-')}",
        "CLIENTS": f"{host}:{ports.clients}",
        "MONITOR": f"127.0.0.1:{ports.monitor}",
        "CLIENT_CERT": f"{here / 'clients.pem'}",
        "CLIENT_KEY": f"{here / 'clients.key'}",
        "STORE": f"{store}",
    }
    if cloud.servers > 1:
        found |= {
            "ROUTES": f"{host}:{ports.routes}",
            "CLUSTER_CERT": f"{here / 'cluster.pem'}",
            "CLUSTER_KEY": f"{here / 'cluster.key'}",
            "CLUSTER_CA": f"{here / 'ca.pem'}",
        }
    named = {f"{prefix}_{key}": value for key, value in found.items()}
    if cloud.role == "hub":
        return named | {
            "HUB_LEAFNODES": f"{host}:{ports.leafnodes}",
            "HUB_LEAF_CERT": f"{here / 'leafnodes.pem'}",
            "HUB_LEAF_KEY": f"{here / 'leafnodes.key'}",
            "LEAF_LINK_CA": f"{pki / policy.leaf.name / 'ca.pem'}",
        }
    return named | {
        "LEAF_LINK_CERT": f"{here / 'link.pem'}",
        "LEAF_LINK_KEY": f"{here / 'link.key'}",
        "HUB_LINK_CA": f"{pki / policy.hub.name / 'ca.pem'}",
    }


def quoted(value: str) -> str:
    """A variable's value as a server's environment must hold it.

    The server parses it as configuration: unquoted, an address or a path may be read as a number.
    """
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def choose_ports(policy: Policy, folder: Folder, asked: Mapping[str, Ports]) -> dict[str, Ports]:
    """The ports of each server: those asked for, else those of the last time if they are free, else any.

    A client that knows the old ones finds its way back.
    """
    last, taken = _last(folder), {port for each in asked.values() for port in asdict(each).values()}
    chosen: dict[str, Ports] = {}
    for name in servers_of(policy):
        wanted, before = asked.get(name, Ports()), last.get(name, Ports())
        kept = {key: port or _again(getattr(before, key), taken) for key, port in asdict(wanted).items()}
        chosen[name] = replace(wanted, **kept).filled(taken)
    return chosen


def keep_ports(folder: Folder, ports: Mapping[str, Ports]) -> None:
    """Remember them for the next time."""
    write_file(_file(folder), json.dumps({name: asdict(each) for name, each in ports.items()}) + "\n")


def _last(folder: Folder) -> dict[str, Ports]:
    try:
        return {name: Ports(**each) for name, each in json.loads(_file(folder).read_text()).items()}
    except (OSError, ValueError, TypeError):
        return {}


def _again(port: int, taken: set[int]) -> int:
    if port in taken or not port or not is_free(port):
        return 0
    taken.add(port)
    return port


def _file(folder: Folder) -> Path:
    return folder.path / "ports.json"
