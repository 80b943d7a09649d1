"""The schedules of `bridge.yaml`: what is submitted when, by which agents, checked against queues and identities."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, cast

from bridge.policy.arguments import json_text
from bridge.policy.document import shown
from bridge.policy.hints import nearest
from bridge.policy.parties import Declared
from bridge.policy.quantities import spell_duration, spell_size
from bridge.policy.section import Section
from bridge.policy.values import DAY, KIB, MINUTE, SECOND, Missed, Queue, Role, Schedule
from bridge.subjects import is_name
from bridge.ticks import BadExpression, check_cron, zones

MAX_SCHEDULES: Final = 200
MAX_ARGS: Final = 4 * KIB
"""Bytes of JSON, of which an agent's ``connection.yaml`` may hold 1 MiB. What is larger is for the handler to fetch."""

_SCHEDULE: Final = (*("agent", "queue", "kind", "args", "cron", "timezone", "every", "missed", "deadline", "since"),)
_MARGIN_MS: Final = 10 * MINUTE
"""What must be left of ``result_ttl`` above the deadline: clocks that are ahead, and ticks that are not yet missed."""


def read_schedules(
    top: Section, identities: Mapping[str, Declared], queues: Mapping[str, Queue]
) -> dict[str, Schedule]:
    """Read ``schedules``, which may be left out."""
    schedules: dict[str, Schedule] = {}
    if not top.has("schedules"):
        return schedules
    remedy = "declare a schedule, or remove the key"
    for name, section in top.named("schedules", "schedule", _SCHEDULE, remedy):
        if len(schedules) == MAX_SCHEDULES:
            section.note(section.line, f"more than {MAX_SCHEDULES} schedules", "join some, or let a job submit others")
            break
        schedules[name] = _schedule(name, section, identities, queues)
    return schedules


def _schedule(name: str, section: Section, identities: Mapping[str, Declared], queues: Mapping[str, Queue]) -> Schedule:
    queue = _queue(section, queues)
    kind = section.text("kind", "add kind: and one of the queue's")
    if queue is not None and kind and kind not in queue.kinds:
        problem = f"queue {shown(queue.name)} has no kind {shown(kind)}"
        section.note(section.line_of("kind"), problem, nearest(kind, queue.kinds))
    agent = _agent(section, identities, queue)
    every = section.duration("every", 0, SECOND, 31 * DAY) if section.has("every") else 0
    cron, timezone = _cron(section)
    args = json_text(section, "args")
    limit = min(MAX_ARGS, queue.max_payload) if queue is not None else MAX_ARGS
    if len(args) > limit:
        problem = f"args: {len(args)} bytes of JSON, and a schedule has at most {spell_size(limit)}"
        section.note(section.line_of("args"), problem, "let the handler fetch what is larger")
    deadline = section.duration("deadline", queue.deadline_ms if queue is not None else 0, SECOND, 31 * DAY)
    if queue is not None:
        _check_memory(section, queue, deadline)
    return Schedule(
        name=name,
        agent=agent,
        queue=queue.name if queue is not None else "",
        kind=kind,
        deadline_ms=deadline,
        cron=cron,
        timezone=timezone,
        every_ms=every,
        args=args,
        missed=cast(Missed, section.choice("missed", ("skip", "last", "all"), "last")),
        since_ms=_since(section),
    )


def _queue(section: Section, queues: Mapping[str, Queue]) -> Queue | None:
    name = section.text("queue", "add queue: and the queue that its jobs are for")
    if name and name not in queues and all(map(is_name, queues)):
        section.note(section.line_of("queue"), f"queue {shown(name)} is not declared", nearest(name, queues))
    return queues.get(name)


def _agent(section: Section, identities: Mapping[str, Declared], queue: Queue | None) -> str:
    """The identity that submits: one, since a tick's key is that of an identity, and two would make it two jobs."""
    agents = [name for name, who in identities.items() if who.role is Role.AGENT and _in(who, queue)]
    here = f" in cloud {shown(queue.home)}" if queue is not None else ""
    remedy = f"name {' or '.join(map(shown, agents))}" if agents else f"declare an identity with role: agent{here}"
    name = section.text("agent", f"add agent:, whose `bunny agent` submits it: {remedy}")
    who = identities.get(name)
    line = section.line_of("agent")
    if name and who is None and all(map(is_name, identities)):
        section.note(line, f"identity {shown(name)} is not declared", nearest(name, agents) if agents else remedy)
    elif who is not None and who.role not in (Role.AGENT, None):
        section.note(line, f"{shown(name)} submits no scheduled jobs, its role is {who.role}", remedy)
    elif who is not None and not _in(who, queue):
        problem = f"{shown(name)} sits in cloud {shown(who.cloud)}, and queue {shown(queue.name if queue else '')}"
        section.note(line, f"{problem} takes jobs in {shown(queue.home if queue else '')}", remedy)
    return name


def _in(who: Declared, queue: Queue | None) -> bool:
    return queue is None or not queue.home or who.cloud == queue.home


def _cron(section: Section) -> tuple[str, str]:
    """The expression and its time zone; exactly one of expression and interval is there."""
    cron, timezone = section.has("cron"), section.has("timezone")
    if cron and section.has("every"):
        section.note(section.line_of("every"), f"{section.where} has both cron and every", "keep one")
    elif not cron and not section.has("every"):
        remedy = "add cron: '*/5 * * * *', or every: 5m"
        section.note(section.line, f"{section.where} has neither cron nor every", remedy)
    if timezone and not cron:
        problem = "an interval counts from 1970 in UTC, and has no time zone"
        section.note(section.line_of("timezone"), problem, "remove it, or say when by cron:")
    text = section.text("cron", "write five fields", "")
    if text:
        try:
            check_cron(text)
        except BadExpression as wrong:
            section.note(section.line_of("cron"), f"cron: {shown(text)} {wrong.problem}", wrong.remedy)
    zone = section.text("timezone", "write one, such as Europe/Berlin", "UTC")
    if zone and zone not in (known := zones()):
        near = {each.lower(): each for each in known}  # people write `europe/berlin`
        section.note(section.line_of("timezone"), f"timezone: {shown(zone)} is unknown", _zone_near(zone, near))
    return " ".join(text.split()), zone


def _zone_near(zone: str, near: Mapping[str, str]) -> str:
    exact = near.get(zone.strip().lower().replace(" ", "_"))
    return f"did you mean {shown(exact)}?" if exact else nearest(zone.title(), sorted(near.values()))


def _since(section: Section) -> int:
    text = section.word("since")
    if not section.has("since"):
        return 0
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None or not 1970 < time.year < 2200:
        problem = f"since: {shown(text)} is no time with a zone" if text else "since wants a time"
        section.note(section.line_of("since"), problem, "say 2026-03-01T00:00:00Z, for example")
        return 0
    return int(time.timestamp() * 1000)


def _check_memory(section: Section, queue: Queue, deadline: int) -> None:
    """What a tick came to must be remembered for longer than its job may start, or it could be run twice."""
    needed = deadline + _MARGIN_MS
    if section.sound and queue.result_ttl_ms < needed:
        problem = f"its deadline {spell_duration(deadline)} leaves less than {spell_duration(_MARGIN_MS)}"
        problem += f" of the result_ttl {spell_duration(queue.result_ttl_ms)} of queue {shown(queue.name)}"
        section.note(section.line_of("deadline"), problem, "lower the deadline, or raise result_ttl")
