"""``accounts.conf``: the accounts of a cloud's servers, their users, and what passes between them. No I/O.

Three accounts: the cloud's own holds the streams and the services' users; ``BRIDGE`` owns nothing, and the link
binds to it; ``SYS`` has no users. What crosses is exported to and imported from ``BRIDGE`` by name, on both
sides, and repeated as the permissions of the hub's leaf user: any one of the lists is enough to stop a subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bridge.identity import PublicIdentity
from bridge.policy import Cloud, Policy, Role
from bridge.render.conf import Noted, Value, write
from bridge.render.crossings import Crossing, crossings
from bridge.render.permissions import Permissions, link_permissions, permissions

LINK_ACCOUNT: Final = "BRIDGE"

PULL_THRESHOLD: Final = "5m"
"""Longer than any pull waits: a service that forgets a request earlier loses the job until its ack wait is over."""


def accounts_conf(policy: Policy, keys: Mapping[str, PublicIdentity], cloud: Cloud) -> str:
    """The text of ``accounts.conf`` for the servers of one cloud."""
    crossing = crossings(policy)
    accounts: dict[str, Value] = {
        "SYS": {},
        cloud.account: {
            "jetstream": "enabled",
            "users": _users(policy, keys, cloud),
            "exports": [_export(c, c.local, LINK_ACCOUNT) for c in crossing if c.owner == cloud.name],
            "imports": [_import(c, c.remote, LINK_ACCOUNT) for c in crossing if c.owner != cloud.name],
        },
        LINK_ACCOUNT: {
            "users": _link_users(policy, keys, cloud, crossing),
            "exports": [_export(c, c.remote, cloud.account) for c in crossing if c.owner != cloud.name],
            "imports": [_import(c, c.local, cloud.account) for c in crossing if c.owner == cloud.name],
        },
    }
    notes = [
        f"{policy.bridge}: accounts of the servers in {cloud.name}. Rendered from the policy: change that instead.",
        "Public keys only. Whatever is not allowed here is denied.",
    ]
    return write({"accounts": accounts}, notes)


def _users(policy: Policy, keys: Mapping[str, PublicIdentity], cloud: Cloud) -> list[Value]:
    users: list[Value] = []
    for name in sorted(policy.identities):
        identity = policy.identities[name]
        if identity.cloud == cloud.name and identity.role is not Role.LINK:
            user = _user(keys[name].nkey, "STANDARD", permissions(policy, identity))
            users.append(Noted(f"{name}: {identity.role}", user))
    return users


def _link_users(
    policy: Policy, keys: Mapping[str, PublicIdentity], cloud: Cloud, crossing: tuple[Crossing, ...]
) -> list[Value]:
    if cloud != policy.hub:
        return []
    return [
        Noted(
            f"{name}: the link from {identity.cloud}; publish is what comes from there, subscribe what goes there",
            _user(keys[name].nkey, "LEAFNODE", link_permissions(policy, crossing)),
        )
        for name, identity in sorted(policy.identities.items())
        if identity.role is Role.LINK
    ]


def _user(nkey: str, connection: str, allowed: Permissions) -> Value:
    return {
        "nkey": nkey,
        "allowed_connection_types": [connection],
        "permissions": {"publish": _only(allowed.publish), "subscribe": _only(allowed.subscribe)},
    }


def _only(subjects: tuple[str, ...]) -> Value:
    # An empty list of what is allowed would allow everything.
    return {"allow": list(subjects)} if subjects else {"deny": [">"]}


def _export(crossing: Crossing, subject: str, account: str) -> Value:
    entry: dict[str, Value] = {crossing.kind: subject}
    if crossing.responses:
        entry |= {"response": "stream", "threshold": PULL_THRESHOLD}
    return entry | {"accounts": [account]}


def _import(crossing: Crossing, subject: str, account: str) -> Value:
    return {crossing.kind: {"account": account, "subject": subject}}
