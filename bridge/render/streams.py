"""What each cloud's JetStream must hold: the streams and consumers of ``plan.json``. No I/O.

A configuration is exactly the JSON of the JetStream API; durations are nanoseconds. P is the producers'
cloud of a queue and W the workers'. ``docs/spec.md`` has the table.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeAlias

from bridge import subjects
from bridge.payload import PART_OVERHEAD, SEALED_PART
from bridge.policy import Policy, Queue
from bridge.receipt import any_page, receipts_stream
from bridge.render import lifetimes, thresholds
from bridge.render.lifetimes import DEAD_AGE_S, RECEIPTS_AGE_S

Config: TypeAlias = dict[str, Any]

MAX_MSG_SIZE: Final = 768 * 1024
"""Bytes of one message. What a worker puts aside is the message and some headers: still below any server's limit."""

DUPLICATE_WINDOW_S: Final = 120
"""How long a server remembers message ids: longer than a client buffers and sends again."""

MAX_ACK_PENDING: Final = 65_536
"""Jobs of a queue that may be at work at once, over all workers; and results that the readers of an inbox may hold."""

MAX_WAITING: Final = 4_096
"""Pulls that may wait at once: workers times overlapping pulls. It cannot be changed later."""

HOME_ACK_PENDING: Final = 1_000
"""Results on their way home and not yet confirmed."""

CONTROL_AGE_S: Final = 31 * 86_400
"""The longest life of a job. A cancel lives for as long as its job may start, which its message's own TTL says."""

REFUSED_AGE_S: Final = 7 * 86_400
"""Long enough to see an attack, and then the disk is free again."""

ASIDE_DIVISOR: Final = 16
"""Starts, dead letters and refused messages each get this fraction of their queue's ``max_bytes``."""

SLOTS_BYTES: Final = 16 * 1024 * 1024
"""Some 40,000 slots that are held, or were given back in the last second."""

SLOT_MSG_SIZE: Final = 4 * 1024

ASIDE_LEAST: Final = 4 * 1024 * 1024


def plan(policy: Policy, cloud: str) -> Config:
    """The assets of one cloud, in the order in which to make them."""
    queues = [policy.queues[name] for name in sorted(policy.queues)]
    streams: list[Config] = []
    consumers: list[Config] = []
    for queue in queues:
        if queue.payload_bytes:
            age = lifetimes.parts_ms(queue, policy.max_outage_ms, job=queue.home == cloud)
            streams.append(_parts(queue, age, "jobs" if queue.home == cloud else "results"))
        streams += [_receipts(queue)] if queue.receipts_bytes else []
        if queue.work == cloud:
            streams += [_outbox(queue), _starts(queue), _dead(queue), _refused(queue), _replay(queue)]
            streams += [_slots(queue)] if queue.limited else []
            consumers.append({"stream": subjects.replay_stream(queue.name), "config": _replay_consumer(queue)})
            consumers.append({"stream": subjects.results_stream(queue.name), "config": _home_consumer(queue)})
        if queue.home == cloud:
            streams += [_jobs(queue), _delayed(queue), _control(queue), _home(queue, policy.max_outage_ms)]
            consumers.append({"stream": subjects.delayed_stream(queue.name), "config": _delayed_consumer(queue)})
            consumers += [
                {"stream": subjects.jobs_stream(queue.name), "config": _jobs_consumer(queue, priority)}
                for priority in subjects.PRIORITIES
            ]
            consumers += [
                {"stream": subjects.results_stream(queue.name), "config": _inbox_consumer(queue, producer)}
                for producer in queue.inbox
            ]
    # A consumer has its stream's replicas.
    replicated = [thresholds.replicated(stream, policy.clouds[cloud].servers) for stream in streams]
    return {"version": 1, "cloud": cloud, "policy": policy.digest, "streams": replicated, "consumers": consumers}


def plan_json(policy: Policy, cloud: str) -> str:
    """``plan.json``."""
    return json.dumps(plan(policy, cloud), indent=2) + "\n"


# --- streams ---------------------------------------------------------------------------------------


def _jobs(queue: Queue) -> Config:
    """P: the work queue. Full is refused at once, and a subject takes one job."""
    return _stream(
        subjects.jobs_stream(queue.name),
        f"jobs of {queue.name} that wait for {queue.workers}",
        subjects=[subjects.any_job(queue.name)],
        retention="workqueue",
        max_msgs=queue.max_pending,
        max_bytes=queue.max_bytes,
        metadata=thresholds.stored_jobs(queue),
        **_FENCED,
        **_KEPT,
    )


def _delayed(queue: Queue) -> Config:
    """P: jobs with a time. Apart from the others, since the worker hands each back until its time has come."""
    return _stream(
        subjects.delayed_stream(queue.name),
        f"jobs of {queue.name} that {queue.workers} may not start yet",
        subjects=[subjects.any_delayed(queue.name)],
        retention="workqueue",
        max_msgs=queue.max_pending,
        max_bytes=queue.max_bytes,
        **_FENCED,
        **_KEPT,
    )


def _control(queue: Queue) -> Config:
    """P: what producers ask of jobs under way; each says for how long its job may be."""
    return _stream(
        subjects.control_stream(queue.name),
        f"what is asked of jobs of {queue.name} under way",
        subjects=[subjects.any_control(queue.name)],
        max_bytes=_aside(queue),
        max_age=_seconds(CONTROL_AGE_S),
        allow_msg_ttl=True,
        **_FENCED,
        **_KEPT,
    )


def _replay(queue: Queue) -> Config:
    """W: the work queue of replay orders, each with the dead letter that it is about."""
    return _stream(
        subjects.replay_stream(queue.name),
        f"dead letters of {queue.name} that an operator has ordered to run again",
        subjects=[subjects.any_replay(queue.name)],
        retention="workqueue",
        max_msg_size=-1,
        max_bytes=_aside(queue),
        **_FENCED,
        **_KEPT,
    )


def _parts(queue: Queue, age_ms: int, whose: str) -> Config:
    """P and W: parts of payloads. Full, no more is taken, and nothing that is named is dropped to make room.

    A part takes the place of one of its subject, so that its author can have what served its purpose pass: by an empty
    message that lives a second.
    """
    return _stream(
        subjects.parts_stream(queue.name),
        f"parts of the payloads of {whose} of {queue.name}",
        subjects=[subjects.any_part(queue.name)],
        max_msgs_per_subject=1,
        max_bytes=queue.payload_bytes,
        max_age=_ns(age_ms),
        allow_msg_ttl=True,
        metadata=thresholds.payloads(queue.payload_bytes // (SEALED_PART + PART_OVERHEAD)),
        **_KEPT,
    )


def _outbox(queue: Queue) -> Config:
    """W: the fence. The first result of a generation stands, for longer than any outage."""
    return _stream(
        subjects.results_stream(queue.name),
        f"results of {queue.name}: the first of each job stands",
        subjects=[subjects.any_result(queue.name)],
        max_bytes=queue.max_bytes,
        max_age=_ns(queue.result_ttl_ms),
        **_FENCED,
        **_KEPT,
    )


def _home(queue: Queue, max_outage_ms: int) -> Config:
    """P: the copy of the results.

    Neither a least size nor a fence of its own: either would stall the copying without an error. When it is
    full it takes no more, and the rest stays in W.
    """
    results = subjects.results_stream(queue.name)
    return _stream(
        results,
        f"results of {queue.name}, come home from {queue.work}",
        max_msg_size=-1,
        max_bytes=queue.max_bytes,
        max_age=_ns(queue.result_ttl_ms),
        sources=[
            {
                "name": results,
                "external": {"api": subjects.api(queue.work), "deliver": ""},
                # Through a consumer made beforehand (ADR-60 of NATS): the other cloud needs no right to make one.
                "consumer": {"name": subjects.HOME_CONSUMER, "deliver_subject": subjects.home_subject(queue.name)},
            }
        ],
        metadata=thresholds.copy(queue, max_outage_ms),
        republish={"src": subjects.any_result(queue.name), "dest": subjects.done_template(queue.name)},
        **_KEPT,
    )


def _starts(queue: Queue) -> Config:
    """W: starts of redelivered jobs. Full, no more is taken: a start that is not counted must not happen."""
    return _stream(
        subjects.starts_stream(queue.name),
        f"starts of redelivered jobs of {queue.name}",
        subjects=[subjects.any_start(queue.name)],
        max_bytes=_aside(queue),
        max_age=_ns(queue.result_ttl_ms),
        **_KEPT,
    )


def _dead(queue: Queue) -> Config:
    """W: the last dead letter of each job. Operators may drop one, so deleting is a matter of permissions."""
    return _stream(
        subjects.dead_stream(queue.name),
        f"jobs of {queue.name} that could not be done",
        subjects=[subjects.any_dead(queue.name)],
        max_msg_size=-1,
        max_msgs_per_subject=1,
        max_bytes=_aside(queue),
        max_age=_seconds(DEAD_AGE_S),
        # What takes the place of a letter whose replay was answered is gone a second later.
        allow_msg_ttl=True,
        metadata=thresholds.put_aside(queue),
    )


def _slots(queue: Queue) -> Config:
    """W: who holds the queue's slots, each for as long as its message's own TTL says, and when the next may start.

    Full, no more is taken: a slot that is not known to be held must not be used.
    """
    return _stream(
        subjects.slots_stream(queue.name),
        f"what holds the limits of {queue.name}",
        subjects=[subjects.any_slot(queue.name)],
        max_msg_size=SLOT_MSG_SIZE,
        max_msgs_per_subject=1,
        max_bytes=SLOTS_BYTES,
        allow_msg_ttl=True,
        **_KEPT,
    )


def _receipts(queue: Queue) -> Config:
    """P and W: receipts of those who signed them there. Full, no more is taken: nothing of a chain goes unseen."""
    return _stream(
        receipts_stream(queue.name),
        f"receipts about jobs of {queue.name}",
        subjects=[any_page(queue.name)],
        max_bytes=queue.receipts_bytes,
        max_age=_seconds(RECEIPTS_AGE_S),
        **_FENCED,
        **_KEPT,
    )


def _refused(queue: Queue) -> Config:
    """W: what failed authentication, within a quota in which the oldest goes first: anyone may fill it with rubbish."""
    return _stream(
        subjects.refused_stream(queue.name),
        f"messages to {queue.name} that failed authentication",
        subjects=[subjects.any_refused(queue.name)],
        max_msg_size=-1,
        discard="old",
        max_bytes=_aside(queue),
        max_age=_seconds(REFUSED_AGE_S),
        metadata=thresholds.put_aside(queue),
    )


_FENCED: Final[Config] = {"max_msgs_per_subject": 1, "discard_new_per_subject": True}
_KEPT: Final[Config] = {"deny_delete": True, "deny_purge": True}


def _stream(name: str, description: str, **settings: Any) -> Config:  # noqa: ANN401 (the API's own JSON)
    defaults: Config = {
        "name": name,
        "description": description,
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "discard_new_per_subject": False,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": MAX_MSG_SIZE,
        "max_age": 0,
        "duplicate_window": _seconds(DUPLICATE_WINDOW_S),
        "allow_direct": True,
        # One `Nats-Rollup: all` would wipe a stream, and a schedule forces it on: so neither.
        "allow_rollup_hdrs": False,
        "deny_delete": False,
        "deny_purge": False,
    }
    stream = defaults | settings
    if stream["max_age"]:  # a server takes no window that is longer than messages live
        stream["duplicate_window"] = min(stream["duplicate_window"], stream["max_age"])
    return stream


# --- consumers -------------------------------------------------------------------------------------


def _jobs_consumer(queue: Queue, priority: str) -> Config:
    name = subjects.jobs_consumer(queue.workers, priority)
    return {
        "name": name,
        "durable_name": name,
        "description": f"{priority} jobs of {queue.name}, pulled by {queue.workers} in {queue.work}",
        "deliver_policy": "all",
        "replay_policy": "instant",
        "filter_subject": subjects.any_job(queue.name, priority),
        "ack_policy": "explicit",
        "ack_wait": _ns(queue.ack_wait_ms),
        # Attempts are the worker's to count: the server would leave the message in place for ever.
        "max_deliver": -1,
        "max_ack_pending": MAX_ACK_PENDING,
        "max_waiting": MAX_WAITING,
        "num_replicas": 0,
        "metadata": thresholds.workers(queue, MAX_ACK_PENDING, MAX_WAITING),
    }


def _delayed_consumer(queue: Queue) -> Config:
    # Every job that waits counts as pending for the server, so there is no limit to it but the stream's.
    return {
        **_jobs_consumer(queue, "normal"),
        **_named(queue.workers, f"jobs of {queue.name} with a time, pulled by {queue.workers} in {queue.work}"),
        "filter_subject": subjects.any_delayed(queue.name),
        "max_ack_pending": -1,
        "metadata": {},
    }


def _replay_consumer(queue: Queue) -> Config:
    return {
        **_jobs_consumer(queue, "normal"),
        **_named(queue.workers, f"replay orders of {queue.name}, pulled by {queue.workers}"),
        "filter_subject": subjects.any_replay(queue.name),
        "metadata": {},
    }


def _inbox_consumer(queue: Queue, producer: str) -> Config:
    """It holds nothing back: its stream keeps results for as long as it would without, and then they are gone."""
    return {
        **_jobs_consumer(queue, "normal"),
        **_named(subjects.inbox_consumer(producer), f"results of {queue.name} that {producer} has not acked"),
        "filter_subject": subjects.any_result(queue.name, producer),
        "metadata": thresholds.inbox(queue, MAX_ACK_PENDING),
    }


def _named(name: str, description: str) -> Config:
    return {"name": name, "durable_name": name, "description": description}


def _home_consumer(queue: Queue) -> Config:
    return {
        "name": subjects.HOME_CONSUMER,
        "durable_name": subjects.HOME_CONSUMER,
        "description": f"results of {queue.name} on their way to {queue.home}",
        "deliver_policy": "all",
        "replay_policy": "instant",
        "deliver_subject": subjects.home_subject(queue.name),
        "ack_policy": "flow_control",
        "flow_control": True,
        "idle_heartbeat": _seconds(1),
        "max_deliver": -1,
        "max_ack_pending": HOME_ACK_PENDING,
        "num_replicas": 0,
        "metadata": thresholds.home(queue),
    }


def _aside(queue: Queue) -> int:
    return max(queue.max_bytes // ASIDE_DIVISOR, ASIDE_LEAST)


def _ns(milliseconds: int) -> int:
    return milliseconds * 1_000_000


def _seconds(seconds: int) -> int:
    return seconds * 1_000_000_000
