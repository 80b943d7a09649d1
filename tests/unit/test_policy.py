"""The policy: the scaffold works, and each mistake is one line that says where, what and the nearest right thing."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import PolicyError
from bridge.policy import SCAFFOLD, Policy, Queue, Rate, Role, check_policy, load_policy
from bridge.policy.quantities import parse_duration, parse_size, spell_duration, spell_size
from bridge.policy.queues import MAX_QUEUES

QUEUE = """
  lookup:
    producers: [bunny]
    workers: relay-api
    kinds: [find]
"""


def load(folder: Path, text: str) -> Policy:
    return load_policy(write(folder, text))


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "bridge.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return path


def changed(old: str, new: str) -> str:
    """The scaffold with one piece of text replaced (everywhere below, if it stands more than once)."""
    assert old in SCAFFOLD
    return SCAFFOLD.replace(old, new, 1)


# --- what works ------------------------------------------------------------------------------------


def test_the_scaffold_loads_and_means_what_it_says(tmp_path: Path) -> None:
    policy = load(tmp_path, SCAFFOLD)
    assert (policy.hub.name, policy.leaf.name) == ("aws", "azure")
    assert policy.hub.leafnodes is not None
    assert policy.leaf.leafnodes is None
    queue = policy.queues["thumbnails"]
    assert (queue.home, queue.work) == ("aws", "azure")
    roles = {(entry.cloud, entry.role) for entry in policy.identities.values()}
    assert {(cloud, role) for cloud in policy.clouds for role in (Role.INSPECTOR, Role.PROVISIONER)} < roles


def test_the_scaffold_shows_every_key_and_the_defaults(tmp_path: Path) -> None:
    """What it says are the defaults are the values one gets without them, and no setting is left out."""
    short = re.sub(r"(?ms)^    # The rest are the defaults\..*", "", SCAFFOLD)
    short = re.sub(r"(?m)^(trust:|  threshold.*|  expires.*|max_outage.*|    durability.*|    servers.*)\n", "", short)
    assert load(tmp_path, short) == load(tmp_path, SCAFFOLD)
    # What has no default stands there as a comment, to be taken out of it.
    whole = re.sub(r"(?m)^    # (concurrency|concurrency_per_key|rate):", r"    \1:", SCAFFOLD)
    assert load(tmp_path, whole).queues["thumbnails"].rate == Rate(100, 1000)
    shown = yaml.safe_load(whole)["queues"]["thumbnails"]
    settings_ = {field.name.removesuffix("_ms") for field in dataclasses.fields(Queue)} - {"name", "home", "work"}
    settings_ = settings_ - {"packing", "receipts_bytes"} | {"compression", "padding", "receipts"}
    assert set(shown) == settings_


def test_a_queue_works_in_the_other_direction(tmp_path: Path) -> None:
    queue = load(tmp_path, SCAFFOLD + QUEUE).queues["lookup"]
    assert (queue.home, queue.work) == ("azure", "aws")


def test_every_role_can_be_declared_and_an_idle_identity_is_fine(tmp_path: Path) -> None:
    more = "".join(
        f"  idle-{role}: {{cloud: aws, role: {role}}}\n" for role in ("service", "operator", "agent", "system")
    )
    policy = load(tmp_path, changed("identities:\n", "identities:\n" + more))
    assert policy.identities["idle-operator"].role is Role.OPERATOR


def test_a_cluster_has_three_servers_and_a_route_to_each(tmp_path: Path) -> None:
    addresses = ["tls://a:1", "tls://b:1", "tls://c:1"]
    text = changed("    servers: 1 ", f"    servers: 3\n    routes: {addresses} ").replace(
        '"tls://relay-nats.relay.svc:4222"', f"{addresses}"
    )
    hub = load(tmp_path, text).hub
    assert (hub.servers, hub.routes) == (3, tuple(addresses))
    assert hub.clients == ",".join(addresses)
    assert hub.leafnodes == "tls://relay-leaf.bridge.internal:7422"  # one name may stand for all three


def test_values_are_read_as_written(tmp_path: Path) -> None:
    text = changed("ack_wait: 30s", "ack_wait: 1m30s").replace("max_pending: 1000000", "max_pending: 1_000")
    text = text.replace("factor: 2,", "factor: 1.5,").replace("max_bytes: 4GiB", "max_bytes: 2048MiB")
    queue = load(tmp_path, text.replace("durability: power-loss", "durability: process")).queues["thumbnails"]
    assert (queue.ack_wait_ms, queue.max_pending, queue.backoff.factor) == (90_000, 1000, 1.5)
    assert queue.max_bytes == 2 * 1024**3


def test_the_digest_is_of_the_values_not_of_the_text(tmp_path: Path) -> None:
    digest = load(tmp_path, SCAFFOLD).digest
    assert load(tmp_path, re.sub(r"#.*", "", SCAFFOLD).replace("24h", "1d")).digest == digest
    assert load(tmp_path, changed("result_ttl: 24h", "result_ttl: 25h")).digest != digest


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + SCAFFOLD.replace("\n", "\r\n")) == load(tmp_path, SCAFFOLD)


# --- what does not ---------------------------------------------------------------------------------

MISTAKES: list[tuple[str, str, str, str]] = [
    # what stands in the scaffold, what is put there (^ marks the line of the error), problem, remedy
    ("bridge: acme", "bridge: acme\n^brigde: acme", "unknown key 'brigde' in the policy", "did you mean 'bridge'?"),
    ("    ack_wait: 30s", "^    ack_wiat: 30s", "unknown key 'ack_wiat' in queue 'thumbnails'", "'ack_wait'"),
    ("bridge: acme", "bridge: acme\n^zzz: 1", "unknown key 'zzz'", "say one of"),
    ("factor: 2,", "faktor: 2,", "unknown key 'faktor' in backoff", "'factor'"),
    ("threshold: 1", "treshold: 1", "unknown key 'treshold' in trust", "'threshold'"),
    ("    role: leaf", "    role: leaf\n^    Clients: a", "unknown key 'Clients' in cloud 'azure'", "'clients'"),
    ("  bunny: {cloud: azure}", "^  bunny: {clod: azure, cloud: azure}", "unknown key 'clod'", "'cloud'"),
    ("    ack_wait: 30s", "    ack_wait: 30s\n^    ack_wait: 40s", "'ack_wait' stands twice", "keep one (line"),
    ("  bunny: {cloud: azure}", "  bunny: {cloud: azure}\n^  bunny: {cloud: aws}", "'bunny' stands twice", "keep"),
    *(
        (
            "    ack_wait: 30s",
            f"    ack_wait: 30s\n^    {key}: 1",
            f"'{key}' in queue 'thumbnails' is not built",
            "remove",
        )
        for key in ("cancel", "retention", "audit", "slo", "events")
    ),
    *(
        ("    ack_wait: 30s", f"    ack_wait: 30s\n^    {key}: 1", f"'{key}' is nothing that queue 'thumbnails'", where)
        for key, where in (
            ("priority", "priority="),
            ("delay", "delay="),
            ("replay", "`bunny dead replay`"),
            ("schedules", "beside queues:"),
            ("cron", "under schedules:"),
            ("rate_limit", "rate:"),
        )
    ),
    *(
        ("    ack_wait: 30s", f"    ack_wait: 30s\n^    {limit}", problem, remedy)
        for limit, problem, remedy in (
            ("concurrency: 0", "concurrency: 0 is too little", "say at least 1"),
            ("concurrency: 1001", "concurrency: 1001 is too much", "say at most 1000"),
            ("concurrency_per_key: many", "concurrency_per_key: 'many' is not a whole number", "say"),
            ("concurrency:", "concurrency is nothing and wants a value", "add concurrency: 1"),
            ("rate: 100", "rate is a whole number and wants keys", "write its keys"),
            ("rate: {per: 1s}", "rate has no 'jobs'", "add jobs: 1"),
            ("rate: {jobs: 5}", "rate has no 'per'", "add per: 1s"),
            ("rate: {jobs: 5, per: 10ms}", "per: 10ms is too little", "say at least 1s"),
            ("rate: {jobs: 5, per: 1s, burst: 6}", "rate: burst 6 is above jobs 5", "say at most 5"),
        )
    ),
    ("compression: off", "compression: gzip", "compression: 'gzip' is unknown", "say one of 'zstd', 'off'"),
    ("compression: off", "compression: on", "compression: YAML takes 'on' for a yes or no", 'write "on"'),
    ("padding: off", "padding: padmé", "padding: 'padmé' is unknown", "'padme'"),
    (
        "compression: off                # or `zstd`; its size then tells of what is in it: see docs/threats.md\n"
        "    padding: off",
        "compression: zstd\n^    padding: padme",
        "compression and padding: what is compressed",
        "say one of them",
    ),
    (
        "max_payload: 256KiB             # of one job's arguments, and of one result",
        "max_payload: 1000MiB\n^    payload_bytes: 1004MiB\n    padding: padme\n",
        "payload_bytes 1004MiB cannot hold one payload of max_payload 1000MiB",
        "say at least 1012MiB",
    ),
    ("bridge: acme", "bridge: acme\n^isolation: strict", "'isolation' in the policy is not built yet", "remove"),
    # names
    ("bridge: acme", "^bridge: acme.example", "NATS cannot carry 'acme.example' as bridge", "say 'acme-example'"),
    ("bridge: acme", "^bridge: Acme", "NATS cannot carry 'Acme'", "say 'acme'"),
    ("bridge: acme", "^bridge: '*'", "NATS cannot carry '*'", "say 'relay-api'"),
    ("bridge: acme", "^bridge: " + "a" * 64, "NATS cannot carry 'aaa", "say 'aaa"),
    ("  relay-api: {", "^  relay api: {", "NATS cannot carry 'relay api' as identity", "say 'relay-api'"),
    ("  thumbnails:\n", "^  thumb.nails:\n", "NATS cannot carry 'thumb.nails' as queue", "say 'thumb-nails'"),
    ("[resize, probe]", "[resize, 'probe>']", "NATS cannot carry 'probe>' as kind", "say 'probe'"),
    ("[resize, probe]", '[resize, "pro\\nbe"]', "NATS cannot carry 'pro\\nbe' as kind", "say 'pro-be'"),
    ("  aws:\n", "^  AWS:\n", "NATS cannot carry 'AWS' as cloud", "say 'aws'"),
    ("  bunny: {", "^  no: {cloud: aws}\n  bunny: {", "YAML takes the name 'no' for a yes or no", 'write "no"'),
    ("  aws:\n", '^  "a\\nb":\n', "NATS cannot carry 'a\\nb' as cloud", "say 'a-b'"),
    ("  bunny: {", "^  bun.ny: {", "NATS cannot carry 'bun.ny' as identity", "say 'bun-ny'"),
    ("bridge: acme", "^bridge: 2024", "YAML takes '2024' for a whole number", 'write "2024"'),
    ("bridge: acme", "^bridge: 2024-01-01", "YAML takes '2024-01-01' for a date", 'write "2024-01-01"'),
    ("[resize, probe]", "[resize, on]", "kinds holds a yes or no, not a name", 'write "on"'),
    # clouds and identities
    ("relay-api: {cloud: aws}", "relay-api: {}", "identity 'relay-api' has no 'cloud'", "add cloud: 'aws' or 'azure'"),
    ("relay-api: {cloud: aws}", "relay-api: {cloud: asw}", "in cloud 'asw', which is not declared", "'aws'"),
    ("relay-api: {cloud: aws}", "relay-api: aws", "identity 'relay-api' is text and wants keys", "write its keys"),
    ("relay-api: {cloud: aws}", "relay-api: {cloud: aws, role: producer}", "role 'producer' is not written", "remove"),
    ("role: inspector", "role: inspektor", "role: 'inspektor' is unknown", "did you mean 'inspector'?"),
    (
        "provisioner-azure: {cloud: azure, role: provisioner}",
        "",
        "no provisioner in cloud 'azure'",
        "role: provisioner}",
    ),
    (
        "azure-link: {cloud: azure, role: link}",
        "",
        "no link in cloud 'azure'",
        "role: link}",
    ),
    ("azure-link: {cloud: azure", "azure-link: {cloud: aws", "a link in cloud 'aws', which is the hub", "in the leaf"),
    ("  bunny: {", "  other: {cloud: azure, role: link}\n  bunny: {", "a second link in cloud 'azure': line", "remove"),
    (
        "role: leaf",
        "role: hub\n    leafnodes: tls://a:1",
        "a second hub: 'aws' is the hub already",
        "make one the leaf",
    ),
    ("role: leaf", "role: leaff", "role: 'leaff' is unknown", "did you mean 'leaf'?"),
    ("role: leaf", "role: leaf\n^    leafnodes: tls://a:1", "a leaf takes no links", "remove"),
    ("identities:\n", "  gcp: {role: leaf, clients: tls://a:1}\nidentities:\n", "a second leaf is not built", "remove"),
    # clusters
    *(
        ("    servers: 1 ", f"^    servers: {count} ", f"servers: {count} is neither one nor a cluster", "say 1 or 3")
        for count in (2, 4, 5)
    ),
    ("    servers: 1 ", "^    servers: 0 ", "servers: 0 is too little", "say at least 1"),
    ("    servers: 1 ", "^    servers: three ", "servers: 'three' is not a whole number", "say one from 1 to 99"),
    ("    servers: 1 ", "    servers: 3 ", "cloud 'aws' has no 'routes'", "add routes: [tls://"),
    ("    servers: 1 ", "^    routes: [tls://a:1]\n    servers: 1 ", "routes of a single server", "say servers: 3"),
    (
        "    servers: 1 ",
        "    servers: 3\n^    routes: tls://a:1 ",
        "routes has 1 of 3 addresses",
        "by a name of its own",
    ),
    (
        "    servers: 1 ",
        "    servers: 3\n^    routes: [tls://a:1, tls://a:1, tls://b:1] ",
        "routes has 'tls://a:1' twice",
        "keep one",
    ),
    (
        "    servers: 1 ",
        "    servers: 3\n^    routes: [tls://a:1, tls://b:1, tls://c:1, tls://d:1] ",
        "routes has 4 addresses for 3 servers",
        "keep one for each",
    ),
    (
        '"tls://relay-nats.relay.svc:4222"',
        "[tls://a:1, tls://b:1]",
        "clients has 2 addresses for 1 server",
        "keep one for each server",
    ),
    ('"tls://relay-nats.relay.svc:4222"', "[tls://a:1, b]", "clients: 'b' is not tls://host:port", "say tls://b:4222"),
    ('    leafnodes: "tls', '    # "tls', "cloud 'aws' has no 'leafnodes'", "add leafnodes: tls://host:7422"),
    ("durability: power-loss", "durability: powerloss", "durability: 'powerloss' is unknown", "'power-loss'"),
    *(
        ('"tls://bunny-nats.bunny.svc:4222"', address, "is not tls://host:port", "say " + near)
        for address, near in (
            ("bunny.svc", "tls://bunny.svc:4222"),
            ("nats://bunny.svc:4333", "tls://bunny.svc:4333"),
            ("tls://bunny.svc", "tls://bunny.svc:4222"),
            ("tls://bunny.svc:4222/", "tls://bunny.svc:4222"),
            ("tls://bunny.svc:66000", "tls://bunny.svc:4222"),
            ("tls://user@bunny.svc:4222", "tls://bunny.svc:4222"),
            ('"tls://a:1\\"\\nsystem_account: X"', "tls://a:1"),
        )
    ),
    ('"tls://bunny-nats.bunny.svc:4222"', "tls://" + "a" * 5000 + "!", "is not tls://host:port", "for example"),
    # queues
    (
        "[relay-api]",
        "[relay-api, bunny]",
        "the producers of queue 'thumbnails' sit in two clouds: 'relay",
        "make a queue",
    ),
    ("workers: bunny", "workers: relay-api", "is produced and worked in cloud 'aws'", "name a pool of the other cloud"),
    ("workers: bunny", "workers: buny", "identity 'buny' is not declared", "did you mean 'bunny'?"),
    (
        "workers: bunny",
        "workers: ops-azure",
        "'ops-azure' cannot produce or work, its role is inspector",
        "without a role",
    ),
    ("workers: bunny", "workers: azure-link", "its role is link", "without a role"),
    (
        "[relay-api]",
        "[provisioner-aws]",
        "its role is provisioner",
        "without",
    ),
    ("workers: bunny", "workers: [bunny]", "workers is a list and wants a value", "add workers:"),
    ("[relay-api]", "relay-api", "producers is text and wants a list of names", "write producers: [name]"),
    ("[relay-api]", "[]", "producers is empty and wants a list", "write producers: [name]"),
    ("[relay-api]", "[relay-api, relay-api]", "producers has 'relay-api' twice", "keep one"),
    ("kinds: [resize, probe]", "", "queue 'thumbnails' has no 'kinds'", "add kinds"),
    # durations, sizes, numbers
    ("ack_wait: 30s", "ack_wait: 30", "ack_wait: '30' has no unit", "say 30s"),
    ("ack_wait: 30s", "ack_wait: 30 s", "ack_wait: '30 s' is not a duration", "say 30s"),
    ("ack_wait: 30s", "ack_wait: 30sec", "ack_wait: '30sec' has the unknown unit 'sec'", "say 30s"),
    ("ack_wait: 30s", "ack_wait: 30S", "unknown unit 'S'", "say 30s"),
    ("ack_wait: 30s", "ack_wait: 3 fortnights", "unknown unit 'fortnights'", "say one of d, h, m, s, ms"),
    ("ack_wait: 30s", "ack_wait: 1.5m", "'1.5m' is not a duration in whole numbers", "say 1m30s"),
    ("ack_wait: 30s", "ack_wait: -30s", "'-30s' is negative", "say 30s"),
    ("ack_wait: 30s", "ack_wait: 0s", "ack_wait: 0s is too little", "say at least 1s"),
    ("ack_wait: 30s", "ack_wait: 999ms", "ack_wait: 999ms is too little", "say at least 1s"),
    ("ack_wait: 30s", "ack_wait: true", "ack_wait: 'true' is not a duration", "say 30s, for example"),
    ("ack_wait: 30s", "ack_wait: .nan", "ack_wait: '.nan' is not a duration", "say 30s"),
    ("ack_wait: 30s", "ack_wait: 1:30", "ack_wait: '1:30' is not a duration", "say 30s"),
    ("ack_wait: 30s", "ack_wait:", "ack_wait is nothing and wants a value", "remove the key"),
    ("ack_wait: 30s", "ack_wait: {a: 1}", "ack_wait is a mapping and wants a value", "remove the key"),
    ("ack_wait: 30s", "ack_wait: 999999999999d", "ack_wait: 999999999999d is too much", "say at most 1h"),
    ("result_ttl: 24h", "result_ttl: 13h", "must exceed deadline + max_outage (1h + 12h)", "say 14h"),
    ("result_ttl: 24h", "result_ttl: 24", "result_ttl: '24' has no unit", "say 24h"),
    ("max_outage: 12h", "max_outage: 30d", "deadline + max_outage (1h + 30d)", "say 30d2h"),
    ("deadline: 1h ", "deadline: 31d ", "(31d + 12h)", "lower deadline or max_outage"),
    ("deadline: 1h ", "deadline: 12h ", "result_ttl 1d must exceed deadline + max_outage (12h + 12h)", "say 1d1h"),
    ("max_payload: 256KiB", "max_payload: 17GiB", "max_payload: 17GiB is too much", "say at most 16GiB"),
    (
        "max_payload: 256KiB",
        "max_payload: 1GiB\n    payload_bytes: 1GiB",
        "payload_bytes 1GiB cannot hold one payload of max_payload 1GiB",
        "say at least 1028MiB",
    ),
    (
        "max_payload: 256KiB",
        "payload_bytes: 1GiB",
        "payload_bytes, but max_payload 256KiB travels inline",
        "raise max_payload, or remove it",
    ),
    (
        "max_payload: 256KiB",
        "max_payload: 16GiB\n    payload_bytes: 513GiB",
        "513GiB is too much",
        "say at most 512GiB",
    ),
    ("max_payload: 256KiB", "max_payload: 262144", "'262144' has no unit", "say 262144B"),
    ("max_payload: 256KiB", "max_payload: 256KB", "unknown unit 'KB'", "say 256KiB"),
    ("max_payload: 256KiB", "max_payload: 256k", "unknown unit 'k'", "say 256KiB"),
    ("max_payload: 256KiB", "max_payload: 0B", "max_payload: 0B is too little", "say at least 1B"),
    ("max_payload: 256KiB", "max_payload: -1KiB", "'-1KiB' is negative", "say 1KiB"),
    ("max_bytes: 4GiB", "max_bytes: 1.5GiB", "is not a size in whole numbers", "say 1536MiB"),
    ("max_bytes: 4GiB", "max_bytes: 4PiB", "unknown unit 'PiB'", "say one of TiB, GiB"),
    ("max_bytes: 4GiB", "max_bytes: 4TiB", "max_bytes: 4TiB is too much", "say at most 512GiB"),
    ("max_pending: 1000000", "max_pending: 99999999999", "max_pending: 99999999999 is too much", "at most 10000000"),
    ("max_pending: 1000000", "max_pending: -1", "max_pending: -1 is too little", "say at least 1"),
    ("max_pending: 1000000", "max_pending: 0", "max_pending: 0 is too little", "say at least 1"),
    ("max_attempts: 5", "max_attempts: 5.0", "'5.0' is not a whole number", "say 5"),
    ("max_attempts: 5", 'max_attempts: "5"', "'5' is not a whole number", "say 5"),
    ("max_attempts: 5", "max_attempts: yes", "'yes' is not a whole number", "say one from 1 to 1000"),
    ("max_attempts: 5", "max_attempts: 010", "'010' is not a whole number", "say one from"),
    ("max_attempts: 5", "max_attempts: 0x10", "'0x10' is not a whole number", "say one from"),
    ("max_attempts: 5", "max_attempts: .inf", "'.inf' is not a whole number", "say one from"),
    ("factor: 2,", "factor: 0.5,", "factor: '0.5' is out of range", "say one from 1 to 100"),
    ("factor: 2,", "factor: .nan,", "factor: '.nan' is not a number", "say one from 1 to 100"),
    ("factor: 2,", "factor: true,", "factor: 'true' is not a number", "say one from 1 to 100"),
    ("jitter: 0.2", "jitter: 1.1", "jitter: '1.1' is out of range", "say one from 0 to 1"),
    ("jitter: 0.2", "jitter: -0.1", "jitter: '-0.1' is out of range", "say one from 0 to 1"),
    ("max: 5m", "max: 500ms", "backoff: max 500ms is below initial 1s", "say at least 1s"),
    ("inbox: []", "inbox: [bunny]", "inbox: 'bunny' is no producer of queue 'thumbnails'", "say one of 'relay-api'"),
    ("inbox: []", "inbox: [relay_api]", "inbox: 'relay_api' is no producer", "did you mean 'relay-api'?"),
    ("inbox: []", "inbox: relay-api", "inbox is text and wants a list of names", "write inbox: [name]"),
    ("inbox: []", "inbox: [relay-api, relay-api]", "inbox has 'relay-api' twice", "keep one"),
    ("inbox: []", "inbox:", "inbox is nothing and wants a list of names", "write inbox: [name]"),
    ("errors: type", "errors: all", "errors: 'all' is unknown", "say one of 'type', 'message', 'traceback'"),
    ("errors: type", "errors: mesage", "errors: 'mesage' is unknown", "did you mean 'message'?"),
    ("errors: type", "errors: [type]", "errors is a list", ""),
    ("canary: never", "canary: 1s", "canary: 1s is too little", "say at least 5s"),
    ("canary: never", "canary: 30", "canary: '30' has no unit", "say 30s"),
    ("canary: never", "canary: 30s", "queue 'thumbnails' has a canary, and cloud 'aws' no agent", "role: agent"),
    (
        "kinds: [resize, probe]",
        "kinds: [resize, bunny-canary]",
        "kind 'bunny-canary' is the bridge's own",
        "canary: 30s",
    ),
    ("threshold: 1", "threshold: 0", "threshold: 0 is too little", "say at least 1"),
    ("expires: 30d", "expires: 30", "expires: '30' has no unit", "say 30d"),
    ("max_outage: 12h", "max_outage: 12", "max_outage: '12' has no unit", "say 12h"),
    # the whole
    ("version: 1", "version: 2", "version 2 is not known to this release", "say version: 1"),
    ("version: 1", "", "the policy has no 'version'", "add version: 1"),
    ("bridge: acme", "", "the policy has no 'bridge'", "add bridge:"),
    ("queues:", "queues: {}\nisolation:", "queues is empty", "declare a queue"),
    # YAML
    ("  threshold: 1", "^\tthreshold: 1", "a tab where YAML wants spaces", "indent with spaces"),
    ("  threshold: 1", "^  threshold: &one 1", "an anchor, 'one'", "remove it"),
    ("  threshold: 1", "^  threshold: *one", "an alias, 'one'", "write the value out"),
    ("  threshold: 1", "^  threshold: !!int 1", "a YAML tag, 'tag:yaml.org,2002:int'", "remove it"),
    ("  threshold: 1", "^  threshold: !!python/object/apply:os.system [ls]", "a YAML tag", "remove it"),
    ("  threshold: 1", "  threshold: 1\n^---\na: b", "a second document starts here", "keep one"),
    ("  threshold: 1", "^  ? [a]\n  : 1", "a list where a key belongs", "write one word as the key"),
    ("[relay-api]", "[relay-api", "not YAML", "compare it with what `bunny init` writes"),
    ("bridge: acme", "^bridge: acme: corp", "not YAML: mapping values are not allowed here", "compare"),
    ("bridge: acme", "bridge: a\x07cme", "a control character", "write plain text"),
    ("bridge: acme", '^bridge: "\\UFFFFFFFF"', "not YAML", "compare"),
]


@pytest.mark.parametrize(("old", "new", "problem", "remedy"), MISTAKES, ids=[m[2][:60] for m in MISTAKES])
def test_each_mistake_is_one_line_with_the_nearest_right_thing(
    old: str, new: str, problem: str, remedy: str, tmp_path: Path
) -> None:
    text = changed(old, new.replace("^", ""))
    path = write(tmp_path, text)
    errors = check_policy(path)
    assert [str(error) for error in errors if problem in error.problem and remedy in error.remedy], errors
    assert len(errors) <= 3, errors  # its consequences are not told again and again
    for error in errors:
        assert "\n" not in str(error)
        assert str(error).startswith(f"{path}:{error.line}: " if error.line else f"{path}: ")
    if "^" in new:
        marked = SCAFFOLD[: SCAFFOLD.index(old)] + new[: new.index("^")]
        assert errors[0].line == marked.count("\n") + 1
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert str(caught.value) == str(errors[0])


def test_all_mistakes_are_told_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = changed("ack_wait: 30s", "ack_wait: 30").replace("workers: bunny", "workers: buny")
    text = text.replace("bridge: acme", "bridge: a.b").replace("expires: 30d", "expires: 0s")
    errors = check_policy(write(tmp_path, text))
    assert len(errors) == 4
    assert [error.line for error in errors] == sorted(error.line for error in errors)


def test_queues_together_may_not_reserve_more_than_a_server_carries(tmp_path: Path) -> None:
    more = "".join(QUEUE.replace("lookup", f"lookup{n}") + "    max_bytes: 400GiB\n" for n in range(2))
    errors = check_policy(write(tmp_path, SCAFFOLD + more))
    assert len(errors) == 1
    assert "reserve 1604GiB in cloud 'azure'" in errors[0].problem


def test_one_queue_more_than_a_server_carries_is_refused_where_it_stands(tmp_path: Path) -> None:
    def queues(count: int) -> str:
        return "".join(QUEUE.replace("lookup", f"lookup{n}") + "    max_bytes: 1GiB\n" for n in range(count))

    have = len(load(tmp_path, SCAFFOLD).queues)
    assert len(load(tmp_path, SCAFFOLD + queues(MAX_QUEUES - have)).queues) == MAX_QUEUES
    (error,) = check_policy(write(tmp_path, SCAFFOLD + queues(MAX_QUEUES - have + 3)))
    assert f"is one of more than {MAX_QUEUES} queues" in error.problem
    assert f"lookup{MAX_QUEUES - have}:" in (tmp_path / "bridge.yaml").read_text().splitlines()[error.line - 1]


@pytest.mark.parametrize(
    ("content", "problem", "line"),
    [
        (b"", "empty", 0),
        (b"\n# nothing\n", "empty", 0),
        (b"---\n...\n", "the policy is nothing and wants keys", 1),
        (b"hello", "the policy is text and wants keys", 1),
        (b"- a\n", "the policy is a list and wants keys", 1),
        (b"version: 1\nbridge: \xff\n", "not UTF-8", 2),
        (SCAFFOLD.encode("utf-16"), "not UTF-8", 1),
        (b"#" * 1_048_577, "larger than 1MiB", 0),
        (b"\x00", "control character", 1),
        (b"[" * 100_000, "nested deeper", 1),
        (b"{a: " * 100_000, "nested deeper", 1),
        (b"- " * 100_000, "nested deeper", 1),
        (b"a: &a [1]\nb: &b [*a, *a]\n", "an anchor, 'a'", 1),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else str(value),
)
def test_a_file_that_is_no_policy_at_all(content: bytes, problem: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        load_policy(write(tmp_path, content))
    assert problem in caught.value.problem
    assert caught.value.line == line
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "a\0b", Path("/dev/null/x")):
        with pytest.raises(PolicyError, match=r"no such file|cannot be read"):
            load_policy(path)


def test_a_large_file_of_rubbish_is_refused_in_bounded_time(tmp_path: Path) -> None:
    started = time.monotonic()
    path = write(tmp_path, "a: 1\n" * 50_000)
    assert all("\n" not in str(error) for error in check_policy(path))
    assert time.monotonic() - started < 60


# --- properties ------------------------------------------------------------------------------------

PIECES = sorted({*re.findall(r"\S+|\n *", SCAFFOLD), *"{}[]-?:*&!#|>", "*a", "&a", "!!x", ".nan", "\t", "0", "-1"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("policy")


def survives(folder: Path, text: str | bytes) -> None:
    """Loads, or says so in single lines; anything else escapes and fails the test."""
    path = write(folder, text)
    errors = check_policy(path)
    assert not [error for error in errors if "\n" in str(error) or not error.problem]
    if not errors:
        load_policy(path)


@given(st.binary(max_size=200))
def test_arbitrary_bytes(folder: Path, content: bytes) -> None:
    survives(folder, content)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200) | st.lists(st.sampled_from(PIECES)).map(" ".join))
def test_arbitrary_text(folder: Path, text: str) -> None:
    survives(folder, text)


@settings(max_examples=300)
@given(st.data())
def test_mutated_scaffolds(folder: Path, data: st.DataObject) -> None:
    words = re.split(r"(\s+)", re.sub(r"#.*", "", SCAFFOLD))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(words) - 1))
        words[at] = data.draw(st.sampled_from(PIECES) | st.text(max_size=8) | st.just("") | st.sampled_from(words))
    survives(folder, "".join(words))


@given(st.integers(0, 10**15))
def test_quantities_are_read_as_they_are_spelled(number: int) -> None:
    assert parse_duration(spell_duration(number)) == number
    assert parse_size(spell_size(number)) == number


# --- schedules -------------------------------------------------------------------------------------

SCHEDULES = """
  agent-aws: {cloud: aws, role: agent}
  agent-azure: {cloud: azure, role: agent}
trust:"""
SCHEDULED = (
    SCAFFOLD.replace("\ntrust:", SCHEDULES, 1)
    + """
schedules:
  nightly:
    agent: agent-aws
    queue: thumbnails
    kind: probe
    args: {path: /x, sizes: [1, 2.5, null], deep: {yes!: true}, face: "\U0001f600"}
    cron: "30 2 * * *"
    timezone: Europe/Berlin
    missed: all
    deadline: 30m
    since: 2026-03-01T00:00:00+01:00
  often: {agent: agent-aws, queue: thumbnails, kind: resize, every: 30s}
"""
)


def test_schedules_are_read_as_written(tmp_path: Path) -> None:
    nightly, often = load(tmp_path, SCHEDULED).schedules.values()
    args = json.loads(nightly.args)
    assert args == {"path": "/x", "sizes": [1, 2.5, None], "deep": {"yes!": True}, "face": "\U0001f600"}
    assert nightly.args.isascii()
    assert (nightly.cron, nightly.timezone, nightly.missed) == ("30 2 * * *", "Europe/Berlin", "all")
    assert (nightly.deadline_ms, nightly.since_ms) == (30 * 60_000, 1_772_319_600_000)
    assert (often.every_ms, often.args, often.missed, often.deadline_ms) == (30_000, "null", "last", 3_600_000)


def test_the_schedules_of_the_scaffold_and_of_the_documents_load(tmp_path: Path) -> None:
    declared = SCAFFOLD.replace("  # agent-aws", "  agent-aws")
    shown = re.sub(r"(?m)^# (schedules:|  nightly:)", r"\1", declared)
    assert list(load(tmp_path, shown).schedules) == ["nightly"]
    deploy = (Path(__file__).resolve().parents[2] / "docs/deploy.md").read_text()
    (block,) = re.findall(r"(?ms)^```yaml\n(schedules:.*?)^```", deploy)
    assert load(tmp_path, declared + block).schedules["nightly"].args == '{"bucket":"incoming"}'


@pytest.mark.parametrize(
    ("old", "new", "problem", "remedy"),
    [
        ('"30 2 * * *"', "*/5 * * * *", "begins with * and is no alias", "in quotes, '*/5 * * * *'"),
        ("30 2 * * *", "30 25 * * *", "cron: '30 25 * * *' has the hour '25'", "say 0-23"),
        ("30 2 * * *", "@daily", "is not five fields", "say '0 0 * * *'"),
        ("30 2 * * *", "0 0 31 2 *", "is never due", "say a day"),
        ("Europe/Berlin", "europe/berlin", "timezone: 'europe/berlin' is unknown", "'Europe/Berlin'"),
        ("Europe/Berlin", "Europe/Berln", "timezone: 'Europe/Berln' is unknown", "'Europe/Berlin'"),
        ("Europe/Berlin", "localtime", "timezone: 'localtime' is unknown", "say one of"),
        ("kind: probe\n", "kind: prob\n", "queue 'thumbnails' has no kind 'prob'", "'probe'"),
        ("    queue: thumbnails", "    queue: thumnails", "queue 'thumnails' is not declared", "'thumbnails'"),
        ("    agent: agent-aws", "    agent: agent-asw", "identity 'agent-asw' is not declared", "'agent-aws'"),
        ("    agent: agent-aws", "    agent: relay-api", "'relay-api' submits no scheduled jobs", "name 'agent-aws'"),
        ("    agent: agent-aws", "    agent: agent-azure", "'agent-azure' sits in cloud 'azure'", "name 'agent-aws'"),
        ("    agent: agent-aws\n", "", "schedule 'nightly' has no 'agent'", "name 'agent-aws'"),
        ("path: /x", "path: 2026-01-01", "args: YAML takes '2026-01-01' for a date", 'say "2026-01-01"'),
        ("path: /x", "path: yes", "args: YAML takes 'yes' for a yes/no", 'say true or false, or "yes"'),
        ("path: /x", "path: 0x1f", "args: YAML takes '0x1f' for a whole number", 'say "0x1f"'),
        ("path: /x", "path: .inf", "args: YAML takes '.inf' for a number", 'say ".inf"'),
        ("path: /x", "1: /x", "args: the key '1' is no text", 'write "1"'),
        ("path: /x", "path: " + "x" * 5000, "bytes of JSON, and a schedule has at most 4KiB", "let the handler"),
        ("missed: all", "missed: every", "missed: 'every' is unknown", "say one of"),
        ("deadline: 30m", "deadline: 23h51m", "leaves less than 10m of the result_ttl 1d", "raise result_ttl"),
        ("2026-03-01T00:00:00+01:00", "2026-03-01", "since: '2026-03-01' is no time with a zone", "T00:00:00Z"),
        ("every: 30s", "every: 30s, cron: '* * * * *'", "schedule 'often' has both cron and every", "keep one"),
        ("every: 30s", "every: 30s, timezone: UTC", "an interval counts from 1970", "remove it"),
        (", every: 30s", "", "schedule 'often' has neither cron nor every", "add cron:"),
        ("every: 30s", "every: 500ms", "every: 500ms is too little", "at least 1s"),
        ("every: 30s", "every: 30s, priority: low", "'priority' is nothing that schedule 'often' has", "priority="),
    ],
)
def test_each_mistake_of_a_schedule_is_one_line(old: str, new: str, problem: str, remedy: str, tmp_path: Path) -> None:
    before, mark, schedules = SCHEDULED.partition("\nschedules:\n")
    assert old in schedules
    errors = check_policy(write(tmp_path, before + mark + schedules.replace(old, new, 1)))
    assert [error for error in errors if problem in error.problem and remedy in error.remedy], errors
    assert len(errors) == 1
    assert errors[0].line > 0
    assert "\n" not in str(errors[0])
