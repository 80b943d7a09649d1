"""``bunny job``: what became of a job, and to have it cancelled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bridge.cli.frame import AsJson, BridgeFolder, example, group, run
from bridge.cli.jobstate import State, look
from bridge.cli.lines import Lines, followed, print_end
from bridge.cli.out import Out, printable
from bridge.cli.results import Arrived
from bridge.cli.who import IdentityFolder, choose, producing, seconds
from bridge.job import JobToken

Generation = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Which run of the job; each replay of its dead letter is one more.",
        show_default="the newest that was answered",
    ),
]
Token = Annotated[str, typer.Argument(metavar="TOKEN", help="What `bunny submit` printed.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    job = group("Follow jobs.")
    job.command("show", epilog=example("bunny job show $TOKEN", "bunny job show $TOKEN --json"))(show)
    job.command(
        "wait", epilog=example("bunny job wait $TOKEN", "bunny job wait $TOKEN --timeout 60s --out result.bin")
    )(wait)
    job.command("cancel", epilog=example("bunny job cancel $TOKEN --reason 'no longer wanted'"))(cancel)
    app.add_typer(job, name="job")


def show(
    token: Token,
    generation: Generation = None,
    identity: IdentityFolder = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show a job's state, from what its producer and worker signed.

    queued: stored, and no result yet, so it waits or runs. succeeded, failed, expired, cancelled: its result stands,
    and was verified. unknown: neither is here; the result may be on its way, or too old.
    """
    parsed = JobToken.parse(token)
    out, state = Out(as_json), run(look(_producer(parsed, identity, folder), parsed, generation))
    about = _about(state)
    out.table(
        ("job", str(parsed.key.job_id)),
        [(key, printable(str(value))) for key, value in about.items() if value is not None],
    )
    out.result({"token": str(state.token), **about})


def wait(
    token: Token,
    timeout: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long to wait.", show_default="the queue's deadline"),
    ] = None,
    generation: Generation = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Write the result's bytes here.", show_default=False)
    ] = None,
    identity: IdentityFolder = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Wait for a job's result and print it: JSON to read, anything else as its bytes.

    Of a job that yields records, each is printed as it comes, on a line of its own; waited is for each. If another
    attempt starts over meanwhile, the lines before are void, and the command fails: run it again.

    The exit code is 5 if the job failed, was cancelled or too late, or gave no result in time.
    """
    parsed = JobToken.parse(token)
    limit = seconds("--timeout", timeout)
    out = Out(as_json)
    print_end(out, token, run(_wait(out, _producer(parsed, identity, folder), parsed, generation, limit, out_file)))


async def _wait(
    out: Out, folder: Path, token: JobToken, generation: int | None, timeout: float | None, file: Path | None
) -> Lines | Arrived:
    async with producing(folder) as producer:
        job = await producer.attach(token, generation=generation)
        return await followed(out, job, file, timeout)


def cancel(
    token: Token,
    reason: Annotated[
        str, typer.Option(help="Why; sealed, for its worker and whoever waits for it.", show_default=False)
    ] = "",
    generation: Generation = None,
    identity: IdentityFolder = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a job not to be done, or not to its end.

    If it waits it never starts; if it runs its handler is told. What is done stays done. `bunny job wait` says which.
    """
    parsed = JobToken.parse(token)
    asked = run(_cancel(_producer(parsed, identity, folder), parsed, generation, reason))
    out = Out(as_json)
    out.say(f"asked; `bunny job wait {token}` says what came of it" if asked else "done already: nothing was asked")
    out.result({"token": token, "asked": asked})


async def _cancel(folder: Path, token: JobToken, generation: int | None, reason: str) -> bool:
    async with producing(folder) as producer:
        job = await producer.attach(token, generation=generation)
        done = job.done()
        if not done:
            await job.cancel(reason)
        return not done


def _producer(token: JobToken, identity: Path | None, folder: Path | None) -> Path:
    what = f"follow jobs of {token.producer}"
    return choose(identity, folder, lambda c: c.identity == token.producer, what)


def _about(state: State) -> dict[str, Any]:
    return {
        "state": state.state,
        "generation": state.token.generation or None,
        "queue": state.token.queue,
        "kind": state.kind,
        "producer": state.token.producer,
        "submitted": state.submitted,
        "deadline": state.deadline,
        "worker": state.worker,
        "attempt": state.attempt,
        "answered": state.answered,
        "content_type": state.content_type,
        "bytes": state.size,
        "error": state.error,
        "reason": state.reason,
    }
