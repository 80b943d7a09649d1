"""What a policy and public halves make of a bundle, and what is read of one before it is believed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bridge import dsse, strict_json
from bridge.bundle import build_payload, read_payload, sign_payload
from bridge.errors import BadBundle, ConfigurationError
from bridge.identity import Identity
from bridge.policy import IdentityEntry, Policy, Role, Schedule
from tests.world import POLICY, World

WORLD = World()
PAYLOAD = WORLD.payload()


def payload(policy: Policy, **known: Identity) -> dict[str, Any]:
    keys = {name: each.public() for name, each in {**WORLD.identities, **known}.items()}
    return strict_json.parse_object(build_payload(policy, keys, 1, WORLD.now))


def test_keys_are_valid_from_the_skew_before_until_the_bundle_expires() -> None:
    value = payload(POLICY)
    for principal in value["principals"]:
        for key in principal["sign"] + principal["kem"]:
            assert (key["not_before"], key["not_after"]) == (WORLD.now - 300_000, value["expires"])
    assert value["expires"] == WORLD.now + POLICY.trust.expires_ms


@pytest.mark.parametrize("kind", ["sign", "kem"])
def test_a_public_half_without_keys_makes_no_principal(kind: str) -> None:
    keys = {name: each.public() for name, each in WORLD.identities.items()}
    keys["relay"] = replace(keys["relay"], **{kind: ()})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"keys/relay\.json"):
        build_payload(POLICY, keys, 1, WORLD.now)


@pytest.mark.parametrize("name", ["other", "bunny"])
def test_who_is_revoked_has_no_grant_at_either_end(name: str) -> None:
    value = payload(replace(POLICY, revoked=(name,)))
    assert name not in {each["name"] for each in value["principals"]}
    assert not [grant for grant in value["grants"] if name in (grant["from"], grant["to"])]


def test_an_agent_may_send_its_schedules_kind_on_their_queue_alone() -> None:
    identities = {**POLICY.identities, "clock": IdentityEntry("clock", "aws", Role.AGENT)}
    queues = {**POLICY.queues, "more": replace(POLICY.queues["thumbs"], name="more")}
    tick = Schedule("nightly", "clock", "thumbs", "probe", 1_000, every_ms=1_000)
    value = payload(
        replace(POLICY, identities=identities, queues=queues, schedules={"nightly": tick}),
        clock=Identity.generate("clock"),
    )
    mine = [(grant["queue"], grant["kinds"]) for grant in value["grants"] if grant["from"] == "clock"]
    assert mine == [("thumbs", ["probe"])]


def test_what_is_read_unverified_is_the_payload() -> None:
    assert read_payload(sign_payload(PAYLOAD, WORLD.roots)) == strict_json.parse_object(PAYLOAD)
    with pytest.raises(BadBundle, match="not a trust bundle"):
        read_payload(sign_payload(b"rubbish", WORLD.roots))


# --- what carries it -----------------------------------------------------------------------------------


def enveloped(**changes: object) -> bytes:
    return json.dumps({**json.loads(sign_payload(b"four", WORLD.roots)), **changes}).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": "Zm91cl=="},  # the same bytes, another text
        {"payload": "Zm91 cg=="},
        {"payload": "Zm91cg"},
        {"payload": "Zm91cé=="},
        {"payload": 7},
        {"signatures": 7},
        {"signatures": [7]},
        {"signatures": [{"keyid": 7, "sig": ""}]},
        {"payloadType": dsse.PROOF_TYPE},
    ],
    ids=str,
)
def test_an_envelope_that_is_not_as_specified_is_refused(changes: dict[str, object]) -> None:
    assert dsse.decode(enveloped(payload="Zm91cg=="))[0] == b"four"
    with pytest.raises(BadBundle, match=r"trust\.json"):
        dsse.decode(enveloped(**changes))


def test_of_a_proof_that_is_none_it_is_not_said_that_it_is_a_bundle() -> None:
    with pytest.raises(BadBundle) as refused:
        dsse.decode(b"{}", dsse.PROOF_TYPE)
    assert "trust.json" not in str(refused.value)
