"""H34: a broker that deletes, purges or rolls back, driven by its own administrator: noticed, sent again, done once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import ssl
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.devserver import Bridge, monitor
from bridge.errors import OutcomeUnknown
from consumers import Worker
from producers import Producer, gaps
from tests.integration.plain import Plain
from tests.integration.test_jobs import ROOT, serving
from tests.support import running_bridge


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is waited for is short."""
    for name in ("FIRST_LOOK_S", "LOOK_AGAIN_S", "RESEND_S", "SWEEP_S", "HURRY_S"):
        monkeypatch.setattr(gaps, name, 0.05)


@pytest.fixture
def logs() -> Iterator[list[dict[str, Any]]]:
    with capture_logs() as events:
        yield events  # type: ignore[misc]


def told(logs: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [each for each in logs if each["event"] == event]


def counting() -> tuple[Worker, list[int]]:
    worker, calls = Worker(), list[int]()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        calls.append(args)
        return args

    return worker, calls


@contextlib.asynccontextmanager
async def administrator(bridge: Bridge, cloud: str = "aws") -> AsyncIterator[Plain]:
    """Whoever runs the server of a cloud: a user with every right in the account of the streams."""
    accounts, owner = bridge.folder.rendered / cloud / "accounts.conf", bridge.policy.clouds[cloud].account
    user = '{user: admin, password: "not a secret"}'
    accounts.write_text(accounts.read_text().replace(f"{owner}: {{", f"{owner}: {{\n    users: [{user}]", 1))
    server = bridge.hub if cloud == bridge.policy.hub.name else bridge.leaf
    await server.reload()
    admin = Plain("admin")
    await admin.client.connect(
        f"tls://127.0.0.1:{bridge.ports[cloud].clients}",
        tls=ssl.create_default_context(cafile=str(bridge.folder.pki / cloud / "ca.pem")),
        tls_handshake_first=True,
        user="admin",
        password="not a secret",
        connect_timeout=5,
    )
    try:
        yield admin
    finally:
        await admin.client.close()


async def messages(admin: Plain, stream: str) -> int:
    return int((await admin.api(f"STREAM.INFO.{stream}"))["state"]["messages"])


async def expire(admin: Plain, stream: str) -> None:
    """Empty a stream: no purge is allowed, not even to whoever may do everything; but an age is."""
    config = (await admin.api(f"STREAM.INFO.{stream}"))["config"]
    await admin.api(f"STREAM.UPDATE.{stream}", config | {"max_age": 100_000_000, "duplicate_window": 100_000_000})
    await holds(admin, stream, 0)
    await admin.api(f"STREAM.UPDATE.{stream}", config)


async def holds(admin: Plain, stream: str, many: int) -> None:
    async def probe() -> bool:
        return await messages(admin, stream) == many

    await monitor.until(probe, 30, f"{many} messages in {stream}")


async def test_h34_what_an_administrator_removes_is_noticed_sent_again_and_done_once(
    tmp_path: Path, logs: list[dict[str, Any]]
) -> None:
    worker, calls = counting()
    async with (
        running_bridge(tmp_path) as bridge,
        administrator(bridge) as admin,
        Producer.open(bridge.identity("alpha")) as alpha,
    ):
        async with serving(bridge, "bunny", worker):
            done = await alpha.submit("thumbs", "resize", 0)
            assert await done.result() == 0
        waiting = [await alpha.submit("thumbs", "resize", n) for n in (1, 2, 3)]
        # One job, dropped in the name of a worker.
        message = await admin.pull("JOBS_thumbs", "bunny-normal", "aws")
        await admin.client.publish(message.reply, b"+ACK")

        async def missed() -> bool:  # not how many are left: the producer may be faster than a look at the stream
            return bool(told(logs, "job_missing"))

        await monitor.until(missed, 30, "a job to be missed")
        await holds(admin, "JOBS_thumbs", 3)
        assert [each["count"] for each in told(logs, "job_missing")] == [1]
        await expire(admin, "JOBS_thumbs")
        await holds(admin, "JOBS_thumbs", 3)
        async with serving(bridge, "bunny", worker):
            assert [await handle.result() for handle in waiting] == [1, 2, 3]
        assert len(alpha._copies) == 0
    assert sorted(calls) == [0, 1, 2, 3]
    assert not told(logs, "stream_rolled_back")


async def test_h34_a_store_that_is_put_back_to_an_earlier_state_loses_nothing_that_was_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, Any]]
) -> None:
    worker, calls = counting()
    async with running_bridge(tmp_path) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        monkeypatch.setattr(gaps, "FIRST_LOOK_S", 1000.0)  # so that it is the PubAck that tells
        before = [await alpha.submit("thumbs", "resize", n) for n in range(3)]
        async with serving(bridge, "bunny", worker):
            assert [await handle.result() for handle in before] == [0, 1, 2]
        kept = await alpha.submit("thumbs", "resize", 3)
        store, copy = bridge.folder.store("aws"), tmp_path / "earlier"
        await bridge.hub.stop()
        shutil.copytree(store, copy)
        await bridge.hub.start()
        lost = [await alpha.submit("thumbs", "resize", n, key=key) for n, key in ((4, None), (5, "order-5"), (6, None))]
        async with serving(bridge, "bunny", worker):
            assert [await handle.result() for handle in (kept, *lost)] == [3, 4, 5, 6]
        gone = [await alpha.submit("thumbs", "resize", n) for n in (7, 8)]
        await bridge.hub.stop()
        shutil.rmtree(store)
        shutil.copytree(copy, store)
        await bridge.hub.start()
        after = await alpha.submit("thumbs", "resize", 9)
        assert len(told(logs, "stream_rolled_back")) == 1
        # What came home after the copy was made does not come home again by itself, though it stands where it was
        # written; it does if the copying is set back before anything newer comes home (docs/inspect.md).
        handle = await alpha.attach(lost[0].token)
        with pytest.raises(OutcomeUnknown):
            await handle.result(timeout=0)
        async with administrator(bridge, "azure") as there:
            await there.api("CONSUMER.RESET.RESULTS_thumbs.home", {"seq": 4})
        assert await handle.result(timeout=30) == 4
        async with serving(bridge, "bunny", worker):
            assert [await handle.result() for handle in (*gone, after)] == [7, 8, 9]
    # What the older store has as new, and was done since, nothing shows to have run (docs/threats.md).
    assert calls.count(3) <= 2
    assert sorted(n for n in calls if n != 3) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert sum(each["count"] for each in told(logs, "job_missing")) == 2


# --- the producer's own end ------------------------------------------------------------------------


PRODUCER = """
import asyncio, sys
from producers import Producer

async def main() -> None:
    async with Producer.open(sys.argv[1], outbox=sys.argv[2]) as alpha:
        many = asyncio.create_task(alpha.submit_many("thumbs", "resize", range(int(sys.argv[3])), window=8))
        print("submitting", flush=True)
        await many
        print("stored", flush=True)

asyncio.run(main())
"""


async def test_h40_kill_9_amid_a_submit_leaves_no_job_of_which_nothing_is_known(tmp_path: Path) -> None:
    worker, calls = counting()
    outbox, script, jobs = tmp_path / "outbox", tmp_path / "submit.py", 20_000
    script.write_text(PRODUCER)
    async with running_bridge(tmp_path) as bridge, administrator(bridge) as admin:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, script, bridge.identity("alpha"), outbox, str(jobs)),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=PIPE,
        )
        assert child.stdout is not None
        assert await asyncio.wait_for(child.stdout.readline(), 30) == b"submitting\n"

        async def some() -> bool:
            return await messages(admin, "JOBS_thumbs") > 20

        await monitor.until(some, 30, "some jobs to be stored")
        child.kill()
        assert await child.wait() == -signal.SIGKILL
        stored = await messages(admin, "JOBS_thumbs")
        assert stored < jobs, "it was killed amid its submits"
        async with Producer.open(bridge.identity("alpha"), outbox=outbox) as alpha, serving(bridge, "bunny", worker):
            handles = await alpha.recovered()
            results = [await handle.result() for handle in handles]
        # All that it had written, which is all that it had sent: each is done, and once.
        assert len(handles) >= stored
        assert sorted(results) == sorted(calls) == list(range(len(handles)))
        async with Producer.open(bridge.identity("alpha"), outbox=outbox) as alpha:
            assert await alpha.recovered() == []
