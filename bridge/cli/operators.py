"""As whom dead letters are looked at and dealt with: an operator of the cloud in which their queue is worked."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.cli.where import find_bridge
from bridge.cli.who import choose, connect_soon
from bridge.deadletters import DeadLetters
from bridge.errors import ConfigurationError, UsageError
from bridge.identity import ENVIRONMENT, Connection
from bridge.job import JobToken
from bridge.member import Member
from bridge.policy import Role
from bridge.subjects import is_name, parse_decimal


@dataclass(frozen=True, slots=True)
class Reference:
    """Which dead letter somebody means."""

    queue: str
    sequence: int
    token: JobToken | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``QUEUE/NUMBER``, or a job's token.

        Raises:
            UsageError: It is neither.
        """
        queue, slash, number = text.partition("/")
        if slash:
            sequence = parse_decimal(number)
            if not is_name(queue) or not sequence:
                raise UsageError(f"{text[:80]!r} is no dead letter; it reads QUEUE/NUMBER, as `bunny dead ls` has it")
            return cls(queue, sequence)
        token = JobToken.parse(text)
        return cls(token.queue, 0, token)

    def __str__(self) -> str:
        return f"{self.queue}/{self.sequence}" if self.token is None else str(self.token)


def operator(given: Path | None, bridge: Path | None, queue: str) -> Path:
    """The folder of an operator of a queue's workers' cloud.

    Raises:
        ConfigurationError: There is none, or more than one.
    """
    return choose(given, bridge, lambda c: _works(c, queue, Role.OPERATOR), f"replay and drop jobs of queue {queue!r}")


def reader(given: Path | None, bridge: Path | None, queue: str) -> Path:
    """The folder of somebody who may read a queue's dead letters: an operator, or else an inspector."""
    return readers(given, bridge, queue)[0]


def readers(given: Path | None, bridge: Path | None, queue: str | None) -> list[Path]:
    """For each cloud in which the queue, or any, is worked, the folder of somebody who may read its dead letters.

    Raises:
        ConfigurationError: There is nobody.
    """
    if given is not None or (bridge is None and os.environ.get(ENVIRONMENT)):
        return [choose(given, bridge, lambda _: True, "read dead letters")]
    running = find_bridge(bridge)
    folders = [(Connection.load(folder), folder) for _, folder in sorted(running.identities.items())]
    found: dict[str, Path] = {}
    for role in (Role.OPERATOR, Role.INSPECTOR):
        for connection, folder in folders:
            if _works(connection, queue, role):
                found.setdefault(connection.cloud, folder)
    if not found:
        what = "a queue" if queue is None else f"queue {queue!r}"
        raise ConfigurationError(
            f"no operator or inspector of the bridge in {running.folder} is in the cloud in which {what} is worked"
        )
    return [found[cloud] for cloud in sorted(found)]


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[DeadLetters]:
    """The dead letters that an identity may see."""
    member = Member.load(folder)
    transport = await connect_soon(member.connection, member.identity.nkey_seed, folder, "bunny")
    async with transport:
        yield DeadLetters(member.identity, member.trust, member.connection, transport)


def _works(connection: Connection, queue: str | None, role: Role) -> bool:
    """Whether it has the role in the cloud in which the queue, or any, is worked."""
    queues = connection.queues.values() if queue is None else filter(None, [connection.queues.get(queue)])
    return connection.role == role and any(each.work == connection.cloud for each in queues)
