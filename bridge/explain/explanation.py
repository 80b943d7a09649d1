"""Everything about one act: the verdict, what grants it, each wall, and what to change. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from bridge.explain.account import Ground, Way, as_checked, listed, of_leaf, takes, walls
from bridge.explain.receiver import trust_wall
from bridge.explain.remedies import Remedy, nearest_grants
from bridge.explain.walls import REPLY, TRUST, Verdict, Wall, judge, worst
from bridge.matching import overlaps
from bridge.policy import IdentityEntry, Policy, Role
from bridge.render.crossings import crossings
from bridge.render.permissions import Origin, origins, private
from bridge.subjects import inbox_prefix


class Verb(StrEnum):
    """What is to be done with a subject."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    REQUEST = "request"
    """Publish, and hear the answer in one's own inbox."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Something that grants it, all of it or a part."""

    subject: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an act is allowed or refused."""

    identity: IdentityEntry
    verb: Verb
    subject: str
    checked: str
    """The subject as the servers check it: one's own domain is mapped away before, in most accounts."""
    taken: bool
    """Whether the servers take the subject as it is written: they hold a wildcard for a token like any other."""
    walls: tuple[Wall, ...]
    reasons: tuple[Reason, ...]

    @property
    def verdict(self) -> Verdict:
        """What becomes of it."""
        return worst(self.walls)

    @property
    def servers(self) -> Verdict:
        """What the servers alone make of it, before any receiver."""
        return worst(wall for wall in self.walls if wall.name != TRUST)

    @property
    def stopped(self) -> Wall | None:
        """The first wall that stops it, or a part of it."""
        return next((wall for wall in self.walls if wall.verdict is not Verdict.ALLOWED), None)


def explain(ground: Ground, me: IdentityEntry, verb: Verb, subject: str) -> Explanation:
    """Explain what becomes of a subject.

    Args:
        ground: The policy, and what follows from it.
        me: Who acts; of a link, what its leaf may say to the hub, or hear from it.
        verb: What it does.
        subject: A subject, with or without wildcards (`bridge.matching.is_subject`).
    """
    way: Way = "subscribe" if verb is Verb.SUBSCRIBE else "publish"
    checked = as_checked(ground, me, way, subject)
    met = walls(ground, me, way, checked)
    if way == "publish" and me.role is not Role.LINK and (trust := trust_wall(ground.policy, me, checked)) is not None:
        met.append(trust)
    if verb is Verb.REQUEST:
        met.append(_reply(ground, me))
    return Explanation(
        identity=me,
        verb=verb,
        subject=subject,
        checked=checked,
        taken=takes(ground, me, way, checked),
        walls=tuple(met),
        reasons=_reasons(ground.policy, me, way, checked),
    )


def remedies(policy: Policy, found: Explanation) -> tuple[Remedy, ...]:
    """What to change in the policy, or which other way to go; nothing where it is allowed."""
    if found.verdict is Verdict.ALLOWED:
        return ()
    if found.servers is Verdict.ALLOWED:
        queue = found.checked.split(".")[1]
        return (
            Remedy(f"name one of queues.{queue}.producers, in the form of its jobs", ("queues", queue, "producers")),
        )
    way: Way = "subscribe" if found.verb is Verb.SUBSCRIBE else "publish"
    return nearest_grants(policy, found.identity, way, found.checked)


def _reply(ground: Ground, me: IdentityEntry) -> Wall:
    inbox = "_R_.>" if me.role is Role.LINK else f"{inbox_prefix(me.name)}.>"
    heard = judge(listed(ground, me, "subscribe"), inbox)
    return Wall(REPLY, f"subscribe of {me.name}", heard, f"answers come to {inbox}")


def _reasons(policy: Policy, me: IdentityEntry, way: Way, subject: str) -> tuple[Reason, ...]:
    given = _crossing(policy, way) if me.role is Role.LINK else _granted(policy, me, way)
    found = [reason for reason in given if overlaps(reason.subject, subject)]
    # What grants all of it, where something does.
    return tuple(each for each in found if judge([each.subject], subject) is Verdict.ALLOWED) or tuple(found)


def _granted(policy: Policy, me: IdentityEntry, way: Way) -> Iterator[Reason]:
    for origin, given in [*origins(policy, me), *((origin, [grant]) for origin, grant in private(policy, me))]:
        yield from (Reason(grant.subject, origin) for grant in given if grant.kind == way)


def _crossing(policy: Policy, way: Way) -> Iterator[Reason]:
    """What crosses, by the queue that it is for: what is left without any is the agents'."""
    for_all = crossings(replace(policy, queues={}))
    for name, queue in sorted(policy.queues.items()):
        for each in crossings(replace(policy, queues={name: queue})):
            if each not in for_all and of_leaf(policy, each) == way:
                yield Reason(each.remote, Origin(f"crosses for queue {name}", ("queues", name)))
    for each in for_all:
        if of_leaf(policy, each) == way:
            yield Reason(each.remote, Origin("agents of both clouds", ("identities",)))
