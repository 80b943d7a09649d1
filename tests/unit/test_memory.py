"""What the transport in memory does besides what every transport does: time, limits and a link that is steered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bridge.errors import QueueFull, SubjectTaken, TransportError
from bridge.matching import matches
from bridge.memory import MemoryBridge
from bridge.memory.store import Stream, rewrite
from bridge.transport import Message, Pull

SECOND_NS = 1_000_000_000


def stream(name: str = "S", **config: Any) -> dict[str, Any]:  # noqa: ANN401 - the API's own JSON
    return {"name": name, "subjects": [f"{name.lower()}.*"], "retention": "limits", "discard": "new", **config}


def bridge(*streams: dict[str, Any], consumers: tuple[dict[str, Any], ...] = ()) -> MemoryBridge:
    return MemoryBridge(
        {"aws": {"streams": list(streams), "consumers": list(consumers)}, "azure": {"streams": [], "consumers": []}}
    )


def steered() -> Callable[[float], None]:
    """Make the running loop's clock jump."""
    loop = asyncio.get_running_loop()
    real, jumped = loop.time, [0.0]
    loop.time = lambda: real() + jumped[0]  # type: ignore[method-assign]  # the clock that the transport is steered by

    def jump(seconds: float) -> None:
        jumped[0] += seconds

    return jump


async def come(pull: Pull, count: int) -> list[tuple[bytes, int]]:
    async with asyncio.timeout(5):
        deliveries = [await pull.get() for _ in range(count)]
    return [(delivery.message.data, delivery.delivered) for delivery in deliveries]


async def test_messages_grow_old() -> None:
    jump = steered()
    async with bridge(stream(max_age=60 * SECOND_NS)).transport("aws") as aws:
        await aws.publish("S", "s.1", b"old")
        jump(40)
        await aws.publish("S", "s.2", b"young")
        jump(30)
        assert await aws.lookup("S", "s.1") is None
        assert await aws.lookup("S", "s.2") is not None


async def test_an_ack_wait_of_a_minute_passes_in_a_moment() -> None:
    jump = steered()
    consumer = {"stream": "S", "config": {"durable_name": "c", "ack_wait": 60 * SECOND_NS}}
    async with bridge(stream(), consumers=(consumer,)).transport("aws") as aws:
        await aws.publish("S", "s.1", b"one")
        pull = aws.pull("S", "c")
        pull.grant(2)
        assert await come(pull, 1) == [(b"one", 1)]
        jump(61)
        assert await come(pull, 1) == [(b"one", 2)]


@pytest.mark.parametrize("credits_between", range(4))
async def test_what_comes_again_goes_to_each_who_pulls_in_turn(credits_between: int) -> None:
    consumer = {"stream": "S", "config": {"durable_name": "c"}}
    async with bridge(stream(), consumers=(consumer,)).transport("aws") as aws:
        pulls = [aws.pull("S", "c") for _ in range(3)]
        for pull in pulls:
            pull.grant(100)
        await aws.publish("S", "s.1", b"one")
        got = []
        for _ in range(6):
            async with asyncio.timeout(5):
                waiting = {asyncio.create_task(pull.get()): number for number, pull in enumerate(pulls)}
                (done,), others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            got.append(waiting[done])
            await aws.nak(done.result())
            for _ in range(credits_between):  # at which nobody gets anything: that is nobody's turn
                pulls[0].grant(1)
        assert sorted(got[:3]) == sorted(got[3:]) == [0, 1, 2]


async def test_no_more_is_out_than_max_ack_pending() -> None:
    consumer = {"stream": "S", "config": {"durable_name": "c", "filter_subject": "s.*", "max_ack_pending": 2}}
    async with bridge(stream(), consumers=(consumer,)).transport("aws") as aws:
        for n in range(4):
            await aws.publish("S", f"s.{n}", b"%d" % n)
        pull = aws.pull("S", "c")
        pull.grant(10)
        async with asyncio.timeout(5):
            first, _ = await pull.get(), await pull.get()
        await asyncio.sleep(0)
        await aws.ack(first)
        assert await come(pull, 1) == [(b"2", 1)]
        assert await pull.close() == []


async def test_a_message_is_delivered_max_deliver_times() -> None:
    consumer = {"stream": "S", "config": {"durable_name": "c", "max_deliver": 2}}
    async with bridge(stream(), consumers=(consumer,)).transport("aws") as aws:
        await aws.publish("S", "s.1", b"one")
        pull = aws.pull("S", "c")
        pull.grant(10)
        async with asyncio.timeout(5):
            for _ in range(2):
                await aws.nak(await pull.get())
        await asyncio.sleep(0)
        assert await pull.close() == []


async def test_what_is_in_the_other_cloud_waits_for_the_link() -> None:
    consumer = {"stream": "S", "config": {"durable_name": "c"}}
    both = bridge(stream(retention="workqueue"), consumers=(consumer,))
    async with both.transport("aws") as aws, both.transport("azure") as azure:
        both.link_up = False
        await aws.publish("S", "s.1", b"one")
        pull = azure.pull("S", "c", cloud="aws")
        pull.grant(1)
        with pytest.raises(TransportError, match="link"):
            await azure.lookup("S", "s.1", cloud="aws", timeout=0.01)
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(azure.lookup("S", "s.1", cloud="aws"))
            await asyncio.sleep(0)
            both.link_up = True
        assert looking.result() is not None
        async with asyncio.timeout(5):
            delivery = await pull.get()
        both.link_up = False
        await azure.ack(delivery)  # lost on the way
        assert await aws.lookup("S", "s.1") is not None
        both.link_up = True
        await azure.ack(delivery)
        assert await aws.lookup("S", "s.1") is None


async def test_a_full_copy_holds_the_rest_back_until_there_is_room() -> None:
    source = {"name": "S", "external": {"api": "$JS.aws.API"}, "consumer": {"name": "home"}}
    home = {"name": "S", "discard": "new", "max_msgs": 2, "max_age": 60 * SECOND_NS, "sources": [source]}
    home["republish"] = {"src": "s.*", "dest": "done.{{wildcard(1)}}"}
    both = MemoryBridge(
        {"aws": {"streams": [stream()], "consumers": []}, "azure": {"streams": [home], "consumers": []}}
    )
    jump = steered()
    told: asyncio.Queue[Message] = asyncio.Queue()
    async with both.transport("aws") as aws, both.transport("azure") as azure:
        await azure.subscribe("done.>", told.put)
        for n in range(3):
            await aws.publish("S", f"s.{n}", b"%d" % n)
        async with asyncio.timeout(5):
            assert [(await told.get()).subject for _ in range(2)] == ["done.0", "done.1"]
        assert await azure.lookup("S", "s.2") is None
        jump(61)
        await aws.publish("S", "s.3", b"3")
        async with asyncio.timeout(5):
            assert [(await told.get()).subject for _ in range(2)] == ["done.2", "done.3"]


async def test_names_that_are_not_in_the_plan_are_told() -> None:
    both = bridge(stream())
    with pytest.raises(TransportError, match="there are aws, azure"):
        both.transport("mars")
    async with both.transport("aws") as aws:
        with pytest.raises(TransportError, match="no consumer c"):
            aws.pull("S", "c")
        with pytest.raises(TransportError, match="in the plan"):
            await aws.lookup("T", "t.1")
        with pytest.raises(TransportError, match="provisioned"):
            await aws.publish("T", "t.1", b"")


def test_an_id_is_remembered_for_its_window() -> None:
    held = Stream(stream(duplicate_window=60 * SECOND_NS))
    ids = {"Nats-Msg-Id": "one"}
    assert not held.store("s.1", b"", ids, now=0).duplicate
    again = held.store("s.2", b"", ids, now=59)
    assert (again.duplicate, again.sequence) == (True, 1)
    assert not held.store("s.2", b"", ids, now=61).duplicate


def test_old_ones_make_room_where_the_plan_says_so() -> None:
    held = Stream(stream(discard="old", max_msgs=2))
    for n in range(3):
        held.store(f"s.{n}", b"", {}, now=0)
    assert [held.last_of(f"s.{n}", 0) is None for n in range(3)] == [True, False, False]
    latest = Stream(stream(max_msgs_per_subject=1))
    latest.store("s.1", b"old", {}, now=0)
    latest.store("s.1", b"new", {}, now=0)
    message = latest.last_of("s.1", 0)
    assert message is not None
    assert message.data == b"new"


def test_a_taken_subject_is_told_before_a_full_stream() -> None:
    held = Stream(stream(max_msgs=1, max_msgs_per_subject=1, discard_new_per_subject=True))
    held.store("s.1", b"", {}, now=0)
    with pytest.raises(SubjectTaken):
        held.store("s.1", b"", {}, now=0)
    with pytest.raises(QueueFull):
        held.store("s.2", b"", {}, now=0)


@pytest.mark.parametrize(
    ("pattern", "subject", "covered"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a.b", True),
        ("*.b", "a.c", False),
        ("a.b.c", "a.b", False),
    ],
)
def test_wildcards(pattern: str, subject: str, covered: bool) -> None:
    assert matches(pattern, subject) is covered


def test_a_republished_subject_is_rewritten() -> None:
    assert rewrite("r.*.*", "done.{{wildcard(2)}}.{{wildcard(1)}}", "r.a.b") == "done.b.a"
    assert rewrite("r.*.*", "done.{{wildcard(1)}}", "s.a.b") is None
