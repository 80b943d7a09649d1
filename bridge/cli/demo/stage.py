"""Where the demo plays: its policy, the worker's process, and how much memory a process had at its peak."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bridge.devserver import launcher
from bridge.errors import TransportError
from bridge.policy import Policy, load_policy

QUEUE: Final = "files"
PRODUCER: Final = "relay"
OTHER_PRODUCER: Final = "reports"
WORKER: Final = "bunny"
INSPECTOR: Final = "ops-azure"
LINK: Final = "azure-link"

POLICY: Final = """\
version: 1
bridge: demo
clouds:
  aws: {role: hub, clients: "tls://relay-nats.relay.svc:4222", leafnodes: "tls://relay-leaf.bridge.internal:7422"}
  azure: {role: leaf, clients: "tls://bunny-nats.bunny.svc:4222"}
identities:
  relay: {cloud: aws}
  reports: {cloud: aws}
  bunny: {cloud: azure}
  ops-aws: {cloud: aws, role: inspector}
  ops-azure: {cloud: azure, role: inspector}
  provisioner-aws: {cloud: aws, role: provisioner}
  provisioner-azure: {cloud: azure, role: provisioner}
  azure-link: {cloud: azure, role: link}
queues:
  files:
    producers: [relay, reports]
    workers: bunny
    kinds: [count]
"""
"""As durable as in production: every write is synced before its PubAck."""

STOP_TIMEOUT_S: Final = 35.0
"""Longer than a worker's own drain."""


def demo_policy(folder: Path) -> Policy:
    """Write the demo's ``bridge.yaml`` and load it."""
    path = folder / "bridge.yaml"
    path.write_text(POLICY)
    return load_policy(path)


class WorkerProcess:
    """A worker as in production: a process of its own with an identity folder of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ended(self) -> None:
        """Wait until it ends by itself.

        Raises:
            TransportError: It did; its last line is in the message.
        """
        code = await self._process.wait()
        lines = self._log.read_text(errors="replace").splitlines() or ["without a word"]
        said = re.sub(r"[^ -~]", "?", lines[-1])[:300]
        raise TransportError(f"the worker ended with code {code} ({said}); see {self._log}")

    async def stop(self) -> None:
        """Let it finish what it runs, as a pod is stopped."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def worker_process(app: str, identity: Path, log: Path) -> AsyncIterator[WorkerProcess]:
    """Run ``bunny work`` until the block ends; it cannot outlive this process.

    Args:
        app: The application, ``MODULE:APP``.
        identity: Its identity folder.
        log: Where its output goes.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", launcher.__file__, str(os.getpid())),
            *(sys.executable, "-m", "bridge.cli", "work", app, "--identity", str(identity)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us: it is stopped when it may finish
        )
    worker = WorkerProcess(process, log)
    try:
        yield worker
    finally:
        await worker.stop()


def peak_memory(pid: int | None) -> int | None:
    """The most memory that a process had at once, in bytes; None where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None
