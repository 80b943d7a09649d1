"""Every fault of `bunny drill`, once: what a short run of it shows. `bunny drill --rounds 20` is the long one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.cli.drill import worker
from bridge.cli.drill.command import CUTS_S
from bridge.cli.drill.faults import faults
from bridge.cli.drill.skew import Skew
from consumers import execute
from tests.acceptance.typed import bunny, environment
from tests.integration.traps import needs

TIMEOUT_S = 480.0
SMALLER = ("--junk", "3000", "--backlog", "400")
GROUPS = {
    "workers": ("worker-idle", "worker-running", "worker-before-ack", "rolling", "slow-worker", "poison"),
    "servers": ("producer", "leaf", "hub", "both"),
    "link": ("cut-1s", "cut-5s", "backlog", "black-hole", "flaps", "slow-link", "reset"),
    "junk": ("junk",),
    "disks": ("disk-leaf", "disk-hub"),
    "clocks": ("clock-aws-ahead", "clock-aws-behind", "clock-azure-ahead", "clock-azure-behind"),
}
NEEDS = {"disks": ("unshare", "--map-root-user", "--mount", "true"), "clocks": ("faketime", "-f", "+1m", "true")}
NOTICED = {name for names in GROUPS.values() for name in names} - {
    *("worker-idle", "worker-before-ack", "rolling", "slow-worker", "producer", "black-hole", "slow-link")
}
"""What nobody may overlook. A worker that had nothing to do need not be missed, and a slow link is no fault."""


@pytest.mark.parametrize("group", GROUPS)
def test_h30_h34_h40_h41_nothing_is_lost_and_nothing_happens_twice(
    group: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    if group in NEEDS:
        needs(*NEEDS[group])
    only = [word for name in GROUPS[group] for word in ("--only", name)]
    done = subprocess.run(
        [sys.executable, "-m", "bridge.cli", "drill", "--json", "--rate", "60", *SMALLER, *only],
        cwd=tmp_path,
        env=environment(TMPDIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    seen = json.loads(done.stdout)
    total = seen["total"]
    record_property(
        "measured",
        f"drill, {group}: {seen['injected']} faults, {total['jobs']} jobs in {seen['seconds']} s, "
        f"{total['lost']} lost, {total['doubled']} doubled, {total['again']} run again",
    )
    assert (done.returncode, total["lost"], total["doubled"], total["failed"]) == (0, 0, 0, 0), done.stdout
    assert {fault["fault"] for fault in seen["faults"]} == set(GROUPS[group])
    assert total["jobs"] > 50
    for fault in seen["faults"]:
        assert fault["problems"] == []
        assert len(fault["first_result"]) == len(fault["drained"]) == fault["times"] == 1
        assert len(fault["noticed"]) == 1 or fault["fault"] not in NOTICED, fault


def test_an_interrupted_drill_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    drill = subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", "drill", "--only", "black-hole", "--black-hole", "100"],
        env=environment(TMPDIR=str(tmp_path / "tmp")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert drill.stdout is not None
    assert "both clouds are up" in drill.stdout.readline()
    drill.send_signal(signal.SIGTERM)
    _, said = drill.communicate(timeout=30)
    assert (drill.returncode, said) == (130, "")
    assert list((tmp_path / "tmp").iterdir()) == []


async def test_processes_with_a_wrong_clock_leave_nothing_that_they_shared() -> None:
    needs(*NEEDS["clocks"])
    script = "import os, time; print(os.getpid(), int(time.time()), flush=True); os.kill(os.getpid(), 9)"
    async with Skew.found() as skew:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, env={**os.environ, **skew.off(-3600)}, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
    pid, seconds = map(int, said.split())
    assert seconds < time.time() - 3000
    names = skew.shared.split()
    assert len(names) == 2
    left = {name.removeprefix("sem.") for name in os.listdir("/dev/shm")}  # noqa: S108
    assert not left & {f"faketime_sem_{pid}", f"faketime_shm_{pid}", *(name.removeprefix("/") for name in names)}


def test_every_fault_is_tried() -> None:
    assert {name for names in GROUPS.values() for name in names} == {fault.name for fault in faults(list(CUTS_S))}


def test_who_imports_the_drill_has_the_product_as_it_is() -> None:
    assert worker.WORK.queue == "work"
    assert execute.FUTURE_DELAY_S == 60


def test_what_cannot_be_drilled(tmp_path: Path) -> None:
    assert "'flood': no such fault; there are worker-idle, " in bunny("drill --only flood", tmp_path, code=1).error
    clocks = bunny("drill --only clock-aws-ahead", tmp_path, code=1, PATH="/nowhere").error
    assert clocks == "clock-aws-ahead: not run; faketime is not installed"
    (tmp_path / "kept/store").mkdir(parents=True)
    assert "kept: an earlier drill or a bridge is there" in bunny("drill --dir kept", tmp_path, code=1).error
