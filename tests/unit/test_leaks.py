"""What leaks by design is a table in docs/threats.md, and is so in what is rendered: streams, readers, ages."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from bridge.matching import overlaps
from bridge.policy import IdentityEntry, Policy, Role
from bridge.render.permissions import grants
from bridge.render.streams import plan
from tests.unit.test_render import POLICY

ROOT = Path(__file__).resolve().parents[2]
DAY = 86_400_000
MIB = 1024 * 1024
QUEUE = replace(
    POLICY.queues["thumbs"],
    concurrency=1,
    max_payload=MIB,
    payload_bytes=8 * MIB,
    receipts_bytes=MIB,
    result_ttl_ms=2 * DAY,
)
CLOUDS = {"P": QUEUE.home, "W": QUEUE.work}


def every_role() -> Policy:
    """A policy of one queue, whose clouds have every role each."""
    roles = [role for role in Role if role not in (Role.SERVICE, Role.LINK)]
    people = [IdentityEntry(f"{role}-{cloud}", cloud, role) for role in roles for cloud in POLICY.clouds]
    services = {name: POLICY.identities[name] for name in (*QUEUE.producers, QUEUE.workers, "idle", "other")}
    return replace(POLICY, queues={"thumbs": QUEUE}, identities=services | {each.name: each for each in people})


def readers(policy: Policy, cloud: str, stream: str) -> set[str]:
    """Who may ask for a message of a stream: services by what they are to its queue, the others by role."""
    direct = (f"DIRECT.GET.{stream}", f"DIRECT.GET.{stream}.>")
    reads = (*direct, f"STREAM.MSG.GET.{stream}", f"CONSUMER.MSG.NEXT.{stream}.>")
    parts = dict.fromkeys(QUEUE.producers, "producers") | {QUEUE.workers: "workers"}
    found = set()
    for who in policy.identities.values():
        for grant in grants(policy, who):
            call = re.sub(r"^\$JS\.(?:\w+\.)?API\.", "", grant.subject)
            if grant.kind == "publish" and grant.cloud == cloud and any(overlaps(call, read) for read in reads):
                found.add(parts.get(who.name, f"{who.role}s"))
    return found


def told() -> dict[tuple[str, str], tuple[set[str], str]]:
    """Readers and age in the table, by stream and place."""
    section = (ROOT / "docs/threats.md").read_text().partition("## What leaks by design")[2].partition("\n## ")[0]
    rows = re.findall(r"(?m)^\| `(\w+)_q` \| ([PW]) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", section)
    return {(name, place): (set(who.split(", ")), kept) for name, place, who, kept in rows}


def age(kept: str) -> int:
    """Milliseconds that a cell says a message is kept at most; 0 where something else ends it."""
    most = kept.partition(", or")[0]
    if most.startswith(("until", "for as long")):
        return 0
    named = {"`result_ttl`": QUEUE.result_ttl_ms, "`max_outage`": every_role().max_outage_ms}
    return sum(named[part] if part in named else int(part.split()[0]) * DAY for part in most.split(" + "))


def test_the_table_of_what_leaks_is_what_is_rendered() -> None:
    policy, table = every_role(), told()
    for place, cloud in CLOUDS.items():
        planned = {stream["name"]: stream for stream in plan(policy, cloud)["streams"]}
        assert {f"{name}_thumbs" for name, where in table if where == place} == set(planned)
        for name, stream in planned.items():
            who, kept = table[name.removesuffix("_thumbs"), place]
            assert readers(policy, cloud, name) == who, (name, place)
            assert stream["max_age"] == age(kept) * 1_000_000, (name, place)
