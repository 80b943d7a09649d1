"""What holds for every transport: one suite, run over real servers and in memory."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge import subjects
from bridge.devserver import monitor
from bridge.errors import NotConnected, PayloadTooLarge, QueueFull, SubjectChanged, SubjectTaken, TransportError
from bridge.subjects import JobKey
from bridge.transport import MAX_MESSAGE, Delivery, Message, PubAck, Pull, Transport
from tests.integration.worlds import Opens, memory_world, server_world

pytestmark = pytest.mark.parametrize("opens", [memory_world, server_world], ids=["memory", "jetstream"])

SESSION = "0123456789abcdef01234567"
ACK_WAIT_S = 1.0
"""Of the queue `thumbs`."""

LONG = "small"
"""A queue whose ack wait, of 30 s, is longer than anything here takes."""

QUIET_S = 0.5
"""How long to listen for what must not come."""

SOON_S = 20.0


def key(n: int, queue: str = "thumbs") -> JobKey:
    return JobKey(queue, "alpha", SESSION, n)


async def submit(transport: Transport, numbers: Iterable[int], queue: str = "thumbs", data: bytes = b"job") -> None:
    for n in numbers:
        await transport.publish(subjects.jobs_stream(queue), subjects.job(key(n, queue), "normal"), data)


async def answer(transport: Transport, n: int, data: bytes = b"result") -> None:
    await transport.publish(subjects.results_stream("thumbs"), subjects.result(key(n)), data)


def pull(transport: Transport, queue: str = "thumbs") -> Pull:
    return transport.pull(subjects.jobs_stream(queue), subjects.jobs_consumer("bunny", "normal"), cloud="aws")


async def take(pull: Pull, count: int) -> list[Delivery]:
    async with asyncio.timeout(SOON_S):
        return [await pull.get() for _ in range(count)]


def number(delivery: Delivery) -> int:
    parsed = subjects.parse_job(delivery.message.subject)
    assert parsed is not None
    return parsed[0].n


async def nothing_comes(pull: Pull, seconds: float = QUIET_S) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            delivery = await pull.get()
        pytest.fail(f"came: job {number(delivery)}, delivered {delivery.delivered} times")


# --- storing and looking up -------------------------------------------------------------------------


async def test_a_puback_names_the_stream_and_counts_up(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha = await world.transport("alpha")
        acks = [
            await alpha.publish("JOBS_thumbs", subjects.job(key(n), "normal"), b"job", {"Bunny-Kind": "resize"})
            for n in (1, 2)
        ]
        assert [(ack.stream, ack.sequence, ack.duplicate) for ack in acks] == [
            ("JOBS_thumbs", 1, False),
            ("JOBS_thumbs", 2, False),
        ]


async def test_a_lookup_finds_the_message_or_nothing(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha = await world.transport("alpha")
        subject = subjects.job(key(1), "normal")
        # Headers are the publisher's: none of them may make a message look absent.
        hostile = {"Bunny-Kind": "resize", "Status": "404", "Description": "Message Not Found"}
        await alpha.publish("JOBS_thumbs", subject, b"\x00\xffbytes", hostile)
        message = await alpha.lookup("JOBS_thumbs", subject)
        assert message is not None
        assert (message.subject, message.data) == (subject, b"\x00\xffbytes")
        assert message.headers["Bunny-Kind"] == "resize"
        assert await alpha.lookup("JOBS_thumbs", subjects.job(key(2), "normal")) is None


async def test_it_knows_when_a_message_last_went_or_came(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        assert (alpha.moved, bunny.moved) == (-math.inf, -math.inf)
        pulled, heard = pull(bunny), asyncio.Event()

        async def hears(_: Message) -> None:
            heard.set()

        await alpha.subscribe(subjects.done(key(1)), hears)
        pulled.grant(1)
        await submit(alpha, [1])
        went = alpha.moved
        await take(pulled, 1)
        assert -math.inf < went <= bunny.moved
        await answer(bunny, 1)
        async with asyncio.timeout(SOON_S):
            await heard.wait()
        assert went < bunny.moved <= alpha.moved


async def test_an_empty_message_is_found_too(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha = await world.transport("alpha")
        await submit(alpha, [1], data=b"")
        message = await alpha.lookup("JOBS_thumbs", subjects.job(key(1), "normal"))
        assert message is not None
        assert message.data == b""


async def test_messages_are_found_one_after_another_and_removed(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        bunny, boss = await world.transport("bunny"), await world.transport("boss-azure")
        for n in (1, 2, 3):
            await bunny.publish("DEAD_thumbs", subjects.dead(key(n)), b"job %d" % n, {"Nats-Sequence": "77"})

        async def after(sequence: int, pattern: str = "dead.thumbs.*.*.*.*") -> list[tuple[str, bytes]]:
            found = await boss.read("DEAD_thumbs", pattern, first=sequence + 1, most=9)
            assert all(datetime.fromisoformat(message.headers["Nats-Time-Stamp"]) for message in found)
            return [(message.headers["Nats-Sequence"], message.data) for message in found]

        assert await after(0) == [("1", b"job 1"), ("2", b"job 2"), ("3", b"job 3")]
        assert await after(1) == [("2", b"job 2"), ("3", b"job 3")]
        assert await after(0, subjects.dead(key(3))) == [("3", b"job 3")]
        assert await after(0, "dead.thumbs.beta.*.*.*") == []
        assert await boss.remove("DEAD_thumbs", 2)
        assert not await boss.remove("DEAD_thumbs", 2)
        assert not await boss.remove("DEAD_thumbs", 99)
        assert await after(0) == [("1", b"job 1"), ("3", b"job 3")]


async def test_a_message_goes_when_it_says_so_where_that_is_allowed(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        bunny, boss = await world.transport("bunny"), await world.transport("boss-azure")
        await bunny.publish("DEAD_thumbs", subjects.dead(key(1)), b"job")
        await bunny.publish("DEAD_thumbs", subjects.dead(key(1)), b"", {"Nats-TTL": "1s"})

        async def gone() -> bool:
            return await boss.lookup("DEAD_thumbs", subjects.dead(key(1))) is None

        await monitor.until(gone, SOON_S, "the message to be gone")
        with pytest.raises(TransportError):
            await bunny.publish("RESULTS_thumbs", subjects.result(key(1)), b"result", {"Nats-TTL": "1s"})


async def test_a_subject_takes_one_message(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        bunny = await world.transport("bunny")
        await answer(bunny, 1, b"first")
        with pytest.raises(SubjectTaken):
            await answer(bunny, 1, b"second")
        standing = await bunny.lookup("RESULTS_thumbs", subjects.result(key(1)))
        assert standing is not None
        assert standing.data == b"first"


async def test_of_many_who_write_at_once_one_wins(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        services = [await world.transport("bunny") for _ in range(3)]
        written = await asyncio.gather(
            *(answer(each, 1, b"%d" % i) for each in services for i in range(10)), return_exceptions=True
        )
        assert written.count(None) == 1
        assert all(isinstance(outcome, SubjectTaken) for outcome in written if outcome is not None)


async def test_a_subject_is_written_by_whoever_knows_what_it_held(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        services = [await world.transport("bunny") for _ in range(2)]
        stream, subject = subjects.slots_stream("held"), f"{subjects.queue_slots('held')}.0"

        async def write(expected: int, life: str = "60s") -> list[int]:
            """Of many who expect the same, the sequences that were stored."""
            written = await asyncio.gather(
                *(each.publish(stream, subject, b"x", {"Nats-TTL": life}, expected=expected) for each in services * 5),
                return_exceptions=True,
            )
            assert all(isinstance(each, SubjectChanged) for each in written if not isinstance(each, PubAck)), written
            return [each.sequence for each in written if isinstance(each, PubAck)]

        (first,) = await write(0)
        assert await write(0) == []
        (second,) = await write(first, "1s")
        assert second > first
        assert await write(first) == []

        async def gone() -> bool:
            return await services[0].lookup(stream, subject) is None

        await monitor.until(gone, SOON_S, "the message to be gone")
        assert await write(second) == []
        (third,) = await write(0)
        found = await services[1].lookup(stream, subject)
        assert found is not None
        assert found.headers["Nats-Sequence"] == str(third)
        age = datetime.now(UTC) - datetime.fromisoformat(found.headers["Nats-Time-Stamp"])
        assert abs(age.total_seconds()) < 60


async def test_a_full_queue_says_so_and_a_taken_subject_says_that(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha = await world.transport("alpha")
        await submit(alpha, [1, 2], "tiny")
        with pytest.raises(QueueFull, match="JOBS_tiny is full"):
            await submit(alpha, [3], "tiny")
        with pytest.raises(SubjectTaken):
            await submit(alpha, [2], "tiny")
        assert await alpha.lookup("JOBS_tiny", subjects.job(key(3, "tiny"), "normal")) is None


async def test_a_queue_is_full_by_bytes_too(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha = await world.transport("alpha")
        data = bytes(300 * 1024)
        await submit(alpha, [1, 2, 3], "small", data)
        with pytest.raises(QueueFull, match="maximum bytes"):
            await submit(alpha, [4], "small", data)


async def test_a_message_too_large_is_refused_before_it_is_sent(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha = await world.transport("alpha")
        with pytest.raises(PayloadTooLarge):
            await submit(alpha, [1], data=bytes(MAX_MESSAGE + 1))
        with pytest.raises(PayloadTooLarge):  # with its headers it is above the stream's limit
            await submit(alpha, [1], data=bytes(MAX_MESSAGE))
        await submit(alpha, [1], data=bytes(MAX_MESSAGE - 1024))
        assert alpha.connected


async def test_a_message_goes_to_the_stream_that_was_meant_or_nowhere(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha = await world.transport("alpha")
        with pytest.raises(TransportError):
            await alpha.publish("JOBS_tiny", subjects.job(key(1), "normal"), b"job")
        assert await alpha.lookup("JOBS_thumbs", subjects.job(key(1), "normal")) is None


async def test_h35_a_first_send_called_a_duplicate_is_an_error(
    opens: Opens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opens(tmp_path) as world:
        alpha = await world.transport("alpha")
        monkeypatch.setattr(secrets, "token_hex", lambda n=16: "ab" * n)  # as if another had guessed the id
        await submit(alpha, [1])
        with pytest.raises(TransportError, match="poisoned"):
            await submit(alpha, [2])


# --- pulling ----------------------------------------------------------------------------------------


async def test_no_more_comes_than_credit_was_granted(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        await submit(alpha, range(1, 31), LONG)
        jobs = pull(bunny, LONG)
        seen: list[int] = []
        for granted in (3, 1, 7, 1, 1, 12):
            jobs.grant(granted)
            taken = await take(jobs, granted)
            await nothing_comes(jobs, 0.1)
            for delivery in taken:
                await bunny.ack(delivery)
            seen += [number(delivery) for delivery in taken]
        assert sorted(seen) == list(range(1, 26))
        assert await jobs.close() == []


async def test_credit_granted_in_drops_is_all_used(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        jobs = pull(bunny, LONG)
        jobs.grant(8)
        seen: list[int] = []

        async def work() -> None:
            while len(seen) < 300:
                delivery = await jobs.get()
                assert delivery.delivered == 1
                seen.append(number(delivery))
                await bunny.ack(delivery)
                jobs.grant(1)

        async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
            group.create_task(work())
            for n in range(1, 301):
                group.create_task(submit(alpha, [n], LONG))
        assert sorted(seen) == list(range(1, 301))


async def test_two_pulls_share_a_consumer(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha = await world.transport("alpha")
        bunnies = [await world.transport("bunny") for _ in range(2)]
        pulls = [pull(bunny, LONG) for bunny in bunnies]
        for jobs in pulls:
            jobs.grant(5)
        await submit(alpha, range(1, 11), LONG)
        taken = [number(d) for jobs in pulls for d in await take(jobs, 5)]
        assert sorted(taken) == list(range(1, 11))


async def test_what_is_not_acked_comes_again(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        await submit(alpha, [1], data=b"payload")
        jobs = pull(bunny)
        loop = asyncio.get_running_loop()
        began = loop.time()
        jobs.grant(3)
        [first, second] = await take(jobs, 2)
        assert loop.time() - began > 0.8 * ACK_WAIT_S
        assert [(number(d), d.delivered, d.message.data) for d in (first, second)] == [
            (1, 1, b"payload"),
            (1, 2, b"payload"),
        ]
        await bunny.ack(second)
        await nothing_comes(jobs, 2 * ACK_WAIT_S)


async def test_a_nak_brings_it_back_after_its_delay(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        await submit(alpha, [1], LONG)
        jobs = pull(bunny, LONG)
        jobs.grant(3)
        loop = asyncio.get_running_loop()
        [first] = await take(jobs, 1)
        await bunny.nak(first)
        [second] = await take(jobs, 1)  # long before its ack wait is over
        began = loop.time()
        await bunny.nak(second, 2.0)
        [third] = await take(jobs, 1)
        assert loop.time() - began > 1.8
        assert third.delivered == 3
        await bunny.ack(third)


async def test_progress_keeps_it_from_coming_again(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        await submit(alpha, [1])
        jobs = pull(bunny)
        jobs.grant(2)
        [delivery] = await take(jobs, 1)
        for _ in range(8):
            await bunny.in_progress(delivery)
            await nothing_comes(jobs, 0.3 * ACK_WAIT_S)
        [again] = await take(jobs, 1)
        assert again.delivered == 2
        await bunny.ack(again)


async def test_an_ack_removes_the_job(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        await submit(alpha, [1, 2], "thumbs")
        jobs = pull(bunny)
        jobs.grant(2)
        for delivery in await take(jobs, 2):
            await bunny.ack(delivery)
        await bunny.flush()
        await until_gone(alpha, subjects.job(key(1), "normal"))
        await until_gone(alpha, subjects.job(key(2), "normal"))
        await submit(alpha, [1])  # the subject is free again: the fence is the result's, not the job's


async def until_gone(transport: Transport, subject: str) -> None:
    async with asyncio.timeout(SOON_S):
        while await transport.lookup("JOBS_thumbs", subject) is not None:
            pass


async def test_closing_a_pull_hands_back_what_was_not_taken(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        await submit(alpha, range(1, 21), LONG)
        jobs = pull(bunny, LONG)
        jobs.grant(10)
        [first] = await take(jobs, 1)
        left = await jobs.close()
        assert len(left) <= 9
        for delivery in (first, *left):
            await bunny.nak(delivery)
        with pytest.raises(NotConnected):
            await jobs.get()
        others = pull(bunny, LONG)
        others.grant(100)
        seen: set[int] = set()
        async with asyncio.timeout(SOON_S):
            while len(seen) < 20:
                delivery = await others.get()
                seen.add(number(delivery))
                await bunny.ack(delivery)


# --- the link ---------------------------------------------------------------------------------------


async def test_a_pull_outlives_a_cut_of_the_link(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        jobs = pull(bunny)
        jobs.grant(4)
        await submit(alpha, [1])
        [before] = await take(jobs, 1)
        await bunny.ack(before)
        await bunny.flush()
        await until_gone(alpha, before.message.subject)
        await world.cut()
        await submit(alpha, [2, 3])  # a writer does not notice
        await nothing_comes(jobs)
        await world.heal()
        seen: set[int] = set()
        async with asyncio.timeout(SOON_S * 2):
            while seen != {2, 3}:
                delivery = await jobs.get()
                seen.add(number(delivery))
                await bunny.ack(delivery)


async def test_results_flow_home_and_are_told(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        told: asyncio.Queue[Message] = asyncio.Queue()
        await alpha.subscribe(subjects.done_of_session("thumbs", "alpha", SESSION), told.put)
        await answer(bunny, 1, b"one")
        async with asyncio.timeout(SOON_S):
            message = await told.get()
        assert (message.subject, message.data) == (subjects.done(key(1)), b"one")
        await world.cut()
        for n in (2, 3, 4):
            await answer(bunny, n, b"later")
        with pytest.raises(SubjectTaken):
            await answer(bunny, 3)
        assert await alpha.lookup("RESULTS_thumbs", subjects.result(key(2))) is None
        assert told.empty()
        await world.heal()
        async with asyncio.timeout(SOON_S * 2):
            order = [subjects.parse_result((await told.get()).subject) for _ in range(3)]
        assert order == [key(2), key(3), key(4)]
        home = await alpha.lookup("RESULTS_thumbs", subjects.result(key(3)))
        assert home is not None
        assert home.data == b"later"


async def test_results_that_came_home_wait_in_an_inbox_for_whoever_acks_them(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        bunny = await world.transport("bunny")
        await bunny.publish("RESULTS_thumbs", subjects.result(JobKey("thumbs", "beta", SESSION, 1)), b"another's")
        await answer(bunny, 1)
        web, daemon = [await world.transport("alpha") for _ in range(2)]
        first, second = [each.pull("RESULTS_thumbs", subjects.inbox_consumer("alpha")) for each in (web, daemon)]
        first.grant(9)
        [delivery] = await take(first, 1)
        assert (delivery.message.subject, delivery.message.data) == (subjects.result(key(1)), b"result")
        assert await first.close() == []  # and never acked
        second.grant(9)
        [again] = await take(second, 1)
        assert again.message == delivery.message
        assert again.delivered >= 2  # what was still asked for was handed back
        await daemon.ack(again)
        await world.cut()
        await answer(bunny, 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * ACK_WAIT_S):
                pytest.fail(f"came: {await second.get()}")
        await world.heal()
        [last] = await take(second, 1)
        assert last.message.subject == subjects.result(key(2))
        await daemon.ack(last)
        assert await web.lookup("RESULTS_thumbs", subjects.result(key(1))) is not None  # an ack removes nothing


async def test_a_callback_that_fails_does_not_end_its_subscription(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        told: asyncio.Queue[str] = asyncio.Queue()

        async def heard(message: Message) -> None:
            await told.put(message.subject)
            raise ValueError(message)

        await alpha.subscribe(subjects.done_of_session("thumbs", "alpha", SESSION), heard)
        for n in (1, 2):
            await answer(bunny, n)
        async with asyncio.timeout(SOON_S):
            assert [await told.get() for _ in range(2)] == [subjects.done(key(n)) for n in (1, 2)]


async def ask(transport: Transport, numbers: Iterable[int], data: bytes = b"control") -> None:
    for n in numbers:
        await transport.publish("CONTROL_thumbs", subjects.control(key(n)), data, {"Nats-TTL": "60s"})


async def read(transport: Transport, first: int, most: int) -> list[tuple[int, str, bytes]]:
    found = await transport.read(
        "CONTROL_thumbs", subjects.any_control("thumbs"), first=first, most=most, cloud="aws", timeout=SOON_S
    )
    return [(int(each.headers["Nats-Sequence"]), each.subject, each.data) for each in found]


async def test_a_stream_of_the_other_cloud_is_read_by_the_batch(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        assert await read(bunny, 1, 10) == []
        # Headers are the publisher's: none of them may end a batch, or move a message.
        hostile = {"Status": "204", "Nats-Sequence": "7", "Nats-Num-Pending": "0"}
        await alpha.publish("CONTROL_thumbs", subjects.control(key(1)), b"", hostile)
        await ask(alpha, range(2, 1501))
        seen: list[tuple[int, str, bytes]] = []
        while batch := await read(bunny, seen[-1][0] + 1 if seen else 1, 1000):
            assert len(batch) <= 1000
            seen += batch
        assert [each[:2] for each in seen] == [(n, subjects.control(key(n))) for n in range(1, 1501)]
        assert seen[0][2] == b""
        assert {data for _, _, data in seen[1:]} == {b"control"}
        assert await read(bunny, 3, 1) == [(3, subjects.control(key(3)), b"control")]
        await world.cut()
        with pytest.raises(TransportError):
            await bunny.read("CONTROL_thumbs", subjects.any_control("thumbs"), first=1, most=1, cloud="aws", timeout=1)


async def test_a_batch_of_large_messages_is_cut_short_and_loses_none(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        await ask(alpha, range(1, 8), bytes(500 * 1024))
        seen: list[int] = []
        while batch := await read(bunny, len(seen) + 1, 1000):
            seen += [sequence for sequence, _, _ in batch]
        assert seen == list(range(1, 8))


async def test_what_is_told_is_heard_across_the_link_until_nobody_listens(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        told: asyncio.Queue[str] = asyncio.Queue()

        async def heard(message: Message) -> None:
            await told.put(message.subject)

        end = await alpha.subscribe(subjects.event(key(1)), heard)
        await alpha.subscribe(subjects.event(key(2)), heard)
        async with asyncio.timeout(SOON_S):
            while told.empty():  # the other cloud's server learns of the subscription some moments later
                await bunny.tell(subjects.event(key(1)), b"event")
                await bunny.flush()
            await end()
            await end()  # twice does no harm
            await alpha.flush()
            while not told.empty():
                told.get_nowait()
            while told.empty():
                await bunny.tell(subjects.event(key(1)), b"event")
                await bunny.tell(subjects.event(key(2)), b"event")
                await bunny.flush()
        assert {told.get_nowait() for _ in range(told.qsize())} == {subjects.event(key(2))}


async def test_a_control_is_heard_in_the_other_cloud_as_it_is_stored(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        alpha, bunny = await world.transport("alpha"), await world.transport("bunny")
        told: asyncio.Queue[Message] = asyncio.Queue()
        await bunny.subscribe(subjects.any_control("thumbs"), told.put)
        n = 0
        async with asyncio.timeout(SOON_S):
            while told.empty():  # as above
                n += 1
                await ask(alpha, [n])
                await bunny.flush()
            message = await told.get()
        assert message.subject in {subjects.control(key(each)) for each in range(1, n + 1)}
        assert message.data == b"control"
        with pytest.raises(SubjectTaken):
            await ask(alpha, [n])


# --- closing ----------------------------------------------------------------------------------------


async def test_closing_ends_everything_and_leaves_no_task(opens: Opens, tmp_path: Path) -> None:
    async with opens(tmp_path) as world:
        before = asyncio.all_tasks()
        bunny = await world.transport("bunny")
        jobs = pull(bunny)
        jobs.grant(5)

        async def ignore(_: Message) -> None: ...

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(fails_unconnected(jobs))
            await answer(bunny, 1)
            async with asyncio.timeout(SOON_S):
                await bunny.close()
            await bunny.close()  # twice does no harm
            await waiting
        assert not bunny.connected
        assert asyncio.all_tasks() - before == set()
        with pytest.raises(NotConnected):
            await answer(bunny, 2)
        with pytest.raises(NotConnected):
            await bunny.lookup("RESULTS_thumbs", subjects.result(key(1)))
        with pytest.raises(NotConnected):
            pull(bunny)
        assert await jobs.close() == []


async def fails_unconnected(jobs: Pull) -> None:
    with pytest.raises(NotConnected):
        await jobs.get()
