"""``connection.yaml``: where an identity connects, and the settings of the queues it needs. No I/O."""

from __future__ import annotations

import json
from typing import Final

from bridge.identity import Connection, QueueSettings, ScheduleSettings
from bridge.policy import IdentityEntry, Policy, Queue, Role, Schedule

_LIMITS: Final = ("concurrency", "concurrency_per_key", "rate_jobs", "rate_per_ms", "rate_burst")


def connection_yaml(policy: Policy, identity: IdentityEntry) -> str:
    """The text of an identity's ``connection.yaml``: JSON, which is YAML that no parser reads otherwise.

    A service sees the queues it has a part in; every other role sees them all.
    """
    scheduled = {schedule.queue for schedule in policy.schedules.values() if schedule.agent == identity.name}
    queues = {
        name: _settings(queue, identity, name in scheduled)
        for name, queue in sorted(policy.queues.items())
        if identity.role is not Role.SERVICE or identity.name in (*queue.producers, queue.workers)
    }
    connection = Connection(
        bridge=policy.bridge,
        identity=identity.name,
        cloud=identity.cloud,
        role=identity.role.value,
        server=policy.clouds[identity.cloud].clients,
        queues=queues,
        schedules={
            name: _schedule(schedule)
            for name, schedule in sorted(policy.schedules.items())
            if schedule.agent == identity.name
        },
    )
    value = connection.model_dump()
    # A release that does not know these words refuses them, and reads the file of what needs none.
    for settings in value["queues"].values():
        for word in [word for word in (*_LIMITS, "inbox", "canary_ms", "packing", "receipts") if not settings[word]]:
            del settings[word]
        if settings["errors"] == "type":
            del settings["errors"]
        if "rate_jobs" not in settings:
            del settings["rate_per_ms"], settings["rate_burst"]
    if not value["schedules"]:
        del value["schedules"]
    return json.dumps(value, indent=2) + "\n"


def _schedule(schedule: Schedule) -> ScheduleSettings:
    return ScheduleSettings(
        queue=schedule.queue,
        kind=schedule.kind,
        args=schedule.args,
        cron=schedule.cron,
        timezone=schedule.timezone,
        every_ms=schedule.every_ms,
        missed=schedule.missed,
        deadline_ms=schedule.deadline_ms,
        since_ms=schedule.since_ms,
    )


def _settings(queue: Queue, identity: IdentityEntry, scheduled: bool) -> QueueSettings:
    # Inboxes and canaries are told to whoever has to do with them alone: a worker of an earlier release refuses words.
    looks = identity.role in (Role.AGENT, Role.INSPECTOR) and identity.cloud == queue.home
    # Limits are told to the workers, who keep to them: one of a release that does not know them is to refuse the file.
    works, limits = identity.name == queue.workers, dict[str, int]()
    if queue.concurrency_per_key is not None and (works or identity.name in queue.producers):
        limits["concurrency_per_key"] = queue.concurrency_per_key
    if queue.concurrency is not None and works:
        limits["concurrency"] = queue.concurrency
    if queue.rate is not None and works:
        limits |= {"rate_jobs": queue.rate.jobs, "rate_per_ms": queue.rate.per_ms, "rate_burst": queue.rate.burst}
    return QueueSettings(
        home=queue.home,
        work=queue.work,
        producers=list(queue.producers),
        workers=queue.workers,
        kinds=list(queue.kinds),
        ack_wait_ms=queue.ack_wait_ms,
        max_attempts=queue.max_attempts,
        backoff_initial_ms=queue.backoff.initial_ms,
        backoff_factor=queue.backoff.factor,
        backoff_max_ms=queue.backoff.max_ms,
        backoff_jitter=queue.backoff.jitter,
        deadline_ms=queue.deadline_ms,
        result_ttl_ms=queue.result_ttl_ms,
        max_payload=queue.max_payload,
        inbox=list(queue.inbox) if looks or identity.name in queue.inbox else [],
        canary_ms=queue.canary_ms if looks else 0,
        errors=queue.errors if works else "type",
        # Who takes no part in it packs nothing; and who does reads what the other side packs.
        packing=queue.packing if works or identity.name in queue.producers else None,
        # Who submits and who works leave them; who inspects looks for them.
        receipts=queue.receipts_bytes > 0
        and (works or scheduled or identity.name in queue.producers or identity.role is Role.INSPECTOR),
        **limits,
    )
