"""What no kill -9 can show: that a PubAck says no more than what the disk was told to keep.

``python -m tests.power_loss`` stores messages one after the other in a stream of each cloud, with strace looking at its
server, and counts what lies between the write of each and its PubAck: under ``durability: power-loss`` an fsync of the
same file, under ``process`` none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bridge import observe
from bridge.devserver import Bridge, Server, monitor
from bridge.errors import BridgeError, ConfigurationError
from bridge.subjects import JobKey, job, jobs_stream, result, results_stream
from tests.support import POLICY, connected, running_bridge

MESSAGES: Final = 40
CALLS: Final = "pwrite64,write,writev,fsync,fdatasync"
ATTACH_S: Final = 20.0
SESSION: Final = "0123456789abcdef01234567"
LEAST_BYTES: Final = 64
"""Of what may be a PubAck; a PING, in its TLS record, is shorter."""

Durability = Literal["power-loss", "process"]

# 1234  pwrite64(17</…/msgs/1.blk>, "…"..., 180, 0) = 180, or in two halves where another thread comes between.
_CALL = re.compile(r"^\d+ +(?:<\.\.\. )?(?P<name>\w+)(?:\(\d+<(?P<what>.*?)>(?=[,)]| <))?")
_RESULT = re.compile(r"= (\d+)$")


@dataclass(slots=True)
class Count:
    """What lay between the write of messages and their PubAcks."""

    stored: int = 0
    synced: int = 0
    """With an fsync of the file, in between, that had returned."""

    def __str__(self) -> str:
        return f"{self.stored} messages stored one after the other, {self.synced} PubAcks after an fsync of their file"


def counted(lines: Iterable[str], stream: str, port: int) -> Count:
    """Go through what strace wrote.

    Args:
        lines: Its output, in the order of time; a call that another thread's came into is there twice, at its
            beginning and at its end.
        stream: The stream's name.
        port: Of the server, where the client is.
    """
    count, blocks = Count(), f"/streams/{stream}/msgs/"
    begun: dict[str, str] = {}
    written = synced = ""  # the file of the last message, and of the last fsync since
    for line in lines:
        thread, call = line.split(" ", 1)[0], _CALL.match(line)
        if call is None:
            continue
        name, what = call["name"], call["what"] or begun.pop(thread, "")
        if line.endswith("<unfinished ...>"):
            begun[thread] = what
        if name == "pwrite64" and blocks in what and "<unfinished" not in line:
            written, synced = what, ""
        elif name in {"fsync", "fdatasync"} and what == written and "<unfinished" not in line:
            synced = what
        elif name in {"write", "writev"} and f":{port}->" in what and "resumed>" not in line and written:
            size = _RESULT.search(line)
            if size is None or int(size[1]) >= LEAST_BYTES:  # where it is not known yet, it is the longer one
                count.stored += 1
                count.synced += written == synced
                written = ""
    return count


@contextlib.asynccontextmanager
async def traced(server: Server, output: Path) -> AsyncIterator[None]:
    """Have strace look at a server until the block ends.

    Raises:
        ConfigurationError: strace is not installed, or may not look at a process here.
    """
    if (strace := shutil.which("strace")) is None:
        raise ConfigurationError("strace: not found; install it, then try again")
    command = (strace, "-f", "-qq", "-yy", "-s", "0", "-e", f"trace={CALLS}", "-o", str(output), "-p", str(server.pid))
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)

    async def attached() -> bool:
        return process.returncode is not None or _looks(server)

    try:
        await monitor.until(attached, ATTACH_S, "strace to look at the server")
        if process.returncode is None:
            yield
    finally:
        if process.returncode is None:
            process.terminate()  # it lets the server go on
        _, said = await process.communicate()
    if process.returncode == 1:
        raise ConfigurationError(
            f"ptrace is not permitted here, so nothing can be counted: {said.decode().strip()}; "
            "try as root, with kernel.yama.ptrace_scope=0, or in a container with --cap-add SYS_PTRACE"
        )


def _looks(server: Server) -> bool:
    """Whether every thread of the server has its tracer."""
    status = [path.read_text() for path in Path(f"/proc/{server.pid}/task").glob("*/status")]
    return all("TracerPid:\t0\n" not in each for each in status)


async def count(bridge: Bridge, side: Literal["jobs", "results"], messages: int = MESSAGES) -> Count:
    """Store messages in a stream, one after the other, and count.

    Args:
        bridge: Both clouds.
        side: Jobs in the producer's cloud, as the producer, or results in the workers', as a worker.
        messages: How many.
    """
    server, who = (bridge.hub, "alpha") if side == "jobs" else (bridge.leaf, "bunny")
    stream = jobs_stream("thumbs") if side == "jobs" else results_stream("thumbs")
    output = bridge.folder.path / f"{side}.strace"
    async with await connected(bridge, who) as transport, traced(server, output):
        for n in range(1, messages + 1):
            key = JobKey("thumbs", "alpha", SESSION, n)
            await transport.publish(stream, job(key, "normal") if side == "jobs" else result(key), b"sealed")
    return counted(output.read_text().splitlines(), stream, bridge.ports[server.name].clients)


def policy(durability: Durability) -> str:
    """The policy of the tests, with a durability."""
    return POLICY.replace("durability: process", f"durability: {durability}")


async def _main(messages: int) -> bool:
    observe.configure(level="critical")
    holds = True
    durabilities: tuple[Durability, Durability] = ("power-loss", "process")
    for durability in durabilities:
        with tempfile.TemporaryDirectory() as folder:
            async with running_bridge(Path(folder), policy(durability)) as bridge:
                sides: tuple[Literal["jobs", "results"], ...] = ("jobs", "results")
                for side in sides:
                    found = await count(bridge, side, messages)
                    sys.stdout.write(f"{durability:<11} {side:<8} {found}\n")
                    sys.stdout.flush()
                    whole = found.stored == messages
                    kept = found.synced == messages if durability == "power-loss" else found.synced < messages
                    holds = holds and whole and kept
    return holds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    try:
        raise SystemExit(0 if asyncio.run(_main(parser.parse_args().messages)) else 1)
    except BridgeError as error:
        raise SystemExit(f"tests.power_loss: {error}") from None
