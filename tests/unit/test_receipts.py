"""Receipts, from what is noted to what verifies, over the transport in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from bridge import journal, receipt
from bridge.audit import Account, verify
from bridge.clock import now_ms
from bridge.errors import JobFailed, QueueFull
from bridge.memory import MemoryTransport
from bridge.receipt import Event
from bridge.render.streams import plan
from bridge.transport import PubAck
from consumers import Job, Reject, Retry, Snooze, Worker
from tests.fleet import Fleet, policy, until

MIB = 1024 * 1024
CLOUDS = ("aws", "azure")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here waits for a page to fill."""
    monkeypatch.setattr(journal, "LINGER_S", 0.01)
    monkeypatch.setattr(journal, "FIRST_PAUSE_S", 0.01)


def fleet() -> Fleet:
    return Fleet.make(policy(receipts_bytes=MIB))


def pages(of: Fleet, clouds: Sequence[str] = CLOUDS) -> list[tuple[str, bytes]]:
    return [(f"{cloud}:{n}", m.data) for cloud in clouds for n, m in enumerate(of.held(cloud, "RECEIPTS_thumbs"))]


def account(of: Fleet, clouds: Sequence[str] = CLOUDS) -> Account:
    return verify(pages(of, clouds), [of.trust], now_ms())


def events(found: Account) -> list[list[tuple[str, str]]]:
    """Of each run, what is said to have happened, with its outcome."""
    order = (Event.SUBMITTED, Event.ACCEPTED, Event.FINISHED, Event.RECEIVED)
    return [[(e.value, each.outcome) for e in order for each in run.of(e)] for run in found.runs.values()]


def working() -> Worker:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: str, job: Job) -> str:
        match args:
            case "reject":
                raise Reject("no")
            case "retry" if job.attempt == 1:
                raise Retry(0)
            case "snooze" if job.attempt == 1 and not snoozed:
                snoozed.append(1)
                raise Snooze(0)
        return args

    snoozed: list[int] = []
    return worker


async def test_each_job_leaves_four_receipts_that_agree() -> None:
    bridge = fleet()
    async with bridge.working(working()), bridge.producer() as relay:
        jobs = [await relay.submit("thumbs", "resize", str(n)) for n in range(3)]
        assert [await job.result() for job in jobs] == ["0", "1", "2"]
    found = account(bridge)
    assert not found.problems
    assert not found.unended
    assert not found.notes
    whole = [("submitted", ""), ("accepted", ""), ("finished", "succeeded"), ("received", "succeeded")]
    assert events(found) == [whole] * 3
    assert {run.id.digest.hex() for run in found.runs.values()} == {job.token.digest for job in jobs}
    assert (found.receipts, len(found.chains)) == (3 * 4 + 4, 2)


async def test_a_queue_without_receipts_leaves_none_and_asks_for_nothing() -> None:
    bridge = Fleet.make(policy())
    async with bridge.working(working()), bridge.producer() as relay:
        assert await (await relay.submit("thumbs", "resize", "a")).result() == "a"
        assert relay._journal is None
    planned = [stream["name"] for cloud in CLOUDS for stream in plan(bridge.policy, cloud)["streams"]]
    assert not [name for name in planned if name.startswith("RECEIPTS")]


async def test_what_fails_is_retried_or_put_off_leaves_what_it_came_to() -> None:
    bridge = fleet()
    async with bridge.working(working()), bridge.producer() as relay:
        for args in ("reject", "retry", "snooze"):
            job = await relay.submit("thumbs", "resize", args)
            if args == "reject":
                with pytest.raises(JobFailed):
                    await job.result()
            else:
                assert await job.result() == args
    found = account(bridge)
    assert not found.problems
    assert not found.notes
    assert [[outcome for event, outcome in run if event == "finished"] for run in events(found)] == [
        ["failed"],
        ["retried", "succeeded"],
        ["snoozed", "succeeded"],
    ]


async def test_what_a_worker_never_got_is_not_accepted_and_what_nobody_sent_was_not_submitted() -> None:
    bridge = fleet()
    async with bridge.producer() as relay:
        await relay.submit("thumbs", "resize", "a")
    assert [line.rpartition(": ")[2] for line in account(bridge).problems] == ["not accepted"]
    async with bridge.working(working()):
        await until(lambda: not bridge.held("aws", "JOBS_thumbs"))
    assert [line.rpartition(": ")[2] for line in account(bridge).problems] == ["finished, and not received"]
    assert [line.rpartition(": ")[2] for line in account(bridge, ["azure"]).problems] == ["not submitted"]
    assert [line.rpartition(": ")[2] for line in account(bridge, ["aws"]).problems] == ["not accepted"]


class Full(MemoryTransport):
    """Takes as many pages of receipts as it is told to."""

    room = 0

    async def publish(
        self,
        stream: str,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        expected: int | None = None,
        timeout: float = 10.0,
    ) -> PubAck:
        if stream.startswith("RECEIPTS"):
            if not self.room:
                raise QueueFull(stream)
            self.room -= 1
        return await super().publish(stream, subject, data, headers, expected=expected, timeout=timeout)


async def test_what_there_is_no_room_for_is_a_gap_in_the_chain_and_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "MAX_WAITING", 3)
    monkeypatch.setattr(journal, "MAX_RECEIPTS", 2)
    bridge = fleet()
    async with bridge.transport("relay") as inner:
        broker = Full(inner._bridge, inner._cloud)
        async with bridge.producer("relay", broker) as relay:
            for n in range(5):  # receipt 0 opens the chain; 1 and 2 are kept, and 3 to 5 are not
                await relay.submit("thumbs", "resize", str(n))
            broker.room = 1
            await until(lambda: bool(bridge.held("aws", "RECEIPTS_thumbs")))
            await relay.submit("thumbs", "resize", "later")  # beside 2, which waits still
            broker.room = 100
    found = account(bridge)
    gaps = [line.partition(": ")[2] for line in found.problems if "session" in line]
    assert gaps == ["receipts 3 to 5 were never stored: their signer had no room for them"]
    assert found.unended == []


async def test_a_page_is_written_under_one_signature_for_many_and_its_bytes_read_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "LINGER_S", 60)  # it is written when it is full, or ends
    bridge = fleet()
    async with bridge.producer() as relay:
        await asyncio.gather(*(relay.submit("thumbs", "resize", str(n)) for n in range(300)))
    lines = [line for _, line in pages(bridge)]
    read = [receipt.read(line).page for line in lines]
    assert sum(len(page.receipts) for page in read) == 302
    assert max(len(page.receipts) for page in read) == receipt.MAX_RECEIPTS
    key = bridge.identities["relay"].sign[-1]
    assert [receipt.write(page, key)[0] for page in read] == lines
