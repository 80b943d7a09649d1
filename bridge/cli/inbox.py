"""``bunny inbox``: results that no process of a producer has acked, to look at or to take."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bridge.cli.frame import AsJson, BridgeFolder, example, run
from bridge.cli.out import Out, printable
from bridge.cli.results import parsed
from bridge.cli.who import IdentityFolder, choose, producing, seconds
from bridge.errors import JobError, JobFailed, UsageError
from bridge.job import Content
from producers import Inbox, Result
from producers.inbox import MOST_PREFETCH

LIMIT: Final = 100
"""Results that are shown where nothing is said: all of them are held until they are."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=example("bunny inbox thumbnails", "bunny inbox thumbnails --ack --follow --json >> results.jsonl")
    )(inbox)


def inbox(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")],
    ack: Annotated[bool, typer.Option("--ack", help="Take what is shown: it comes no more.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="With --ack: go on, each result on a line.")] = False,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=MOST_PREFETCH)] = LIMIT,
    wait: Annotated[
        str, typer.Option(metavar="DURATION", help="End when none has come for so long; not with --follow.")
    ] = "2s",
    identity: IdentityFolder = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show results of a producer that no process of its own has acked yet. With --json also what is in them.

    What is shown is held meanwhile, and then handed back, unless --ack says that it is dealt with. What does not verify
    is never shown: it is told on standard error, and put out of the inbox.
    """
    if follow and not ack:
        raise UsageError("--follow takes what it shows, since it cannot hold it for ever; say --ack too")
    quiet = seconds("--wait", wait) or 0.0
    place = choose(
        identity,
        folder,
        lambda c: queue in c.queues and c.identity in c.queues[queue].inbox,
        f"read an inbox on queue {queue!r}",
        have=lambda c: [name for name, settings in c.queues.items() if c.identity in settings.inbox],
    )
    out = Out(as_json)
    run(_follow(place, queue, out) if follow else _show(place, queue, out, ack, limit, quiet))


async def _show(place: Path, queue: str, out: Out, ack: bool, limit: int, quiet: float) -> None:
    async with producing(place) as producer, producer.inbox(queue, prefetch=limit) as box:
        found = [result async for result in _present(box, limit, quiet)]
        out.table(
            ("token", "kind", "status", "attempt", "delivered"),
            [(str(x.token), x.kind, x.status, x.attempt, x.delivered) for x in found],
        )
        if box.refused:
            out.say(f"{box.refused} did not verify, and are not shown", style="yellow")
        out.result({"results": [_values(result) for result in found], "refused": box.refused, "acked": ack})
        for result in found:  # once it is printed: who is interrupted before that gets it again
            await (result.ack() if ack else result.nak(0))


async def _present(box: Inbox, limit: int, quiet: float) -> AsyncIterator[Result]:
    for _ in range(limit):
        try:
            async with asyncio.timeout(quiet):
                result = await anext(box)
        except TimeoutError:
            return
        yield result


async def _follow(place: Path, queue: str, out: Out) -> None:
    async with producing(place) as producer, producer.inbox(queue) as box:
        async for result in box:
            line = json.dumps(_values(result)) if out.as_json else f"{result.token} {result.kind} {result.status}"
            sys.stdout.write(printable(line) + "\n")
            sys.stdout.flush()
            await result.ack()


def _values(result: Result) -> dict[str, Any]:
    about = {
        "token": str(result.token),
        "kind": result.kind,
        "status": str(result.status),
        "attempt": result.attempt,
        "worker": result.worker,
        "delivered": result.delivered,
    }
    try:
        content = result.value(Content)
    except JobFailed as error:
        return {**about, "error": {"type": error.type, "message": error.message}}
    except JobError as error:
        return {**about, "error": {"type": type(error).__name__, "message": str(error)}}
    is_json, value = parsed(content)
    held = {"result": value} if is_json else {"base64": base64.b64encode(content.body).decode()}
    return {**about, "content_type": content.content_type, "bytes": len(content.body), **held}
