"""``bunny dead``: jobs that could not be done, and what an operator may do about them."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from bridge.cli import operators
from bridge.cli.frame import AsJson, BridgeFolder, NotAsAsked, example, group, run
from bridge.cli.operators import Reference
from bridge.cli.out import Out, moment, when
from bridge.cli.who import IdentityFolder, seconds
from bridge.clock import now_ms
from bridge.core import spell_time
from bridge.deadletters import DeadLetters, Filter, Letter
from bridge.errors import BridgeError, Refusal, TransportError, UsageError
from bridge.job import JobToken

LIMIT: Final = 100
"""Letters that are listed where nothing is said: each is fetched whole."""

Kind = Annotated[str | None, typer.Option("--kind", help="Only of this kind.", show_default=False)]
Producer = Annotated[str | None, typer.Option("--producer", help="Only this producer's.", show_default=False)]
Cause = Annotated[str | None, typer.Option("--cause", help="Only with this cause.", show_default=False)]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="DURATION", help="Only those that died since so long ago.", show_default=False),
]
Which = Annotated[
    list[str] | None,
    typer.Argument(metavar="LETTER...", help="QUEUE/NUMBER as `bunny dead ls` has it, or a job's token."),
]
All = Annotated[bool, typer.Option("--all", help="All of --queue that the filters leave.")]
OfQueue = Annotated[str | None, typer.Option("--queue", help="With --all: the queue.", show_default=False)]
Yes = Annotated[bool, typer.Option("--yes", help="With --all: do not ask.")]


class _Act(NamedTuple):
    """What is done to letters, one by one."""

    verb: str
    done: str
    do: Callable[[DeadLetters, Letter], Awaitable[dict[str, str]]]


def register(app: typer.Typer) -> None:
    """Add the group."""
    dead = group("Look at dead letters, and have them run again.")
    dead.command("ls", epilog=example("bunny dead ls", "bunny dead ls thumbnails --cause Expired --since 2h"))(ls)
    dead.command("show", epilog=example("bunny dead show thumbnails/17", "bunny dead show $TOKEN --json"))(show)
    dead.command(
        "replay", epilog=example("bunny dead replay thumbnails/17", "bunny dead replay --all --queue thumbnails")
    )(replay)
    dead.command(
        "drop", epilog=example("bunny dead drop thumbnails/17", "bunny dead drop --all --queue thumbnails --since 1d")
    )(drop)
    app.add_typer(dead, name="dead")


def ls(
    queue: Annotated[str | None, typer.Argument(metavar="QUEUE", help="The queue.", show_default="every queue")] = None,
    kind: Kind = None,
    producer: Producer = None,
    cause: Cause = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(help="How many at most, of each queue.", min=1)] = LIMIT,
    after: Annotated[int, typer.Option(help="Begin after this number.", min=0)] = 0,
    identity: IdentityFolder = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs that could not be done, oldest first, in the words of the workers that gave them up.

    One that was replayed stays until the replay is answered, and comes back if that failed, too.
    """
    wanted = _filter(kind, producer, cause, since)
    found, more = run(_list(operators.readers(identity, folder, queue), queue, wanted, limit, after))
    out = Out(as_json)
    out.table(
        ("letter", "died", "kind", "producer", "cause", "attempt"),
        [(x.name, when(x.stored), x.kind, x.key.producer, x.cause, x.attempt) for x in found],
    )
    for letter in more:
        out.say(f"{letter.queue} has more: --after {letter.sequence}", style="yellow")
    out.result({"letters": [_values(letter) for letter in found], "more": {x.queue: x.sequence for x in more}})


def show(
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="QUEUE/NUMBER, or a job's token.")],
    identity: IdentityFolder = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter, and whether its job still verifies; what is in it is sealed to the workers."""
    which = Reference.parse(letter)
    found, values = run(_show(operators.reader(identity, folder, which.queue), which))
    out = Out(as_json)
    about = {**_values(found), **values}
    out.table(("letter", found.name), [(key, str(value)) for key, value in about.items() if key != "letter"])
    out.result(about)


def replay(
    letters: Which = None,
    everything: All = False,
    queue: OfQueue = None,
    kind: Kind = None,
    producer: Producer = None,
    cause: Cause = None,
    since: Since = None,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="After which it is not started.", show_default="the queue's"),
    ] = None,
    yes: Yes = False,
    identity: IdentityFolder = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Order dead letters to run again, and print the tokens by which their producers find the results.

    The job is what its producer signed, byte for byte; the order to run it again is signed by the operator. Its
    effects may happen a second time: what it did before it died is not undone.
    """
    limit = seconds("--deadline", deadline)

    async def do(dead: DeadLetters, letter: Letter) -> dict[str, str]:
        token = await dead.replay(letter, None if limit is None else round(limit * 1000))
        return {"token": str(token)}

    wanted = _filter(kind, producer, cause, since)
    _each(_Act("replay", "replayed", do), letters, everything, queue, wanted, yes, identity, folder, as_json)


def drop(
    letters: Which = None,
    everything: All = False,
    queue: OfQueue = None,
    kind: Kind = None,
    producer: Producer = None,
    cause: Cause = None,
    since: Since = None,
    yes: Yes = False,
    identity: IdentityFolder = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Remove dead letters for good. The producers have their answer already: it stays what it was."""

    async def do(dead: DeadLetters, letter: Letter) -> dict[str, str]:
        await dead.drop(letter)
        return {}

    wanted = _filter(kind, producer, cause, since)
    _each(_Act("drop", "dropped", do), letters, everything, queue, wanted, yes, identity, folder, as_json)


# --- what they share ------------------------------------------------------------------------------------


def _each(
    act: _Act,
    letters: list[str] | None,
    everything: bool,
    queue: str | None,
    wanted: Filter,
    yes: bool,
    identity: Path | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Do it to the letters named, or to all that are meant, and tell what became of each."""
    if everything == bool(letters) or everything != (queue is not None) or (letters and wanted != Filter()):
        raise UsageError(f"say which: {act.verb} LETTER..., or {act.verb} --all --queue QUEUE and filters")
    out = Out(as_json)
    if queue is not None:
        place = operators.operator(identity, folder, queue)
        names = run(_names(place, queue, wanted))
        if names and not yes:
            _confirm(f"{act.verb} {len(names)} dead letters of {queue}", as_json)
        places = {queue: place}
    else:
        names = [Reference.parse(letter) for letter in letters or ()]
        places = {each.queue: operators.operator(identity, folder, each.queue) for each in names}
    done: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    stopped = run(_work(places, names, act, out, done, failed))
    out.say(f"{len(done)} {act.done}" + (f", {len(failed)} not" if failed else ""))
    out.result({act.done: done, "failed": failed})
    if stopped is not None:
        raise NotAsAsked(stopped)


async def _work(
    places: dict[str, Path],
    names: list[Reference],
    act: _Act,
    out: Out,
    done: list[dict[str, str]],
    failed: list[dict[str, str]],
) -> BridgeError | None:
    """Do it to each; the last reason why not to all of them. What a broker refuses ends it."""
    last: BridgeError | None = None
    for queue, place in places.items():
        async with operators.opened(place) as dead:
            for each in (name for name in names if name.queue == queue):
                try:
                    letter = await _find(dead, each)
                    told = await act.do(dead, letter)
                except (UsageError, Refusal, TransportError) as error:
                    failed.append({"letter": str(each), "error": type(error).__name__, "message": str(error)})
                    out.say(f"{each}: {error}", style="red")
                    last = error
                    if isinstance(error, TransportError):
                        return last
                else:
                    done.append({"letter": letter.name, **told})
                    out.say(" ".join((letter.name, *told.values())))
    return last


async def _names(place: Path, queue: str, wanted: Filter) -> list[Reference]:
    async with operators.opened(place) as dead:
        return [Reference(queue, letter.sequence) async for letter in dead.search(queue, wanted)]


async def _list(
    places: list[Path], queue: str | None, wanted: Filter, limit: int, after: int
) -> tuple[list[Letter], list[Letter]]:
    """The letters, and the last of each queue that has more of them."""
    found: list[Letter] = []
    more: list[Letter] = []
    for place in places:
        async with operators.opened(place) as dead:
            for name in [queue] if queue is not None else sorted(dead.queues):
                of_queue: list[Letter] = []
                async for letter in dead.search(name, wanted, after):
                    if len(of_queue) == limit:
                        more.append(of_queue[-1])
                        break
                    of_queue.append(letter)
                found += of_queue
    return found, more


async def _show(place: Path, which: Reference) -> tuple[Letter, dict[str, str]]:
    async with operators.opened(place) as dead:
        letter = await _find(dead, which)
        try:
            core = dead.verify(letter).core
        except Refusal as refusal:
            return letter, {"verified": f"no, {refusal.name}: {refusal}"}
        signed = {"submitted": spell_time(core.issued), "deadline": spell_time(core.expires)}
        return letter, {**signed, "verified": f"yes, signed by {core.sender}"}


async def _find(dead: DeadLetters, which: Reference) -> Letter:
    if which.token is not None:
        return await dead.of_job(which.token)
    return await dead.get(which.queue, which.sequence)


def _filter(kind: str | None, producer: str | None, cause: str | None, since: str | None) -> Filter:
    ago = seconds("--since", since)
    return Filter(kind, producer, cause, 0 if ago is None else now_ms() - round(ago * 1000))


def _confirm(what: str, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise UsageError(f"{what}: nobody to ask; say --yes")
    typer.confirm(f"{what}?", abort=True, err=True)


def _values(letter: Letter) -> dict[str, Any]:
    key = letter.key
    return {
        "letter": letter.name,
        "job": key.job_id,
        "queue": key.queue,
        "kind": letter.kind,
        "producer": key.producer,
        "generation": key.generation,
        "cause": letter.cause,
        "attempt": letter.attempt,
        "history": letter.history,
        "died": moment(letter.stored).isoformat(timespec="milliseconds"),
        "deadline": letter.deadline,
        "bytes": len(letter.data),
        "token": str(JobToken(*key, letter.digest)),
    }
