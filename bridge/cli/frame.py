"""Runs a command: one line for an error, an exit code that says whose it is, never a traceback for a mistake."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Callable, Coroutine, Iterable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from bridge import observe
from bridge.cli.out import Out, printable
from bridge.errors import BridgeError, PolicyError
from bridge.render import DISTRIBUTION

T = TypeVar("T")

INTERRUPTED: Final = 130
"""What a shell reports for a command ended by Ctrl-C."""

_PYDANTIC: Final = "Value error, "
"""What its words begin with where it says what else there is."""

_EXIT_CODES: Final = """\
Exit codes: 0 done; 1 not done: a file, the policy or an argument is in the way; 2 not a command line of bunny; \
3 no server, no link or no permission; 4 not trusted; 5 the job failed or is late; \
6 the identity is revoked or refused; 130 interrupted."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
"""The option of every command."""

PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", help="The policy.", show_default="bridge.yaml here or in a folder above"),
]
"""The option of every command that reads the policy; see `bridge.cli.where.find_policy`."""

BridgeFolder = Annotated[
    Path | None,
    typer.Option("--dir", help="Where `bunny up` runs.", show_default=".bunny here or in a folder above"),
]
"""The option of every command that uses a bridge on this machine; see `bridge.cli.where.find_bridge`."""


class PolicyMistakes(BridgeError):
    """Everything that is wrong with a policy, one line each."""

    def __init__(self, problems: list[PolicyError]) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


class NotAsAsked(Exception):
    """A command has printed its answer, and the answer is no: what is left is the reason and its exit code.

    Args:
        reason: What is told on standard error.
    """

    def __init__(self, reason: BridgeError) -> None:
        self.reason = reason
        super().__init__(str(reason))


def group(about: str) -> typer.Typer:
    """A group of commands that shows its help when none of them is named."""
    app = typer.Typer(help=about, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

    @app.callback(invoke_without_command=True)
    def show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            sys.stdout.write(context.get_help())
            raise typer.Exit(2)

    return app


def example(*lines: str) -> str:
    """The end of a command's help: command lines to copy. Give it as ``epilog``."""
    return "Example:" + "".join(f"\n\n  [bold]{line}[/bold]" for line in lines)


def build(commands: Iterable[Callable[[typer.Typer], None]]) -> typer.Typer:
    """``bunny`` with these commands, in their order."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,  # its tracebacks print local variables, and ours may be keys
        epilog=_EXIT_CODES,
    )

    @app.callback(invoke_without_command=True)
    def bunny(
        context: typer.Context,
        version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    ) -> None:
        """Jobs from one cloud, workers in another: sealed end to end over NATS JetStream."""
        if version:
            sys.stdout.write(f"bunny {_version()}\n")
            raise typer.Exit(0)
        if context.invoked_subcommand is None:
            sys.stdout.write(context.get_help())
            raise typer.Exit(2)

    for register in commands:
        register(app)
    _unwrap(app)
    return app


def _unwrap(app: typer.Typer) -> None:
    """Undo the line breaks of docstrings, paragraph by paragraph, so that help is wrapped by the terminal alone."""
    for command in app.registered_commands:
        text = inspect.cleandoc(command.help or (command.callback and command.callback.__doc__) or "")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    for each in app.registered_groups:
        if each.typer_instance is not None:
            _unwrap(each.typer_instance)


def _version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "of a checkout that is not installed"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C cancels it and lets it clean up."""
    return asyncio.run(work)


def run_command(app: typer.Typer, arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; every error is on standard error by then."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    # Before anything logs: unconfigured, logs would go to standard output. What goes wrong ends in an error anyway.
    observe.configure(level="error")
    try:
        try:
            code = app(given, prog_name="bunny", standalone_mode=False)
            sys.stdout.flush()
            return code if isinstance(code, int) else 0
        except NotAsAsked as answer:
            sys.stdout.flush()
            return _tell(answer.reason, as_json=False)
        except BridgeError as error:
            return _tell(error, as_json)
        except typer.TyperException as error:
            return _say(as_json, "UsageError", error.format_message().replace(_PYDANTIC, ""), error.exit_code)
        except (KeyboardInterrupt, typer.Abort, asyncio.CancelledError):
            return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(as_json, "OSError", f"{where}{error.strerror or type(error).__name__}", 1)


def _tell(error: BridgeError, as_json: bool) -> int:
    name, more = type(error).__name__, {}
    if isinstance(error, PolicyMistakes):
        name = PolicyError.__name__
        more = {
            "problems": [
                {"file": p.file, "line": p.line, "problem": p.problem, "remedy": p.remedy} for p in error.problems
            ]
        }
    return _say(as_json, name, str(error), error.exit_code, more)


def _say(as_json: bool, name: str, message: str, code: int, more: dict[str, Any] | None = None) -> int:
    for line in message.splitlines() or [name]:
        sys.stderr.write(f"bunny: {printable(line)}\n")
    if as_json:
        Out(as_json).result({"error": name, "message": message, **(more or {})})
        sys.stdout.flush()
    return code
