"""Rendering: pure, public, the same for the same policy; and what the plan must hold for no message to be lost."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bridge import subjects
from bridge.doctor.site import policy_of
from bridge.identity import Connection, Identity, PublicIdentity
from bridge.job import INLINE_LIMIT
from bridge.policy import Cloud, IdentityEntry, Policy, Queue, Rate, Role
from bridge.policy.queues import MAX_QUEUES
from bridge.render import render, server_config, thresholds
from bridge.render.conf import Noted, write
from bridge.render.connections import connection_yaml
from bridge.render.crossings import crossings
from bridge.render.permissions import grants, link_permissions, permissions
from bridge.render.streams import plan

ROOT = Path(__file__).parents[2]
SESSION = "0123456789abcdef01234567"

ENTRIES = (
    IdentityEntry("alpha", "aws"),
    IdentityEntry("beta", "aws"),
    IdentityEntry("both", "azure"),
    IdentityEntry("other", "azure"),
    IdentityEntry("idle", "aws"),
    IdentityEntry("ops", "aws", Role.INSPECTOR),
    IdentityEntry("boss", "aws", Role.OPERATOR),
    IdentityEntry("agent", "azure", Role.AGENT),
    IdentityEntry("sys", "aws", Role.SYSTEM),
    IdentityEntry("prov-aws", "aws", Role.PROVISIONER),
    IdentityEntry("prov-azure", "azure", Role.PROVISIONER),
    IdentityEntry("link", "azure", Role.LINK),
)
QUEUES = (
    Queue("thumbs", ("alpha", "beta"), "both", ("resize",), home="aws", work="azure", inbox=("alpha",)),
    Queue("films", ("alpha",), "other", ("cut",), home="aws", work="azure"),
    Queue("lookup", ("both", "other"), "beta", ("find",), home="azure", work="aws"),
)
POLICY = Policy(
    "acme",
    {
        "aws": Cloud("aws", "hub", "tls://hub.test:4222", "tls://link.test:7422"),
        "azure": Cloud("azure", "leaf", "tls://leaf.test:4222", durability="process"),
    },
    {entry.name: entry for entry in ENTRIES},
    {queue.name: queue for queue in QUEUES},
)
IDENTITIES = {entry.name: Identity.generate(entry.name, link=entry.role is Role.LINK) for entry in ENTRIES}
KEYS: dict[str, PublicIdentity] = {name: identity.public() for name, identity in IDENTITIES.items()}
FILES = render(POLICY, KEYS)


def covers(pattern: str, subject: str) -> bool:
    """Whether a subscription to ``pattern`` gets ``subject``."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for i, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > i
        if i >= len(tokens) or token not in ("*", tokens[i]):
            return False
    return len(wanted) == len(tokens)


def may(name: str, subject: str) -> bool:
    return any(covers(allowed, subject) for allowed in permissions(POLICY, POLICY.identities[name]).publish)


def streams(cloud: str) -> dict[str, dict[str, Any]]:
    return {stream["name"]: stream for stream in plan(POLICY, cloud)["streams"]}


# --- the files -------------------------------------------------------------------------------------


def test_the_same_policy_gives_the_same_bytes_whatever_its_order() -> None:
    shuffled = dataclasses.replace(
        POLICY,
        clouds=dict(reversed(list(POLICY.clouds.items()))),
        identities=dict(reversed(list(POLICY.identities.items()))),
        queues=dict(reversed(list(POLICY.queues.items()))),
    )
    assert render(POLICY, KEYS) == FILES
    assert list(render(shuffled, dict(reversed(list(KEYS.items())))).items()) == list(FILES.items())


def test_each_cloud_gets_its_files_and_each_user_its_connection() -> None:
    users = {f"{e.cloud}/connections/{e.name}.yaml" for e in ENTRIES if e.role is not Role.LINK}
    people = {f"{e.cloud}/nats/context/acme-{e.name}.json" for e in ENTRIES if e.name in ("ops", "boss", "sys")}
    both = {f"{cloud}/{name}" for cloud in ("aws", "azure") for name in ("accounts.conf", "cluster.conf", "plan.json")}
    assert set(FILES) == users | people | both | {"aws/hub.conf", "azure/leaf.conf", "azure/link.conf"}


def test_a_cluster_keeps_every_stream_three_times_and_trusts_its_own_routes() -> None:
    routes = ("tls://a.test:6222", "tls://b.test:6222", "tls://c.test:6222")
    hub = dataclasses.replace(
        POLICY.hub, servers=3, routes=routes, leafnodes="tls://a.test:7422,tls://b.test:7422,tls://c.test:7422"
    )
    policy = dataclasses.replace(POLICY, clouds={**POLICY.clouds, "aws": hub})
    files = render(policy, KEYS)
    replicas = {
        cloud: {stream["num_replicas"] for stream in json.loads(files[f"{cloud}/plan.json"])["streams"]}
        for cloud in ("aws", "azure")
    }
    assert replicas == {"aws": {3}, "azure": {1}}
    conf = files["aws/cluster.conf"]
    assert all(f'"{route}"' in conf for route in routes)
    assert "listen: $HUB_ROUTES" in conf
    assert "verify_cert_and_check_known_urls: true" in conf
    assert "cluster:" not in FILES["aws/cluster.conf"] + files["azure/cluster.conf"]
    assert files["azure/link.conf"].count("tls://") == 3
    assert files["aws/hub.conf"] == FILES["aws/hub.conf"]
    assert files["azure/leaf.conf"] == FILES["azure/leaf.conf"]


@pytest.mark.parametrize("role", ["hub", "leaf"])
def test_the_hand_written_configuration_is_copied_as_it_is(role: str) -> None:
    path = f"{'aws' if role == 'hub' else 'azure'}/{role}.conf"
    assert FILES[path] == server_config(role) == (ROOT / "nats" / f"{role}.conf").read_text()


def test_no_python_file_may_lie_beside_it() -> None:
    assert not list((ROOT / "nats").rglob("*.py"))


def test_nothing_private_is_rendered() -> None:
    text = "".join(FILES.values())
    assert all(identity.nkey_seed not in text for identity in IDENTITIES.values())
    assert all(f'"{key.nkey}"' in text for key in KEYS.values())


def test_a_connection_loads_back_and_has_the_queues_it_needs(tmp_path: Path) -> None:
    (tmp_path / "connection.yaml").write_text(FILES["azure/connections/both.yaml"])
    loaded = Connection.load(tmp_path)
    assert (loaded.identity, loaded.server) == ("both", POLICY.leaf.clients)
    assert set(loaded.queues) == {"thumbs", "lookup"}
    (tmp_path / "connection.yaml").write_text(FILES["aws/connections/alpha.yaml"])
    queues = Connection.load(tmp_path).queues
    assert (queues["thumbs"].inbox, queues["films"].inbox) == (["alpha"], [])


def test_whoever_has_no_use_for_an_inbox_has_a_connection_that_releases_before_inboxes_read() -> None:
    told = {
        path.rpartition("/")[2].removesuffix(".yaml")
        for path, text in FILES.items()
        if "/connections/" in path and "inbox" in yaml.safe_load(text)["queues"].get("thumbs", {})
    }
    assert told == {"alpha", "ops"}


@pytest.mark.parametrize("name", ["alpha", "beta", "both", "other", "sender"])
def test_a_connection_tells_all_that_its_identity_may_do_with_messages(name: str) -> None:
    limits = {"concurrency": 3, "concurrency_per_key": 1, "rate": Rate(5, 1000), "canary_ms": 30_000}
    queues = {**POLICY.queues, "films": dataclasses.replace(POLICY.queues["films"], **limits)}  # type: ignore[arg-type]
    entries = {**POLICY.identities, "sender": IdentityEntry("sender", "aws", Role.AGENT)}
    policy = dataclasses.replace(POLICY, queues=queues, identities=entries)
    connection = Connection.model_validate(json.loads(connection_yaml(policy, entries[name])))
    known = policy_of(connection)
    assert of_messages(known, name) == of_messages(policy, name)


def of_messages(policy: Policy, name: str) -> set[str]:
    """What an identity may publish and hear, but for what agents ask and tell of clouds."""
    given = permissions(policy, policy.identities[name])
    return {each for each in (*given.publish, *given.subscribe) if not re.match(r"stats|\$SYS|.*[.]INFO", each)}


def test_a_policy_that_asks_for_nothing_new_has_the_digest_that_releases_before_gave_it() -> None:
    queue = Queue("thumbs", ("alpha",), "both", ("resize",), home="aws", work="azure")
    policy = dataclasses.replace(POLICY, identities={}, queues={"thumbs": queue})
    assert policy.digest == "e25e5235aca63e938db66c3e23772bf69b3facb06c307977472765e6ac09801a"
    assert yaml.safe_load(FILES["aws/connections/idle.yaml"])["queues"] == {}
    assert set(yaml.safe_load(FILES["aws/connections/ops.yaml"])["queues"]) == set(POLICY.queues)


def test_a_context_finds_the_keys_where_the_identity_is() -> None:
    context = json.loads(FILES["aws/nats/context/acme-sys.json"])
    assert context["url"] == POLICY.hub.clients
    assert (context["nkey"], context["ca"]) == ("$BUNNY_IDENTITY/nats.nk", "$BUNNY_IDENTITY/ca.pem")
    assert context["inbox_prefix"] == "_INBOX_sys"
    assert context["tls_first"] is True


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", "a\x00b", "a\u2028b"])
def test_a_string_that_could_be_misread_is_not_written(text: str) -> None:
    with pytest.raises(ValueError, match="not a string"):
        write({"key": text})


def test_a_key_that_would_be_obeyed_is_quoted() -> None:
    assert write({"include": {"a": 1}}).strip() == '"include": { a: 1 }'


@given(st.lists(st.text("abc*>.$_-", min_size=1, max_size=30), max_size=12))
def test_long_and_noted_values_keep_their_order(values: list[str]) -> None:
    text = write({"list": [Noted("why", value) for value in values]})
    assert [json.loads(line) for line in text.splitlines() if line.strip().startswith('"')] == values


# --- permissions -----------------------------------------------------------------------------------


def test_a_service_has_what_all_its_queues_need() -> None:
    mine = subjects.JobKey("lookup", "both", SESSION, 1)
    theirs = subjects.JobKey("thumbs", "alpha", SESSION, 1)
    assert may("both", subjects.job(mine, "normal"))
    assert may("both", subjects.result(theirs))
    assert may("both", subjects.next_message("JOBS_thumbs", "both-normal", "aws"))
    assert not may("both", subjects.job(theirs, "normal"))
    assert not may("both", subjects.result(mine))


def test_a_worker_settles_its_own_consumer_in_both_forms_and_no_other() -> None:
    for consumer, allowed in (
        ("both-normal", True),
        ("both-low", True),
        ("both-urgent", False),
        ("other-normal", False),
    ):
        tail = f"JOBS_thumbs.{consumer}.1.2.3.4.5"
        assert may("both", f"$JS.ACK.{tail}") is allowed
        assert may("both", f"$JS.ACK.aws.hash.{tail}") is allowed
    assert not may("both", "$JS.ACK.JOBS_films.other-normal.1.2.3.4.5")


def test_a_producer_reads_its_own_inbox_and_no_other() -> None:
    for name, allowed in (("alpha", True), ("beta", False), ("both", False), ("prov-aws", False)):
        assert may(name, subjects.next_message("RESULTS_thumbs", "inbox-alpha")) is allowed
        for ack in subjects.acks("RESULTS_thumbs", "inbox-alpha", "aws"):
            assert may(name, ack.replace("*", "hash").replace(">", "1.2.3.4.5")) is allowed
    for stream, consumer in (("RESULTS_thumbs", "inbox-beta"), ("RESULTS_films", "inbox-alpha")):
        assert not may("alpha", subjects.next_message(stream, consumer))
    assert not may("alpha", subjects.api_call("CONSUMER.CREATE", "RESULTS_thumbs", "inbox-alpha"))


def test_an_inbox_delivers_its_producer_s_results_until_they_are_acked() -> None:
    (inbox,) = [each for each in plan(POLICY, "aws")["consumers"] if each["config"]["name"].startswith("inbox-")]
    assert inbox["stream"] == "RESULTS_thumbs"
    config = inbox["config"]
    assert (config["durable_name"], config["filter_subject"]) == ("inbox-alpha", "results.thumbs.alpha.*.*.*")
    assert (config["ack_policy"], config["max_deliver"], config["deliver_policy"]) == ("explicit", -1, "all")
    assert "deliver_subject" not in config
    (home,) = [stream for stream in plan(POLICY, "aws")["streams"] if stream["name"] == "RESULTS_thumbs"]
    assert home["retention"] == "limits"  # so that whoever does not read holds nothing back
    assert not [each for each in plan(POLICY, "azure")["consumers"] if each["config"]["name"].startswith("inbox-")]


def test_whoever_needs_nothing_may_do_nothing() -> None:
    for name in ("idle",):
        entry = POLICY.identities[name]
        assert grants(POLICY, entry) == ()
        assert permissions(POLICY, entry).subscribe == (f"_INBOX_{name}.>",)
        # An empty list of what is allowed would be read as everything.
        section = FILES[f"{entry.cloud}/accounts.conf"].split(f'"{KEYS[name].nkey}"')[1]
        assert section.lstrip().split("\n")[1].strip().startswith('permissions: { publish: { deny: [">"] }')


def test_an_agent_sees_counts_of_its_cloud_and_tells_and_hears_nobody_alone() -> None:
    assert may("agent", "$JS.API.STREAM.INFO.DEAD_thumbs")
    assert may("agent", "$JS.API.CONSUMER.INFO.JOBS_lookup.beta-normal")
    assert not may("agent", "$JS.API.STREAM.INFO.JOBS_thumbs"), "that is in the other cloud"
    assert not any(may("agent", f"$JS.API.{call}") for call in ("STREAM.LIST", "DIRECT.GET.JOBS_lookup"))
    assert not may("agent", "$SYS.REQ.SERVER.PING.VARZ")
    assert "stats.aws" not in "".join(FILES.values())


def test_an_agent_of_the_producers_cloud_sends_canaries_of_a_queue_that_has_them_and_no_other_job() -> None:
    agent = IdentityEntry("watch", "aws", Role.AGENT)
    quiet = dataclasses.replace(POLICY, identities={**POLICY.identities, "watch": agent})
    queues = {**quiet.queues, "thumbs": dataclasses.replace(quiet.queues["thumbs"], canary_ms=30_000)}
    policy = dataclasses.replace(quiet, queues=queues)
    more = set(grants(policy, agent)) - set(grants(quiet, agent))
    assert {(each.kind, each.subject, each.cloud) for each in more} == {
        ("publish", "jobs.thumbs.high.watch.*.*", "aws"),
        ("publish", "$JS.API.DIRECT.GET.JOBS_thumbs.jobs.thumbs.high.watch.*.*", "aws"),
        ("publish", "$JS.API.DIRECT.GET.RESULTS_thumbs.results.thumbs.watch.*.*.*", "aws"),
        ("subscribe", "done.thumbs.watch.>", "aws"),
    }
    for name, entry in policy.identities.items():  # nor is anybody else's cloud, or role, told of it
        assert name == "watch" or grants(policy, entry) == grants(quiet, entry)


def test_agents_of_both_clouds_are_heard_through_the_link() -> None:
    policy = dataclasses.replace(
        POLICY, identities={**POLICY.identities, "other-agent": IdentityEntry("other-agent", "aws", Role.AGENT)}
    )
    mine = permissions(policy, policy.identities["agent"])
    assert "stats.azure.agent" in mine.publish
    assert "stats.aws.*" in mine.subscribe
    assert {c.remote for c in crossings(policy)} > {"stats.aws.*", "stats.azure.*"}


def test_a_system_identity_is_told_and_acts_on_nothing() -> None:
    for allowed in ("PING", "PING.VARZ", "ID.JSZ", "ID.LEAFZ"):
        assert may("sys", f"$SYS.REQ.SERVER.{allowed}")
    for verb in ("RELOAD", "KICK", "LDM", "PROFILEZ"):
        assert not may("sys", f"$SYS.REQ.SERVER.PING.{verb}")
        assert not may("sys", f"$SYS.REQ.SERVER.ID.{verb}")
    assert not any(may("sys", f"$JS.API.{call}") for call in ("INFO", "STREAM.LIST", "STREAM.INFO.JOBS_thumbs"))
    assert "users" not in FILES["aws/accounts.conf"].split("  RELAY: {")[0]


def test_the_link_carries_what_crosses_and_replies() -> None:
    crossing = crossings(POLICY)
    allowed = link_permissions(POLICY, crossing)
    assert sorted(allowed.publish + allowed.subscribe) == sorted([*(c.remote for c in crossing), "_R_.>", "_R_.>"])
    assert set(allowed.publish) & set(allowed.subscribe) == {"_R_.>"}


def test_what_an_identity_may_do_in_the_other_cloud_crosses() -> None:
    remote = {crossing.remote for crossing in crossings(POLICY)}
    for entry in ENTRIES:
        for grant in grants(POLICY, entry):
            # A service may be allowed less than crosses: of events, its own jobs' alone.
            assert grant.cloud == entry.cloud or any(covers(wider, grant.subject) for wider in remote)


# --- the plan --------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", QUEUES, ids=lambda q: q.name)
def test_every_message_has_exactly_one_stream(queue: Queue) -> None:
    key = subjects.JobKey(queue.name, queue.producers[0], SESSION, 7, 1)
    written = {
        queue.home: [(subjects.job(key, "normal"), f"JOBS_{queue.name}")],
        queue.work: [
            (subjects.result(key), f"RESULTS_{queue.name}"),
            (subjects.start(key), f"STARTS_{queue.name}"),
            (subjects.dead(key), f"DEAD_{queue.name}"),
            (subjects.refused(queue.name, SESSION), f"REFUSED_{queue.name}"),
        ],
    }
    for cloud, expected in written.items():
        for subject, stream in expected:
            assert [n for n, s in streams(cloud).items() if any(covers(p, subject) for p in s.get("subjects", []))] == [
                stream
            ]
    # Republished, it must not be stored a second time.
    assert not any(covers(p, subjects.done(key)) for s in streams(queue.home).values() for p in s.get("subjects", []))


@pytest.mark.parametrize("queue", QUEUES, ids=lambda q: q.name)
def test_the_copy_can_never_stall_for_a_limit_that_its_source_has_not(queue: Queue) -> None:
    name = f"RESULTS_{queue.name}"
    source, copy = streams(queue.work)[name], streams(queue.home)[name]
    assert copy["max_msg_size"] == -1
    assert not copy["discard_new_per_subject"]
    assert copy["discard"] == "new"
    assert source["retention"] == copy["retention"] == "limits"
    assert source["max_age"] // 1_000_000 > queue.deadline_ms + POLICY.max_outage_ms


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_all_streams_can_be_read_by_name_and_none_wiped_by_a_header(cloud: str) -> None:
    for stream in streams(cloud).values():
        assert stream["allow_direct"]
        assert not stream["allow_rollup_hdrs"]
        assert stream["max_bytes"] > 0
        assert not (stream["retention"] == "workqueue" and stream.get("sources"))


@given(st.integers(1, 10_000_000), st.integers(60_000, 30 * 86_400_000))
def test_thresholds_can_be_reached_and_warn_before_they_are_critical(max_pending: int, max_outage: int) -> None:
    queue = dataclasses.replace(QUEUES[0], max_pending=max_pending)
    for found in (thresholds.stored_jobs(queue), thresholds.put_aside(queue)):
        warn, critical = (int(found[f"io.nats.monitor.subjects-{level}"]) for level in ("warn", "critical"))
        # The CLI takes the opposite order for the opposite meaning.
        assert 0 < warn < critical
        assert critical <= max(max_pending, 2)
    silence = thresholds.copy(queue, max_outage)["io.nats.monitor.seen-critical"]
    assert 5_000 <= int(silence.removesuffix("s")) * 1000 <= max_outage
    assert thresholds.workers(queue, 65_536, 4_096).keys() > thresholds.home(queue).keys()


def test_a_worker_can_put_aside_whatever_a_stream_of_jobs_takes() -> None:
    for queue in QUEUES:
        largest = streams(queue.home)[f"JOBS_{queue.name}"]["max_msg_size"]
        assert largest > INLINE_LIMIT
        for kind in ("DEAD", "REFUSED"):
            aside = streams(queue.work)[f"{kind}_{queue.name}"]
            assert aside["max_msg_size"] == -1
            assert aside["max_bytes"] > largest


def test_no_stream_remembers_ids_for_longer_than_it_keeps_messages() -> None:
    """A server refuses such a stream, and a policy may ask for a `result_ttl` below the window."""
    short = dataclasses.replace(QUEUES[0], deadline_ms=1_000, result_ttl_ms=90_000)
    for cloud in ("aws", "azure"):
        for stream in plan(dataclasses.replace(POLICY, queues={"thumbs": short}), cloud)["streams"]:
            assert 0 < stream["duplicate_window"] <= (stream["max_age"] or 120_000_000_000)


def test_what_crosses_of_as_many_queues_as_there_may_be_is_said_in_one_line_that_the_leaf_takes() -> None:
    """A hub tells a leaf all permissions of the link in its INFO, and ``>`` takes six bytes of that JSON."""
    names = [f"{n:03}{'q' * 60}" for n in range(MAX_QUEUES)]
    pool = "w" * 63
    queues = {
        name: Queue(name, ("alpha",), pool, ("resize",), home="aws", work="azure", payload_bytes=1 << 30)
        for name in names
    }
    policy = dataclasses.replace(POLICY, queues=queues)
    allowed = link_permissions(policy, crossings(policy))
    line = json.dumps([*allowed.publish, *allowed.subscribe]).replace(">", "\\u003e")
    (taken,) = re.findall(r"^max_control_line: (\d+) ", server_config("leaf"), re.MULTILINE)
    rest = 64 * 1024  # what else an INFO says
    assert len(line) + rest < 16 * int(taken)
    assert len(line) > 16 * 4096
