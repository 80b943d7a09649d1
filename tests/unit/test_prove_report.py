"""Reports of `bunny prove`: each line stands by itself, and what is altered, left out or said for another is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bridge import dsse, strict_json
from bridge.crypto import SigningKey, VerifyKey
from bridge.errors import BadReport
from bridge.explain import Ground
from bridge.identity import Identity
from bridge.prove import ANYONE, Found, Outcome, Trial
from bridge.prove.report import Statement, read, tried, write
from tests.acceptance.typed import bunny
from tests.support import write_policy

NOW = 1_800_000_000_000
PEOPLE = ("alpha", "beta", "bunny", "link-azure")
WHO = {name: Identity.generate(name, link=name == "link-azure") for name in PEOPLE}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(write_policy(tmp_path_factory.mktemp("policy")))


def well(ground: Ground, name: str) -> Trial:
    """As if everything had been tried, and was as it should be."""
    outcomes = [Outcome(e, Found.ALLOWED if e.allowed else Found.REFUSED) for e in tried(ground, name)]
    return Trial(name, tuple(outcomes))


def signers(*names: str) -> dict[str, SigningKey]:
    return {name: WHO[name].sign[0] for name in names}


def public(name: str) -> Sequence[VerifyKey]:
    return WHO[name].public().sign


def checked(ground: Ground, report: bytes) -> list[Statement]:
    return read(report, "some.proof", ground, public)


def test_what_was_signed_is_read_and_lines_of_two_holders_are_one_report(ground: Ground) -> None:
    policy = ground.policy
    one = write([well(ground, "alpha"), Trial("beta", not_run="not here")], policy, signers("alpha"), NOW)
    assert [(each.identity, each.by, each.differing) for each in checked(ground, one)] == [("alpha", "alpha", 0)]
    theirs = [well(ground, name) for name in ("bunny", "link-azure", ANYONE)]
    two = write(theirs, policy, signers("bunny"), NOW + 1)
    said = checked(ground, one + two)
    who = [(ANYONE, "bunny"), ("alpha", "alpha"), ("bunny", "bunny"), ("link-azure", "bunny")]
    assert [(each.identity, each.by) for each in said] == who
    assert said[1].acts == len(tried(ground, "alpha"))


def test_the_newest_line_of_an_identity_counts_and_nobody_talks_another_s_finding_away(ground: Ground) -> None:
    good = well(ground, "alpha")
    bad = replace(good, outcomes=(replace(good.outcomes[0], found=Found.REFUSED), *good.outcomes[1:]))
    old, new = (write([each], ground.policy, signers("alpha"), NOW + n) for n, each in enumerate((bad, good)))
    assert [each.differing for each in checked(ground, old)] == [1]
    assert [each.otherwise for each in checked(ground, old)] == [(f"{bad.outcomes[0].expected.act}: refused",)]
    assert [each.differing for each in checked(ground, new + old)] == [0]
    # For the port, which has no key, each holder speaks for itself.
    port = well(ground, ANYONE)
    open_ = replace(port, outcomes=(replace(port.outcomes[0], found=Found.ALLOWED), *port.outcomes[1:]))
    both = write([open_], ground.policy, signers("alpha"), NOW) + write(
        [port], ground.policy, signers("bunny"), NOW + 1
    )
    assert [(each.by, each.differing) for each in checked(ground, both)] == [("alpha", 1), ("bunny", 0)]


def signed(payload: bytes, key: SigningKey) -> bytes:
    return dsse.encode(payload, [(key.kid, key.sign(dsse.signed_bytes(payload, dsse.PROOF_TYPE)))], dsse.PROOF_TYPE)


def rewritten(report: bytes, change: Callable[[strict_json.Object], None], by: str) -> bytes:
    """The payload changed, and signed again with a key."""
    value = strict_json.parse_object(dsse.decode(report, dsse.PROOF_TYPE)[0])
    change(value)
    return signed(strict_json.dump(value), WHO[by].sign[0])


@pytest.mark.parametrize(
    ("change", "by", "why"),
    [
        ({"identity": "beta"}, "alpha", "alpha speaks for beta, which has keys of its own"),
        ({"identity": "beta", "by": "beta"}, "alpha", "not signed with a key of beta, as keys/beta.json has them"),
        ({}, "beta", "not signed with a key of alpha, as keys/alpha.json has them"),
        ({"identity": "nobody", "by": "nobody"}, "alpha", "of an identity that the policy has not"),
        ({"by": ANYONE}, "alpha", "of an identity that the policy has not"),
        ({"policy": "0" * 64}, "alpha", "alpha was tried under another policy, 0000000000000000"),
        ({"bridge": "other"}, "alpha", "alpha was tried under another policy"),
        ({"acts": 1}, "alpha", "alpha tried other acts than this release does; some are missing"),
        ({"tried": "0" * 64}, "alpha", "alpha tried other acts than this release does; some are missing"),
        ({"tried": "0" * 64, "release": "9.9"}, "alpha", "it was tried by release 9.9"),
        ({"release": "\x1b[31m"}, "alpha", "not a line of a report"),
        ({"differing": -1}, "alpha", "not a line of a report"),
        ({"differing": True}, "alpha", "not a line of a report"),
        ({"otherwise": ["x"] * 201}, "alpha", "not a line of a report"),
        ({"v": 2}, "alpha", "not a line of a report"),
        ({"more": 1}, "alpha", "not a line of a report"),
    ],
)
def test_a_line_that_must_not_be_believed_is_refused_by_name(
    ground: Ground, change: strict_json.Object, by: str, why: str
) -> None:
    report = write([well(ground, "alpha")], ground.policy, signers("alpha"), NOW)
    with pytest.raises(BadReport) as caught:
        checked(ground, report + rewritten(report, lambda value: value.update(change), by))
    assert str(caught.value).startswith("some.proof:2: ")
    assert why in str(caught.value)


def test_nothing_else_passes_for_a_report(ground: Ground) -> None:
    report = write([well(ground, "alpha")], ground.policy, signers("alpha"), NOW)
    payload = dsse.decode(report, dsse.PROOF_TYPE)[0]
    key = WHO["alpha"].sign[0]
    twice = [(key.kid, key.sign(dsse.signed_bytes(payload, dsse.PROOF_TYPE)))] * 2
    bundle = dsse.encode(payload, [(key.kid, key.sign(dsse.signed_bytes(payload)))])
    hostile = [
        *(b"", b"\n", b"{}", b"[]", report[:-40], report + b"x", bundle),
        # What was signed as a bundle is none, though it is put into the envelope of one.
        bundle.replace(dsse.PAYLOAD_TYPE.encode(), dsse.PROOF_TYPE.encode()),
        dsse.encode(payload, twice, dsse.PROOF_TYPE),
        *(report.replace(b'"sig":"', b'"sig":"A'), b"\n".join([report.strip()] * 4097)),
    ]
    for each in hostile:
        with pytest.raises(BadReport):
            checked(ground, each)


def test_the_command_merges_verifies_and_ends_with_a_code_for_each(tmp_path: Path, ground: Ground) -> None:
    policy = write_policy(tmp_path)
    assert policy.digest == ground.policy.digest
    everybody = {name: Identity.generate(name, link=name == "link-azure") for name in policy.identities}
    (tmp_path / "keys").mkdir()
    for name, each in everybody.items():
        (tmp_path / "keys" / f"{name}.json").write_text(each.public().to_json())
    keys = {name: each.sign[0] for name, each in everybody.items() if each.sign}
    halves: dict[str, list[str]] = {"aws": [], "azure": [ANYONE, "link-azure"]}
    for name in keys:
        halves[policy.identities[name].cloud].append(name)
    for cloud, names in halves.items():
        mine = {name: keys[name] for name in names if name in keys}
        (tmp_path / f"{cloud}.proof").write_bytes(write([well(ground, name) for name in names], policy, mine, NOW))

    said = bunny("prove --merge aws.proof azure.proof --report bridge.proof --json", tmp_path)
    assert (said.json["differing"], said.json["not_run"]) == (0, [])
    assert len(said.json["statements"]) == len(policy.identities) + 1
    said = bunny("prove --verify azure.proof", tmp_path, code=1)
    assert "not run, which is no pass: alpha" in said.error
    line = (tmp_path / "bridge.proof").read_text().splitlines()[0]
    (tmp_path / "forged.proof").write_text(json.dumps(json.loads(line) | {"signatures": []}) + "\n")
    assert "forged.proof:1: not a line of a report" in bunny("prove --verify forged.proof", tmp_path, code=4).error
