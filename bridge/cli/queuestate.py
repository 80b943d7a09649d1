"""What the servers of each cloud say of the queues, asked by an inspector of that cloud."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from bridge import subjects
from bridge.agent.look import Unread, of_inbox
from bridge.cli.where import find_bridge
from bridge.cli.who import connect_soon
from bridge.errors import ConfigurationError, TransportError
from bridge.identity import ENVIRONMENT, Connection, Identity, QueueSettings
from bridge.jetstream import JetStreamTransport
from bridge.job import INLINE_LIMIT
from bridge.member import folder_from_env
from bridge.policy import Role
from bridge.receipt import receipts_stream

TIMEOUT_S: Final = 5.0

Info = dict[str, Any]
"""An answer of the JetStream API."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue, with the answers about its assets by cloud and name; what is absent is unknown."""

    name: str
    settings: QueueSettings
    answers: dict[tuple[str, str], Info]

    def count(self, field: str) -> int | None:
        """One number, or None if the cloud that knows it was not asked or did not answer."""
        home, work = self.settings.home, self.settings.work
        match field:
            case "pending":
                return self._consumers("num_pending")
            case "delayed":
                return self._messages(home, subjects.delayed_stream(self.name))
            case "in_flight":
                return self._consumers("num_ack_pending")
            case "redelivered":
                return self._consumers("num_redelivered")
            case "pulls":
                return self._consumers("num_waiting")
            case "results":
                return self._messages(work, subjects.results_stream(self.name))
            case "results_home":
                return self._messages(home, subjects.results_stream(self.name))
            case "dead":
                return self._messages(work, subjects.dead_stream(self.name))
            case "refused":
                return self._messages(work, subjects.refused_stream(self.name))
        raise ValueError(field)

    def rows(self) -> list[tuple[str, str, dict[str, int | None]]]:
        """Cloud, stream and numbers of each stream; a copy from the other cloud has a ``lag``."""
        found: list[tuple[str, str, dict[str, int | None]]] = []
        for cloud, name in stream_names(self.name, self.settings):
            info = self.answers.get((cloud, name), {})
            state, config = info.get("state", {}), info.get("config", {})
            about = {
                "messages": state.get("messages"),
                "bytes": state.get("bytes"),
                "max_bytes": config.get("max_bytes"),
            }
            if cloud == self.settings.home and name == subjects.results_stream(self.name):
                about["lag"] = next((source.get("lag") for source in info.get("sources") or ()), None)
            found.append((cloud, name, about))
        return found

    def streams(self) -> list[dict[str, Any]]:
        """`rows` for machines."""
        return [{"cloud": cloud, "stream": name, **about} for cloud, name, about in self.rows()]

    def inboxes(self) -> dict[str, Unread | None]:
        """By producer, how much of its inbox is unread; None is unknown."""
        home, results = self.settings.home, subjects.results_stream(self.name)
        found: dict[str, Unread | None] = {}
        for producer in self.settings.inbox:
            stream = self.answers.get((home, results))
            consumer = self.answers.get((home, f"{results}/{subjects.inbox_consumer(producer)}"))
            found[producer] = of_inbox(stream, consumer) if stream and consumer else None
        return found

    def as_json(self) -> dict[str, Any]:
        """The numbers for machines; null is unknown."""
        fields = ("pending", "delayed", "in_flight", "redelivered", "results", "results_home", "dead", "refused")
        return {
            "queue": self.name,
            "home": self.settings.home,
            "work": self.settings.work,
            "producers": self.settings.producers,
            "workers": self.settings.workers,
            **{name: self.count(name) for name in fields},
        }

    def _messages(self, cloud: str, stream: str) -> int | None:
        number: int | None = self.answers.get((cloud, stream), {}).get("state", {}).get("messages")
        return number

    def _consumers(self, number: str) -> int | None:
        infos = [self.answers.get(asset) for asset in consumer_names(self.name, self.settings)]
        return sum(info[number] for info in infos if info) if all(infos) else None


@dataclass(slots=True)
class Clouds:
    """What was learnt."""

    settings: dict[str, QueueSettings] = field(default_factory=dict)
    answers: dict[tuple[str, str], Info] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> dict[str, str]:
        """Clouds of which something is unknown, and why."""
        clouds = {cloud for s in self.settings.values() for cloud in (s.home, s.work)}
        unasked = dict.fromkeys(sorted(clouds - self.asked), "unknown: no inspector of it here")
        return {**self.problems, **unasked}

    @property
    def failed(self) -> list[str]:
        """Clouds that an inspector asked in vain."""
        return list(self.problems)

    def queues(self) -> list[QueueState]:
        """Every queue, by name."""
        return [QueueState(name, self.settings[name], self.answers) for name in sorted(self.settings)]


Visit: TypeAlias = Callable[[Clouds, JetStreamTransport, Connection], Awaitable[None]]
"""What an inspector asks its cloud."""


def inspectors(given: Sequence[Path] | None, bridge: Path | None) -> list[Path]:
    """The inspectors' folders: those named, the environment's, or all of the bridge that runs here.

    Raises:
        ConfigurationError: There is none.
    """
    if given:
        return list(given)
    if bridge is None and os.environ.get(ENVIRONMENT):
        return [folder_from_env()]
    running = find_bridge(bridge)
    found = [folder for folder in running.identities.values() if Connection.load(folder).role == Role.INSPECTOR]
    if not found:
        raise ConfigurationError(
            f"the bridge in {running.folder} has no inspector; give bridge.yaml an identity with role: inspector"
        )
    return found


async def ask(folders: Iterable[Path], visit: Visit | None = None) -> Clouds:
    """Ask each inspector's cloud about every queue, or what ``visit`` asks.

    Raises:
        ConfigurationError: A folder is no inspector's.
    """
    clouds = Clouds()
    connections = [(folder, Connection.load(folder)) for folder in folders]
    for folder, connection in connections:
        if connection.role != Role.INSPECTOR:
            raise ConfigurationError(
                f"{folder}: {connection.identity} is no inspector; name the folder of one with --identity"
            )
        for name, settings in connection.queues.items():
            if settings.home == connection.cloud or name not in clouds.settings:  # who is at home knows of inboxes
                clouds.settings[name] = settings
        clouds.asked.add(connection.cloud)
    await asyncio.gather(*(_ask_cloud(clouds, folder, connection, visit or look) for folder, connection in connections))
    return clouds


async def _ask_cloud(clouds: Clouds, folder: Path, connection: Connection, visit: Visit) -> None:
    try:
        transport = await connect_soon(connection, Identity.load(folder).nkey_seed, folder, "bunny", timeout=TIMEOUT_S)
        async with transport:
            await visit(clouds, transport, connection)
    except TransportError as error:
        clouds.problems[connection.cloud] = f"unknown: {error}"


async def look(clouds: Clouds, transport: JetStreamTransport, connection: Connection) -> None:
    """Ask the servers of an inspector's cloud about every asset of theirs.

    Raises:
        TransportError: One is not answered for.
    """
    cloud = connection.cloud
    for name, settings in connection.queues.items():
        for where, stream in stream_names(name, settings):
            if where == cloud:
                clouds.answers[cloud, stream] = await _info(transport, "STREAM.INFO", stream)
        for where, path in [*consumer_names(name, settings), *inbox_names(name, settings)]:
            if where == cloud:
                clouds.answers[cloud, path] = await _info(transport, "CONSUMER.INFO", *path.split("/"))


async def _info(transport: JetStreamTransport, call: str, *tokens: str) -> Info:
    answer: Info = json.loads(await transport.request(subjects.api_call(call, *tokens), b"", timeout=TIMEOUT_S))
    if "error" in answer:
        raise TransportError(f"{'/'.join(tokens)}: {answer['error'].get('description')}; run `bunny provision`")
    return answer


def has_parts(settings: QueueSettings) -> bool:
    """Whether payloads of a queue travel in parts, which have a stream in each cloud."""
    return settings.max_payload > INLINE_LIMIT


def stream_names(queue: str, settings: QueueSettings) -> list[tuple[str, str]]:
    """Cloud and name of each stream of a queue."""
    results = subjects.results_stream(queue)
    in_work = (results, subjects.starts_stream(queue), subjects.dead_stream(queue), subjects.refused_stream(queue))
    both = [subjects.parts_stream(queue)] if has_parts(settings) else []
    both += [receipts_stream(queue)] if settings.receipts else []
    return [
        (settings.home, subjects.jobs_stream(queue)),
        (settings.home, subjects.delayed_stream(queue)),
        (settings.home, results),
        *((settings.home, name) for name in both),
        *((settings.work, name) for name in (*in_work, *both)),
    ]


def inbox_names(queue: str, settings: QueueSettings) -> list[tuple[str, str]]:
    """The same of each inbox."""
    results = subjects.results_stream(queue)
    return [(settings.home, f"{results}/{subjects.inbox_consumer(producer)}") for producer in settings.inbox]


def consumer_names(queue: str, settings: QueueSettings) -> list[tuple[str, str]]:
    """Cloud and ``stream/consumer`` of each consumer that the pool pulls from."""
    return [
        (settings.home, f"{subjects.jobs_stream(queue)}/{subjects.jobs_consumer(settings.workers, priority)}")
        for priority in subjects.PRIORITIES
    ]
