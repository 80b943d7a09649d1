"""One signature for what is sealed in one turn of the event loop."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bridge import frame
from bridge.batching import Batcher
from bridge.crypto import MAX_TREE
from bridge.errors import BadFrame
from tests.world import World

WORLD = World()


async def test_what_is_sealed_in_one_turn_shares_a_signature_and_opens_alone() -> None:
    batcher, opener = Batcher(WORLD.sealer("relay")), WORLD.opener("bunny")
    sealed = await asyncio.gather(*(batcher.seal(WORLD.job(f"{n}".encode(), n=n), WORLD.now) for n in range(1, 8)))
    frames = [frame.parse(each.data) for each in sealed]
    assert [(each.size, each.index) for each in frames] == [(7, n) for n in range(7)]
    assert len({each.signature for each in frames}) == 1
    for n, each in enumerate(sealed, 1):
        opened = opener.open(opener.authenticate(each.data, WORLD.now))
        assert (opened.core.job, opened.content.body, opened.digest) == (each.core.job, f"{n}".encode(), each.digest)


async def test_what_is_alone_is_signed_alone() -> None:
    batcher = Batcher(WORLD.sealer("relay"))
    for n in (1, 2):
        assert frame.parse((await batcher.seal(WORLD.job(n=n), WORLD.now)).data).size == 1


async def test_more_than_a_tree_holds_is_several_trees() -> None:
    batcher = Batcher(WORLD.sealer("relay"))
    sealed = await asyncio.gather(*(batcher.seal(WORLD.job(n=n), WORLD.now) for n in range(1, MAX_TREE + 3)))
    assert [frame.parse(each.data).size for each in sealed[-3:]] == [MAX_TREE, 2, 2]


async def test_one_that_cannot_be_sealed_or_is_given_up_takes_no_other_with_it() -> None:
    batcher, job = Batcher(WORLD.sealer("relay")), WORLD.job(n=1)
    first, gone = batcher.seal(job, WORLD.now), batcher.seal(WORLD.job(n=2), WORLD.now)
    with pytest.raises(BadFrame):
        batcher.seal(replace(job, core=replace(job.core, kind="no name")), WORLD.now)
    gone.cancel()
    assert frame.parse((await first).data).size == 2


async def test_a_signature_that_fails_is_told_to_all_who_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = Batcher(WORLD.sealer("relay"))
    waiting = [batcher.seal(WORLD.job(n=n), WORLD.now) for n in (1, 2)]
    with monkeypatch.context() as broken:
        broken.setattr(batcher._sealer, "sign", lambda _: 1 / 0)
        for each in waiting:
            with pytest.raises(ZeroDivisionError):
                await each
    assert frame.parse((await batcher.seal(WORLD.job(n=3), WORLD.now)).data).size == 1
