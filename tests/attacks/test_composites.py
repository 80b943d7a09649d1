"""Values with payloads among their fields that lie about them: a named end, no handler called, the next job fine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from bridge.clock import now_ms
from bridge.composite import COMPOSITE, Field, Table
from bridge.envelope import Draft
from bridge.errors import BadPrelude, InvalidArguments, JobFailed
from bridge.job import Content, Status
from bridge.subjects import result, results_stream
from consumers import Worker
from producers import Payload
from tests.fleet import Fleet
from tests.unit.test_large_jobs import MEASURE, Cut, fleet, working
from tests.unit.test_producer import forge
from tests.vectors.composites import CASES

DOCUMENT = b'{"title":"a","film":{"$payload":0}}'
FILM = b"film"


def composite(document: bytes = DOCUMENT, lengths: Sequence[int] = (4,), rest: bytes = FILM) -> Content:
    table = Table(len(document), tuple(Field("a/b", length) for length in lengths))
    return Content(COMPOSITE, table.encode() + document + rest)


WRONG = {name: Content(COMPOSITE, case.body) for name, case in CASES.items() if case.refusal and case.parts is None}
UNFIT = {
    "a place of none": composite(b'{"title":"a","film":{"$payload":1}}'),
    "a place before all": composite(b'{"title":"a","film":{"$payload":-1}}'),
    "a place that is a truth": composite(b'{"title":"a","film":{"$payload":false}}'),
    "a place that is a text": composite(b'{"title":"a","film":{"$payload":"0"}}'),
    "a place with more in it": composite(b'{"title":"a","film":{"$payload":0,"x":1}}'),
    "a text instead": composite(b'{"title":"a","film":"film"}'),
    "a document that is none": composite(b"film"),
    "a document cut short": composite(DOCUMENT[:-1]),
    "nothing but a document": Content("application/json", DOCUMENT),
    "bytes": Content("application/octet-stream", DOCUMENT),
}


async def sent(rig: Fleet, content: Content) -> object:
    """What comes of a job whose author seals anything."""
    async with rig.producer() as relay:
        return await (await relay.submit("thumbs", "resize", content)).result()


@pytest.mark.parametrize("name", [*WRONG, *UNFIT])
async def test_arguments_that_lie(name: str) -> None:
    rig, (worker, ran) = fleet(), working()
    async with rig.working(worker):
        with pytest.raises(JobFailed, match="BadPrelude" if name in WRONG else "InvalidArguments"):
            await sent(rig, {**WRONG, **UNFIT}[name])
        assert ran == []
        assert await sent(rig, composite()) == 4


@pytest.mark.parametrize("name", [*WRONG, *UNFIT])
async def test_results_that_lie(name: str) -> None:
    rig, content = fleet(), {**WRONG, **UNFIT}[name]
    async with rig.producer() as relay:
        job = await relay.submit(MEASURE, Cut("a", Payload(FILM)))
        core = rig.opener("relay").authenticate(forge(rig, job.token), now_ms()).core
        recipients = (rig.trust.peer("relay").kem_key(now_ms()),)
        draft = Draft(replace(core, sender_kid=b"", wrap_id=b""), recipients, content, Status.SUCCEEDED)
        sealed = rig.sealer("bunny").seal(draft, now_ms())
        await rig.transport("bunny").publish(results_stream("thumbs"), result(job.key), sealed.data)
        with pytest.raises(BadPrelude if name in WRONG else InvalidArguments):
            await asyncio.wait_for(job.result(Cut), 30)


async def test_a_payload_may_stand_in_several_places_and_in_none() -> None:
    rig, worker = fleet(), Worker()

    @worker.handler("thumbs", "resize")
    async def resize(cuts: list[Cut]) -> list[int]:
        return [cut.film.length or 0 for cut in cuts]

    document = b"[" + DOCUMENT + b"," + DOCUMENT + b"]"
    async with rig.working(worker):
        assert await sent(rig, composite(document, (4, 3), FILM + b"abc")) == [4, 4]
