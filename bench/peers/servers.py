"""What the peers need: environments of their own, and brokers of this machine, for as long as a run takes."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import venv
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from bridge.devserver.process import find_server

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parent.parent / ".cache" / "peers"
START_TIMEOUT_S: Final = 20.0


def environment(name: str) -> Path:
    """The interpreter of an environment with what ``requirements/NAME.txt`` pins, made when it is first needed."""
    wanted = HERE / "requirements" / f"{name}.txt"
    place, stamp = CACHE / name, CACHE / name / "installed.txt"
    python = place / "bin" / "python"
    if not stamp.is_file() or stamp.read_text() != wanted.read_text():
        sys.stderr.write(f"installing {wanted.relative_to(HERE.parent.parent)} into {place}\n")
        venv.create(place, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        subprocess.run([*map(str, pip), "-r", str(wanted)], check=True)
        stamp.write_text(wanted.read_text())
    return python


@contextlib.asynccontextmanager
async def redis(folder: Path, durability: str) -> AsyncIterator[str]:
    """A Redis that writes its log as the class of durability says: each second, or before each answer."""
    server = shutil.which("redis-server")
    if server is None:
        sys.exit("redis-server is not installed: the package of that name has it (apt-get install redis-server)")
    port, sync = _free_port(), "always" if durability == "power-loss" else "everysec"
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    async with _running(server, *arguments, "--appendonly", "yes", "--appendfsync", sync, port=port):
        yield f"redis://127.0.0.1:{port}/0"


@contextlib.asynccontextmanager
async def nats(folder: Path, durability: str) -> AsyncIterator[str]:
    """One NATS server with JetStream, without TLS or a leaf."""
    port, config = _free_port(), folder / "nats.conf"
    sync = "always" if durability == "power-loss" else "1s"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder / "store"}", sync_interval: {sync} }}\n'
    )
    async with _running(str(find_server()), "-c", str(config), port=port):
        yield f"nats://127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def _running(*command: str, port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
