"""Receipts over real servers: whole, and as a hostile broker, a cut tail and a kill leave them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge import journal
from bridge.audit import Account, verify
from bridge.clock import now_ms
from bridge.devserver import Bridge, monitor
from bridge.receipt import any_page, receipts_stream
from bridge.trust import Trust
from consumers import Worker
from producers import Producer
from tests.attacks.test_loss import administrator
from tests.integration.test_jobs import process, says, serving
from tests.support import POLICY, connected, running_bridge

RECEIPTS = POLICY.replace(
    "    kinds: [resize, probe]\n", "    kinds: [resize, probe]\n    receipts: on\n    ack_wait: 1s\n"
)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page for nearly every receipt, so that there is a chain of them."""
    monkeypatch.setattr(journal, "LINGER_S", 0.001)


def resizing() -> Worker:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        return args * 2

    return worker


async def pages(bridge: Bridge, queue: str = "thumbs") -> list[tuple[str, bytes]]:
    """All that is stored of both clouds."""
    found = []
    for inspector in ("ops-aws", "ops-azure"):
        async with await connected(bridge, inspector) as transport:
            after = 0
            while read := await transport.read(receipts_stream(queue), any_page(queue), first=after + 1, most=64):
                found += [(message.subject, message.data) for message in read]
                after = int(read[-1].headers["Nats-Sequence"])
    return found


def trust(bridge: Bridge) -> Trust:
    return Trust.load(bridge.identity("alpha"), now_ms())


def account(bridge: Bridge, lines: list[tuple[str, bytes]]) -> Account:
    return verify(lines, [trust(bridge)], now_ms())


async def submit(bridge: Bridge, jobs: int) -> None:
    async with Producer.open(bridge.identity("alpha")) as alpha:
        for n in range(jobs):
            job = await alpha.submit("thumbs", "resize", n)
            assert await job.result() == 2 * n


@contextlib.asynccontextmanager
async def done(tmp_path: Path, jobs: int) -> AsyncIterator[tuple[Bridge, list[tuple[str, bytes]]]]:
    """So many jobs, each done in both clouds, and the pages that they left."""
    async with running_bridge(tmp_path, RECEIPTS) as bridge:
        async with serving(bridge, "bunny", resizing()):
            await submit(bridge, jobs)
        yield bridge, await pages(bridge)


async def test_what_is_whole_verifies_and_each_thing_that_a_broker_does_to_it_is_named(tmp_path: Path) -> None:
    async with done(tmp_path, 3) as (bridge, lines):
        whole = account(bridge, lines)
        assert (whole.problems, whole.unended, whole.notes) == ([], [], [])
        assert (len(whole.runs), len(whole.chains), whole.receipts) == (3, 2, 3 * 4 + 4)

        theirs = [n for n, (subject, _) in enumerate(lines) if ".bunny." in subject]
        assert len(theirs) >= 3
        middle, last = theirs[1], theirs[-1]

        shuffled = account(bridge, lines[::-1])  # the order is in the pages, not in a broker's hands
        assert (shuffled.problems, shuffled.unended) == ([], [])
        doubled = account(bridge, [*lines, lines[middle]])
        assert (doubled.problems, doubled.receipts) == ([], whole.receipts)

        dropped = account(bridge, lines[:middle] + lines[middle + 1 :])
        assert any("page 1 with receipts" in line and line.endswith("missing") for line in dropped.problems)
        assert any("thumbs alpha" in line for line in dropped.problems)  # and of which job

        cut = account(bridge, lines[:last] + lines[last + 1 :])
        assert len(cut.unended) == 1
        assert "bunny on thumbs" in cut.unended[0]

        for at in (len(lines[middle][1]) // 3, len(lines[middle][1]) // 2):
            where, page = lines[middle]
            altered = page[:at] + (b"A" if page[at : at + 1] != b"A" else b"B") + page[at + 1 :]
            found = account(bridge, [*lines[:middle], (where, altered), *lines[middle + 1 :]])
            assert any(line.startswith(where) for line in found.problems)
            assert len(found.problems) >= 2  # it counts for nothing: the chain and its jobs lack it

        one_side = account(bridge, [line for line in lines if ".bunny." not in line[0]])
        assert [line.rpartition(": ")[2] for line in one_side.problems] == ["not accepted"] * 3


async def test_an_administrator_cannot_put_another_page_in_its_place(tmp_path: Path) -> None:
    """The stream takes one message a subject; and a page of another's making is not signed by its signer."""
    async with done(tmp_path, 1) as (bridge, lines), administrator(bridge, "azure") as admin:
        subject, mine = next((where, page) for where, page in lines if ".bunny." in where)
        _, others = next((where, page) for where, page in lines if ".alpha." in where)
        answer = await admin.ask(subject, others)
        assert b"maximum messages per subject exceeded" in answer.data
        await admin.ask(f"{subject.rpartition('.')[0]}.99", others)  # under a name of its own
        await admin.ask(f"{subject.rpartition('.')[0]}.98", b'{"rubbish": \n1}')
        found = account(bridge, await pages(bridge))
        assert mine in [page for _, page in lines]
        assert [line.rpartition(": ")[2] for line in found.problems] == ["not a page of receipts"]


async def test_a_worker_that_is_killed_leaves_no_end_and_its_job_is_whole_by_the_next(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, RECEIPTS) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        async with process(bridge) as first:
            job = await alpha.submit("thumbs", "resize", str(tmp_path / "go"))
            assert await says(first) == "started 1"

            async def told() -> bool:
                return any(".bunny." in subject for subject, _ in await pages(bridge))

            await monitor.until(told, 30, "the worker's first page")
            first.send_signal(signal.SIGKILL)
            await first.wait()
        (tmp_path / "go").touch()
        async with process(bridge) as second:
            assert await says(second) == "started 2"
            assert await job.result() == 2
            second.send_signal(signal.SIGTERM)
            await second.wait()
        await alpha.close()
        found = account(bridge, await pages(bridge))
        assert found.problems == []
        assert len(found.unended) == 1
        assert "bunny on thumbs" in found.unended[0]
        assert [line.rpartition(": ")[2] for line in found.notes] == [
            "attempt 1 was begun, and nothing says what it came to"
        ]


async def test_a_queue_without_receipts_has_no_stream_for_them(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, RECEIPTS) as bridge:
        for inspector in ("ops-aws", "ops-azure"):
            async with await connected(bridge, inspector) as transport:
                names = (await transport.request("$JS.API.STREAM.NAMES", b"")).decode()
                assert "RECEIPTS_thumbs" in names
                assert "RECEIPTS_lookup" not in names
