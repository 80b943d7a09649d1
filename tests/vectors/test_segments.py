"""Streams of records: the bridge and what was written from the specification say the same."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from bridge.envelope import Opener
from bridge.errors import Refusal
from bridge.segments import Chain, End, subject
from tests.vectors import independent
from tests.vectors.independent_segments import read_stream
from tests.vectors.labels import NOW
from tests.vectors.segments import CASES, Stream, sent, summary
from tests.vectors.strictness import Refused
from tests.vectors.test_own import BUNDLE, KEYS, TRUST, identity

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "segments.json").read_text())


def by_specification(stream: Stream) -> dict[str, Any]:
    stored, result = (
        [independent.receive(each, BUNDLE, NOW, "relay", KEYS["relay"]) for each in part]
        for part in (stream[0], [stream[1]])
    )
    try:
        return summary(read_stream(stored, *result))
    except Refused as refused:
        return {"refusal": refused.name}


def by_bridge(stream: Stream) -> dict[str, Any]:
    opener = Opener(identity("relay"), TRUST)
    try:
        end = End.read(opener.open(opener.authenticate(stream[1], NOW)).content)
        assert end is not None
        chain, records = Chain(end.run), list[bytes]()
        while chain.segments < end.segments:
            if chain.segments >= len(stream[0]):
                return {"refusal": "PartMissing"}
            segment = opener.authenticate(stream[0][chain.segments], NOW)
            after = chain.follow(segment.core, segment.digest)
            records += [each.body for each in chain.contents(segment.core, opener.open(segment).content)]
            chain = after
        chain.check_end(end)
    except Refusal as refusal:
        return {"refusal": refusal.name}
    return summary(records)


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_published(vector: dict[str, Any]) -> None:
    stream = [base64.b64decode(each) for each in vector["segments"]], base64.b64decode(vector["result"])
    assert by_specification(stream) == by_bridge(stream) == vector["expect"]


@pytest.mark.parametrize("name", CASES)
def test_made_anew(name: str) -> None:
    refusal, make = CASES[name]
    stream = make()
    found = by_bridge(stream)
    assert by_specification(stream) == found
    assert found.get("refusal", "") == refusal


def test_where_they_stand() -> None:
    for number, each in enumerate(sent([[b"1"], [b"2"]], run=2)[0]):
        message = Opener(identity("relay"), TRUST).authenticate(each, NOW)
        place = subject(message.core.key, 2, number)
        assert independent.receive(each, BUNDLE, NOW, "relay", KEYS["relay"], place).digest == message.digest
