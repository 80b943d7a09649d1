"""``bunny up``: both clouds on this machine, until it is stopped."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.frame import AsJson, PolicyFile, example, run
from bridge.cli.out import Out
from bridge.cli.where import BRIDGE_FOLDER, find_policy, private_folder, read_policy
from bridge.devserver import Bridge, Ports, running
from bridge.policy import SCAFFOLD, Policy, load_policy
from bridge.render.contexts import ROLES, context_file


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up", epilog=example("bunny up", "bunny up --dir /tmp/other --hub-port 4222"))(up)


def up(
    folder: Annotated[Path, typer.Option("--dir", help="Where keys, certificates, streams and logs are kept.")] = Path(
        BRIDGE_FOLDER
    ),
    hub_port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the hub's services; 0: any free one.")] = 0,
    leaf_port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the leaf's services; 0: any free one.")] = 0,
    link_port: Annotated[int, typer.Option(min=0, max=65_535, help="Where the hub takes the link; 0: any.")] = 0,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Run both clouds of bridge.yaml on this machine, with real TLS between them; Ctrl-C stops them.

    Keys, trust bundle and certificates are made for development if DIR has none, and kept. Streams are kept too.
    When jobs can flow, DIR/ready.json is written; with --json its content is printed, on one line.
    """
    out = Out(as_json)
    values = _policy(policy, out)
    ports = {
        values.hub.name: Ports(clients=hub_port, leafnodes=link_port),
        values.leaf.name: Ports(clients=leaf_port),
    }
    private_folder(folder)
    run(_until_stopped(values, folder, ports, out))


def _policy(given: Path | None, out: Out) -> Policy:
    path = find_policy(given)
    if given is not None or path.exists():
        return read_policy(path)
    out.say("There is no bridge.yaml here: running the built-in one. `bunny init` writes it, for you to edit.")
    with tempfile.TemporaryDirectory() as folder:
        built_in = Path(folder, "bridge.yaml")
        built_in.write_text(SCAFFOLD)
        return load_policy(built_in)


async def _until_stopped(policy: Policy, folder: Path, ports: dict[str, Ports], out: Out) -> None:
    """Run until Ctrl-C or SIGTERM. Once jobs can flow that is how it ends well; before, it is an interruption."""
    ready = asyncio.Event()
    serving = asyncio.create_task(_serve(policy, folder, ports, out, ready), name="bridge")
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        if not asked.is_set():  # a second signal must not cut short the stopping
            asked.set()
            serving.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        await serving
    except asyncio.CancelledError:
        if not ready.is_set():
            raise
        out.say("stopped; the streams are kept")


async def _serve(policy: Policy, folder: Path, ports: dict[str, Ports], out: Out, ready: asyncio.Event) -> None:
    status = out.console.status(f"starting {policy.hub.name} and {policy.leaf.name}")
    status.start()
    try:
        async with running(policy, folder, ports=ports) as bridge:
            status.stop()
            ready.set()
            _announce(bridge, folder, out)
            await bridge.ended()
    finally:
        status.stop()


def _announce(bridge: Bridge, folder: Path, out: Out) -> None:
    state, policy = bridge.folder.read_ready(), bridge.policy
    out.say(f"{policy.bridge} is up, in {folder}; Ctrl-C stops it.", "bold green")
    out.table(
        ("cloud", "role", "clients", "monitor"),
        [(name, policy.clouds[name].role, each["clients"], each["monitor"]) for name, each in state["clouds"].items()],
    )
    identities = [policy.identities[name] for name in state["identities"]]
    out.table(
        ("identity", "cloud", "role", "folder"),
        [(each.name, each.cloud, each.role.value, folder / "identities" / each.name) for each in identities],
    )
    out.say("Now, in another terminal:")
    queue = next(iter(policy.queues.values()))
    out.say(f"  bunny queue ls{_where(folder)}")
    out.say(f"  BUNNY_IDENTITY={folder / 'identities' / queue.workers} bunny work MODULE:WORKER")
    people = [each for each in identities if each.role in ROLES]
    if people:
        context = Path(context_file(policy, people[0])).stem
        out.say(f"  XDG_CONFIG_HOME={folder} nats --context {context} stream ls      # the stock NATS CLI")
    out.result(state)


def _where(folder: Path) -> str:
    return "" if folder == Path(BRIDGE_FOLDER) else f" --dir {folder}"
