"""The queues of `bridge.yaml`, checked against the clouds and identities that they name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from bridge.core import MAX_LIFETIME_MS, MAX_PAYLOAD
from bridge.job import CANARY, INLINE_LIMIT, Errors
from bridge.packing import Packing, padded_length
from bridge.payload import PART, PART_OVERHEAD, stored_length
from bridge.policy.document import Sequence, shown
from bridge.policy.hints import nearest
from bridge.policy.parties import Declared
from bridge.policy.quantities import spell_duration, spell_size
from bridge.policy.section import Section
from bridge.policy.values import DAY, HOUR, MIB, MINUTE, SECOND, STORE_LIMIT, Backoff, Cloud, Queue, Rate, Role
from bridge.subjects import is_name

MAX_QUEUES: Final = 300
"""A server compares every subject that crosses the link with the others when it reads its configuration: 9 s of a
processor for so many, at each start and reload, and four times that for twice as many (docs/performance.md)."""

MAX_PENDING: Final = 10_000_000
"""Jobs. A server holds 240 to 900 bytes of memory for each (docs/waiting.md): up to 9 GB at this limit."""

PAYLOADS: Final = 4
"""Longest payloads that a queue has room for, where its policy does not say how much there is."""

_QUEUE: Final = (
    *("producers", "workers", "kinds", "ack_wait", "max_attempts", "backoff", "deadline", "result_ttl"),
    *("max_payload", "max_pending", "max_bytes", "payload_bytes", "inbox", "canary"),
    *("concurrency", "concurrency_per_key", "rate", "errors"),
    *("compression", "padding", "receipts", "receipts_bytes"),
)
_BACKOFF: Final = ("initial", "factor", "max", "jitter")
NEVER: Final = "never"
ON: Final = "on"
OFF: Final = "off"
_RATE: Final = ("jobs", "per", "burst")
MAX_CONCURRENCY: Final = 1_000
"""Slots of a queue, or of a key: a worker that finds the one it knew taken reads them all, some 400 bytes each."""
MAX_RATE: Final = 10_000
"""Jobs in a `rate`'s time; and in a second at most: a server stores some ten thousand reservations in one."""
_DEFAULT: Final = Queue("", (), "", (), "", "")


def read_queues(
    top: Section, clouds: Mapping[str, Cloud], identities: Mapping[str, Declared], max_outage: int
) -> dict[str, Queue]:
    """Read ``queues``: each from the producers of one cloud to the workers of the other."""
    queues: dict[str, Queue] = {}
    reserved = dict.fromkeys(clouds, 0)
    for name, section in top.named("queues", "queue", _QUEUE, "declare a queue"):
        if len(queues) == MAX_QUEUES:
            problem = f"{section.where} is one of more than {MAX_QUEUES} queues"
            section.note(section.line, problem, "give a queue several kinds, or make two bridges")
            break
        queue = _queue(name, section, clouds, identities)
        _check_retention(section, queue, max_outage)
        _check_room(section, queue)
        if section.sound and queue.home in clouds and queue.work in clouds:
            _reserve(section, queue, reserved)
        queues[name] = queue
    return queues


def _queue(name: str, section: Section, clouds: Mapping[str, Cloud], identities: Mapping[str, Declared]) -> Queue:
    producers = section.texts("producers", "add producers: [identity]")
    workers = section.text("workers", "add workers: and the identity of the pool")
    kinds = section.texts("kinds", "add kinds: [kind]")
    for kind, line in kinds.items():
        section.carries(line, "kind", kind)
        if kind == CANARY:
            section.note(line, f"kind {shown(kind)} is the bridge's own", "add canary: 30s instead, or name another")
    services = {who: its.cloud for who, its in identities.items() if its.role in (Role.SERVICE, None)}
    for who, line in producers.items():
        _check_service(section, line, who, services, identities)
    if workers:
        _check_service(section, section.line_of("workers"), workers, services, identities)
    max_payload = section.size("max_payload", _DEFAULT.max_payload, 1, MAX_PAYLOAD)
    max_bytes = section.size("max_bytes", _DEFAULT.max_bytes, MIB, STORE_LIMIT // 2)
    packing = _packing(section)
    home = _home(section, {who: line for who, line in producers.items() if services.get(who) in clouds}, services)
    work = services.get(workers, "")
    if home and home == work:
        problem = f"{section.where} is produced and worked in cloud {shown(home)}, and a bridge joins two"
        section.note(section.line_of("workers"), problem, "name a pool of the other cloud")
    return Queue(
        name=name,
        producers=tuple(producers),
        workers=workers,
        kinds=tuple(kinds),
        home=home,
        work=work,
        ack_wait_ms=section.duration("ack_wait", _DEFAULT.ack_wait_ms, SECOND, HOUR),
        max_attempts=section.whole("max_attempts", _DEFAULT.max_attempts, 1, 1000),
        backoff=_backoff(section),
        deadline_ms=section.duration("deadline", _DEFAULT.deadline_ms, SECOND, MAX_LIFETIME_MS),
        result_ttl_ms=section.duration("result_ttl", _DEFAULT.result_ttl_ms, MINUTE, MAX_LIFETIME_MS),
        max_payload=max_payload,
        max_pending=section.whole("max_pending", _DEFAULT.max_pending, 1, MAX_PENDING),
        max_bytes=max_bytes,
        payload_bytes=section.size("payload_bytes", _room(max_payload, packing, PAYLOADS), 0, STORE_LIMIT // 2),
        inbox=_inbox(section, producers),
        canary_ms=_canary(section, home, identities),
        concurrency=_slots(section, "concurrency"),
        concurrency_per_key=_slots(section, "concurrency_per_key"),
        rate=_rate(section),
        errors=cast(Errors, section.choice("errors", ("type", "message", "traceback"), _DEFAULT.errors)),
        packing=packing,
        receipts_bytes=_receipts(section, max_bytes),
    )


def _canary(section: Section, home: str, identities: Mapping[str, Declared]) -> int:
    """How often an agent of the producers' cloud sends a job that the workers answer by themselves; 0 is never."""
    if not section.has("canary") or section.word("canary") == NEVER:
        return 0
    every = section.duration("canary", _DEFAULT.canary_ms, 5 * SECOND, HOUR)
    if home and not any(its.role is Role.AGENT and its.cloud == home for its in identities.values()):
        problem = f"{section.where} has a canary, and cloud {shown(home)} no agent to send it"
        section.note(section.line_of("canary"), problem, "declare an identity with role: agent there")
    return every


def _receipts(section: Section, max_bytes: int) -> int:
    """The room for receipts; 0 where the queue leaves none."""
    if section.choice("receipts", (ON, OFF), OFF) == ON:
        return section.size("receipts_bytes", max_bytes, MIB, STORE_LIMIT // 2)
    if section.has("receipts_bytes"):
        section.note(section.line_of("receipts_bytes"), "receipts_bytes, but receipts are off", "add receipts: on")
    return 0


def _check_service(
    section: Section, line: int, name: str, services: Mapping[str, str], identities: Mapping[str, Declared]
) -> None:
    """Note an identity that cannot produce or work."""
    who = identities.get(name)
    certain = bool(identities) and all(map(is_name, identities))  # else the name that is wrong may be the one meant
    if who is None and certain:
        section.note(line, f"identity {shown(name)} is not declared", nearest(name, services or identities))
    elif who is not None and who.role not in (Role.SERVICE, None):
        problem = f"{shown(name)} cannot produce or work, its role is {who.role}"
        section.note(line, problem, "name an identity without a role")


def _inbox(section: Section, producers: Mapping[str, int]) -> tuple[str, ...]:
    """The producers with an inbox: some of the queue's own."""
    if not section.has("inbox") or section.node("inbox", "") == Sequence(section.line_of("inbox")):
        return ()
    found = section.texts("inbox", "")
    for who, line in found.items():
        if producers and who not in producers:
            section.note(line, f"inbox: {shown(who)} is no producer of {section.where}", nearest(who, producers))
    return tuple(found)


def _home(section: Section, producers: Mapping[str, int], services: Mapping[str, str]) -> str:
    """The one cloud that all producers are in, or "" if that cannot be said."""
    first = next(iter(producers), "")
    for who, line in producers.items():
        if services[who] != services[first]:
            problem = f"the producers of {section.where} sit in two clouds"
            each = f"{shown(first)} in {shown(services[first])}, {shown(who)} in {shown(services[who])}"
            section.note(line, f"{problem}: {each}", "make a queue for each cloud")
            return ""
    return services.get(first, "")


def _backoff(queue: Section) -> Backoff:
    default = Backoff()
    section = queue.section("backoff", _BACKOFF)
    if section is None:
        return default
    initial = section.duration("initial", default.initial_ms, 1, DAY)
    longest = section.duration("max", max(default.max_ms, initial), 1, DAY)
    if section.sound and longest < initial:
        problem = f"backoff: max {spell_duration(longest)} is below initial {spell_duration(initial)}"
        section.note(section.line_of("max"), problem, f"say at least {spell_duration(initial)}")
    return Backoff(
        initial_ms=initial,
        factor=section.number("factor", default.factor, 1, 100),
        max_ms=longest,
        jitter=section.number("jitter", default.jitter, 0, 1),
    )


def _slots(queue: Section, key: str) -> int | None:
    return queue.whole(key, None, 1, MAX_CONCURRENCY) if queue.has(key) else None


def _rate(queue: Section) -> Rate | None:
    section = queue.section("rate", _RATE)
    if section is None:
        return None
    jobs = section.whole("jobs", None, 1, MAX_RATE)
    if not section.has("per"):
        section.note(section.line, "rate has no 'per'", "add per: 1s")
    rate = Rate(jobs, section.duration("per", SECOND, SECOND, DAY), section.whole("burst", 1, 1, MAX_RATE))
    if section.sound and rate.burst > rate.jobs:
        problem = f"rate: burst {rate.burst} is above jobs {rate.jobs}"
        section.note(section.line_of("burst"), problem, f"say at most {rate.jobs}")
    return rate


def _check_retention(section: Section, queue: Queue, max_outage: int) -> None:
    """The fence lasts as long as the result: a job that is still good must find it standing."""
    needed = queue.deadline_ms + max_outage
    if section.sound and queue.result_ttl_ms <= needed:
        each = f"{spell_duration(queue.deadline_ms)} + {spell_duration(max_outage)}"
        problem = f"result_ttl {spell_duration(queue.result_ttl_ms)} must exceed deadline + max_outage ({each})"
        enough = needed - needed % HOUR + HOUR
        remedy = f"say {spell_duration(enough)}" if enough <= MAX_LIFETIME_MS else "lower deadline or max_outage"
        section.note(section.line_of("result_ttl"), problem, remedy)


def _packing(queue: Section) -> Packing | None:
    """How content is packed: compressed or padded, and not both."""
    compression = queue.choice("compression", (Packing.ZSTD, OFF), OFF)
    padding = queue.choice("padding", (Packing.PADME, OFF), OFF)
    if (compression, padding) == (Packing.ZSTD, Packing.PADME):
        problem = "compression and padding: what is compressed is of a size that tells of its content, also when padded"
        queue.note(queue.line_of("padding"), problem, "say one of them")
    return next((how for how in Packing if how in (compression, padding)), None)


def _room(max_payload: int, packing: Packing | None, payloads: int) -> int:
    """What so many of the longest payloads take as parts; nothing where they travel inline."""
    if max_payload <= INLINE_LIMIT:
        return 0
    if packing is Packing.PADME:
        max_payload = padded_length(max_payload)
    one = stored_length(max_payload) + PART_OVERHEAD * (2 + max_payload // PART)
    return payloads * (one - one % MIB + MIB)


def _check_room(section: Section, queue: Queue) -> None:
    """One payload of the greatest length must fit, or it would be refused with its disk half full."""
    least = _room(queue.max_payload, queue.packing, 1)
    if section.sound and queue.payload_bytes and not least:
        problem = f"payload_bytes, but max_payload {spell_size(queue.max_payload)} travels inline"
        section.note(section.line_of("payload_bytes"), problem, "raise max_payload, or remove it")
    elif section.sound and queue.payload_bytes < least:
        each = f"payload_bytes {spell_size(queue.payload_bytes)}"
        problem = f"{each} cannot hold one payload of max_payload {spell_size(queue.max_payload)}"
        section.note(section.line_of("payload_bytes"), problem, f"say at least {spell_size(least)}")


def _reserve(section: Section, queue: Queue, reserved: dict[str, int]) -> None:
    """Add up what the queues may store. Jobs and results end up at home, results stay at work too; the rest in both."""
    for cloud, streams in ((queue.home, 2), (queue.work, 1)):
        before = reserved[cloud]
        reserved[cloud] += streams * queue.max_bytes + queue.payload_bytes + queue.receipts_bytes
        if before <= STORE_LIMIT < reserved[cloud]:
            problem = f"with {section.where} the queues reserve {spell_size(reserved[cloud])} in cloud {shown(cloud)}"
            remedy = (
                f"lower max_bytes, payload_bytes or receipts_bytes until they are at most {spell_size(STORE_LIMIT)}"
            )
            section.note(section.line_of("max_bytes"), problem, remedy)
