"""Payloads in parts: the bridge and what was written from the specification say the same."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from bridge.envelope import Opener
from bridge.errors import Refusal
from tests.vectors import independent
from tests.vectors.independent_payload import read_payload
from tests.vectors.labels import NOW
from tests.vectors.payloads import CASES, sent
from tests.vectors.strictness import Refused
from tests.vectors.test_own import BUNDLE, KEYS, TRUST, identity

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "payloads.json").read_text())


def by_specification(envelope: bytes, stored: list[bytes]) -> bytes | str:
    try:
        return read_payload(independent.receive(envelope, BUNDLE, NOW, "bunny", KEYS["bunny"]), stored)
    except Refused as refused:
        return refused.name


def by_bridge(envelope: bytes, stored: list[bytes]) -> bytes | str:
    opener = Opener(identity("bunny"), TRUST)
    try:
        payload = opener.open(opener.authenticate(envelope, NOW)).payload
        assert payload is not None
        parts = payload.manifest.parts
        payload.learn(stored[parts:])
        # Backwards: no part needs another.
        opened = [payload.open(number, stored[number]) for number in reversed(range(parts))]
    except Refusal as refusal:
        return refusal.name
    return b"".join(reversed(opened))


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_published(vector: dict[str, Any]) -> None:
    envelope = base64.b64decode(vector["envelope"])
    stored = [base64.b64decode(each) for each in vector["messages"]]
    found = by_specification(envelope, stored)
    assert by_bridge(envelope, stored) == found
    if isinstance(found, str):
        assert vector["expect"] == {"refusal": found}
    else:
        assert vector["expect"] == {"length": len(found), "sha256": hashlib.sha256(found).hexdigest()}


@pytest.mark.parametrize("name", CASES)
def test_made_anew(name: str) -> None:
    refusal, make = CASES[name]
    found = by_bridge(*made) if (made := make()) else ""
    assert by_specification(*made) == found
    assert (found if isinstance(found, str) else "") == refusal


@pytest.mark.parametrize("length", [262_143, 262_145, 524_288])
def test_where_parts_end(length: int) -> None:
    payload = (b"payload in parts" * 32_769)[:length]
    envelope, stored = sent(payload)
    assert by_specification(envelope, stored) == by_bridge(envelope, stored) == payload
    parts = -(-length // 262_144)
    assert len(stored) == parts + 1
    assert [len(each) <= 768 * 1024 for each in stored] == [True] * len(stored)


def test_parts_of_one_payload_in_each_others_places() -> None:
    payload = b"the same bytes in each part, ..." * 8_192 * 2
    envelope, stored = sent(payload, lambda stored: [stored[1], stored[0], stored[2]])
    assert by_specification(envelope, stored) == by_bridge(envelope, stored) == "BadPart"
    envelope, stored = sent(payload, lambda stored: [stored[0], stored[0], stored[2]])
    assert by_specification(envelope, stored) == by_bridge(envelope, stored) == "BadPart"
