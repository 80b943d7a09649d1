"""What `bunny prove` tries: all of the server's API, all that is granted, with messages that change nothing."""

from __future__ import annotations

import json
import re
import shutil
import sysconfig
from pathlib import Path

import pytest

from bridge.explain import Explanation, Ground, Verb, Verdict, explain
from bridge.matching import matches
from bridge.policy import Policy, Role
from bridge.prove import Act, Area
from bridge.prove.acts import expectations
from bridge.prove.calls import STRANGER, calls
from bridge.prove.crossing import over_the_link
from bridge.prove.harmless import NOWHERE, SPECIAL, answered, unheard
from tests.integration.test_permissions import EVERY_ROLE
from tests.support import write_policy

SAMPLE = 101
"""One in so many of what is tried: servers are asked about all of it in `tests/integration/test_prove.py`."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(write_policy(tmp_path_factory.mktemp("policy"), EVERY_ROLE))


def users(policy: Policy) -> list[str]:
    return [name for name, entry in policy.identities.items() if entry.role is not Role.LINK]


def test_every_call_of_the_server_s_api_is_tried() -> None:
    """Read out of the server itself: an upgrade that has a call more is found here."""
    program = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    assert program is not None
    found = re.findall(rb"\$JS\.API\.((?:[A-Z_]+\.)+)\*", Path(program).read_bytes())
    has = {call.decode().rstrip(".") for call in found}
    assert len(has) > 25
    mine = {call.removeprefix("$JS.API.") for call in calls("$JS.API", [("S", ["C"])])}
    assert [call for call in sorted(has) if not any(each.startswith(f"{call}.") for each in mine)] == []
    # Those without a name at their end stand in the program in one piece with what comes after.
    plain = ("INFO", "STREAM.NAMES", "STREAM.LIST", "META.LEADER.STEPDOWN", "META.RESCUE", "SERVER.REMOVE")
    assert mine >= {*plain, "SERVER.EVACUATE"}


def test_whatever_anybody_may_is_tried_by_everybody(ground: Ground) -> None:
    policy = ground.policy
    for name in ("alpha", "bunny", "agent-azure"):
        tried = expectations(ground, policy.identities[name])
        assert len(tried) == len({each.act for each in tried})
        said = [each.act.subject for each in tried if each.act.way == "publish"]
        heard = {each.act.subject for each in tried if each.act.way == "subscribe"}
        for other in users(policy):
            allowed = ground.permissions[other]
            for granted in allowed.publish:
                assert any(matches(granted, subject) for subject in said), (name, other, granted)
            assert heard >= set(allowed.subscribe)


def test_what_is_expected_is_what_is_explained(ground: Ground) -> None:
    policy = ground.policy
    for name in users(policy):
        me = policy.identities[name]
        for each in expectations(ground, me)[::SAMPLE]:
            told: Explanation = explain(ground, me, Verb(each.act.way), each.act.subject)
            assert told.taken is each.allowed
            if told.servers is not Verdict.PARTLY:
                assert (told.servers is Verdict.ALLOWED) is each.allowed, each.act


def test_no_message_could_be_acted_on(ground: Ground) -> None:
    """A body that is no JSON, and a stream that is nobody's; of what is delivered, nothing that deletes or makes."""
    with pytest.raises(json.JSONDecodeError):
        json.loads(unheard("x").data)
    assert unheard("x").headers == NOWHERE == {"Nats-Expected-Stream": STRANGER}
    for call in calls("$JS.API", [("S", ["C"])]):
        question = answered(call)
        if any(word in call for word in ("PURGE", "STREAM.DELETE", "CONSUMER.DELETE", "RESET", "STEPDOWN", "PEER")):
            assert question is None, call
        elif any(word in call for word in (".CREATE.", ".UPDATE.", "MSG.DELETE")):
            assert question is not None
            assert question.data == b"{"
        elif "MSG.NEXT" in call:
            assert question is not None
            pull = json.loads(question.data)
            assert pull["idle_heartbeat"] * 2 > pull["expires"]
    for kind in ("control.q.p.0.0", "events.q.p.0.0", "stats.aws.x", "done.q.p.0.0.0", "$SYS.REQ.SERVER.PING.RELOAD"):
        assert answered(kind) is None, kind  # somebody listens, or a server would do it
    assert set(SPECIAL) == {"Nats-Rollup", "Nats-TTL", "Nats-Schedule", "Nats-Batch-Id", "Nats-Incr"}


def test_what_the_link_tries_is_delivered_and_so_chosen_with_care(ground: Ground) -> None:
    link = ground.policy.identities["link-azure"]
    tried = over_the_link(ground, link)
    assert {each.act.way for each in tried if each.allowed} == {"publish"}
    assert all(answered(each.act.subject) for each in tried if each.allowed)
    subjects = {each.act.subject for each in tried if not each.allowed}
    assert {"$JS.aws.API.STREAM.DELETE.JOBS_thumbs", "$JS.API.STREAM.PURGE.RESULTS_lookup"} <= subjects
    assert not [each for each in subjects if ".META." in each or ".ACCOUNT.PURGE" in each or ".SERVER.EVACUATE" in each]


def test_an_act_is_told_in_one_line() -> None:
    assert str(Act(Area.HEADERS, "publish", "jobs.q", "Nats-TTL")) == "publish jobs.q with Nats-TTL"
    assert str(Act(Area.OTHERS, "subscribe", ">")) == "subscribe >"
