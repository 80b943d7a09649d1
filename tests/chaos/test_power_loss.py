"""What a PubAck waits for, under strace: no kill -9 takes the page cache with it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bridge.devserver import Server
from bridge.errors import ConfigurationError
from tests.integration.traps import needs
from tests.power_loss import MESSAGES, count, counted, policy, traced
from tests.support import running_bridge

PORT = 4222
BLOCK = "/store/aws/jetstream/RELAY/streams/JOBS_thumbs/msgs/1.blk"
CLIENT = f"TCP:[127.0.0.1:{PORT}->127.0.0.1:38596]"
WRITE = f'7 pwrite64(18<{BLOCK}>, ""..., 185, 0) = 185'
SYNC = f"7 fsync(18<{BLOCK}>) = 0"
ACK = f'7 write(12<{CLIENT}>, ""..., 113) = 113'


async def test_under_power_loss_each_puback_follows_an_fsync_of_what_it_acknowledges(tmp_path: Path) -> None:
    needs("strace", "-V")
    async with running_bridge(tmp_path, policy("power-loss")) as bridge:
        for side in ("jobs", "results"):
            found = await count(bridge, side)
            assert (found.stored, found.synced) == (MESSAGES, MESSAGES), f"{side}: {found}"


async def test_under_process_a_puback_waits_for_no_fsync(tmp_path: Path) -> None:
    needs("strace", "-V")
    async with running_bridge(tmp_path, policy("process")) as bridge:
        for side in ("jobs", "results"):
            found = await count(bridge, side)
            assert found.stored == MESSAGES
            assert found.synced < MESSAGES, f"{side}: {found}"  # every ten seconds there is one


async def test_where_nobody_may_look_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = tmp_path / "strace"
    refused.write_text(
        "#!/bin/sh\necho 'strace: attach: ptrace(PTRACE_SEIZE, 7): Operation not permitted' >&2; exit 1\n"
    )
    refused.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    server = cast(Server, SimpleNamespace(pid=os.getpid()))
    with pytest.raises(ConfigurationError, match=r"ptrace is not permitted here, .* Operation not permitted; try "):
        async with traced(server, tmp_path / "output"):
            pytest.fail("it looks")


@pytest.mark.parametrize(
    ("lines", "stored", "synced"),
    [
        ([WRITE, SYNC, ACK, WRITE, SYNC, ACK], 2, 2),
        ([WRITE, ACK, SYNC], 1, 0),
        ([WRITE, SYNC, WRITE, ACK], 1, 0),
        ([WRITE, SYNC.replace("JOBS_thumbs", "RESULTS_thumbs"), ACK], 1, 0),
        ([WRITE, '8 write(12<TCP:[127.0.0.1:7422->127.0.0.1:5]>, ""..., 200) = 200', SYNC, ACK], 1, 1),
        ([WRITE, ACK.replace("113", "28"), SYNC, ACK], 1, 1),  # a PING
        ([WRITE, f"8 fsync(18<{BLOCK}> <unfinished ...>", ACK, "8 <... fsync resumed>) = 0"], 1, 0),
        ([WRITE, f"8 fsync(18<{BLOCK}> <unfinished ...>", "8 <... fsync resumed>) = 0", ACK], 1, 1),
        ([WRITE, SYNC, f"7 write(12<{CLIENT}>, <unfinished ...>", '7 <... write resumed>""..., 113) = 113'], 1, 1),
        ([WRITE, f"7 write(12<{CLIENT}>, <unfinished ...>", SYNC, '7 <... write resumed>""..., 113) = 113'], 1, 0),
    ],
)
def test_what_is_counted(lines: list[str], stored: int, synced: int) -> None:
    found = counted(lines, "JOBS_thumbs", PORT)
    assert (found.stored, found.synced) == (stored, synced)
