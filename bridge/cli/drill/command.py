"""``bunny drill``: everything in order, and the verdict as an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic
from typing import Annotated, Final

import typer

from bridge import observe
from bridge.cli.drill import report as reports
from bridge.cli.drill.audit import audit
from bridge.cli.drill.disk import Disk, disks
from bridge.cli.drill.faults import faults
from bridge.cli.drill.ledger import FILE, Ledger
from bridge.cli.drill.report import Report
from bridge.cli.drill.run import run as run_faults
from bridge.cli.drill.skew import Skew
from bridge.cli.drill.stage import Sizes, drill_policy, staged
from bridge.cli.drill.strike import DISKS, SKEW, Fault, Strike
from bridge.cli.frame import AsJson, NotAsAsked, example, run
from bridge.cli.out import Out
from bridge.devserver import Folder, running
from bridge.errors import BridgeError, ConfigurationError, UsageError
from bridge.policy import Policy

CUTS_S: Final = (1.0, 5.0)
RARE: Final = 5
"""What takes long comes once in so many rounds."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Args:
        folder: Where it runs.
        chosen: The faults.
        rounds: How often each.
        seed: Decides order, durations, victims.
        rate: Jobs per second, both ways together.
        sizes: How large some faults are.
        minutes: After these, no further fault is begun.
    """

    folder: Path
    chosen: Sequence[Fault]
    rounds: int
    seed: int
    rate: float
    sizes: Sizes
    minutes: float

    def needs(self, what: str) -> bool:
        """Whether one of its faults needs something of this machine."""
        return any(fault.needs == what for fault in self.chosen)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("bunny drill", "bunny drill --rounds 20", "bunny drill --only cut-30s --cut 30"))(drill)


def drill(
    rounds: Annotated[
        int, typer.Option(min=1, help="How often each fault is injected; what takes long, every fifth time.")
    ] = 1,
    only: Annotated[
        list[str] | None, typer.Option(metavar="FAULT", help="Only this one; may be repeated.", show_default="all")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Decides order, durations, victims.", show_default="any")] = None,
    rate: Annotated[float, typer.Option(min=1, max=2000, help="Jobs per second, both ways together.")] = 100.0,
    cut: Annotated[
        list[float] | None,
        typer.Option(min=0.1, metavar="SECONDS", help="Cuts of the link; may be repeated.", show_default="1 and 5"),
    ] = None,
    black_hole: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long the link swallows.")] = 6.0,
    backlog: Annotated[
        int, typer.Option(min=1, help="Jobs that wait for the link, in the fault of that name.")
    ] = 2_000,
    junk: Annotated[int, typer.Option(min=1, max=1_000_000, help="Messages of the fault of that name.")] = 10_000,
    minutes: Annotated[float, typer.Option(min=0.1, help="After these, no further fault is begun.")] = 60.0,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Run here, and keep it.", show_default="a temporary folder"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Break both clouds on this machine under load, again and again, and count what was lost or happened twice.

    Producers and workers in both clouds, each a process of its own, write into a SQLite file outside the bridge what
    they do; after every fault that file is compared. The exit code is 0 only if no job was lost and none doubled.
    """
    out = Out(as_json)
    observe.configure(level="critical")  # that connections break here is meant
    chosen = _chosen(faults(sorted(cut or CUTS_S)), only)
    seed = Random().randrange(1_000_000) if seed is None else seed  # noqa: S311  # to repeat a run; nothing secret
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bunny-drill-")))
        elif (folder / "store").exists():
            raise UsageError(f"{folder}: an earlier drill or a bridge is there; name another folder with --dir")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        order = Order(folder, chosen, rounds, seed, rate, Sizes(junk, black_hole, backlog), minutes)
        lacking, under = {}, {}
        if order.needs(DISKS):  # now, while this process is alone
            stores = {cloud: Folder.at(folder).store(cloud) for cloud in drill_policy(folder).clouds}
            try:
                under = stack.enter_context(disks(stores))
            except OSError as error:
                lacking[DISKS] = f"this process may not mount a disk that can be full: {error.strerror}"
        found = run(_drill(out, order, under, lacking))
    reports.show(out, found)
    out.result(reports.as_json(found))
    if not found.holds:
        raise NotAsAsked(BridgeError("not all of it holds: what does not is listed above"))


async def _drill(out: Out, order: Order, under: Mapping[str, Disk], lacking: dict[str, str]) -> Report:
    task = asyncio.current_task()
    if task is not None:  # as Ctrl-C does: processes are stopped and a temporary folder is removed
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    policy, skew = drill_policy(order.folder), None
    async with contextlib.AsyncExitStack() as stack:
        if order.needs(SKEW):
            try:
                skew = await stack.enter_async_context(Skew.found())
                await skew.prepare(order.folder)
            except ConfigurationError as error:
                lacking[SKEW] = str(error)
        return await _struck(out, order, policy, under, lacking, skew)


async def _struck(
    out: Out,
    order: Order,
    policy: Policy,
    under: Mapping[str, Disk],
    lacking: Mapping[str, str],
    skew: Skew | None,
) -> Report:
    can = [fault for fault in order.chosen if fault.needs not in lacking]
    missing = {fault.name: lacking[fault.needs] for fault in order.chosen if fault.needs in lacking}
    if not can:
        raise ConfigurationError(f"{', '.join(missing)}: not run; {'; '.join(lacking.values())}")
    random = Random(order.seed)  # noqa: S311  # to repeat a run; nothing secret
    plan: list[Fault] = []
    for number in range(order.rounds):
        due = [fault for fault in can if number % RARE == 0 or not fault.rare]
        plan += random.sample(due, len(due))
    began, done = monotonic(), 0

    def told(strike: Strike) -> None:
        nonlocal done
        done += 1
        out.say(f"{done:>4} of {len(plan)}  {reports.line(strike)}")

    async with running(policy, order.folder, relay=True) as bridge:
        async with staged(bridge, random, order.rate, order.sizes, under, skew) as stage:
            out.say(f"both clouds are up after {monotonic() - began:.1f} s, in {order.folder}; seed {order.seed}")
            strikes = await run_faults(stage, plan, began + order.minutes * 60, told)
        took = monotonic() - began
    with contextlib.closing(Ledger(order.folder / FILE)) as ledger:
        counts = audit(ledger, strikes)
    return reports.report(can, strikes, counts, seed=order.seed, rate=order.rate, took=took, missing=missing)


def _chosen(known: list[Fault], only: list[str] | None) -> list[Fault]:
    names = [fault.name for fault in known]
    for name in only or ():
        if name not in names:
            raise UsageError(f"--only {name[:40]!r}: no such fault; there are {', '.join(names)}")
    return [fault for fault in known if not only or fault.name in only]
