"""Keys and replay orders: the bridge and what was written from the specification say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge import keyed
from bridge.bundle import build_payload, build_roots, sign_payload
from bridge.clock import now_ms
from bridge.crypto import SigningKey, VerifyKey
from bridge.job import Content
from bridge.policy import Role
from tests.fleet import Fleet, policy
from tests.unit.test_replays import DEAD, ORDERS, died, letters, operating
from tests.vectors import independent_keyed
from tests.vectors.independent_trust import Bundle, verify_bundle
from tests.vectors.strictness import Refused

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "keyed.json").read_text())
SECRET = bytes.fromhex(VECTORS["secret"])


@pytest.mark.parametrize("vector", VECTORS["sessions"], ids=lambda vector: repr(vector["key"])[:20])
def test_sessions(vector: dict[str, str]) -> None:
    given = (SECRET, vector["producer"], vector["queue"], vector["key"])
    assert keyed.session(*given) == independent_keyed.session_of(*given) == vector["session"]


@pytest.mark.parametrize("vector", VECTORS["tags"], ids=lambda vector: vector["body"][:20])
def test_tags(vector: dict[str, str]) -> None:
    content_type, body = vector["content_type"], vector["body"].encode()
    assert keyed.args_tag(SECRET, Content(content_type, body)).hex() == vector["args_tag"]
    assert independent_keyed.tag_of(SECRET, content_type, body) == vector["args_tag"]


def _bundle(fleet: Fleet) -> Bundle:
    """The fleet's trust, signed anew."""
    root, entries = SigningKey.generate(), fleet.policy.identities
    keys = {name: each.public() for name, each in fleet.identities.items() if entries[name].role is not Role.LINK}
    payload = build_payload(fleet.policy, keys, 1, now_ms())
    roots = build_roots(fleet.policy.bridge, 1, [VerifyKey(root.public)])
    return verify_bundle(sign_payload(payload, [root]), roots, now_ms())


async def test_replay_orders() -> None:
    fleet = Fleet.make(policy())
    (handle,) = await died(fleet)
    async with operating(fleet) as boss:
        (letter,) = await letters(boss)
        await boss.replay(letter)
    (message,) = fleet.held("azure", ORDERS)
    bundle = _bundle(fleet)
    order, job = independent_keyed.read_replay(message.data, bundle, now_ms(), message.subject, "bunny")
    assert (order.core["from"], order.core["generation"]) == ("boss", 1)
    assert job.core["job"] == handle.id
    assert message.data.endswith(fleet.held("azure", DEAD)[0].data)
    other = message.subject.removesuffix("1") + "2"
    for data, subject in ((message.data, other), (message.data[:-1], message.subject), (b"", message.subject)):
        with pytest.raises(Refused):
            independent_keyed.read_replay(data, bundle, now_ms(), subject, "bunny")
