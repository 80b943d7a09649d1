"""``bunny queue``: what waits, runs, was done and was put aside, in both clouds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from bridge.agent.look import Unread
from bridge.cli.frame import AsJson, BridgeFolder, NotAsAsked, example, group, run
from bridge.cli.out import Out
from bridge.cli.queuestate import Clouds, QueueState, ask, inspectors
from bridge.errors import ConfigurationError, TransportError
from bridge.policy.hints import nearest
from bridge.policy.quantities import spell_duration

Inspectors = Annotated[
    list[Path] | None,
    typer.Option(
        "--identity",
        metavar="FOLDER",
        help="An inspector's folder; once for each cloud.",
        show_default="BUNNY_IDENTITY, or those of the bridge here",
    ),
]

UNKNOWN: Final = "unknown"
_COLUMNS: Final = (
    ("pending", "pending"),
    ("delayed", "delayed"),
    ("in_flight", "in flight"),
    ("redelivered", "redelivered"),
    ("results", "results"),
    ("results_home", "come home"),
    ("dead", "dead"),
    ("refused", "refused"),
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    queue = group("Look at queues.")
    queue.command("ls", epilog=example("bunny queue ls", "bunny queue ls --json"))(ls)
    queue.command("show", epilog=example("bunny queue show thumbnails"))(show)
    app.add_typer(queue, name="queue")


def ls(identity: Inspectors = None, folder: BridgeFolder = None, as_json: AsJson = False) -> None:
    """List every queue. What cannot be asked is unknown, never 0: an inspector sees its own cloud alone."""
    out, clouds = Out(as_json), run(ask(inspectors(identity, folder)))
    states = clouds.queues()
    columns = [
        (field, title) for field, title in _COLUMNS if field not in ("redelivered", "delayed")
    ]  # 80 columns; `show` has them
    out.table(
        ("queue", "from", "to", *(title.removeprefix("come ") for _, title in columns)),
        [(s.name, s.settings.home, s.settings.work, *(_told(s.count(field)) for field, _ in columns)) for s in states],
    )
    tell_missing(out, clouds)
    out.result({"queues": [s.as_json() for s in states], "unknown": clouds.missing})
    check(clouds)


def show(
    queue: Annotated[str, typer.Argument(metavar="QUEUE", help="The queue.")],
    identity: Inspectors = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Show one queue: its numbers, its streams in both clouds, and how far its results have come home."""
    out, clouds = Out(as_json), run(ask(inspectors(identity, folder)))
    states = {s.name: s for s in clouds.queues()}
    if queue not in states:
        raise ConfigurationError(f"no queue {queue!r}; {nearest(queue, states)}")
    state = states[queue]
    _show(out, state)
    tell_missing(out, clouds)
    inboxes = {who: inbox._asdict() if inbox is not None else None for who, inbox in state.inboxes().items()}
    out.result({**state.as_json(), "streams": state.streams(), "inboxes": inboxes, "unknown": clouds.missing})
    check(clouds)


def _show(out: Out, state: QueueState) -> None:
    settings = state.settings
    out.say(
        f"{state.name}: {', '.join(settings.producers)} in {settings.home} -> {settings.workers} in {settings.work}"
    )
    out.say()
    out.table(("count", state.name), [(title, _told(state.count(field))) for field, title in _COLUMNS])
    out.say()
    out.table(
        ("cloud", "stream", "messages", "bytes", "of at most", "lag"),
        [
            (cloud, name, *(_told(about.get(field)) for field in ("messages", "bytes", "max_bytes")), _lag(about))
            for cloud, name, about in state.rows()
        ],
    )

    if inboxes := state.inboxes():
        out.say()
        out.table(
            ("inbox of", "unread", "of these given out", "the oldest, at most", "gone after"),
            [(who, *_inbox(inbox), spell_duration(settings.result_ttl_ms)) for who, inbox in inboxes.items()],
        )


def _inbox(inbox: Unread | None) -> tuple[str, str, str]:
    if inbox is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    return _told(inbox.unread), _told(inbox.given), spell_duration(inbox.oldest_ms // 1000 * 1000)


def _lag(about: dict[str, int | None]) -> str:
    return _told(about["lag"]) if "lag" in about else ""


def _told(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"


def tell_missing(out: Out, clouds: Clouds) -> None:
    """Say which clouds are not known, and why."""
    for cloud, reason in clouds.missing.items():
        out.say(f"{cloud}: {reason}", style="yellow")


def check(clouds: Clouds) -> None:
    """A cloud that has an inspector here and does not answer was not shown as asked."""
    for cloud in clouds.failed:
        raise NotAsAsked(TransportError(f"{cloud} cannot be asked: {clouds.missing[cloud]}"))
