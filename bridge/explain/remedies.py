"""What would have to stand in the policy: each change is tried on a copy of it, and named if it grants. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from bridge.explain.account import Way
from bridge.explain.walls import Verdict, judge
from bridge.matching import overlaps
from bridge.policy import IdentityEntry, Policy, Queue, Role, Schedule
from bridge.policy.hints import nearest
from bridge.policy.values import SECOND
from bridge.render.permissions import grants, origins, private

MOST: Final = 3
"""Remedies that are named: the first ones are the nearest."""

_QUEUE: Final = re.compile(r"(?:JOBS|RESULTS|STARTS|DEAD|REFUSED|DELAYED|CONTROL|REPLAY|SLOTS|PARTS)_(.+)")
_OF_QUEUE: Final = frozenset(
    {"jobs", "results", "done", "starts", "dead", "refused", "delayed", "control", "events", "replay", "slots", "parts"}
)
_DECLARED: Final = (Role.INSPECTOR, Role.OPERATOR, Role.AGENT, Role.PROVISIONER, Role.SYSTEM)


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing to change, or another way to go."""

    text: str
    at: tuple[str, ...] = ()
    """The keys that lead to what is to be changed, or to what grants it to another; empty where there is nothing."""


@dataclass(frozen=True, slots=True)
class _Change:
    remedy: Remedy
    policy: Policy


def nearest_grants(policy: Policy, me: IdentityEntry, way: Way, subject: str) -> tuple[Remedy, ...]:
    """The nearest things in the policy that would grant the whole subject, at least one.

    Args:
        policy: The policy.
        me: Whoever is refused.
        way: What it would do.
        subject: The subject as it is checked.
    """
    if (unknown := _unknown_queue(policy, subject)) is not None:
        return (unknown,)
    narrower = [grant.subject for grant in grants(policy, me) if grant.kind == way and overlaps(grant.subject, subject)]
    found = [Remedy(f"{way} to {each} instead") for each in narrower[:MOST]]
    if me.role is not Role.LINK:
        found += [change.remedy for change in _changes(policy, me) if _grants(change.policy, me.name, way, subject)]
    found += _others(policy, me, way, subject)
    if not found:
        found += _declared(policy, me, way, subject)
    return tuple(found[:MOST]) or (Remedy("nothing grants that: no role may"),)


def _changes(policy: Policy, me: IdentityEntry) -> Iterator[_Change]:
    """Every change that gives an identity a part of a queue that it has not: the smallest first."""
    for name, queue in sorted(policy.queues.items()):
        key = ("queues", name)
        if me.role is Role.SERVICE and queue.home == me.cloud:
            if me.name not in queue.producers:
                text = f"add {me.name} to queues.{name}.producers"
                changed = replace(queue, producers=(*queue.producers, me.name))
                yield _Change(Remedy(text, (*key, "producers")), _with(policy, changed))
            elif me.name not in queue.inbox:
                text = f"add {me.name} to queues.{name}.inbox"
                changed = replace(queue, inbox=(*queue.inbox, me.name))
                yield _Change(Remedy(text, (*key, "inbox")), _with(policy, changed))
        if me.role is Role.SERVICE and queue.work == me.cloud and me.name != queue.workers:
            text = f"let queues.{name}.workers be {me.name}, instead of {queue.workers}"
            yield _Change(Remedy(text, (*key, "workers")), _with(policy, replace(queue, workers=me.name)))
        if me.role is Role.AGENT and queue.home == me.cloud:
            if not queue.canary_ms:
                text = f"give queues.{name} a canary: 30s"
                yield _Change(Remedy(text, key), _with(policy, replace(queue, canary_ms=30 * SECOND)))
            each = Schedule("", me.name, name, queue.kinds[0], queue.deadline_ms)
            text = f"declare a schedule of queue {name} whose agent is {me.name}"
            schedules = {**policy.schedules, each.name: each}
            yield _Change(Remedy(text, ("schedules",)), replace(policy, schedules=schedules))


def _with(policy: Policy, queue: Queue) -> Policy:
    queues: Mapping[str, Queue] = {**policy.queues, queue.name: queue}
    return replace(policy, queues=queues)


def _grants(policy: Policy, name: str, way: Way, subject: str) -> bool:
    granted = [grant.subject for grant in grants(policy, policy.identities[name]) if grant.kind == way]
    return judge(granted, subject) is Verdict.ALLOWED


def _others(policy: Policy, me: IdentityEntry, way: Way, subject: str) -> Iterator[Remedy]:
    """Identities that may, with why: of the same cloud first."""
    for who in sorted(policy.identities.values(), key=lambda each: (each.cloud != me.cloud, each.name)):
        if who.name == me.name or who.role is Role.LINK:
            continue
        given = [(origin, grant) for origin, few in origins(policy, who) for grant in few] + private(policy, who)
        for origin, grant in given:
            if grant.kind == way and judge([grant.subject], subject) is Verdict.ALLOWED:
                yield Remedy(f"{who.name} in {who.cloud} may: {origin.why}", origin.at)
                break


def _declared(policy: Policy, me: IdentityEntry, way: Way, subject: str) -> Iterator[Remedy]:
    """Roles that nobody has and that would do."""
    for cloud in sorted(policy.clouds, key=lambda name: (name != me.cloud, name)):
        for role in _DECLARED:
            new = IdentityEntry("", cloud, role)
            if _grants(replace(policy, identities={**policy.identities, "": new}), "", way, subject):
                yield Remedy(f"declare an identity {{cloud: {cloud}, role: {role}}}", ("identities",))


def _unknown_queue(policy: Policy, subject: str) -> Remedy | None:
    tokens = subject.split(".")
    named = [match[1] for match in map(_QUEUE.fullmatch, tokens) if match]
    named += tokens[1:2] if tokens[0] in _OF_QUEUE else []
    unknown = next((name for name in named if name not in (*policy.queues, "*", ">")), None)
    if unknown is None:
        return None
    return Remedy(f"queue {unknown!r} is not declared; {nearest(unknown, policy.queues)}", ("queues",))
