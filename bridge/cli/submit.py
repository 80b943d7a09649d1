"""``bunny submit``: one job, from the command line."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, cast

import typer

from bridge.cli.frame import AsJson, BridgeFolder, example, run
from bridge.cli.lines import Lines, followed, print_end
from bridge.cli.out import Out
from bridge.cli.progress import bar
from bridge.cli.results import Arrived
from bridge.cli.who import IdentityFolder, choose, producing, seconds
from bridge.errors import InvalidArguments, UsageError
from bridge.transfer.aside import target
from producers import Payload
from producers.terms import PRIORITIES, Priority, Terms

AFTER_S: Final = 5.0
"""How long after a deadline that was asked for a result is waited for: it is a worker that says it was too late."""

QUIET_S: Final = 1.0
"""How long to wait without saying so."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=example(
            """bunny submit thumbnails resize '{"width": 320, "height": 200}' --wait""",
            "bunny submit thumbnails resize @args.json --deadline 5m",
            "bunny submit thumbnails probe --file photo.jpg --key photo-17",
            "bunny submit thumbnails resize @args.json --delay 10m",
        )
    )(submit)


def submit(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")],
    kind: Annotated[str, typer.Argument(metavar="KIND", help="The kind of job.")],
    args: Annotated[
        str,
        typer.Argument(metavar="ARGS", help="JSON; @FILE reads it from a file, - from standard input."),
    ] = "null",
    file: Annotated[
        Path | None, typer.Option("--file", help="Send these bytes instead of JSON.", show_default=False)
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="After which it is not started.", show_default="the queue's"),
    ] = None,
    delay: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Before which it is not started.", show_default="at once")
    ] = None,
    priority: Annotated[
        str, typer.Option(metavar="PRIORITY", help=f"One of {', '.join(PRIORITIES)}: which go first, by weight.")
    ] = "normal",
    key: Annotated[
        str | None,
        typer.Option("--key", help="What it is the same job by: again, and it is found.", show_default=False),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --key: run it again if it failed, or was too late.")
    ] = False,
    concurrency_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Of its like only so many run at once: concurrency_per_key.", show_default=False
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print it.")] = False,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="With --wait: write the result's bytes here.", show_default=False)
    ] = None,
    identity: IdentityFolder = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Store one job, and print the token that `bunny job show` and `bunny job wait` take.

    With --wait the result goes to standard output, the token to standard error.
    """
    if file is not None and args != "null":
        raise UsageError("arguments are given twice: as ARGS and as --file; leave one out")
    if out_file is not None and not wait:
        raise UsageError("--out names where the result goes, so it needs --wait")
    if out_file is not None:
        target(out_file)  # before anything is sent: a job whose result has nowhere to go would run all the same
    value = Payload(file) if file is not None else read_json(args)
    limit = seconds("--deadline", deadline)
    terms = Terms(limit, cast(Priority, priority), seconds("--delay", delay), concurrency_key=concurrency_key)
    place = choose(
        identity,
        folder,
        lambda c: queue in c.queues and c.identity in c.queues[queue].producers,
        f"submit to queue {queue!r}",
        have=lambda c: [name for name, settings in c.queues.items() if c.identity in settings.producers],
    )
    out = Out(as_json)
    result = run(_submit(out, place, queue, kind, value, terms, key, retry_failed, wait, out_file))
    if result.end is None:
        out.say(result.token)
        out.result({"token": result.token})
        return
    print_end(out, result.token, result.end)


async def _submit(
    out: Out,
    folder: Path,
    queue: str,
    kind: str,
    value: object,
    terms: Terms,
    key: str | None,
    retry_failed: bool,
    wait: bool,
    out_file: Path | None,
) -> _Submitted:
    async with producing(folder) as producer:
        with bar(
            "sending", lambda: value.length if isinstance(value, Payload) else None, shown=not out.as_json
        ) as told:
            job = await producer.submit(
                queue,
                kind,
                value,
                deadline=terms.deadline,
                priority=terms.priority,
                delay=terms.delay,
                concurrency_key=terms.concurrency_key,
                key=key,
                retry_failed=retry_failed,
                progress=told,
            )
        if not wait:
            return _Submitted(str(job.token), None)
        # Before waiting: whoever interrupts that, or whose job fails, still has the token.
        sys.stderr.write(f"{job.token}\n")
        patience = None if terms.deadline is None else _seconds(terms.delay) + _seconds(terms.deadline) + AFTER_S
        most = "" if patience is None else f", {patience:g} s at most"
        words = f"waiting for its result{most}; ^C ends the waiting\n"
        waiting = asyncio.get_running_loop().call_later(QUIET_S, sys.stderr.write, words)
        try:
            return _Submitted(str(job.token), await followed(out, job, out_file, patience, then=waiting.cancel))
        finally:
            waiting.cancel()


class _Submitted(NamedTuple):
    token: str
    end: Lines | Arrived | None
    """None where it was not waited for."""


def _seconds(duration: float | timedelta | None) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration or 0.0


def read_json(args: str) -> Any:  # noqa: ANN401  # a JSON value
    """The value that ARGS stands for: JSON, or where to read it.

    Raises:
        InvalidArguments: It is none.
    """
    if args == "-":
        text, where = sys.stdin.read(), "standard input"
    elif args.startswith("@"):
        text, where = Path(args[1:]).read_text(encoding="utf-8"), args[1:]
    else:
        text, where = args, "ARGS"
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        # Never the text itself: arguments are secret, and this line may end up in a log.
        where = f"{where}, line {error.lineno}, column {error.colno}"
    except (UnicodeDecodeError, RecursionError):
        pass
    raise InvalidArguments(f"{where}: not JSON; quote it for the shell, or name a file as @FILE")
