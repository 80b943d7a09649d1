"""``accounts.conf``: the accounts of a cloud's servers, their users, and what passes between them. No I/O.

- The cloud's own account (``RELAY`` in the hub, ``BUNNY`` in the leaf) holds the streams and has no users.
- Every identity has an account of its own, into which what it may do is imported by name; why is told in
  `bridge.render.permissions`.
- ``BRIDGE`` owns nothing, and the link binds to it. What crosses is exported to and imported from it by name, on
  both sides, and repeated as the permissions of the hub's leaf user: any one of the lists stops a subject.
- ``SYS``, the servers' own account, has no users. What a system identity may ask is imported from it by name.

An identity's account has the identity's name: names are lower-case, and those of the other accounts are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from bridge.identity import PublicIdentity
from bridge.policy import Cloud, IdentityEntry, Policy, Role
from bridge.render.conf import Noted, Value, write
from bridge.render.crossings import Crossing, crossings
from bridge.render.permissions import Grant, Permissions, grants, link_permissions, permissions
from bridge.subjects import inbox_prefix

LINK_ACCOUNT: Final = "BRIDGE"
SYSTEM_ACCOUNT: Final = "SYS"

PULL_THRESHOLD: Final = "5m"
"""Longer than any pull waits: a service that forgets a request earlier loses the job until its ack wait is over."""

HUB_PAYLOAD: Final = 1_048_576 - 64 * 1024
"""Bytes of one message of a hub's client: 64 KiB below the ``max_payload`` of ``nats/leaf.conf``, since imports add a
header, and a leaf closes the link for one that is too large."""

CLOSER_NAME: Final = "bunny-revoke"
CLOSER: Final = Permissions(("$SYS.REQ.SERVER.*.KICK",), (f"{inbox_prefix(CLOSER_NAME)}.>",))
"""What it takes to close the connection of a link: a reload does not, though it takes the user away."""

_KINDS: Final = {"publish": "service", "subscribe": "stream"}


def accounts_conf(policy: Policy, keys: Mapping[str, PublicIdentity], cloud: Cloud, closer: str | None = None) -> str:
    """The text of ``accounts.conf`` for the servers of one cloud.

    Who is revoked has no user in it. Where that is the link, nothing crosses either: what is exported ends at once, and
    a connection that stands carries nothing.

    Args:
        policy: The policy.
        keys: The public halves of who is accepted.
        cloud: The cloud.
        closer: An NKey that may close connections and nothing else, for as long as that takes.
    """
    sorted_identities = [identity for _, identity in sorted(policy.accepted.items())]
    here = [i for i in sorted_identities if i.cloud == cloud.name and i.role is not Role.LINK]
    cut = any(policy.identities[name].role is Role.LINK for name in policy.revoked)
    crossing = () if cut and cloud == policy.hub else crossings(policy)
    offered = _offers(policy, here)
    accounts: dict[str, Value] = {
        SYSTEM_ACCOUNT: {
            **({} if closer is None else {"users": [_nkey(closer, "STANDARD", CLOSER)]}),
            "exports": [_offer(grant, names) for grant, names in offered.items() if grant.system],
        },
        cloud.account: {
            "jetstream": "enabled",
            "exports": [
                *(_export(c, c.local, [LINK_ACCOUNT]) for c in crossing if c.owner == cloud.name),
                *(_offer(g, names) for g, names in offered.items() if g.cloud == cloud.name and not g.system),
            ],
            "imports": [
                _import(c.kind, c.remote, LINK_ACCOUNT) for c in crossing if c.owner != cloud.name and c.copying
            ],
        },
        LINK_ACCOUNT: {
            "users": _link_users(policy, keys, cloud, crossing),
            "exports": [
                *(_export(c, c.remote, [cloud.account]) for c in crossing if c.owner != cloud.name and c.copying),
                *(_offer(grant, names) for grant, names in offered.items() if grant.cloud != cloud.name),
            ],
            "imports": [_import(c.kind, c.local, cloud.account) for c in crossing if c.owner == cloud.name],
        },
    }
    for identity in here:
        accounts[identity.name] = {
            **({"limits": {"max_payload": HUB_PAYLOAD}} if cloud == policy.hub else {}),
            "users": _users(policy, keys, identity),
            "imports": [
                _import(_KINDS[grant.kind], grant.subject, _source(grant, cloud)) for grant in grants(policy, identity)
            ],
        }
    notes = [
        f"{policy.bridge}: accounts of the servers in {cloud.name}. Rendered from the policy: change that instead.",
        "Public keys only. Whatever is not allowed here is denied.",
    ]
    return write({"accounts": accounts}, notes)


def _offers(policy: Policy, identities: Iterable[IdentityEntry]) -> dict[Grant, list[Value]]:
    """Everything that the identities of a cloud may do, and the accounts it is offered to."""
    offered: dict[Grant, list[Value]] = {}
    for identity in identities:
        for grant in grants(policy, identity):
            offered.setdefault(grant, []).append(identity.name)
    return offered


def _source(grant: Grant, cloud: Cloud) -> str:
    if grant.system:
        return SYSTEM_ACCOUNT
    return cloud.account if grant.cloud == cloud.name else LINK_ACCOUNT


def _users(policy: Policy, keys: Mapping[str, PublicIdentity], identity: IdentityEntry) -> list[Value]:
    """One user, and another with the same rights while one NKey takes the other's place."""
    allowed, note = permissions(policy, identity), f"{identity.name}: {identity.role}"
    return [Noted(note, _nkey(nkey, "STANDARD", allowed)) for nkey in keys[identity.name].nkeys]


def _link_users(
    policy: Policy, keys: Mapping[str, PublicIdentity], cloud: Cloud, crossing: tuple[Crossing, ...]
) -> list[Value]:
    if cloud != policy.hub:
        return []
    return [
        Noted(
            f"{name}: the link from {identity.cloud}; publish is what comes from there, subscribe what goes there",
            _nkey(nkey, "LEAFNODE", link_permissions(policy, crossing)),
        )
        for name, identity in sorted(policy.accepted.items())
        if identity.role is Role.LINK
        for nkey in keys[name].nkeys
    ]


def _nkey(nkey: str, connection: str, allowed: Permissions) -> Value:
    return {
        "nkey": nkey,
        "allowed_connection_types": [connection],
        "permissions": {"publish": _only(allowed.publish), "subscribe": _only(allowed.subscribe)},
    }


def _only(subjects: tuple[str, ...]) -> Value:
    # An empty list of what is allowed would allow everything.
    return {"allow": list(subjects)} if subjects else {"deny": [">"]}


def _offer(grant: Grant, names: list[Value]) -> Value:
    return _exported(_KINDS[grant.kind], grant.subject, grant.responses, names)


def _export(crossing: Crossing, subject: str, names: list[Value]) -> Value:
    return _exported(crossing.kind, subject, crossing.responses, names)


def _exported(kind: str, subject: str, responses: bool, names: list[Value]) -> Value:
    entry: dict[str, Value] = {kind: subject}
    if responses:
        entry |= {"response": "stream", "threshold": PULL_THRESHOLD}
    return entry | {"accounts": names}


def _import(kind: str, subject: str, account: str) -> Value:
    return {kind: {"account": account, "subject": subject}}
