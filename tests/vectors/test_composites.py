"""Values with payloads among their fields: the bridge and what was written from the specification say the same."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from bridge import composite, keyed
from bridge.envelope import Opener
from bridge.errors import Refusal
from bridge.job import Content
from tests.vectors import independent
from tests.vectors.composites import CASES, made
from tests.vectors.independent_composite import CONTENT_TYPE, Composite, read_composite, tag_of_composite
from tests.vectors.independent_payload import read_payload
from tests.vectors.labels import NOW
from tests.vectors.strictness import Refused
from tests.vectors.test_own import BUNDLE, KEYS, TRUST, identity

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "composites.json").read_text())
SECRET = bytes(range(32))

Found = Composite | str


def by_specification(envelope: bytes, stored: list[bytes]) -> Found:
    try:
        message = independent.receive(envelope, BUNDLE, NOW, "bunny", KEYS["bunny"])
        assert message.content_type == CONTENT_TYPE
        return read_composite(message.body, read_payload(message, stored) if stored else None)
    except Refused as refused:
        return refused.name


def by_bridge(envelope: bytes, stored: list[bytes]) -> Found:
    opener = Opener(identity("bunny"), TRUST)
    try:
        opened = opener.open(opener.authenticate(envelope, NOW))
        table, rest = composite.decode(opened.content.body)
        if opened.payload is not None:
            composite.check_apart(rest)
            opened.payload.learn(stored[opened.payload.manifest.parts :])
            parts = range(opened.payload.manifest.parts)
            rest = b"".join(opened.payload.open(number, stored[number]) for number in parts)
        composite.check_length(table, len(rest))
    except Refusal as refusal:
        return refusal.name
    pieces = [(field.content_type, rest[at : at + field.length]) for at, field in table.places()]
    return Composite(rest[: table.document], pieces)


def summary(found: Found) -> dict[str, Any]:
    if isinstance(found, str):
        return {"refusal": found}
    rows = [
        {"content_type": type_, "length": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for type_, data in found.payloads
    ]
    return {"document": found.document.decode(), "payloads": rows}


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_published(vector: dict[str, Any]) -> None:
    envelope, stored = base64.b64decode(vector["envelope"]), [base64.b64decode(each) for each in vector["messages"]]
    found = by_specification(envelope, stored)
    assert by_bridge(envelope, stored) == found
    assert summary(found) == vector["expect"]


@pytest.mark.parametrize("name", CASES)
def test_made_anew(name: str) -> None:
    envelope, stored = made(CASES[name])
    found = by_specification(envelope, stored)
    assert by_bridge(envelope, stored) == found
    assert (found if isinstance(found, str) else "") == CASES[name].refusal


def test_tags() -> None:
    for case in (CASES["inline"], CASES["an-empty-payload"]):
        value = read_composite(case.body, None)
        tag = keyed.args_tag(SECRET, Content(CONTENT_TYPE, case.body)).hex()
        assert tag == tag_of_composite(SECRET, value)
        spread = json.dumps(json.loads(value.document), indent=1, sort_keys=True).encode()
        pairs = [(type_, hashlib.sha256(data).digest()) for type_, data in value.payloads]
        assert keyed.tag_of_composite(SECRET, spread, pairs).hex() == tag  # however it was written
        for other in ([*pairs[:-1], ("a/c", pairs[-1][1])], pairs + pairs):
            assert keyed.tag_of_composite(SECRET, spread, other).hex() != tag
