"""Makes a cloud's JetStream match its ``plan.json``: it creates and widens, and never deletes anything."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

from bridge.errors import ConfigurationError, TransportError
from bridge.files import read_file
from bridge.provision.calls import Requester, at_once, call, listed
from bridge.provision.difference import Config, Difference, consumer_differences, merged, stream_differences
from bridge.subjects import api_call
from bridge.versions import newer

MAX_PLAN_BYTES: Final = 16 << 20
"""Of a ``plan.json``, which has some 7 KiB for each queue."""


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
        plan = json.loads(read_file(path, MAX_PLAN_BYTES))
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
    comparison = await compare(server, plan)
    if dry_run or comparison.report.refusals:
        return comparison.report
    await comparison.make_originals()
    return await comparison.make_copies()


@dataclass(frozen=True, slots=True)
class Comparison:
    """A plan beside what a server has; made by `compare`.

    A stream that copies from another cloud asks for what it copies as soon as it is made, and waits for 5 s where
    nothing answers. Whoever has both clouds at hand makes the originals of both first.

    Args:
        server: A connection of the cloud's provisioner.
        report: What would be done.
        streams: What the server says of each planned stream that it has.
        wanted: The planned configuration of each change of the report.
    """

    server: Requester
    report: Report
    streams: Mapping[str, Config]
    wanted: tuple[Config, ...]

    async def make_originals(self) -> None:
        """Create and update everything but streams that copy from another cloud, and their consumers.

        Raises:
            TransportError: The server does not answer or refuses a call.
            ConfigurationError: The server has no room for the plan, or a change must be refused.
        """
        await self._make(copies=False)

    async def make_copies(self) -> Report:
        """Create and update the rest; what was done.

        Raises:
            TransportError: The server does not answer or refuses a call.
            ConfigurationError: The server has no room for the plan, or a change must be refused.
        """
        await self._make(copies=True)
        return replace(self.report, applied=True)

    async def _make(self, *, copies: bool) -> None:
        if self.report.refusals:
            raise ConfigurationError(self.report.refusals[0])
        copying = {want["name"] for want in self.wanted if want.get("sources")}
        due = [
            (change, want)
            for change, want in zip(self.report.changes, self.wanted, strict=True)
            if change.outcome is not Outcome.UNCHANGED and (change.stream in copying) is copies
        ]
        for of_consumers in (False, True):  # a stream before its consumers
            await at_once(self._make_one, (each for each in due if bool(each[0].consumer) is of_consumers))

    async def _make_one(self, due: tuple[Change, Config]) -> None:
        """Create or update one asset, and check that the server took every field: an older one drops some."""
        change, want = due
        left = await (self._make_consumer if change.consumer else self._make_stream)(change, want)
        if left:
            raise TransportError(
                f"{change.asset}: the server did not take {', '.join(each.field for each in left)}; "
                "it must be nats-server 2.15.1 or newer"
            )

    async def _make_stream(self, change: Change, want: Config) -> list[Difference]:
        name, update = change.stream, change.outcome is Outcome.UPDATED
        info = await _stream(self.server, name) if update else None
        subject = api_call("STREAM.UPDATE" if update else "STREAM.CREATE", name)
        answer = await call(self.server, change.asset, subject, merged(_config(info), want))
        return stream_differences(_config(answer), want, {}, _EPOCH)

    async def _make_consumer(self, change: Change, want: Config) -> list[Difference]:
        stream, name, update = change.stream, change.consumer, change.outcome is Outcome.UPDATED
        info = await _consumer(self.server, stream, name) if update else None
        path = [stream, name, *([want["filter_subject"]] if want.get("filter_subject") else [])]
        config, action = merged(_config(info), want), "update" if update else "create"
        body = {"stream_name": stream, "config": config, "action": action}
        answer = await call(self.server, change.asset, api_call("CONSUMER.CREATE", *path), body)
        if update:
            # Asked again: a server that was restarted answers the first update with what the consumer was before.
            answer = await _consumer(self.server, stream, name)
        return consumer_differences(_config(answer), want)


async def compare(server: Requester, plan: Config) -> Comparison:
    """Read what the server has, and say what would be done about it.

    Raises:
        TransportError: The server does not answer or refuses a call.
    """
    have, silent = await listed(server, "streams")
    streams = {info["config"]["name"]: info for info in have}
    planned = [want["name"] for want in plan["streams"]]
    for info in await at_once(partial(_stream, server), (name for name in silent if name in planned)):
        streams |= {info["config"]["name"]: info} if info else {}
    with_consumers = [name for name in planned if name in streams and streams[name]["state"]["consumer_count"]]
    found = await at_once(partial(_consumers, server), with_consumers)
    consumers = {(name, each): info for name, those in zip(with_consumers, found, strict=True) for each, info in those}
    changes = [_compare_stream(want, streams.get(want["name"])) for want in plan["streams"]]
    for each in plan["consumers"]:
        stream, want = each["stream"], each["config"]
        changes.append(_compare_consumer(stream, want, consumers.get((stream, want["name"]))))
    others = consumers.keys() - {(each["stream"], each["config"]["name"]) for each in plan["consumers"]}
    extra = [
        *sorted({*streams, *silent} - set(planned)),
        *(f"{stream}/{name}" for stream, name in sorted(others)),
    ]
    wanted = (*plan["streams"], *(each["config"] for each in plan["consumers"]))
    report = Report(str(plan["cloud"]), tuple(changes), tuple(extra), applied=False)
    return Comparison(server, report, {name: streams[name] for name in planned if name in streams}, wanted)


async def _consumers(server: Requester, stream: str) -> list[tuple[str, dict[str, Any]]]:
    have, silent = await listed(server, "consumers", stream)
    found = [(str(info["name"]), info) for info in have]
    for name in silent:
        info = await _consumer(server, stream, name)
        found += [(name, info)] if info else []
    return found


def _compare_stream(want: Config, info: Config | None) -> Change:
    name = want["name"]
    if info is None:
        return Change(name, "", Outcome.CREATED)
    found = stream_differences(info["config"], want, info["state"], dt.datetime.now(dt.UTC))
    return Change(name, "", _outcome(found), tuple(found))


def _compare_consumer(stream: str, want: Config, info: Config | None) -> Change:
    name = want["name"]
    if info is None:
        return Change(stream, name, Outcome.CREATED)
    found = consumer_differences(info["config"], want)
    return Change(stream, name, _outcome(found), tuple(found))


def _outcome(found: list[Difference]) -> Outcome:
    if any(each.refused for each in found):
        return Outcome.REFUSED
    return Outcome.UPDATED if found else Outcome.UNCHANGED


_EPOCH: Final = dt.datetime.fromtimestamp(0, dt.UTC)


def _config(info: Config | None) -> Config:
    return info["config"] if info else {}


async def _stream(server: Requester, name: str) -> dict[str, Any] | None:
    return await call(server, f"stream {name}", api_call("STREAM.INFO", name))


async def _consumer(server: Requester, stream: str, consumer: str) -> dict[str, Any] | None:
    return await call(server, f"consumer {stream}/{consumer}", api_call("CONSUMER.INFO", stream, consumer))
