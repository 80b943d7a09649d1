"""Why a subject is allowed or refused: every grant has an origin, every refusal a wall, and every remedy grants."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Literal

import pytest

from bridge.explain import Explanation, Ground, Verb, Verdict, explain, remedies
from bridge.matching import Patterns, covers, is_subject, matches, overlaps
from bridge.policy import Policy, Role, policy_lines
from bridge.render.permissions import grants, origins, private
from tests.acceptance.typed import bunny
from tests.integration.forbidden import SESSION, forbidden
from tests.integration.test_compromised_leaf import EXEMPT, FORBIDDEN, UNHEARD
from tests.integration.test_permissions import EVERY_ROLE
from tests.support import write_policy

CANARIES = EVERY_ROLE.replace("    kinds: [find]\n", "    kinds: [find]\n    canary: 30s\n").replace(
    "  boss-aws:", "  agent-aws: {cloud: aws, role: agent}\n  boss-aws:"
)
TAIL = f"{SESSION}.1"
SAMPLE = 61
"""One in so many of what is forbidden, which `tests/integration/test_permissions.py` tries in full."""
FAR = "$JS.aws.API.CONSUMER.MSG.NEXT.JOBS_thumbs.bunny-normal"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return write_policy(tmp_path_factory.mktemp("policy"), CANARIES)


def told(policy: Policy, name: str, verb: str, subject: str) -> Explanation:
    return explain(Ground(policy), policy.identities[name], Verb(verb), subject)


def stopped(found: Explanation) -> str:
    return found.stopped.name if found.stopped is not None else ""


# --- matching --------------------------------------------------------------------------------------


def test_covering_and_overlapping_are_those_of_the_subjects_meant() -> None:
    words = ["".join(each) for n in (1, 2, 3) for each in itertools.product("ab", repeat=n)]
    concrete = [".".join(word) for word in words]
    longer = concrete + [".".join(each) for each in itertools.product("abc", repeat=4)]
    patterns = [
        pattern
        for n in (1, 2, 3)
        for each in itertools.product("a*>", repeat=n)
        if is_subject(pattern := ".".join(each))
    ]
    assert len(patterns) == 21
    for one, two in itertools.product(patterns, repeat=2):
        meant = [{each for each in (*longer, "c") if matches(pattern, each)} for pattern in (one, two)]
        assert covers(one, two) == (meant[1] <= meant[0]), (one, two)
        assert overlaps(one, two) == bool(meant[0] & meant[1]), (one, two)


def test_many_patterns_at_once_match_what_one_of_them_does() -> None:
    given = [".".join(each) for n in (1, 2, 3, 4) for each in itertools.product("ab*>", repeat=n)]
    patterns = [each for each in given if is_subject(each) and each.count(".") < 3]
    for some in itertools.combinations(patterns, 2):
        together = Patterns(some)
        assert [each for each in given if together.match(each)] == [
            each for each in given if any(matches(pattern, each) for pattern in some)
        ], some
    everything = Patterns(patterns[1:])  # all but "a"
    assert [each for each in ("a", "", ".", "a..", "b.c") if everything.match(each)] == [
        each for each in ("a", "", ".", "a..", "b.c") if any(matches(pattern, each) for pattern in patterns[1:])
    ]
    assert not Patterns([]).match("a")


@pytest.mark.parametrize("text", ["", ".", "a..b", "a.", ">.a", "a b", "a.\n", "a\t.b"])
def test_what_is_no_subject(text: str) -> None:
    assert not is_subject(text)


# --- what grants -----------------------------------------------------------------------------------


def test_whatever_is_granted_passes_every_wall_and_says_where_it_stands(policy: Policy) -> None:
    ground = Ground(policy)
    for me in policy.identities.values():
        if me.role is Role.LINK:
            continue
        given = [grant for _, grant in private(policy, me)]
        for grant in (*grants(policy, me), *given):
            found = explain(ground, me, Verb(grant.kind), grant.subject)
            assert (found.servers, found.taken) == (Verdict.ALLOWED, True), (me.name, grant, found.stopped)
            assert found.reasons


def test_every_origin_is_a_line_of_the_policy_that_names_it(tmp_path: Path) -> None:
    policy = write_policy(tmp_path, CANARIES)
    lines, text = policy_lines(tmp_path / "bridge.yaml"), CANARIES.splitlines()
    for me in policy.identities.values():
        for origin in [each for each, _ in origins(policy, me)] + [each for each, _ in private(policy, me)]:
            at = origin.at if origin.at in lines else origin.at[:-1]  # the role of a service is left out
            assert at[-1] in text[lines[at] - 1], origin
    assert "producers: [alpha, beta]" in text[lines["queues", "thumbs", "producers", "beta"] - 1]


def test_a_list_that_stands_on_lines_of_its_own_is_told_word_by_word(tmp_path: Path) -> None:
    text = EVERY_ROLE.replace("[alpha, beta]\n", "\n      - alpha\n      - beta\n", 1)
    write_policy(tmp_path, text)
    line = policy_lines(tmp_path / "bridge.yaml")["queues", "thumbs", "producers", "beta"]
    assert text.splitlines()[line - 1] == "      - beta"


# --- what stops ------------------------------------------------------------------------------------


def test_nothing_that_is_forbidden_is_called_allowed(policy: Policy) -> None:
    ground = Ground(policy)
    for me in policy.identities.values():
        if me.role is Role.LINK:
            continue
        for act in forbidden(policy, me)[::SAMPLE]:
            found = explain(ground, me, Verb(act.verb), act.subject)
            assert (found.taken, found.servers is Verdict.ALLOWED) == (False, False), (me.name, act)
            assert stopped(found) == "user permission"
        assert remedies(policy, found)


def test_a_leaf_is_told_what_it_may_say_and_hear(tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    for subject in FORBIDDEN:
        assert stopped(told(policy, "link-azure", "publish", subject)) == "link", subject
    for subject in UNHEARD:
        assert stopped(told(policy, "link-azure", "subscribe", subject)) == "link", subject
    for subject in EXEMPT:
        assert stopped(told(policy, "link-azure", "publish", subject)) == "owner's export", subject
    pull = told(policy, "link-azure", "publish", FAR)
    assert (pull.verdict, pull.reasons[0].origin.at) == (Verdict.ALLOWED, ("queues", "thumbs"))


def test_behind_the_link_every_wall_is_named_in_order(policy: Policy) -> None:
    names = ["user permission", "account", "export", "link", "owner's export"]
    pull = told(policy, "bunny", "request", FAR)
    assert [(wall.name, wall.verdict) for wall in pull.walls] == [(name, "allowed") for name in (*names, "reply")]
    thief = told(policy, "gamma", "publish", FAR)
    assert [wall.name for wall in thief.walls if wall.verdict is Verdict.REFUSED] == names[:3]
    assert thief.walls[2].what == "BRIDGE exports it to bunny alone"
    delete = told(policy, "bunny", "publish", "$JS.aws.API.STREAM.DELETE.JOBS_thumbs")
    assert [wall.name for wall in delete.walls if wall.verdict is Verdict.REFUSED] == names
    assert remedies(policy, delete)[0].text == "nothing grants that: no role may"
    events = told(policy, "alpha", "subscribe", "events.thumbs.alpha.*.*")
    assert [wall.name for wall in events.walls] == names


def test_ones_own_domain_is_mapped_where_servers_map_it(policy: Policy) -> None:
    mine = f"API.DIRECT.GET.JOBS_thumbs.jobs.thumbs.normal.alpha.{TAIL}"
    service = told(policy, "alpha", "request", f"$JS.aws.{mine}")
    assert (service.verdict, service.checked) == (Verdict.ALLOWED, f"$JS.{mine}")
    reader = told(policy, "ops-aws", "request", "$JS.aws.API.STREAM.LIST")
    assert (reader.verdict, reader.checked) == (Verdict.REFUSED, reader.subject)


def test_a_pattern_that_is_wider_is_allowed_in_part(policy: Policy) -> None:
    wide = told(policy, "alpha", "subscribe", "done.thumbs.>")
    assert (wide.verdict, wide.taken) == (Verdict.PARTLY, False)
    assert remedies(policy, wide)[0].text == "subscribe to done.thumbs.alpha.> instead"
    literal = told(policy, "alpha", "subscribe", "events.thumbs.alpha.*.>")
    assert (literal.verdict, literal.taken) == (Verdict.PARTLY, True)


# --- what the receiver says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "subject", "verdict", "words"),
    [
        ("alpha", f"jobs.thumbs.high.alpha.{TAIL}", "allowed", "jobs of kinds probe, resize from alpha to bunny"),
        ("alpha", "jobs.thumbs.high.alpha.short.1", "refused", "WrongSubject"),
        ("alpha", f"control.thumbs.alpha.{TAIL}", "allowed", "controls of kinds probe, resize"),
        ("bunny", f"results.thumbs.beta.{TAIL}.0", "allowed", "results of kinds probe, resize from bunny to beta"),
        ("bunny", f"results.thumbs.relay.{TAIL}.0", "refused", "none from relay to bunny: NotAuthorised"),
        ("bunny", "results.thumbs.*.*.*.*", "partly allowed", "to alpha, beta, and to nobody else"),
        ("agent-azure", f"jobs.lookup.normal.agent-azure.{SESSION}.0", "allowed", "of kinds bunny-canary, find"),
        ("bunny", f"dead.thumbs.beta.{TAIL}.0", None, ""),
    ],
)
def test_the_bundle_has_the_last_word(policy: Policy, name: str, subject: str, verdict: str | None, words: str) -> None:
    found = told(policy, name, "publish", subject)
    assert found.servers is Verdict.ALLOWED
    wall = next((each for each in found.walls if each.name == "trust bundle"), None)
    assert (wall.verdict if wall else None) == verdict
    assert wall is None or words in wall.what


# --- what to change --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "way", "subject", "text", "old", "new"),
    [
        (
            *("relay", "publish", f"jobs.thumbs.normal.relay.{TAIL}", "add relay to queues.thumbs.producers"),
            *("[alpha, beta]", "[alpha, beta, relay]"),
        ),
        (
            *("beta", "publish", "$JS.API.CONSUMER.MSG.NEXT.RESULTS_thumbs.inbox-beta"),
            *("add beta to queues.thumbs.inbox", "[alpha]", "[alpha, beta]"),
        ),
        (
            *("gamma", "publish", f"starts.thumbs.alpha.{TAIL}.0"),
            *("let queues.thumbs.workers be gamma, instead of bunny", "workers: bunny", "workers: gamma"),
        ),
        (
            *("agent-azure", "publish", f"jobs.lookup.high.agent-azure.{TAIL}"),
            *("give queues.lookup a canary: 30s", "    kinds: [find]\n", "    kinds: [find]\n    canary: 30s\n"),
        ),
        (
            *("agent-azure", "publish", "$SYS.REQ.SERVER.PING"),
            *("sys-azure in azure may: system of cloud azure", "agent-azure: {cloud: azure, role: agent}", None),
        ),
    ],
)
def test_a_remedy_grants_what_it_says(
    name: str, way: Literal["publish"], subject: str, text: str, old: str, new: str | None, tmp_path: Path
) -> None:
    policy = write_policy(tmp_path, EVERY_ROLE)
    found = told(policy, name, way, subject)
    assert found.servers is Verdict.REFUSED
    assert text in [remedy.text for remedy in remedies(policy, found)]
    assert old in EVERY_ROLE
    if new is not None:
        changed = write_policy(tmp_path, EVERY_ROLE.replace(old, new, 1))
        assert told(changed, name, way, subject).servers is Verdict.ALLOWED


def test_an_unknown_queue_and_a_role_that_nobody_has_are_named(tmp_path: Path) -> None:
    policy = write_policy(tmp_path)
    typo = told(policy, "alpha", "publish", f"jobs.thums.normal.alpha.{TAIL}")
    assert [each.text for each in remedies(policy, typo)] == ["queue 'thums' is not declared; did you mean 'thumbs'?"]
    replay = told(policy, "ops-azure", "publish", f"replay.thumbs.alpha.{TAIL}.0")
    assert [each.text for each in remedies(policy, replay)] == ["declare an identity {cloud: azure, role: operator}"]


# --- the command -----------------------------------------------------------------------------------


def test_the_command_says_the_line_and_its_exit_code_is_the_verdict(tmp_path: Path) -> None:
    write_policy(tmp_path)
    said = bunny("explain alpha publish", tmp_path, f"jobs.thumbs.low.alpha.{TAIL}")
    assert said.out.startswith("ALLOWED: alpha (service in aws), publish jobs.thumbs.low.alpha")
    assert "granted by  bridge.yaml:26: producer of queue thumbs: jobs.thumbs.low.alpha.*.*\n" in said.out
    said = bunny("explain relay publish --json", tmp_path, f"jobs.thumbs.low.relay.{TAIL}", code=1)
    assert said.error == f"relay: publish of jobs.thumbs.low.relay.{TAIL} is refused: user permission"
    assert said.json["verdict"] == "refused"
    assert said.json["stopped"]["wall"] == "user permission"
    assert said.json["remedies"][0] == {
        "text": "add relay to queues.thumbs.producers",
        "key": ["queues", "thumbs", "producers"],
        "line": 26,
    }
    for line, words in (
        ("alpa publish x", "'alpa' is not an identity of bridge.yaml; did you mean 'alpha'?"),
        ("alpha publish a..b", "'a..b' is no subject"),
    ):
        said = bunny(f"explain {line} --json", tmp_path, code=2)
        assert words in said.error
        assert words in json.loads(said.out)["message"]
