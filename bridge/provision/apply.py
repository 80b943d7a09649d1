"""Makes a cloud's JetStream match its ``plan.json``: it creates and widens, and never deletes anything."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

from bridge.errors import ConfigurationError, TransportError
from bridge.files import read_file
from bridge.provision.difference import Config, Difference, consumer_differences, merged, stream_differences
from bridge.subjects import api_call
from bridge.versions import newer

TIMEOUT_S: Final = 10.0
"""The longest that one call to the server may take; creating a stream writes to its disk."""

_NOT_FOUND: Final = frozenset({10059, 10014})
"""*Stream not found* and *consumer not found*."""

_NO_ROOM: Final = frozenset({10047, 10023})


class Requester(Protocol):
    """What is needed of a connection: a request to the local server, and its answer."""

    async def request(self, subject: str, payload: bytes, timeout: float = TIMEOUT_S) -> bytes:
        """Send a request and wait for the reply."""


class Outcome(StrEnum):
    """What was done with an asset, or would be."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Change:
    """One stream or consumer, and what became of it.

    Args:
        stream: The stream.
        consumer: The consumer on it; empty if the stream itself is meant.
        outcome: What was done; in a report that was not applied, what would be.
        differences: The fields that were not as planned.
    """

    stream: str
    consumer: str
    outcome: Outcome
    differences: tuple[Difference, ...] = ()

    @property
    def asset(self) -> str:
        """What people call it."""
        return f"consumer {self.stream}/{self.consumer}" if self.consumer else f"stream {self.stream}"

    @property
    def refusals(self) -> list[str]:
        """One line for each field that is not changed."""
        return [
            f"{self.asset}: {each.field} is {json.dumps(each.have)}, the plan wants {json.dumps(each.want)}: "
            f"{each.refused}"
            for each in self.differences
            if each.refused
        ]


@dataclass(frozen=True, slots=True)
class Report:
    """What `provision` found and did.

    Args:
        cloud: The cloud.
        changes: Each planned asset, in the order of the plan.
        extra: Streams that are not in the plan, and consumers of those that are, as ``stream/consumer``. They are left
            alone.
        applied: Whether the changes were made: not in a dry run, and none at all if one was refused.
    """

    cloud: str
    changes: tuple[Change, ...]
    extra: tuple[str, ...]
    applied: bool

    @property
    def refusals(self) -> list[str]:
        """One line for each field of each asset that is not changed."""
        return [line for change in self.changes for line in change.refusals]


def load_plan(path: Path) -> Config:
    """Read a rendered ``plan.json``.

    Raises:
        ConfigurationError: It is missing or not a plan.
    """
    try:
        plan = json.loads(read_file(path))
        if (problem := newer(str(path), plan["version"])) is not None:
            raise ConfigurationError(problem)
        if plan["version"] == 1 and all(isinstance(plan[key], list) for key in ("streams", "consumers")):
            return dict(plan)
    except (ValueError, KeyError, TypeError):
        pass
    raise ConfigurationError(f"{path}: not a plan; write it with `bunny render`")


async def provision(server: Requester, plan: Config, *, dry_run: bool = False) -> Report:
    """Create what the plan has and the server has not, and update what is safe to update.

    Everything is compared before anything is changed: if one field of one asset must be refused, nothing is. What
    is written between the comparison and the update is not counted, so lower a limit while nobody writes.

    Args:
        server: A connection of the cloud's provisioner.
        plan: The cloud's plan.
        dry_run: Compare only.

    Raises:
        TransportError: The server does not answer or refuses a call.
        ConfigurationError: The server has no room for the plan.
    """
    changes = [await _compare_stream(server, want) for want in plan["streams"]]
    new = {change.stream for change in changes if change.outcome is Outcome.CREATED}
    changes += [await _compare_consumer(server, each["stream"], each["config"], new) for each in plan["consumers"]]
    planned = {want["name"] for want in plan["streams"]}
    extra = [name for name in await _names(server, "STREAM.NAMES", "streams") if name not in planned]
    consumers = {(each["stream"], each["config"]["name"]) for each in plan["consumers"]}
    for stream in sorted(planned - new):
        found = await _names(server, f"CONSUMER.NAMES.{stream}", "consumers")
        extra += [f"{stream}/{name}" for name in found if (stream, name) not in consumers]
    apply = not dry_run and all(change.outcome is not Outcome.REFUSED for change in changes)
    if apply:
        wanted = [*plan["streams"], *(each["config"] for each in plan["consumers"])]
        for change, want in zip(changes, wanted, strict=True):
            if change.outcome is not Outcome.UNCHANGED:
                await _make(server, change, want)
    return Report(str(plan["cloud"]), tuple(changes), tuple(extra), apply)


async def _compare_stream(server: Requester, want: Config) -> Change:
    name = want["name"]
    info = await _call(server, f"stream {name}", api_call("STREAM.INFO", name))
    if info is None:
        return Change(name, "", Outcome.CREATED)
    found = stream_differences(info["config"], want, info["state"], dt.datetime.now(dt.UTC))
    return Change(name, "", _outcome(found), tuple(found))


async def _compare_consumer(server: Requester, stream: str, want: Config, new: set[str]) -> Change:
    name = want["name"]
    # A consumer of a stream that is still to be made: the server would answer "stream not found".
    info = None if stream in new else await _info(server, stream, name)
    if info is None:
        return Change(stream, name, Outcome.CREATED)
    found = consumer_differences(info["config"], want)
    return Change(stream, name, _outcome(found), tuple(found))


def _outcome(found: list[Difference]) -> Outcome:
    if any(each.refused for each in found):
        return Outcome.REFUSED
    return Outcome.UPDATED if found else Outcome.UNCHANGED


async def _make(server: Requester, change: Change, want: Config) -> None:
    """Create or update one asset, and check that the server took every field: an older one drops some."""
    name, update = change.stream, change.outcome is Outcome.UPDATED
    have: Config = {}
    if change.consumer:
        info = await _info(server, name, change.consumer) if update else None
        have = info["config"] if info else {}
        path = [name, change.consumer, *([want["filter_subject"]] if want.get("filter_subject") else [])]
        body = {"stream_name": name, "config": merged(have, want), "action": "update" if update else "create"}
        await _call(server, change.asset, api_call("CONSUMER.CREATE", *path), body)
        # Asked again: a server that was restarted answers the first update with what the consumer was before.
        answer = await _info(server, name, change.consumer)
    else:
        if update:
            info = await _call(server, change.asset, api_call("STREAM.INFO", name))
            have = info["config"] if info else {}
        call = api_call("STREAM.UPDATE" if update else "STREAM.CREATE", name)
        answer = await _call(server, change.asset, call, merged(have, want))
    got = answer["config"] if answer else {}
    state: Config = {}
    left = consumer_differences(got, want) if change.consumer else stream_differences(got, want, state, _EPOCH)
    if left:
        raise TransportError(
            f"{change.asset}: the server did not take {', '.join(each.field for each in left)}; "
            "it must be nats-server 2.15.1 or newer"
        )


_EPOCH: Final = dt.datetime.fromtimestamp(0, dt.UTC)


async def _info(server: Requester, stream: str, consumer: str) -> dict[str, Any] | None:
    return await _call(server, f"consumer {stream}/{consumer}", api_call("CONSUMER.INFO", stream, consumer))


async def _names(server: Requester, call: str, what: str) -> list[str]:
    names: list[str] = []
    while True:
        page = await _call(server, what, api_call(call), {"offset": len(names)})
        found = (page or {}).get(what) or []
        names += found
        if not found or page is None or len(names) >= page["total"]:
            return sorted(names)


async def _call(
    server: Requester, asset: str, subject: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """The answer to one API call; None if the asset does not exist."""
    payload = b"" if body is None else json.dumps(body).encode()
    try:
        answer = json.loads(await server.request(subject, payload, timeout=TIMEOUT_S))
    except ValueError:
        raise TransportError(f"{asset}: the server's answer to {subject} is not JSON") from None
    error = answer.get("error")
    if error is None:
        return dict(answer)
    code, words = error.get("err_code", 0), error.get("description", "")
    if code in _NOT_FOUND:
        return None
    if code in _NO_ROOM:
        raise ConfigurationError(
            f"{asset}: the server has no room for it ({words}, {code}); raise its max_file or lower max_bytes"
        )
    raise TransportError(f"{asset}: the server refuses {subject} ({words}, {code})")
