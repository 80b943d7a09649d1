"""What hostile contents, clocks and slow parts come to in a worker: named, bounded, and the next good job is done."""

from __future__ import annotations

import ast
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge import subjects
from bridge.clock import now_ms
from bridge.core import Core
from bridge.crypto import KemPublicKey
from bridge.envelope import Draft
from bridge.errors import JobFailed
from bridge.payload import PART
from bridge.policy import Queue
from bridge.transfer import incoming
from consumers import Worker
from producers import Content, Payload
from tests.fleet import FAST, Fleet, policy, until
from tests.world import SESSION

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024


class Bomb:
    """Says so, should anybody unpickle it."""

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return os.putenv, ("BUNNY_UNPICKLED", "1")


def counting() -> tuple[Worker, list[Any]]:
    worker, calls = Worker(), list[Any]()

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> int:
        calls.append(width)
        return width

    @worker.handler("thumbs", "probe")
    async def probe(data: bytes) -> int:
        calls.append(data)
        return len(data)

    return worker, calls


def test_h8_nothing_of_ours_can_read_a_pickle() -> None:
    reads = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "multiprocessing"}
    for package in ("bridge", "producers", "consumers"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not reads & {name.partition(".")[0] for name in names}, path
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in ("eval", "exec"), path
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "yaml":
                    assert node.attr not in ("load", "load_all", "full_load", "unsafe_load", "UnsafeLoader"), path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_h8_pickled_bytes_are_bytes(protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pickle.dumps(Bomb(), protocol)
    put: list[object] = []
    monkeypatch.setattr(os, "putenv", lambda *seen: put.append(seen))
    fleet, (worker, calls) = Fleet.make(policy()), counting()
    async with fleet.producer() as relay, fleet.working(worker):
        for content_type in ("application/json", "application/python-pickle", "application/x-pickle"):
            job = await relay.submit("thumbs", "resize", Content(content_type, data))
            with pytest.raises(JobFailed, match="InvalidArguments"):
                await job.result()
        assert await (await relay.submit("thumbs", "probe", data)).result() == len(data)
        assert await (await relay.submit("thumbs", "resize", 3)).result() == 3
    assert calls == [data, 3]
    assert put == []


# --- payloads --------------------------------------------------------------------------------------


async def test_h23_a_last_part_that_is_bad_and_no_byte_before_it_reaches_the_handler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUNNY_SPOOL", str(tmp_path / "spool"))
    fleet = Fleet.make(policy(max_payload=16 * MIB, payload_bytes=40 * MIB))
    worker, begun = Worker(), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(payload: Payload) -> int:
        begun.append(payload.length or 0)
        return payload.length or 0

    async with fleet.producer() as relay, fleet.transport("relay") as broker:
        job = await relay.submit("thumbs", "resize", bytes(16 * MIB))
        last = fleet.held("aws", "PARTS_thumbs")[16 * MIB // PART - 1]
        await broker.publish("PARTS_thumbs", last.subject, last.data[:-1] + bytes([last.data[-1] ^ 1]))
        async with fleet.working(worker):
            with pytest.raises(JobFailed, match="BadPart"):
                await job.result()
            assert begun == []
            assert await (await relay.submit("thumbs", "resize", bytes(MIB))).result() == MIB
    assert os.listdir(tmp_path / "spool") == []


async def test_h41_jobs_whose_parts_are_not_there_hold_up_no_other_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it looks for them each holds a slot, as a slow handler does: for two seconds, and here for less."""
    monkeypatch.setenv("BUNNY_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(incoming, "PAUSE_S", 0.01)
    plain = policy(max_payload=4 * MIB, payload_bytes=64 * MIB)
    calm = Queue("calm", ("relay",), "bunny", ("resize",), "aws", "azure", backoff=FAST)
    fleet, worker = Fleet.make(replace(plain, queues={**plain.queues, "calm": calm})), Worker(concurrency=2)

    @worker.handler("thumbs", "resize")
    async def resize(_: Payload) -> None: ...

    @worker.handler("calm", "resize")
    async def resize_calm(width: int) -> int:
        return width

    async with fleet.producer("other") as hostile, fleet.producer() as relay, fleet.transport("other") as broker:
        without = [await hostile.submit("thumbs", "resize", bytes(MIB)) for _ in range(8)]
        for part in fleet.held("aws", "PARTS_thumbs"):
            await broker.publish("PARTS_thumbs", part.subject, b"")
        async with fleet.working(worker):
            assert await (await relay.submit("calm", "resize", 1)).result(int, timeout=30) == 1
            for job in without:
                with pytest.raises(JobFailed, match="PartMissing"):
                    await job.result(timeout=30)


# --- clocks ----------------------------------------------------------------------------------------

HOUR = 3_600_000


@pytest.mark.parametrize(("off", "cause"), [(HOUR, None), (-HOUR, "Expired")], ids=["ahead", "behind"])
async def test_h30_a_producer_whose_clock_is_an_hour_off_burns_nothing(off: int, cause: str | None) -> None:
    """Ahead of the worker's its jobs wait, behind it they are answered as too late: both by the worker's clock."""
    fleet, (worker, calls) = Fleet.make(policy()), counting()
    issued = now_ms() + off
    core = Core("job", "thumbs", "resize", f"{SESSION}.1", 0, "relay", b"", "bunny", issued, issued + 60_000)
    key = KemPublicKey(fleet.identities["bunny"].kem[-1].public)
    draft = Draft(replace(core, priority="normal"), (key,), Content("application/json", b"1"))
    sealed = fleet.sealer("relay").seal(draft, issued)
    async with fleet.transport("relay") as transport, fleet.producer() as relay, fleet.working(worker):
        await transport.publish("JOBS_thumbs", subjects.job(core.key, "normal"), sealed.data)
        assert await (await relay.submit("thumbs", "resize", 2)).result() == 2
        await until(lambda: len(fleet.held("aws", "JOBS_thumbs")) == (0 if cause else 1))
    assert calls == [2]
    assert [letter.headers["Bunny-Cause"] for letter in fleet.held("azure", "DEAD_thumbs")] == [cause] * bool(cause)
    assert not fleet.held("azure", "REFUSED_thumbs")
