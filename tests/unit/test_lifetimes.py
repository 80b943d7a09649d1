"""Parts, and the keys that open them, are kept for longer than anything that needs them."""

from __future__ import annotations

from bridge.core import MAX_LIFETIME_MS
from bridge.policy.values import DAY, MIB
from bridge.render import lifetimes
from bridge.render.streams import plan
from tests.fleet import policy

POLICY = policy(max_payload=MIB, payload_bytes=8 * MIB, result_ttl_ms=3 * DAY)
QUEUE = POLICY.queues["thumbs"]


def ages(cloud: str) -> dict[str, int]:
    return {stream["name"]: stream["max_age"] // 1_000_000 for stream in plan(POLICY, cloud)["streams"]}


def test_parts_of_jobs_outlive_the_last_replay_of_a_dead_letter() -> None:
    buried = MAX_LIFETIME_MS + POLICY.max_outage_ms
    ordered = buried + ages("azure")["DEAD_thumbs"]
    assert ages("aws")["PARTS_thumbs"] >= DAY + ordered + QUEUE.result_ttl_ms


def test_parts_of_results_outlive_their_copies_at_home() -> None:
    home = ages("azure")["RESULTS_thumbs"] + POLICY.max_outage_ms
    assert ages("azure")["PARTS_thumbs"] >= DAY + home


def test_keys_outlive_all_that_is_sealed_to_them() -> None:
    for queue in POLICY.queues.values():
        for needed in (lifetimes.job_ms, lifetimes.result_ms):
            assert lifetimes.keys_ms(POLICY) >= needed(queue, POLICY.max_outage_ms)
