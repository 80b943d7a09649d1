"""``bunny demo``: everything in order, and the verdict as an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bridge import observe
from bridge.cli.demo import files, jobs, stage
from bridge.cli.demo.evidence import Evidence, copy_stores, drop_known, link_handshakes, plant, search_stores
from bridge.cli.demo.forbidden import try_forbidden
from bridge.cli.demo.report import Report, as_json, show
from bridge.cli.frame import AsJson, NotAsAsked, example, run
from bridge.cli.out import Out
from bridge.devserver import Bridge, running
from bridge.errors import BridgeError, UsageError
from producers.client import Producer

T = TypeVar("T")

APP: Final = "bridge.cli.demo.handler:worker"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=example("bunny demo", "bunny demo ~/photos /usr/share/doc", "bunny demo --json docs"))(demo)


def demo(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Folders or files.", show_default="the files of this package"),
    ] = None,
    worker: Annotated[
        str, typer.Option("--worker", metavar="MODULE:APP", help="Another worker for the same jobs.")
    ] = APP,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Run here, and keep it.", show_default="a temporary folder"),
    ] = None,
    as_json_: AsJson = False,
) -> None:
    """Carry a job for each of your files through both clouds on this machine, and show the evidence.

    The worker, a process of its own, returns the SHA-256, size, lines, words and most frequent word of each file; every
    answer is checked. Then: the handshake of the link, a search of both stores for pieces of the files, and five
    forbidden acts. The exit code is 0 only if all of it holds.
    """
    began, out = perf_counter(), Out(as_json_)
    observe.configure(level="error")  # what the servers refuse here is meant
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bunny-demo-")))
        elif (folder / "store").exists():
            # What an earlier run left would be taken for what the servers hold before the first job.
            raise UsageError(f"{folder}: an earlier demo or a bridge is there; name another folder with --dir")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        report = run(_demo(out, folder, paths or files.default_folders(), worker, began))
    show(out, report)
    out.result(as_json(report))
    if not report.holds:
        raise NotAsAsked(BridgeError("not all of it holds: what does not is marked above"))


async def _demo(out: Out, folder: Path, paths: list[Path], app: str, began: float) -> Report:
    found, skipped = files.find(paths)
    if not found:
        raise UsageError(f"{', '.join(map(str, paths))}: no file to make a job of; name a folder with files")
    policy = stage.demo_policy(folder)
    task = asyncio.current_task()
    if task is not None:  # as Ctrl-C does: the servers are stopped and a temporary folder is removed
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with contextlib.AsyncExitStack() as stack:
        planning = asyncio.create_task(asyncio.to_thread(jobs.plan, found), name="plan")
        stack.callback(planning.cancel)
        bridge = await stack.enter_async_context(running(policy, folder, relay=True))
        out.say(f"both clouds are up after {perf_counter() - began:.1f} s, in {folder}")
        before = await copy_stores(bridge)
        producer = await stack.enter_async_context(Producer.open(bridge.identity(stage.PRODUCER)))
        log, memory = bridge.folder.log("worker"), {}
        async with stage.worker_process(app, bridge.identity(stage.WORKER), log) as worker:
            with _progress(out, len(found)) as advance:
                work = jobs.run_jobs(producer, found, planning, advance)
                tally = await _while_up(work, bridge.ended(), worker.ended())
            memory["worker"] = stage.peak_memory(worker.pid)
        tally.skipped[:0] = skipped
        plan = planning.result()
        samples = await drop_known(plan.samples, before)
        out.say("searching what was stored, and trying what is forbidden: some seconds")
        evidence = await _while_up(_evidence(bridge, producer, plan, samples, tally), bridge.ended())
        memory |= {f"server of {cloud}": stage.peak_memory(server.pid) for cloud, server in bridge.servers.items()}
        memory["demo, with its producer"] = stage.peak_memory(os.getpid())
    return Report(tally, began, memory, evidence)


async def _evidence(
    bridge: Bridge, producer: Producer, plan: jobs.Plan, samples: set[bytes], tally: jobs.Tally
) -> Evidence | None:
    if tally.token is None:
        return None
    stored = await jobs.store_jobs(producer, plan.files)
    planted = await plant(bridge)
    stores = await search_stores(bridge, samples, planted)
    attempts = await try_forbidden(bridge, tally.token)
    return Evidence(link_handshakes(bridge), stores, stored, tuple(attempts))


async def _while_up(work: Coroutine[Any, Any, T], *ends: Coroutine[Any, Any, None]) -> T:
    """The work's value; or the error of what ended first, of everything that must stay up meanwhile."""
    task = asyncio.create_task(work, name="demo-work")
    others = [asyncio.create_task(end, name="demo-end") for end in ends]
    try:
        await asyncio.wait([task, *others], return_when=asyncio.FIRST_COMPLETED)
        for other in others:
            if other.done():
                other.result()
        return await task
    finally:
        for each in (task, *others):
            each.cancel()
        await asyncio.gather(task, *others, return_exceptions=True)


@contextlib.contextmanager
def _progress(out: Out, total: int) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("jobs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out.console, disable=out.as_json) as progress:
        task = progress.add_task("jobs", total=total)
        yield lambda: progress.advance(task)
