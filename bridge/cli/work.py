"""``bunny work``: run a worker application as this process."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

import bridge
from bridge import observe
from bridge.cli.frame import BridgeFolder, example
from bridge.cli.who import IdentityFolder, choose, seconds, size
from bridge.errors import BridgeError, ConfigurationError, UsageError
from bridge.identity import ENVIRONMENT
from consumers import Worker
from consumers.ledger import ENVIRONMENT as DATA
from consumers.ledger import LEAST_LIMIT

OURS = ("bridge", "producers", "consumers")
_IMPORTER = importlib.__file__


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=example(
            "bunny work examples.work:worker",
            "bunny work resize:worker --identity /etc/bunny --data /var/lib/resize --concurrency 32",
        )
    )(work)


def work(
    app: Annotated[str, typer.Argument(metavar="MODULE:APP", help="A module, from here, and the Worker in it.")],
    identity: IdentityFolder = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Jobs that run at once.", show_default="the app's")
    ] = None,
    drain_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long running jobs may finish on SIGTERM.",
            show_default="the app's",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep a ledger there: what was answered never runs again. One folder for each process.",
            show_default=f"the app's, or {DATA}; without one there is no ledger",
        ),
    ] = None,
    ledger_limit: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE", help="Of the ledger; a full one takes no work.", show_default="the app's, or 4GiB"
        ),
    ] = None,
    folder: BridgeFolder = None,
    log_json: Annotated[bool, typer.Option("--json", help="Log in JSON, also on a terminal.")] = False,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C: it then takes no more jobs, finishes those that run, and ends.

    Exit codes: 0 drained, 1 a wrong configuration, 3 the broker, 4 the trust bundle.
    """
    observe.configure(json=log_json or None)
    drain = seconds("--drain-timeout", drain_timeout)
    limit = size("--ledger-limit", ledger_limit, LEAST_LIMIT)
    if identity is not None:
        os.environ[ENVIRONMENT] = str(identity)  # for an app that reads its identity when it is imported
    worker = load_worker(app)
    if concurrency is not None:
        worker.concurrency = concurrency
    if drain is not None:
        worker.drain_timeout = drain
    if data is not None:
        worker.data = data
    if limit is not None:
        worker.ledger_limit = limit
    if identity is not None or worker.folder is None:
        queues = worker.queues
        worker.folder = choose(
            identity,
            folder,
            lambda c: any(c.queues[q].workers == c.identity for q in queues if q in c.queues),
            f"work {', '.join(queues) or 'a queue: the worker has no handler'}",
        )
    worker.main()


def load_worker(app: str) -> Worker:
    """Import a worker application from the current folder or the installed packages.

    Raises:
        UsageError: It is not ``MODULE:APP``.
        ConfigurationError: There is no such module or attribute, or it is no Worker.
    """
    name, colon, attribute = app.partition(":")
    if not colon or not attribute.isidentifier() or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{app[:80]!r} does not read MODULE:APP, such as examples.work:worker")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    _refuse_namesake(name, Path(here))
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigurationError(f"{name}: imports {error.name!r}, which is not installed here") from error
        raise ConfigurationError(f"no module {name!r} in {here} or the installed packages; check {app!r}") from None
    except BridgeError:
        raise
    except Exception as error:
        _tell_theirs(error)
        raise ConfigurationError(f"{name}: cannot be imported: {type(error).__name__}, as above") from error
    found = getattr(module, attribute, None)
    if found is None:
        workers = [key for key, value in vars(module).items() if isinstance(value, Worker)]
        near = f"it has {', '.join(workers)}" if workers else "it has no Worker"
        raise ConfigurationError(f"module {name!r} has no {attribute!r}; {near}")
    if not isinstance(found, Worker):
        raise ConfigurationError(
            f"{app}: a {type(found).__name__}, not a consumers.Worker; name the worker that the handlers are on"
        )
    return found


def _tell_theirs(error: Exception) -> None:
    """Print what went wrong in the user's module, without the frames by which we and the interpreter came there."""
    told = traceback.TracebackException.from_exception(error)
    ours = tuple(str(Path(bridge.__file__).parent.parent / package) + os.sep for package in OURS)
    passed = [f for f in told.stack if not f.filename.startswith(("<frozen ", *ours)) and f.filename != _IMPORTER]
    told.stack = traceback.StackSummary.from_list(passed)
    sys.stderr.write("".join([*told.stack.format(), *told.format_exception_only()]))


def _refuse_namesake(name: str, here: Path) -> None:
    """Say so where the user's own package has one of our names: ours is imported already, and would be taken for it."""
    top = name.partition(".")[0]
    if top not in OURS or here == bridge.HOME:
        return
    for path in (here / f"{top}.py", here / top / "__init__.py"):
        if path.is_file():
            raise ConfigurationError(
                f"{path}: has the name of a package of Bunny Bridge ({top}), so it cannot be imported; rename it"
            )
