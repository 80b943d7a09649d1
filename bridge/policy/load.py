"""`bridge.yaml` read into a `Policy`, or into one line for each of its mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, cast

from bridge.core import MAX_LIFETIME_MS
from bridge.errors import PolicyError
from bridge.job import INLINE_LIMIT
from bridge.policy.document import Node, parse
from bridge.policy.hints import nearest
from bridge.policy.quantities import spell_duration, spell_size
from bridge.policy.section import Problems, Section
from bridge.policy.values import (
    DAY,
    HOUR,
    MIB,
    MINUTE,
    SECOND,
    STORE_LIMIT,
    Backoff,
    Cloud,
    IdentityEntry,
    Policy,
    Queue,
    Role,
    TrustPolicy,
)

MAX_FILE: Final = MIB
"""Bytes of a policy file: far above what people review, far below what hurts to parse."""
YEAR: Final = 365 * DAY
MAX_PENDING: Final = 10_000_000
"""A server holds some 300 bytes of memory for each stored subject."""

_TOP: Final = ("version", "bridge", "clouds", "identities", "trust", "max_outage", "queues")
_CLOUD: Final = ("role", "clients", "leafnodes", "durability")
_IDENTITY: Final = ("cloud", "role")
_TRUST: Final = ("threshold", "expires")
_QUEUE: Final = (
    "producers",
    "workers",
    "kinds",
    "ack_wait",
    "max_attempts",
    "backoff",
    "deadline",
    "result_ttl",
    "max_payload",
    "max_pending",
    "max_bytes",
)
_BACKOFF: Final = ("initial", "factor", "max", "jitter")


def load_policy(path: Path) -> Policy:
    """Load the policy.

    Raises:
        PolicyError: Its first mistake.
    """
    policy, problems = _load(path)
    if policy is None:
        raise problems[0]
    return policy


def check_policy(path: Path) -> list[PolicyError]:
    """Every mistake that can be found without guessing, in the order of the file's lines; empty if it loads."""
    return _load(path)[1]


def _load(path: Path) -> tuple[Policy | None, list[PolicyError]]:
    problems = Problems(str(path))
    try:
        node, twice = parse(_read(path, problems), problems.error)
    except PolicyError as error:
        return None, [error]
    problems.found += twice
    policy = _Loader(problems, node).policy()
    found = sorted(problems.found, key=lambda problem: problem.line)
    return (None, found) if found else (policy, [])


def _read(path: Path, problems: Problems) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise problems.error(0, "there is no such file", "let `bunny init` write one") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        why = (error.strerror if isinstance(error, OSError) else None) or "not a path"
        raise problems.error(0, f"cannot be read: {why}", "name a file that you may read") from None
    if len(data) > MAX_FILE:
        raise problems.error(0, f"larger than {spell_size(MAX_FILE)}", "a policy is a page: is this the right file?")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    raise problems.error(line, "not UTF-8", "save the file as UTF-8")


@dataclass(frozen=True, slots=True)
class _Declared:
    """What the file says of an identity, right or wrong, so that one mistake is told once."""

    line: int
    cloud: str
    role: Role | None


class _Loader:
    """Reads the sections of one file in order; each is compared with those before it."""

    def __init__(self, problems: Problems, node: Node) -> None:
        self._top = Section(problems, "the policy", 1, node, _TOP)
        self._clouds: dict[str, Cloud] = {}
        self._identities: dict[str, _Declared] = {}
        self._queues: dict[str, Queue] = {}

    def policy(self) -> Policy:
        """Read everything. What it returns is good only if no problem was noted."""
        top = self._top
        version = top.whole("version", None, 0, 2**31)
        if top.has("version") and version != 1:
            top.note(top.line_of("version"), f"version {version} is not known to this release", "say version: 1")
        bridge = top.name("bridge", "add bridge: and a name for the trust domain")
        self._read_clouds()
        self._read_identities()
        trust = self._read_trust()
        max_outage = top.duration("max_outage", 12 * HOUR, MINUTE, 30 * DAY)
        self._read_queues(max_outage)
        return Policy(
            bridge=bridge,
            clouds=self._clouds,
            identities={
                name: IdentityEntry(name, declared.cloud, declared.role or Role.SERVICE)
                for name, declared in self._identities.items()
            },
            queues=self._queues,
            trust=trust,
            max_outage_ms=max_outage,
        )

    # --- clouds --------------------------------------------------------------------------------------

    def _read_clouds(self) -> None:
        top = self._top
        sections = dict(top.named("clouds", "cloud", _CLOUD, "declare a hub and a leaf"))
        sides: dict[str, str] = {}
        whole = True
        for name, section in sections.items():
            role = section.choice("role", ("hub", "leaf"))
            whole = whole and bool(role)
            if role in sides:
                known = f"{sides[role]!r} is the {role} already"
                if role == "leaf":
                    section.note(section.line_of("role"), f"a second leaf is not built yet: {known}", "remove it")
                else:
                    section.note(section.line_of("role"), f"a second hub: {known}", "make one the leaf")
            sides.setdefault(role, name)
            clients = section.url("clients", 4222, "add clients: tls://host:4222, where its services connect")
            leafnodes = None
            if role == "hub":
                leafnodes = section.url("leafnodes", 7422, "add leafnodes: tls://host:7422, where the leaf dials in")
            elif role == "leaf" and section.has("leafnodes"):
                section.note(section.line_of("leafnodes"), "a leaf takes no links: nothing listens there", "remove it")
            durability = section.choice("durability", ("power-loss", "process"), "power-loss")
            self._clouds[name] = Cloud(
                name,
                cast(Literal["hub", "leaf"], role),
                clients,
                leafnodes,
                cast(Literal["power-loss", "process"], durability),
            )
        for role in ("hub", "leaf"):
            if sections and whole and role not in sides:
                top.note(top.line_of("clouds"), f"no cloud is the {role}", f"give one role: {role}")

    # --- identities ----------------------------------------------------------------------------------

    def _read_identities(self) -> None:
        top = self._top
        sound = True
        for name, section in top.named("identities", "identity", _IDENTITY, "declare who connects, and where"):
            clouds = " or ".join(self._clouds) or "aws"
            cloud = section.name("cloud", f"it is in no cloud: add cloud: {clouds}")
            if cloud and self._clouds and cloud not in self._clouds:
                section.note(
                    section.line_of("cloud"),
                    f"{section.where} is in cloud {cloud!r}, which is not declared",
                    nearest(cloud, self._clouds),
                )
            role = self._role(section)
            self._identities[name] = _Declared(section.line, cloud, role)
            sound = sound and section.sound
        if sound and self._identities and self._clouds:
            self._check_roles()

    def _role(self, section: Section) -> Role | None:
        word = section.word("role")
        if word in ("producer", "worker"):
            section.note(
                section.line_of("role"),
                f"role {word!r} is not written here: the queues say who produces and who works",
                "remove it",
            )
            return Role.SERVICE
        text = section.choice("role", tuple(Role), Role.SERVICE)
        return Role(text) if text else None

    def _check_roles(self) -> None:
        top = self._top
        line = top.line_of("identities")
        for cloud in self._clouds.values():
            here = {name: who.role for name, who in self._identities.items() if who.cloud == cloud.name}
            if Role.PROVISIONER not in here.values():
                top.note(
                    line,
                    f"no provisioner in cloud {cloud.name!r}: nobody could make its streams",
                    f"add provisioner-{cloud.name}: {{cloud: {cloud.name}, role: provisioner}}",
                )
            links = [name for name, role in here.items() if role is Role.LINK]
            if cloud.role == "hub" and links:
                top.note(
                    self._identities[links[0]].line,
                    f"the link {links[0]!r} is in the hub's cloud, and it is the leaf that dials",
                    f"say cloud: {next((c.name for c in self._clouds.values() if c.role == 'leaf'), 'azure')}",
                )
            if cloud.role == "leaf" and len(links) > 1:
                top.note(self._identities[links[1]].line, f"a second link: {links[0]!r} is it already", "remove one")
            if cloud.role == "leaf" and not links:
                top.note(
                    line,
                    f"no link in cloud {cloud.name!r}: its leaf could not dial the hub",
                    f"add {cloud.name}-link: {{cloud: {cloud.name}, role: link}}",
                )

    # --- trust and queues ----------------------------------------------------------------------------

    def _read_trust(self) -> TrustPolicy:
        section = self._top.section("trust", _TRUST)
        if section is None:
            return TrustPolicy()
        return TrustPolicy(
            threshold=section.whole("threshold", TrustPolicy().threshold, 1, 16),
            expires_ms=section.duration("expires", TrustPolicy().expires_ms, HOUR, YEAR),
        )

    def _read_queues(self, max_outage: int) -> None:
        reserved = dict.fromkeys(self._clouds, 0)
        for name, section in self._top.named("queues", "queue", _QUEUE, "declare a queue"):
            queue = self._queue(name, section)
            self._check_retention(section, queue, max_outage)
            if not section.sound:
                continue
            self._queues[name] = queue
            # Jobs and results end up at home; results are also held where they are written.
            for cloud, streams in ((queue.home, 2), (queue.work, 1)):
                before = reserved[cloud]
                reserved[cloud] += streams * queue.max_bytes
                if before <= STORE_LIMIT < reserved[cloud]:
                    section.note(
                        section.line_of("max_bytes"),
                        f"with queue {name!r} the queues reserve {spell_size(reserved[cloud])} in cloud {cloud!r}",
                        f"lower max_bytes until they are at most {spell_size(STORE_LIMIT)}",
                    )

    def _queue(self, name: str, section: Section) -> Queue:
        default = Queue(name, (), "", (), "", "")
        producers = section.names("producers", "add producers: [identity]")
        workers = section.name("workers", "add workers: and the identity of the pool")
        kinds = section.names("kinds", "add kinds: [kind]")
        home = self._home(section, producers)
        work = self._service(section, section.line_of("workers"), workers, "works") if workers else ""
        if home and home == work:
            section.note(
                section.line_of("workers"),
                f"{section.where} is produced and worked in cloud {home!r}, and a bridge joins two",
                "name a pool of the other cloud",
            )
        return Queue(
            name=name,
            producers=tuple(text for _, text in producers),
            workers=workers,
            kinds=tuple(text for _, text in kinds),
            home=home,
            work=work,
            ack_wait_ms=section.duration("ack_wait", default.ack_wait_ms, SECOND, HOUR),
            max_attempts=section.whole("max_attempts", default.max_attempts, 1, 1000),
            backoff=self._backoff(section),
            deadline_ms=section.duration("deadline", default.deadline_ms, SECOND, MAX_LIFETIME_MS),
            result_ttl_ms=section.duration("result_ttl", default.result_ttl_ms, MINUTE, YEAR),
            max_payload=section.size(
                "max_payload", default.max_payload, 1, INLINE_LIMIT, "larger payloads are not built yet"
            ),
            max_pending=section.whole("max_pending", default.max_pending, 1, MAX_PENDING),
            max_bytes=section.size("max_bytes", default.max_bytes, MIB, STORE_LIMIT // 2),
        )

    def _home(self, section: Section, producers: list[tuple[int, str]]) -> str:
        """The one cloud that all producers are in, or "" if that cannot be said."""
        homes: dict[str, str] = {}
        for line, producer in producers:
            cloud = self._service(section, line, producer, "produces")
            if cloud and homes and cloud not in homes:
                other_cloud, other = next(iter(homes.items()))
                section.note(
                    line,
                    f"the producers of {section.where} sit in two clouds: {other!r} in {other_cloud!r}, "
                    f"{producer!r} in {cloud!r}",
                    "make a queue for each cloud",
                )
                return ""
            if cloud:
                homes[cloud] = producer
        return next(iter(homes), "")

    def _service(self, section: Section, line: int, name: str, does: str) -> str:
        """The cloud of an identity that a queue names, or "" if it cannot be named there."""
        who = self._identities.get(name)
        if who is None:
            if self._identities:
                services = [other for other, its in self._identities.items() if its.role is Role.SERVICE]
                section.note(line, f"identity {name!r} is not declared", nearest(name, services or self._identities))
            return ""
        if who.role is not None and who.role is not Role.SERVICE:
            section.note(
                line,
                f"{name!r} {does} here, and its role is {who.role.value}",
                "name an identity without a role: those produce and work",
            )
            return ""
        return who.cloud if who.cloud in self._clouds else ""

    def _backoff(self, queue: Section) -> Backoff:
        default = Backoff()
        section = queue.section("backoff", _BACKOFF)
        if section is None:
            return default
        initial = section.duration("initial", default.initial_ms, 1, DAY)
        longest = section.duration("max", max(default.max_ms, initial), 1, DAY)
        if section.sound and longest < initial:
            section.note(
                section.line_of("max"),
                f"backoff: max {spell_duration(longest)} is below initial {spell_duration(initial)}",
                f"say at least {spell_duration(initial)}",
            )
        return Backoff(
            initial_ms=initial,
            factor=section.number("factor", default.factor, 1, 100),
            max_ms=longest,
            jitter=section.number("jitter", default.jitter, 0, 1),
        )

    def _check_retention(self, section: Section, queue: Queue, max_outage: int) -> None:
        needed = queue.deadline_ms + max_outage
        if section.sound and queue.result_ttl_ms <= needed:
            section.note(
                section.line_of("result_ttl"),
                f"result_ttl {spell_duration(queue.result_ttl_ms)} must exceed deadline + max_outage "
                f"({spell_duration(queue.deadline_ms)} + {spell_duration(max_outage)}), or a job could run twice",
                f"say {spell_duration(needed - needed % HOUR + HOUR)}",
            )
