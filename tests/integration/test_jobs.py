"""Jobs through both clouds: real servers, real processes, and what is left when they are killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge import subjects
from bridge.bundle import build_payload, sign_payload
from bridge.clock import now_ms
from bridge.devserver import Bridge, monitor
from bridge.errors import JobFailed, OutcomeUnknown
from bridge.files import write_file
from bridge.identity import TRUST_FILE, load_keys
from bridge.roots import load_roots
from bridge.subjects import JobKey
from consumers import Job, Kind, Worker
from producers import Handle, Producer
from tests.support import POLICY, connected, running_bridge

ROOT = Path(__file__).resolve().parents[2]
SHORT = POLICY.replace(
    "    kinds: [resize, probe]\n",
    "    kinds: [resize, probe]\n    ack_wait: 1s\n    backoff: {initial: 50ms, factor: 1, max: 50ms, jitter: 0}\n",
)
"""With an ack wait that a test can wait for."""


@dataclass
class Find:
    word: str


FIND = Kind("lookup", "find", Find, list[str])


@contextlib.asynccontextmanager
async def serving(bridge: Bridge, name: str, worker: Worker) -> AsyncIterator[None]:
    """Run ``worker`` in this process until the block ends."""
    worker.folder = bridge.identity(name)
    started = asyncio.Event()
    worker.on_startup(started.set)
    running = asyncio.create_task(worker.run())
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        waiting.cancel()
        worker.stop()
        await running


@contextlib.asynccontextmanager
async def process(bridge: Bridge, *arguments: str, stderr: int | None = None) -> AsyncIterator[Process]:
    """Run `tests.integration.worker_process`, and end it if it still runs."""
    environment = {**os.environ, "BUNNY_IDENTITY": str(bridge.identity("bunny")), "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", "tests.integration.worker_process", *arguments)
    child = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE, stderr=stderr)
    try:
        assert await says(child) == "ready"
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def says(child: Process) -> str:
    assert child.stdout is not None
    return (await asyncio.wait_for(child.stdout.readline(), 30)).decode().strip()


async def held(bridge: Bridge, inspector: str, stream: str) -> int:
    """How many messages a stream holds."""
    async with await connected(bridge, inspector) as transport:
        answer: dict[str, Any] = json.loads(await transport.request(f"$JS.API.STREAM.INFO.{stream}", b""))
        return int(answer["state"]["messages"])


async def until_empty(bridge: Bridge, inspector: str, stream: str) -> None:
    async def empty() -> bool:
        return not await held(bridge, inspector, stream)

    await monitor.until(empty, 20, f"{stream} to be empty")


async def test_h41_jobs_flow_in_both_directions_and_survive_a_cut_and_a_restart(tmp_path: Path) -> None:
    forth, back = Worker(), Worker()

    @forth.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        if args < 0:
            raise ValueError("negative")
        return args * 2

    @forth.handler("thumbs", "probe")
    def probe(args: bytes) -> int:
        return len(args)

    @back.handler(FIND)
    async def find(args: Find, job: Job) -> list[str]:
        return [args.word, job.producer]

    async with (
        running_bridge(tmp_path, SHORT, relay=True) as bridge,
        Producer.open(bridge.identity("gamma")) as gamma,
    ):
        assert bridge.relay is not None
        async with (
            serving(bridge, "bunny", forth),
            serving(bridge, "relay", back),
            Producer.open(bridge.identity("alpha")) as alpha,
        ):
            found = await gamma.submit(FIND, Find("hare"))
            assert await found.result() == ["hare", "gamma"]
            handles = await alpha.submit_many("thumbs", "resize", range(300))
            assert all(isinstance(handle, Handle) for handle in handles)
            results = [await handle.result(int) for handle in handles if isinstance(handle, Handle)]
            assert results == [2 * n for n in range(300)]
            assert await (await alpha.submit("thumbs", "probe", bytes(200_000))).result() == 200_000
            with pytest.raises(JobFailed, match="InvalidArguments"):
                await (await alpha.submit("thumbs", "resize", "two")).result()

            await bridge.relay.cut()
            cut_off = await alpha.submit("thumbs", "resize", 21)  # a broken link blocks no writer
            with pytest.raises(OutcomeUnknown):
                await cut_off.result(timeout=1)
            token = str(cut_off.token)
        bridge.relay.heal()
        async with Producer.open(bridge.identity("alpha")) as alpha:
            again = await alpha.attach(token)
            assert not again.done()
            async with serving(bridge, "bunny", forth):
                assert await again.result(int, timeout=30) == 42
        async with Producer.open(bridge.identity("alpha")) as alpha:
            once_more = await alpha.attach(token)
            assert once_more.done()
            assert await once_more.result(int) == 42
        await until_empty(bridge, "ops-aws", "JOBS_thumbs")


async def test_a_forgery_is_kept_apart_and_the_queue_goes_on(tmp_path: Path) -> None:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        return args

    async with running_bridge(tmp_path) as bridge, serving(bridge, "bunny", worker):
        async with await connected(bridge, "alpha") as transport:
            forged = subjects.job(JobKey("thumbs", "alpha", "5" * 24, 1), "normal")
            await transport.publish("JOBS_thumbs", forged, b"RB1\0 rubbish")
        async with Producer.open(bridge.identity("alpha")) as alpha:
            assert await (await alpha.submit("thumbs", "resize", 1)).result() == 1
        await until_empty(bridge, "ops-aws", "JOBS_thumbs")
        assert await held(bridge, "ops-azure", "REFUSED_thumbs") == 1
        assert await held(bridge, "ops-azure", "RESULTS_thumbs") == 1
        assert await held(bridge, "ops-azure", "DEAD_thumbs") == 0


async def test_h40_kill_9_leaves_one_result_and_counts_attempts(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with running_bridge(tmp_path, SHORT) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        handle = await alpha.submit("thumbs", "resize", str(go))
        async with process(bridge) as first:  # killed while its handler runs
            assert await says(first) == "started 1"
            first.kill()
        go.touch()
        async with process(bridge, "die-before-ack") as second:  # killed after its result is stored
            assert await says(second) == "started 2"
            assert await second.wait() == -signal.SIGKILL
            assert await handle.result(int) == 2
        assert await held(bridge, "ops-aws", "JOBS_thumbs") == 1
        async with process(bridge) as third:  # finds the result, and does not run it
            await until_empty(bridge, "ops-aws", "JOBS_thumbs")
            third.terminate()
            assert await says(third) == "over"
            assert await third.wait() == 0
        assert await held(bridge, "ops-azure", "RESULTS_thumbs") == 1
        assert await held(bridge, "ops-azure", "STARTS_thumbs") == 1


async def test_a_lease_outlasts_the_ack_wait_and_sigterm_drains(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with running_bridge(tmp_path, SHORT) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        async with process(bridge) as old:
            handles = [await alpha.submit("thumbs", "resize", str(go)) for _ in range(4)]  # two run, two are held
            assert [await says(old) for _ in range(2)] == ["started 1"] * 2
            await asyncio.sleep(2.5)  # more than two ack waits: this is what is tested
            async with process(bridge) as new:
                old.terminate()
                assert [await says(new) for _ in range(2)] == ["started 2"] * 2
                go.touch()
                assert sorted([await handle.result(int) for handle in handles]) == [1, 1, 2, 2]
                assert await says(old) == "over"
                assert await old.wait() == 0
        await until_empty(bridge, "ops-aws", "JOBS_thumbs")


async def test_a_second_signal_stops_at_once_even_a_thread(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        await alpha.submit("thumbs", "probe", 60.0)
        async with process(bridge, stderr=PIPE) as child:
            assert await says(child) == "blocking"
            child.send_signal(signal.SIGTERM)
            # Of two signals that wait, two threads may take one each, and which comes first is open.
            assert child.stderr is not None
            while b"signal_received" not in (line := await asyncio.wait_for(child.stderr.readline(), 30)):
                assert line, "the process ended"
            child.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(child.wait(), 60) == 128 + signal.SIGINT


async def test_a_bundle_that_expires_ends_the_process_with_a_code_of_its_own(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        keys = load_keys(bridge.folder.keys, bridge.policy.identities)
        begun = now_ms()
        async with process(bridge):
            start = now_ms() - begun
        issued = now_ms() + 4 * start + 4_000 - bridge.policy.trust.expires_ms  # it is to run, and then to end
        payload = build_payload(bridge.policy, keys, 1_000, issued)
        write_file(bridge.identity("bunny") / TRUST_FILE, sign_payload(payload, load_roots(bridge.folder.roots)))
        async with process(bridge) as child:
            assert await says(child) == "over"
            assert await child.wait() == 4
