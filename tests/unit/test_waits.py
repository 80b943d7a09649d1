"""What a server says in pages, what is asked of it at once, and what is waited for while some of it comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from bridge.devserver import monitor
from bridge.errors import TransportError
from bridge.provision.calls import AT_ONCE, at_once, listed


async def test_what_comes_one_by_one_is_waited_for() -> None:
    missing = [f"RESULTS_{n}" for n in range(6)]
    asked = 0

    async def fewer_each_time() -> Sequence[str]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise monitor.Unanswered("not yet")
        return missing[asked:]

    await monitor.until_none_is_missing(fewer_each_time, 60, "results flowing home")
    assert asked == len(missing)


async def test_what_never_comes_is_named() -> None:
    async def never() -> Sequence[str]:
        return [f"RESULTS_{n}" for n in range(6)]

    with pytest.raises(TransportError) as failed:
        await monitor.until_none_is_missing(never, 0, "results flowing home")
    assert str(failed.value) == (
        "results flowing home: none within 0 s of the last; missing: RESULTS_0, RESULTS_1, RESULTS_2 and 3 more"
    )


async def test_only_so_many_calls_are_under_way_and_answers_keep_their_order() -> None:
    under_way, most = 0, 0

    async def call(n: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return n

    assert await at_once(call, range(3 * AT_ONCE)) == list(range(3 * AT_ONCE))
    assert most == AT_ONCE


async def test_the_first_call_that_fails_is_told_and_the_others_are_given_up() -> None:
    ended = []

    async def call(n: int) -> None:
        if n == 1:
            raise TransportError("refused")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(n)

    with pytest.raises(TransportError, match="refused"):
        await at_once(call, range(2 * AT_ONCE))
    assert {0, *range(2, AT_ONCE)} <= set(ended)
    assert len(ended) <= AT_ONCE


class Pages:
    """What a cluster says in a list, of which a server was silent about two."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages, self.asked = list(pages), list[int]()

    async def request(self, subject: str, payload: bytes, timeout: float = 10.0) -> bytes:
        assert subject == "$JS.API.CONSUMER.LIST.JOBS_q"
        self.asked.append(json.loads(payload)["offset"])
        return json.dumps(self.pages.pop(0)).encode()


async def test_a_list_goes_on_after_what_is_missing_too() -> None:
    first = {"total": 5, "limit": 3, "consumers": [{"name": "a"}, {"name": "b"}], "missing": ["c"]}
    server = Pages(first, {"total": 5, "limit": 3, "consumers": None, "missing": ["d", "e"]})
    assert await listed(server, "consumers", "JOBS_q") == ([{"name": "a"}, {"name": "b"}], ["c", "d", "e"])
    assert server.asked == [0, 3]


async def test_a_stream_that_is_gone_has_no_consumers() -> None:
    server = Pages({"error": {"code": 404, "err_code": 10059, "description": "stream not found"}})
    assert await listed(server, "consumers", "JOBS_q") == ([], [])
