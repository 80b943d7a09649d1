"""What the servers make of a subject: the walls of the identity's own cloud, and those behind the link. No I/O.

Each wall is judged by what it is rendered from, and not by what another wall says: `bridge.render.accounts`.
"""

from __future__ import annotations

from typing import Final, Literal

from bridge.explain.walls import ACCOUNT, EXPORT, LINK, OWNER, USER, Verdict, Wall, judge
from bridge.matching import Patterns, overlaps
from bridge.policy import Cloud, IdentityEntry, Policy, Role
from bridge.render.accounts import LINK_ACCOUNT, SYSTEM_ACCOUNT
from bridge.render.crossings import Crossing, crossings
from bridge.render.permissions import Grant, grants, link_permissions, permissions, private
from bridge.subjects import api, api_call

Way = Literal["publish", "subscribe"]

EXEMPT: Final = ("$JS.ACK.", "_R_.", "$MQTT.")
"""What nats-server lets every leaf publish, whatever its permissions (`tests/integration/test_compromised_leaf.py`)."""


class Ground:
    """A policy, and what of it the walls are made from: computed once, for however many subjects.

    Args:
        policy: The policy.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.grants = {name: grants(policy, who) for name, who in policy.identities.items()}
        self.permissions = {name: permissions(policy, who) for name, who in policy.identities.items()}
        self.crossings = crossings(policy)
        self.link = link_permissions(policy, self.crossings)
        self.importing = frozenset(
            name for name, has in self.grants.items() if any(each.subject == api_call("INFO") for each in has)
        )
        """Whose accounts import JetStream's API."""
        self._taken: dict[tuple[str, Way], Patterns] = {}

    def taken(self, me: IdentityEntry, way: Way) -> Patterns:
        """What the permissions of an identity's user allow, to be asked for many subjects."""
        if (me.name, way) not in self._taken:
            self._taken[me.name, way] = Patterns(listed(self, me, way))
        return self._taken[me.name, way]


def as_checked(ground: Ground, me: IdentityEntry, way: Way, subject: str) -> str:
    """The subject as the server checks it: most accounts have the cloud's own domain mapped away before.

    A server maps it in an account that it gives JetStream's API to, which is each that does not import ``INFO``.
    """
    own = f"{api(me.cloud)}."
    if way == "subscribe" or me.name in ground.importing or me.role is Role.LINK or not subject.startswith(own):
        return subject
    return f"{api(None)}.{subject.removeprefix(own)}"


def listed(ground: Ground, me: IdentityEntry, way: Way) -> tuple[str, ...]:
    """What the permissions of an identity's user allow."""
    allowed = ground.link if me.role is Role.LINK else ground.permissions[me.name]
    return allowed.publish if way == "publish" else allowed.subscribe


def takes(ground: Ground, me: IdentityEntry, way: Way, checked: str) -> bool:
    """Whether an identity's server takes a subject as it is written: it holds a wildcard for a token like any other."""
    if me.role is Role.LINK and way == "publish" and checked.startswith(EXEMPT):
        return True
    return ground.taken(me, way).match(checked)


def of_leaf(policy: Policy, crossing: Crossing) -> Way:
    """Whether a crossing is something that the leaf says to the hub, or that it hears from there."""
    return "publish" if (crossing.kind == "service") == (crossing.owner == policy.hub.name) else "subscribe"


def walls(ground: Ground, me: IdentityEntry, way: Way, subject: str) -> list[Wall]:
    """Every wall of the servers, in the order in which a message meets them.

    Args:
        ground: The policy, and what follows from it.
        me: Whoever publishes or subscribes.
        way: Which of the two.
        subject: The subject as it is checked (`as_checked`).
    """
    if me.role is Role.LINK:
        return _of_link(ground, me, way, subject)
    cloud = ground.policy.clouds[me.cloud]
    user = _wall(USER, f"accounts.conf of {cloud.name}, user of {me.name}", listed(ground, me, way), subject)
    own = judge([grant.subject for _, grant in private(ground.policy, me) if grant.kind == way], subject)
    imported = judge([grant.subject for grant in ground.grants[me.name] if grant.kind == way], subject)
    if own is Verdict.ALLOWED or (own is Verdict.PARTLY and imported is Verdict.REFUSED):
        return [user]  # it stays in the account
    source = _source(ground, me, way, subject)
    found = [user, *_into_account(ground, me, way, subject, source)]
    return found + _behind_link(ground, cloud, way, subject) if source == LINK_ACCOUNT else found


def _into_account(ground: Ground, me: IdentityEntry, way: Way, subject: str, source: str) -> list[Wall]:
    """What the identity's account imports, and what is exported to it."""
    mine = ground.grants[me.name]
    offered = [each.subject for each in mine if each.kind == way and _from(ground, me, each) == source]
    has = [
        name
        for name, who in sorted(ground.policy.identities.items())
        if (who.cloud == me.cloud and name != me.name)
        and any(each.kind == way and overlaps(each.subject, subject) for each in ground.grants[name])
    ]
    verdict = judge(offered, subject)
    to_whom = "nobody" if not has else f"{', '.join(has)} alone"
    where = f"accounts.conf of {me.cloud}, account"
    import_ = f"{me.name} imports {_as(offered, subject)} from {source}"
    export = f"{source} exports it to {me.name}"
    if verdict is Verdict.REFUSED:
        import_ = f"{me.name} imports nothing of the kind: it ends in the account"
        export = f"{source} exports it to {to_whom}"
    return [Wall(ACCOUNT, f"{where} {me.name}", verdict, import_), Wall(EXPORT, f"{where} {source}", verdict, export)]


def _behind_link(ground: Ground, cloud: Cloud, way: Way, subject: str) -> list[Wall]:
    """What the link lets through, and what the other cloud's account offers to it."""
    owner = ground.policy.leaf if cloud == ground.policy.hub else ground.policy.hub
    # The leaf's user at the hub publishes what comes from the leaf, and is subscribed to what goes there.
    to_hub = (cloud == ground.policy.leaf) == (way == "publish")
    kind = "service" if way == "publish" else "stream"
    exported = [each.remote for each in ground.crossings if each.owner == owner.name and each.kind == kind]
    passing, entry = (ground.link.publish, "publish") if to_hub else (ground.link.subscribe, "subscribe")
    return [
        _wall(LINK, f"accounts.conf of {ground.policy.hub.name}, user of the link: {entry}", passing, subject),
        _wall(OWNER, f"accounts.conf of {owner.name}, {owner.account} to {LINK_ACCOUNT}", exported, subject),
    ]


def _of_link(ground: Ground, me: IdentityEntry, way: Way, subject: str) -> list[Wall]:
    """What the hub takes from the leaf, or sends there, and what leads on from the link's account."""
    hub = ground.policy.hub
    user = _wall(LINK, f"accounts.conf of {hub.name}, user of {me.name}: {way}", listed(ground, me, way), subject)
    if way == "publish" and subject.startswith(EXEMPT):
        user = Wall(user.name, user.where, Verdict.ALLOWED, "servers let every leaf publish it, whatever is listed")
    crossing = [each.remote for each in ground.crossings if of_leaf(ground.policy, each) == way]
    return [user, _wall(OWNER, f"accounts.conf of {hub.name}, {hub.account} and {LINK_ACCOUNT}", crossing, subject)]


def _source(ground: Ground, me: IdentityEntry, way: Way, subject: str) -> str:
    """The account that a subject would come from: the servers' own, that of the streams, or the link's."""
    if subject.startswith("$SYS."):
        return SYSTEM_ACCOUNT
    cloud = ground.policy.clouds[me.cloud]
    for other in ground.policy.clouds.values():
        if subject.startswith(f"{api(other.name)}."):
            return cloud.account if other == cloud else LINK_ACCOUNT
    local = any(
        grant.kind == way and overlaps(grant.subject, subject) and _from(ground, who, grant) != LINK_ACCOUNT
        for who in ground.policy.identities.values()
        if who.cloud == me.cloud
        for grant in ground.grants[who.name]
    )
    kind = "service" if way == "publish" else "stream"
    crosses = any(
        each.owner != me.cloud and each.kind == kind and overlaps(each.remote, subject) for each in ground.crossings
    )
    return LINK_ACCOUNT if crosses and not local else cloud.account


def _from(ground: Ground, me: IdentityEntry, grant: Grant) -> str:
    if grant.system:
        return SYSTEM_ACCOUNT
    return ground.policy.clouds[me.cloud].account if grant.cloud == me.cloud else LINK_ACCOUNT


def _wall(name: str, where: str, allowed: list[str] | tuple[str, ...], subject: str) -> Wall:
    verdict = judge(allowed, subject)
    return Wall(name, where, verdict, _as(allowed, subject) if verdict is not Verdict.REFUSED else "not among its list")


def _as(allowed: list[str] | tuple[str, ...], subject: str) -> str:
    """The entries that let it pass, the first of them by name."""
    found = [each for each in allowed if overlaps(each, subject)]
    return f"{found[0]} and {len(found) - 1} more" if len(found) > 1 else found[0] if found else "nothing"
