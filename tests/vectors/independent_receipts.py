"""A second verifier of receipts, written from ``docs/spec.md`` alone; it imports nothing from ``bridge``."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tests.vectors import strictness as strict
from tests.vectors.independent_trust import AHEAD_MS, Bundle, verifies
from tests.vectors.strictness import Refused

TYPE = "application/vnd.bunny-bridge.receipts.v1+json"
STATUSES = ("succeeded", "failed", "expired", "cancelled")
OTHERS = ("answered", "repeated", "conflict", "poisoned", "retried", "snoozed", "waiting", "crowded", "parked")


NUMBER = strict.whole(0, strict.TIME_END - 1)
ABOUT = {
    "job": strict.matches(r"[0-9a-f]{24}\.(0|[1-9][0-9]{0,15})"),
    "generation": NUMBER,
    "kind": strict.name,
    "peer": strict.name,
    "digest": strict.hex_of(32),
}
RESULT = {"result": strict.hex_of(32)}
FIELDS: dict[str, dict[str, strict.Check]] = {
    "opened": {},
    "submitted": ABOUT,
    "accepted": {**ABOUT, "attempt": NUMBER},
    "finished": {**ABOUT, "attempt": NUMBER, "outcome": strict.one_of(*STATUSES, *OTHERS)},
    "received": {**ABOUT, "outcome": strict.one_of(*STATUSES), **RESULT},
    "closed": {},
}


def whole(lines: Sequence[bytes], bundle: Bundle, bridge: str, now: int) -> bool:
    """Whether every page counts, and every chain and job is whole. Section 3.5."""
    try:
        pages = [_page(line, bundle, bridge, now) for line in lines]
    except Refused:
        return False
    chains: dict[tuple[str, str, str], dict[int, tuple[str, dict[str, Any]]]] = defaultdict(dict)
    for digest, page in pages:
        chain = chains[page["queue"], page["from"], page["session"]]
        if chain.setdefault(page["page"], (digest, page))[0] != digest:
            return False
    said = [each for chain in chains.values() for _, page in chain.values() for each in _told(page)]
    return all(map(_chained, chains.values())) and _jobs(said)


def _page(line: bytes, bundle: Bundle, bridge: str, now: int) -> tuple[str, dict[str, Any]]:
    if len(line) > 512 * 1024:
        raise Refused("BadReceipts", "too long")
    outer = strict.read(line, "BadReceipts")
    signatures = strict.list_of(lambda _: True, 1, 1)
    strict.fields(outer, "BadReceipts", payloadType=strict.one_of(TYPE), payload=strict.text, signatures=signatures)
    raw = strict.base64_padded(outer["payload"], "BadReceipts")
    (entry,) = outer["signatures"]
    strict.fields(entry, "BadReceipts", keyid=strict.hex_of(32), sig=strict.text)
    page = strict.read(raw, "BadReceipts")
    strict.fields(
        page,
        "BadReceipts",
        v=strict.one_of(1),
        bridge=strict.one_of(bridge),
        queue=strict.name,
        from_=strict.name,
        session=strict.hex_of(12),
        page=NUMBER,
        first=NUMBER,
        previous=strict.hex_of(32),
        time=NUMBER,
        receipts=strict.list_of(lambda _: True, 1, 256),
    )
    signer = bundle.signers.get(bytes.fromhex(entry["keyid"]))
    if signer is None or signer.principal != page["from"]:
        raise Refused("BadReceipts", "no key of its signer")
    if page["time"] > min(signer.not_after, bundle.expires, now + AHEAD_MS):
        raise Refused("BadReceipts", "out of its time")
    signed = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(raw), raw)
    if not verifies(signer.key, strict.base64_padded(entry["sig"], "BadReceipts"), signed):
        raise Refused("BadReceipts", "signature")
    for each in page["receipts"]:
        _receipt(each, page, bundle)
    return hashlib.sha256(raw).hexdigest(), page


def _receipt(each: Any, page: dict[str, Any], bundle: Bundle) -> None:  # noqa: ANN401  a JSON value
    event = each.get("event") if isinstance(each, dict) else None
    if not isinstance(event, str) or event not in FIELDS:
        raise Refused("BadReceipts", "event")
    checks = dict(FIELDS[event])
    if event == "finished" and "result" in each:
        checks |= RESULT
    strict.fields(each, "BadReceipts", event=strict.text, time=NUMBER, **checks)
    if "job" in each:
        of_workers = event in ("accepted", "finished")
        pair = (each["peer"], page["from"]) if of_workers else (page["from"], each["peer"])
        if each["kind"] not in bundle.grants.get((page["queue"], *pair), ()):
            raise Refused("BadReceipts", "no part in it")


def _chained(chain: dict[int, tuple[str, dict[str, Any]]]) -> bool:
    number, previous, events = 0, "00" * 32, []
    for place in range(len(chain)):
        if place not in chain:
            return False
        digest, page = chain[place]
        if (page["first"], page["previous"]) != (number, previous):
            return False
        events += [each["event"] for each in page["receipts"]]
        number, previous = number + len(page["receipts"]), digest
    return events[0] == "opened" and events[-1] == "closed" and not {"opened", "closed"} & set(events[1:-1])


def _told(page: dict[str, Any]) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    found = []
    for each in page["receipts"]:
        if "job" in each:
            producer = each["peer"] if each["event"] in ("accepted", "finished") else page["from"]
            found.append(((page["queue"], producer, each["job"], each["digest"], each["generation"]), each))
    return found


def _jobs(said: list[tuple[tuple[Any, ...], dict[str, Any]]]) -> bool:
    runs: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for run, each in said:
        runs[run][each["event"]].append(each)
    sent = {run[:4] for run, told in runs.items() if told["submitted"]}
    done = {each["result"] for _, each in said if each.get("outcome") in STATUSES and each["event"] == "finished"
            and "result" in each}  # fmt: skip
    return all(_run(run, told, sent, done) for run, told in runs.items())


def _run(run: tuple[Any, ...], told: dict[str, list[dict[str, Any]]], sent: set[Any], done: set[str]) -> bool:
    finished, received = told["finished"], told["received"]
    if not told["submitted"] and not (run[4] > 0 and run[:4] in sent):
        return False
    begun = {each["attempt"] for each in told["accepted"]}
    named = [each for each in finished if "result" in each]
    outcomes = {each["outcome"] for each in finished}
    if "poisoned" in outcomes or not (named or "conflict" in outcomes):
        return False
    for each in finished:
        if each["outcome"] in STATUSES and "result" not in each:
            return False
        if each["outcome"] == "succeeded" and each["attempt"] not in begun:
            return False
        if each["outcome"] in ("answered", "repeated") and each.get("result") not in done:
            return False
    if told["submitted"] and named and not received:
        return False
    answers = [*named, *received]
    ends = {each["outcome"] for each in answers} & set(STATUSES)
    return len({each["result"] for each in answers}) <= 1 and len(ends) <= 1
