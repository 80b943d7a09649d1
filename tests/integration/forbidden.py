"""What each identity of a policy must not do, by role: written down by hand, apart from what grants permissions.

Subjects stand here as literals on purpose. Each `Act` is tried by `test_permissions` with the identity's real key
and plain nats-py; the list is a function of the policy, so that any bridge can be tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from bridge.policy import IdentityEntry, Policy, Queue, Role
from bridge.render.streams import plan

SESSION = "feedfacefeedfacefeedface"


class Act(NamedTuple):
    """Something to try, and never to succeed."""

    verb: Literal["publish", "subscribe"]
    subject: str


def forbidden(policy: Policy, me: IdentityEntry) -> list[Act]:
    """Every act to try as one identity."""
    publish = [*_nobody(policy, me)]
    for queue in policy.queues.values():
        publish += _jobs(queue, me) + _work(queue, me)
    if me.role not in (Role.INSPECTOR, Role.OPERATOR):
        publish += _reading(policy, me)
    publish += _making(policy, me)
    acts = [Act("publish", subject) for subject in publish]
    acts += [Act("subscribe", subject) for subject in _listening(policy, me)]
    return list(dict.fromkeys(acts))


def refusals(acts: Mapping[Act | tuple[str, str], int], me: IdentityEntry) -> Counter[tuple[str, str]]:
    """Acts as refusals name them: in lower case, and one's own domain often mapped away before the check."""
    found: Counter[tuple[str, str]] = Counter()
    for (verb, subject), times in acts.items():
        found[verb, subject.lower().replace(f"$js.{me.cloud}.api.", "$js.api.")] += times
    return found


def _apis(policy: Policy, me: IdentityEntry) -> list[str]:
    """The API of one's own cloud, and those of the others by their domains."""
    return ["$JS.API", *(f"$JS.{cloud}.API" for cloud in policy.clouds if cloud != me.cloud)]


def _streams(policy: Policy) -> list[str]:
    kinds = (
        "JOBS",
        "DELAYED",
        "CONTROL",
        "RESULTS",
        "STARTS",
        "DEAD",
        "REFUSED",
        "REPLAY",
        "SLOTS",
        "PARTS",
        "RECEIPTS",
    )
    return [f"{kind}_{queue}" for queue in policy.queues for kind in kinds]


def _drops(policy: Policy, me: IdentityEntry) -> list[str]:
    """The streams that an operator may delete single messages from."""
    queues = policy.queues.values() if me.role is Role.OPERATOR else ()
    return [f"DEAD_{queue.name}" for queue in queues if queue.work == me.cloud]


def _nobody(policy: Policy, me: IdentityEntry) -> Iterator[str]:
    """Nobody destroys, makes consumers, asks the servers, or plays another part of the bridge."""
    for api in (*_apis(policy, me), f"$JS.{me.cloud}.API"):
        for stream in _streams(policy):
            for call in ("DELETE", "PURGE", "SNAPSHOT", "RESTORE"):
                yield f"{api}.STREAM.{call}.{stream}"
            if stream not in _drops(policy, me) or api not in ("$JS.API", f"$JS.{me.cloud}.API"):
                yield f"{api}.STREAM.MSG.DELETE.{stream}"
            if me.role not in (Role.INSPECTOR, Role.OPERATOR) or api not in ("$JS.API", f"$JS.{me.cloud}.API"):
                yield f"{api}.STREAM.MSG.GET.{stream}"
            for call in ("DELETE", "PAUSE", "RESET", "UNPIN", "LEADER.STEPDOWN"):
                yield f"{api}.CONSUMER.{call}.{stream}.home"
            yield f"{api}.CONSUMER.CREATE.{stream}"
            yield f"{api}.CONSUMER.CREATE.{stream}.mine"
            yield f"{api}.CONSUMER.CREATE.{stream}.mine.>"
            yield f"{api}.CONSUMER.DURABLE.CREATE.{stream}.mine"
            yield f"{api}.CONSUMER.MSG.NEXT.{stream}.mine"
            yield f"{api}.CONSUMER.MSG.NEXT.{stream}.home"
            yield f"{api}.STREAM.LEADER.STEPDOWN.{stream}"
        for rest in ("STREAM.CREATE.MINE", "STREAM.UPDATE.MINE", "META.LEADER.STEPDOWN", "ACCOUNT.PURGE.RELAY"):
            yield f"{api}.{rest}"
    for cloud in policy.clouds:
        if cloud != me.cloud:
            for rest in ("INFO", "STREAM.NAMES", "STREAM.LIST", *(f"STREAM.INFO.{s}" for s in _streams(policy))):
                yield f"$JS.{cloud}.API.{rest}"
    for account in ("RELAY", "BUNNY", "BRIDGE", "SYS"):
        yield f"$SYS.ACCOUNT.{account}.SERVER.CONNS"
        yield f"$SYS.ACCOUNT.{account}.CONNECT"
        yield f"$SYS.ACCOUNT.{account}.LEAFNODE.CONNECT"
        for rest in ("CLAIMS.UPDATE", "CLAIMS.LOOKUP", "CONNS", "STATZ"):
            yield f"$SYS.REQ.ACCOUNT.{account}.{rest}"
    yield "$SYS.REQ.SERVER.ID.CONNZ"
    for server in ("ID", "PING"):
        for rest in ("RELOAD", "KICK", "LDM", "PROFILEZ"):
            yield f"$SYS.REQ.SERVER.{server}.{rest}"
    yield from ("$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.DELETE", "$SYS.REQ.CLAIMS.PACK", "$SYS.REQ.ACCOUNT.NSUBS")
    yield from ("$SYS.SERVER.ID.SHUTDOWN", "$SYS.SERVER.ID.LAMEDUCK", "$SYS.SERVER.ID.STATSZ", "$SYS.DEBUG.SUBSCRIBERS")
    yield from ("$NRG.V.guess", "$NRG.AE.guess", "$SYS._INBOX.guess.x", "$SYS.LATENCY.M2.guess")
    if me.role is not Role.SYSTEM:
        for rest in ("PING", "PING.CONNZ", "PING.JSZ", "ID.VARZ", "ID.SUBSZ"):
            yield f"$SYS.REQ.SERVER.{rest}"
        for rest in ("CONNZ", "JSZ", "INFO"):
            yield f"$SYS.REQ.ACCOUNT.RELAY.{rest}"
    yield from ("_R_.guess", "_GR_.guess", "$LDS.guess", "$MQTT.msgs.x", "$KV.x", "x", "jobs", "done")
    for queue in policy.queues.values():
        yield f"home.results.{queue.name}"
        yield f"$JS.FC.RESULTS_{queue.name}.home.x"
        yield f"$JS.ACK.RESULTS_{queue.name}.home.1.1.1.1.0"
        yield f"done.{queue.name}.{queue.producers[0]}.{SESSION}.1.0"
    for other in policy.identities:
        if other != me.name:
            yield f"_INBOX_{other}.guess"


def _jobs(queue: Queue, me: IdentityEntry) -> list[str]:
    """Jobs are published and looked up by their producer alone, on subjects that a consumer reads."""
    name, tail = queue.name, f"{SESSION}.1"
    acts = []
    for producer in (*queue.producers, queue.workers, me.name, "stranger"):
        if producer != me.name or me.name not in queue.producers:
            acts.append(f"jobs.{name}.normal.{producer}.{tail}")
            if me.role not in (Role.INSPECTOR, Role.OPERATOR) or me.cloud != queue.home:
                acts.append(f"$JS.API.DIRECT.GET.JOBS_{name}.jobs.{name}.normal.{producer}.{tail}")
            acts += [f"delayed.{name}.{producer}.{tail}", f"control.{name}.{producer}.{tail}"]
            if not (me.name == queue.workers or _reads(me, queue.home) or _reads(me, queue.work)):
                acts.append(f"$JS.API.DIRECT.GET.RESULTS_{name}.results.{name}.{producer}.{tail}.0")
    for producer in (*queue.producers, me.name, "stranger"):
        part = f"parts.{name}.{producer}.{tail}.{SESSION}.0"
        if me.name != queue.workers and (producer != me.name or me.name not in queue.producers):
            acts.append(part)
            if not _reads(me, queue.work):
                acts.append(f"$JS.{queue.work}.API.DIRECT.GET.PARTS_{name}.{part}")
        if me.name != queue.workers and not _reads(me, queue.home):
            acts.append(f"$JS.{queue.home}.API.DIRECT.GET.PARTS_{name}.{part}")
    signs = (*queue.producers, queue.workers, *(("agent-azure",) if name == "lookup" else ()))
    for signer in (*queue.producers, queue.workers, me.name, "stranger"):
        if signer != me.name or me.name not in signs:
            acts.append(f"receipts.{name}.{signer}.{tail}")
    mine = f"jobs.{name}.normal.{me.name}"
    if me.name != queue.workers or not queue.limited:
        acts += [f"slots.{name}.{rest}" for rest in ("all.0", f"key.{me.name}.{'0' * 64}.0", "rate", "x")]
    if me.name != queue.workers:
        acts.append(f"events.{name}.{queue.producers[0]}.{tail}")
    if me.role is not Role.OPERATOR or me.cloud != queue.work:
        acts.append(f"replay.{name}.{me.name}.{tail}.0")
    return [
        *acts,
        f"jobs.{name}.urgent.{me.name}.{tail}",
        f"events.{name}.{me.name}.short",
        f"{mine}.{tail}.extra",
        f"{mine}.short",
        f"parts.{name}.{me.name}.{tail}.0",
        f"receipts.{name}.{me.name}.{tail}.extra",
    ]


def _work(queue: Queue, me: IdentityEntry) -> list[str]:
    """Only the pool pulls, settles, answers and puts aside."""
    name, tail = queue.name, f"{queue.producers[0]}.{SESSION}.1.0"
    consumer = f"{queue.workers}-normal"
    acts = [f"$JS.API.CONSUMER.MSG.NEXT.JOBS_{name}.{consumer}"]
    for other in ("mine", f"{queue.workers}-urgent"):
        acts += [f"$JS.{queue.home}.API.CONSUMER.MSG.NEXT.JOBS_{name}.{other}"]
        acts += [f"$JS.ACK.JOBS_{name}.{other}.1.1.1.1.0", f"$JS.ACK.{queue.home}.hash.JOBS_{name}.{other}.1.1.1.1.0"]
    for producer in queue.producers:
        if producer != me.name or producer not in queue.inbox:
            acts += [
                f"$JS.API.CONSUMER.MSG.NEXT.RESULTS_{name}.inbox-{producer}",
                f"$JS.ACK.RESULTS_{name}.inbox-{producer}.1.1.1.1.0",
                f"$JS.ACK.{queue.home}.hash.RESULTS_{name}.inbox-{producer}.1.1.1.1.0",
            ]
        if queue.home != me.cloud:
            acts.append(f"$JS.{queue.home}.API.CONSUMER.MSG.NEXT.RESULTS_{name}.inbox-{producer}")
    if me.name != queue.workers:
        acts += [
            f"$JS.{queue.home}.API.CONSUMER.MSG.NEXT.JOBS_{name}.{consumer}",
            f"$JS.ACK.JOBS_{name}.{consumer}.1.1.1.1.0",
            f"$JS.ACK.{queue.home}.hash.JOBS_{name}.{consumer}.1.1.1.1.0",
            f"$JS.{queue.home}.API.CONSUMER.MSG.NEXT.DELAYED_{name}.{queue.workers}",
            f"$JS.API.CONSUMER.MSG.NEXT.REPLAY_{name}.{queue.workers}",
            f"$JS.ACK.DELAYED_{name}.{queue.workers}.1.1.1.1.0",
            f"$JS.ACK.REPLAY_{name}.{queue.workers}.1.1.1.1.0",
            f"$JS.{queue.home}.API.DIRECT.GET.CONTROL_{name}",
            f"results.{name}.{tail}",
            f"starts.{name}.{tail}",
            f"dead.{name}.{tail}",
            f"refused.{name}.{SESSION}",
        ]
        if not _reads(me, queue.work):
            acts.append(f"$JS.API.DIRECT.GET.STARTS_{name}.starts.{name}.{tail}")
    return acts


def _reading(policy: Policy, me: IdentityEntry) -> list[str]:
    """Only inspectors and operators read whole streams; an agent sees how much its own cloud's hold."""
    acts = []
    here = {stream["name"] for stream in plan(policy, me.cloud)["streams"]} if me.role is Role.AGENT else set()
    mine = [f"SLOTS_{queue.name}" for queue in policy.queues.values() if queue.workers == me.name and queue.limited]
    for stream in _streams(policy):
        if stream in mine:
            acts += [f"$JS.API.DIRECT.GET.{stream}.x", f"$JS.API.STREAM.INFO.{stream}"]
            continue
        acts += [f"$JS.API.DIRECT.GET.{stream}", f"$JS.API.DIRECT.GET.{stream}.x", f"$JS.API.DIRECT.GET.{stream}.>"]
        if me.role is not Role.PROVISIONER:
            acts += [f"$JS.API.CONSUMER.LIST.{stream}"]
            acts += [f"$JS.API.STREAM.INFO.{stream}"] if stream not in here else []
    if me.role is not Role.PROVISIONER:
        acts += ["$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES"]
        acts += ["$JS.API.INFO"] if me.role is not Role.AGENT else []
    acts += [f"stats.{cloud}.{who}" for cloud in policy.clouds for who in (*policy.identities, "x") if who != me.name]
    return acts


def _making(policy: Policy, me: IdentityEntry) -> list[str]:
    """Only the provisioner makes what the plan has, and in its own cloud alone."""
    acts = []
    for queue in policy.queues.values():
        places = {
            f"JOBS_{queue.name}": {queue.home: f"{queue.workers}-normal"},
            f"RESULTS_{queue.name}": {queue.home: "", queue.work: "home"},
            f"STARTS_{queue.name}": {queue.work: ""},
            f"DEAD_{queue.name}": {queue.work: ""},
            f"REFUSED_{queue.name}": {queue.work: ""},
            f"DELAYED_{queue.name}": {queue.home: queue.workers},
            f"CONTROL_{queue.name}": {queue.home: ""},
            f"REPLAY_{queue.name}": {queue.work: queue.workers},
            f"SLOTS_{queue.name}": {queue.work: ""} if queue.limited else {},
            f"PARTS_{queue.name}": {queue.home: "", queue.work: ""},
        }
        inboxes = [
            f"$JS.API.CONSUMER.{call}.RESULTS_{queue.name}.inbox-{producer}"
            for producer in queue.producers
            for call in ("CREATE", "DURABLE.CREATE")
        ]
        if me.role is not Role.PROVISIONER or me.cloud != queue.home:
            acts += inboxes
        for stream, consumers in places.items():
            for api in _apis(policy, me):
                own = api == "$JS.API" and me.role is Role.PROVISIONER
                if not (own and me.cloud in consumers):
                    acts += [f"{api}.STREAM.CREATE.{stream}", f"{api}.STREAM.UPDATE.{stream}"]
                for cloud, consumer in consumers.items():
                    if consumer and not (own and me.cloud == cloud):
                        acts.append(f"{api}.CONSUMER.CREATE.{stream}.{consumer}")
                        acts.append(f"{api}.CONSUMER.DURABLE.CREATE.{stream}.{consumer}")
    return acts


def _listening(policy: Policy, me: IdentityEntry) -> Iterator[str]:
    """Nobody listens to what is not addressed to it."""
    yield from (">", "*", "*.>", "_INBOX.>", "_R_.>", "_GR_.>", "$SYS.>", "$SYS.ACCOUNT.>", "$LDS.>")
    yield from ("$SYS.REQ.>", "$SYS.SERVER.>", "$SYS.SERVER.*.STATSZ", "$SYS._INBOX.>", "$NRG.>")
    if me.role is not Role.SYSTEM:
        yield from ("$SYS.ACCOUNT.*.CONNECT", "$SYS.ACCOUNT.*.DISCONNECT", "$SYS.SERVER.*.CLIENT.AUTH.ERR")
    yield from ("$JS.>", "$JS.API.>", "$JS.ACK.>", "$JS.FC.>", "$JS.*.API.>", "$JSC.>", "home.>", "done.>")
    if me.role not in (Role.INSPECTOR, Role.OPERATOR):
        yield from ("$JS.EVENT.ADVISORY.>", "$JS.EVENT.METRIC.>")
    for kind in ("jobs", "results", "starts", "dead", "refused", "parts", "control", "events", "stats", "slots"):
        yield f"{kind}.>"
    for other in policy.identities:
        if other != me.name:
            yield f"_INBOX_{other}.>"
    for queue in policy.queues.values():
        yield f"done.{queue.name}.>"
        yield f"done.{queue.name}.*.>"
        for producer in queue.producers:
            if producer != me.name:
                yield f"done.{queue.name}.{producer}.>"
                yield f"events.{queue.name}.{producer}.>"
        if queue.workers != me.name:
            yield f"control.{queue.name}.>"


def _reads(me: IdentityEntry, cloud: str) -> bool:
    return me.role in (Role.INSPECTOR, Role.OPERATOR) and me.cloud == cloud
