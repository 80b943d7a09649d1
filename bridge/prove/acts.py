"""What every identity tries: all that anyone may, every call of the API, and what nobody may. No I/O.

The list follows from the policy and nothing else, so that whoever verifies a report can tell that nothing was left
out. No subject in it is a real job's: where a session, a number or a delivery would stand, there is one that cannot be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from bridge import subjects
from bridge.explain import Ground, as_checked, takes
from bridge.explain.account import Way
from bridge.matching import matches
from bridge.policy import IdentityEntry, Policy, Queue, Role
from bridge.prove.calls import ACTING, STRANGER, ack, acks, calls
from bridge.prove.harmless import SPECIAL
from bridge.render.accounts import LINK_ACCOUNT, SYSTEM_ACCOUNT
from bridge.render.permissions import ACCOUNT_REQUESTS, SERVER_REQUESTS
from bridge.render.streams import plan
from bridge.subjects import JobKey, api, inbox_prefix


class Area(StrEnum):
    """What an act is about: the rows of the matrix."""

    QUEUES = "subjects of queues"
    API = "JetStream's API, here"
    FAR = "JetStream's API, there"
    ACKS = "acks, flow control"
    INBOXES = "inboxes, replies"
    SERVERS = "the servers, $SYS"
    OTHERS = "wildcards, the rest"
    HEADERS = "headers of messages"
    PORT = "the link's port"


@dataclass(frozen=True, slots=True)
class Act:
    """One thing to try."""

    area: Area
    way: Way | Literal["connect"]
    subject: str
    """What is published or subscribed to; of a connection, the port."""
    what: str = ""
    """What is special about it: a header, a credential."""

    def __str__(self) -> str:
        return f"{self.way} {self.subject}" + (f" with {self.what}" if self.what else "")


@dataclass(frozen=True, slots=True)
class Expectation:
    """An act, and whether the policy allows it."""

    act: Act
    allowed: bool


def expectations(ground: Ground, me: IdentityEntry) -> list[Expectation]:
    """Everything that an identity tries on its connection, with what `bridge.explain` says of each."""
    found: list[tuple[Way, str]] = [("publish", subject) for subject in dict.fromkeys(_said(ground, me))]
    found += [("subscribe", subject) for subject in dict.fromkeys(_heard(ground, me))]
    return [expect(ground, me, way, subject) for way, subject in found]


def expect(ground: Ground, me: IdentityEntry, way: Way, subject: str) -> Expectation:
    """What the policy makes of a subject."""
    allowed = takes(ground, me, way, as_checked(ground, me, way, subject))
    return Expectation(Act(area_of(subject, me.cloud), way, subject), allowed)


def of_headers(ground: Ground, me: IdentityEntry, tried: Sequence[Expectation]) -> list[Expectation]:
    """Each special header, on one subject of each stream that an identity may write to.

    Args:
        ground: The policy, and what follows from it.
        me: Who.
        tried: What it tries without them.
    """
    found = []
    for stream in plan(ground.policy, me.cloud)["streams"]:
        mine = (each.act.subject for each in tried if each.allowed and each.act.way == "publish")
        subject = next((each for each in mine if any(matches(taken, each) for taken in stream.get("subjects", ()))), "")
        for header, special in SPECIAL.items() if subject else ():
            act = Act(Area.HEADERS, "publish", subject, header)
            found.append(Expectation(act, bool(stream.get(special.setting))))
    return found


def concrete(granted: str, policy: Policy, cloud: str) -> str:
    """A subject that a granted one stands for, and that is nobody's: ``0`` for every token that varies."""
    if granted.startswith("$JS.ACK.") and granted.endswith(".>"):
        return ack(granted.removesuffix(".>").replace("*", "0"))
    if granted.startswith("$SYS.REQ.SERVER.*."):
        return granted.replace("*", "PING")
    if granted.startswith("$SYS.REQ.ACCOUNT.*."):
        return granted.replace("*", policy.clouds[cloud].account)
    return granted.replace("*", "0").replace(">", "0")


def area_of(subject: str, cloud: str) -> Area:
    """The row that a subject belongs to, for an identity of a cloud."""
    kind, _, rest = subject.partition(".")
    if kind == "$JS" and rest.startswith(("ACK.", "FC.")):
        return Area.ACKS
    if kind == "$JS" and (rest.startswith(("API.", f"{cloud}.API."))):
        return Area.API
    if kind == "$JS" and ".API." in rest:
        return Area.FAR
    if kind.startswith("_INBOX") or kind in ("_R_", "_GR_"):
        return Area.INBOXES
    if kind == "$SYS":
        return Area.SERVERS
    return Area.QUEUES if kind in _KINDS and rest and not rest.startswith((">", "*")) else Area.OTHERS


_KINDS: Final = frozenset(
    ("jobs", "delayed", "control", "results", "done", "starts", "dead", "refused", "replay", "events", "parts", "slots")
)
_UNHEARD: Final = (
    *(">", "*", "*.>", "$JS.>", "$JS.API.>", "$JS.*.API.>", "$JS.ACK.>", "$JS.FC.>", "$JS.EVENT.>", "$JSC.>", "$NRG.>"),
    *("$SYS.>", "$SYS.REQ.>", "$SYS.ACCOUNT.>", "$SYS.SERVER.>", "$SYS._INBOX.>", "$KV.>", "$OBJ.>", "$MQTT.>"),
    *("$LDS.>", "_INBOX.>", "_R_.>", "_GR_.>", "home.>", "stats.>", "health.>", *(f"{kind}.>" for kind in _KINDS)),
)
_UNSAID: Final = (
    *("$NRG.V.0", "$NRG.AE.0", "$JSC.CI.0", "$LDS.0", "$MQTT.msgs.0", "$KV.0.0", "$OBJ.0.C.0", "_INBOX.0"),
    *("_R_.0", "_GR_.0.0.0", "$SYS._INBOX.0.0", "$SYS.LATENCY.M2.0", "x", "jobs", "done", "home", "stats.x.x"),
    *("$JS.EVENT.ADVISORY.API", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.0.0", "$JS.SNAPSHOT.ACK.0.0"),
    *("$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.DELETE", "$SYS.REQ.CLAIMS.PACK", "$SYS.REQ.CLAIMS.LIST"),
    *("$SYS.REQ.ACCOUNT.NSUBS", "$SYS.REQ.USER.INFO", "$SYS.REQ.USER.AUTH", "$SYS.DEBUG.SUBSCRIBERS"),
    *("$SYS.SERVER.0.SHUTDOWN", "$SYS.SERVER.0.LAMEDUCK", "$SYS.SERVER.0.STATSZ", "$SYS.REQ.SERVER.PING"),
)


def _said(ground: Ground, me: IdentityEntry) -> Iterator[str]:
    """What it publishes to, its own first."""
    policy = ground.policy
    names = [me.name, *sorted(policy.identities)]
    for name in names:
        who = policy.identities[name]
        for granted in ground.permissions[name].publish if who.role is not Role.LINK else ground.link.publish:
            subject = concrete(granted, policy, who.cloud)
            yield from (subject, f"{subject}.{STRANGER}")
    for cloud in policy.clouds:
        planned = assets(policy, cloud)
        yield from calls(api(cloud), planned)
        if cloud == me.cloud:
            yield from calls(api(None), planned)
        yield from acks(cloud, planned)
    for queue in policy.queues.values():
        for producer in dict.fromkeys((me.name, *queue.producers, queue.workers, "stranger")):
            yield from of_queue(queue, producer)
    yield from (f"{inbox_prefix(name)}.0" for name in names)
    yield from _UNSAID
    accounts = (SYSTEM_ACCOUNT, LINK_ACCOUNT, me.name, *(cloud.account for cloud in policy.clouds.values()))
    for call in (*SERVER_REQUESTS, "CONNZ", *ACTING):
        yield from (f"$SYS.REQ.SERVER.{server}.{call}" for server in ("PING", "0"))
    for account in accounts:
        yield from (f"$SYS.REQ.ACCOUNT.{account}.{call}" for call in (*ACCOUNT_REQUESTS, *_OF_ACCOUNTS))
        yield from (f"$SYS.ACCOUNT.{account}.{event}" for event in ("CONNECT", "LEAFNODE.CONNECT", "SERVER.CONNS"))


_OF_ACCOUNTS: Final = ("CONNS", "STATZ", "CLAIMS.UPDATE", "CLAIMS.LOOKUP")


def _heard(ground: Ground, me: IdentityEntry) -> Iterator[str]:
    """What it subscribes to, its own first."""
    policy = ground.policy
    names = [me.name, *sorted(policy.identities)]
    for name in names:
        link = policy.identities[name].role is Role.LINK
        for granted in ground.link.subscribe if link else ground.permissions[name].subscribe:
            yield from (granted, concrete(granted, policy, me.cloud), f"{granted.rpartition('.')[0]}.>")
    yield from _UNHEARD
    for queue in policy.queues.values():
        yield from (f"{kind}.{queue.name}.>" for kind in sorted(_KINDS))
        yield from (f"{kind}.{queue.name}.{me.name}.>" for kind in sorted(_KINDS))
        yield subjects.home_subject(queue.name)
    for stream, consumers in assets(policy, me.cloud):
        yield f"{api(None)}.DIRECT.GET.{stream}.>"
        yield from (subjects.next_message(stream, consumer) for consumer in consumers)


def of_queue(queue: Queue, producer: str) -> Iterator[str]:
    """Every subject of a queue, as if for a job of one producer: no session is ``0``."""
    key = JobKey(queue.name, producer, "0", 0)
    yield from (subjects.job(key, priority) for priority in (*subjects.PRIORITIES, "urgent"))
    for build in (subjects.delayed, subjects.control, subjects.event, subjects.replay, subjects.result, subjects.done):
        yield build(key)
    yield from (build(key) for build in (subjects.start, subjects.dead))
    yield from (subjects.part(key, "0", 0), subjects.refused(queue.name, "0"), subjects.home_subject(queue.name))
    yield from (f"slots.{queue.name}.{rest}" for rest in ("all.0", "rate", "clock.0", f"key.{producer}.0.0"))


def assets(policy: Policy, cloud: str) -> list[tuple[str, list[str]]]:
    """The streams that a cloud is to have, and the consumers of each."""
    planned: dict[str, Any] = plan(policy, cloud)
    return [
        (
            stream["name"],
            [each["config"]["name"] for each in planned["consumers"] if each["stream"] == stream["name"]],
        )
        for stream in planned["streams"]
    ]
