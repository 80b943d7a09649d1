"""The streams of both clouds, made as each cloud's own provisioner makes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

from bridge.devserver.folder import Folder
from bridge.errors import ConfigurationError
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import JetStreamTransport, connect
from bridge.policy import Policy, Role
from bridge.provision import Report, compare, load_plan, provision

CONNECT_TIMEOUT_S: Final = 30.0


async def provision_all(policy: Policy, folder: Folder) -> None:
    """Make both clouds' servers match their plans; nothing is changed in either if one would have to refuse.

    Raises:
        ConfigurationError: The streams cannot be changed to what the policy says.
        TransportError: A server could not be reached in time.
    """
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for cloud in policy.clouds:
            servers.append(await stack.enter_async_context(await _provisioner(policy, folder, cloud)))
        plans = [_plan(folder, cloud) for cloud in policy.clouds]
        found = await asyncio.gather(*map(compare, servers, plans))
        refusals = [line for each in found for line in each.report.refusals]
        if refusals:
            more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
            raise ConfigurationError(f"{refusals[0]}{more}; nothing was changed")
        await asyncio.gather(*(each.make_originals() for each in found))
        await asyncio.gather(*(each.make_copies() for each in found))


async def provision_cloud(policy: Policy, folder: Folder, cloud: str, *, dry_run: bool = False) -> Report:
    """Make one cloud's servers match its plan."""
    async with await _provisioner(policy, folder, cloud) as transport:
        return await provision(transport, _plan(folder, cloud), dry_run=dry_run)


async def _provisioner(policy: Policy, folder: Folder, cloud: str) -> JetStreamTransport:
    names = [e.name for e in policy.accepted.values() if e.cloud == cloud and e.role is Role.PROVISIONER]
    place = folder.identity(names[0])
    seed, connection = Identity.load(place).nkey_seed, Connection.load(place)
    return await connect(connection, seed, place / CA_FILE, name=names[0], timeout=CONNECT_TIMEOUT_S)


def copied_streams(folder: Folder, cloud: str) -> set[str]:
    """The streams of a cloud that the policy has copied from the other; those of a former policy hear nothing."""
    return {stream["name"] for stream in _plan(folder, cloud)["streams"] if stream.get("sources")}


def _plan(folder: Folder, cloud: str) -> Mapping[str, Any]:
    return load_plan(folder.rendered / cloud / "plan.json")
