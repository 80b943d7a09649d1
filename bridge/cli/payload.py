"""``bunny payload``: whose payloads lie in the clouds, in parts, and how much room there is for more."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import typer

from bridge.cli.frame import AsJson, BridgeFolder, NotAsAsked, example, group, run
from bridge.cli.out import Out, when
from bridge.cli.payloadstate import Naming, Payloads, Transfer
from bridge.cli.queue import UNKNOWN, Inspectors, check, tell_missing
from bridge.cli.queuestate import Clouds, ask, inspectors
from bridge.clock import now_ms
from bridge.envelope import Opener
from bridge.errors import ConfigurationError, UsageError
from bridge.identity import Connection
from bridge.job import JobToken
from bridge.member import Member
from bridge.policy.hints import nearest
from bridge.policy.quantities import spell_duration

LIMIT: Final = 100
"""Transfers of each cloud that are listed where nothing is said: of each two parts are fetched, half a MiB at most."""
_TRANSFER: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


def register(app: typer.Typer) -> None:
    """Add the group."""
    payload = group("Look at payloads in parts.")
    payload.command("ls", epilog=example("bunny payload ls", "bunny payload ls thumbnails --limit 10 --json"))(ls)
    payload.command("show", epilog=example("bunny payload show $TOKEN", "bunny payload show $TRANSFER --json"))(show)
    app.add_typer(payload, name="payload")


def ls(
    queue: Annotated[str | None, typer.Argument(metavar="QUEUE", help="The queue.", show_default="every queue")] = None,
    limit: Annotated[int, typer.Option(help="How many at most, of each cloud.", min=1)] = LIMIT,
    identity: Inspectors = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """List what stands in parts, and the room that is used: of each cloud, those of the most parts first.

    Pieces of the index count as parts; records that stream are listed too. What is being withdrawn is not. Nothing is
    opened: an inspector has no key for it.
    """
    out, found = Out(as_json), Payloads(queue, limit=limit)
    clouds = run(ask(_one_of_each(inspectors(identity, folder)), found.look))
    if queue is not None and queue not in clouds.settings:
        raise ConfigurationError(f"no queue {queue!r}; {nearest(queue, clouds.settings)}")
    _table(out, found.transfers)
    _rooms(out, found)
    if found.more:
        out.say(f"{found.more:,} more, of fewer parts: --limit {limit + found.more}", style="yellow")
    _end(out, clouds, found)


def show(
    payload: Annotated[str, typer.Argument(metavar="TOKEN|TRANSFER", help="A job's token, or 32 hex digits.")],
    identity: Inspectors = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show the payloads of a job, or one: its parts, what is missing, and the signed message that names it.

    Without that message it is not known how many there must be: it is not stored yet, it was done with, or it lies in a
    cloud without an inspector here.
    """
    token = None if _TRANSFER.fullmatch(payload) else _token(payload)
    found = Payloads(token and token.queue, token and token.key, "*" if token else payload, LIMIT)
    folders = _one_of_each(inspectors(identity, folder))
    member = Member.load(folders[0])
    clouds = run(ask(folders, found.look))
    if not clouds.problems:
        clouds = run(ask(folders, Naming(found.transfers, Opener(member.identity, member.trust)).look))
    out = Out(as_json)
    for each in found.transfers:
        about = {**each.as_json(), "since": when(each.since), "missing": ", ".join(each.missing()) or "none"}
        out.table(("transfer", about.pop("transfer")), [(key, _told(value)) for key, value in about.items()])
    _rooms(out, found)
    _end(out, clouds, found)
    if not found.transfers:
        asked = ", ".join(sorted(clouds.asked))
        raise NotAsAsked(UsageError(f"{payload[:40]}: no parts of it stand in {asked}; see `bunny payload ls`"))


def _one_of_each(folders: Iterable[Path]) -> list[Path]:
    """An inspector for each cloud: what two of one cloud see would be told twice."""
    return list({Connection.load(folder).cloud: folder for folder in folders}.values())


def _token(text: str) -> JobToken:
    try:
        return JobToken.parse(text)
    except UsageError:
        raise UsageError(f"{text[:40]!r} is neither a job's token nor a transfer, which is 32 hex digits") from None


def _table(out: Out, found: Iterable[Transfer]) -> None:
    out.table(
        ("transfer", "job", "of", "parts", "bytes, at most", "age"),
        [
            (
                f"{each.place.queue} {each.cloud} {each.place.transfer}",
                f"{each.place.producer} {each.place.session}.{each.place.n}",
                each.of,
                _told(each.parts),
                _told(each.at_most),
                spell_duration(max(now_ms() - each.since, 0) // 1000 * 1000),
            )
            for each in found
        ],
    )


def _rooms(out: Out, found: Payloads) -> None:
    rows = [(r["cloud"], r["queue"], _told(r["bytes"]), _told(r["max_bytes"])) for r in found.rooms]
    out.table(("cloud", "payloads of", "bytes", "of at most"), rows)


def _end(out: Out, clouds: Clouds, found: Payloads) -> None:
    if found.withdrawn:
        out.say(f"{found.withdrawn:,} being withdrawn")
    for stream in found.cut:
        out.say(f"{stream} has more names than were asked for", style="yellow")
    tell_missing(out, clouds)
    learnt = {"transfers": [each.as_json() for each in found.transfers], "rooms": found.rooms}
    counts = {"more": found.more, "withdrawn": found.withdrawn, "cut": found.cut}
    out.result({**learnt, **counts, "unknown": clouds.missing})
    check(clouds)


def _told(value: object) -> str:
    return UNKNOWN if value is None else f"{value:,}" if isinstance(value, int) else str(value)
