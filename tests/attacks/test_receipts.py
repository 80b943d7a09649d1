"""Receipts of who may not leave them, and pages that are none: each is told, and counts for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bridge import dsse, receipt
from bridge.audit import Account, verify
from bridge.bundle import sign_payload
from bridge.crypto import SigningKey
from bridge.errors import BadReceipts
from bridge.identity import Identity
from bridge.receipt import NOTHING_BEFORE, Event, Page, Receipt
from bridge.trust import Trust
from tests.world import SESSION, World

DIGEST, RESULT = b"d" * 32, b"r" * 32
HOUR = 3_600_000
JOB = f"{SESSION}.1"
WORLD = World()


def about(event: Event, peer: str, **more: Any) -> Receipt:  # noqa: ANN401  fields of Receipt
    return Receipt(event, WORLD.now, JOB, 0, "resize", peer, DIGEST, **more)


RELAY = (
    Receipt(Event.OPENED, WORLD.now),
    about(Event.SUBMITTED, "bunny"),
    about(Event.RECEIVED, "bunny", outcome="succeeded", result=RESULT),
    Receipt(Event.CLOSED, WORLD.now),
)
BUNNY = (
    Receipt(Event.OPENED, WORLD.now),
    about(Event.ACCEPTED, "relay", attempt=1),
    about(Event.FINISHED, "relay", attempt=1, outcome="succeeded", result=RESULT),
    Receipt(Event.CLOSED, WORLD.now),
)


def page(signer: str, receipts: tuple[Receipt, ...], **more: Any) -> Page:  # noqa: ANN401  fields of Page
    fixed = Page("acme", "thumbs", signer, SESSION, 0, 0, NOTHING_BEFORE, WORLD.now, receipts)
    return replace(fixed, **more)


def signed(made: Page, by: str = "") -> bytes:
    return receipt.write(made, WORLD.identities[by or made.signer].sign[-1])[0]


def account(*pages: bytes) -> Account:
    return verify([(f"line {n}", each) for n, each in enumerate(pages, 1)], [WORLD.trust()], WORLD.now)


def problems(*pages: bytes) -> list[str]:
    return account(*pages).problems


THEIRS = signed(page("bunny", BUNNY))


def test_what_both_sides_signed_is_whole() -> None:
    found = account(signed(page("relay", RELAY)), THEIRS)
    assert (found.problems, found.unended, found.notes) == ([], [], [])


@pytest.mark.parametrize(
    ("made", "by", "problem"),
    [
        (page("relay", RELAY), "stranger", "signed with a key of stranger"),
        (page("stranger", RELAY), "", "no part in"),
        (page("relay", BUNNY), "", "no part in"),  # a producer does not accept
        (page("bunny", RELAY), "", "no part in"),
        (page("relay", (RELAY[0], replace(RELAY[1], kind="other"), *RELAY[2:])), "", "no part in"),
        (page("relay", (RELAY[0], replace(RELAY[1], peer="stranger"), *RELAY[2:])), "", "no part in"),
        (page("relay", RELAY, queue="lookup"), "", "no part in"),
        (page("relay", RELAY, bridge="other"), "", "of another bridge, other"),
        (page("relay", RELAY, time=WORLD.now + 600_000), "", "signed in the future"),
        (page("relay", RELAY, time=WORLD.now + 3_600_000), "", "signed in the future"),
    ],
)
def test_what_its_signer_may_not_say_counts_for_nothing(made: Page, by: str, problem: str) -> None:
    first, *others = problems(signed(made, by), THEIRS)
    assert first.startswith("line 1: page 0 of ")
    assert problem in first
    assert [line.rpartition(": ")[2] for line in others] == ["not submitted"]


def test_a_signature_that_is_not_the_keys_is_told_whatever_the_page_says() -> None:
    own = SigningKey.generate()
    payload, _ = dsse.decode(signed(page("relay", RELAY)), receipt.PAYLOAD_TYPE)
    kid = WORLD.identities["relay"].sign[-1].kid
    forged = dsse.encode(
        payload, [(kid, own.sign(dsse.signed_bytes(payload, receipt.PAYLOAD_TYPE)))], receipt.PAYLOAD_TYPE
    )
    assert "the signature does not verify" in problems(forged)[0]
    unknown, _ = receipt.write(page("relay", RELAY), own)
    assert "signed with a key that no bundle given has" in problems(unknown)[0]


def test_a_signature_of_something_else_is_none_of_a_page() -> None:
    """A bundle, or a report of what was proven, is signed under another name."""
    key = WORLD.identities["relay"].sign[-1]
    payload, _ = dsse.decode(signed(page("relay", RELAY)), receipt.PAYLOAD_TYPE)
    for kind in (dsse.PAYLOAD_TYPE, dsse.PROOF_TYPE):
        line = dsse.encode(payload, [(key.kid, key.sign(dsse.signed_bytes(payload, kind)))], receipt.PAYLOAD_TYPE)
        assert "the signature does not verify" in problems(line)[0]


Change = Callable[[dict[str, Any]], object]
STRAY: list[Change] = [
    lambda p: p.update(v=2),
    lambda p: p.update(v=True),
    lambda p: p.update(more=1),
    lambda p: p.pop("previous"),
    lambda p: p.update(previous="00" * 31),
    lambda p: p.update(previous="AA" * 32),
    lambda p: p.update(session="x" * 24),
    lambda p: p.update({"from": "no name"}),
    lambda p: p.update(page=-1),
    lambda p: p.update(first=1.5),
    lambda p: p.update(time="1"),
    lambda p: p.update(receipts=[]),
    lambda p: p.update(receipts={}),
    lambda p: p.update(receipts=[p["receipts"][0]] * 257),
    lambda p: p["receipts"][0].update(job=JOB),
    lambda p: p["receipts"][0].update(event="begun"),
    lambda p: p["receipts"][0].update(event=["opened"]),
    lambda p: p["receipts"][0].pop("event"),
    lambda p: p["receipts"].append("opened"),
    lambda p: p["receipts"][1].pop("digest"),
    lambda p: p["receipts"][1].update(result="00" * 32),
    lambda p: p["receipts"][1].update(job="1"),
    lambda p: p["receipts"][1].update(generation=True),
    lambda p: p["receipts"][2].update(outcome="answered"),  # a producer receives a result
    lambda p: p["receipts"][2].pop("result"),
    lambda p: p["receipts"][2].update(result=None),
]


@pytest.mark.parametrize("change", STRAY)
def test_a_page_with_anything_out_of_place_is_none(change: Change) -> None:
    payload = json.loads(dsse.decode(signed(page("relay", RELAY)), receipt.PAYLOAD_TYPE)[0])
    change(payload)
    key, data = WORLD.identities["relay"].sign[-1], json.dumps(payload).encode()
    line = dsse.encode(data, [(key.kid, key.sign(dsse.signed_bytes(data, receipt.PAYLOAD_TYPE)))], receipt.PAYLOAD_TYPE)
    with pytest.raises(BadReceipts):
        receipt.read(line)


def test_two_signatures_or_too_many_bytes_are_none() -> None:
    payload, (one,) = dsse.decode(signed(page("relay", RELAY)), receipt.PAYLOAD_TYPE)
    for line in (
        dsse.encode(payload, [one, one], receipt.PAYLOAD_TYPE),
        signed(page("relay", RELAY)) + b" " * receipt.MAX_PAGE_LEN,
        b"",
        b"[]",
        b"\xff",
    ):
        with pytest.raises(BadReceipts):
            receipt.read(line)


def test_a_full_page_of_the_longest_names_fits() -> None:
    name = "n" * 63
    longest = Receipt(
        Event.FINISHED, 2**53 - 1, f"{SESSION}.{10**16 - 1}", 2**31, name, name, DIGEST, 2**31, "succeeded", RESULT
    )
    line = signed(page(name, (longest,) * receipt.MAX_RECEIPTS, queue=name, bridge=name), "relay")
    assert len(line) <= receipt.MAX_PAGE_LEN
    assert receipt.read(line).page.receipts == (longest,) * receipt.MAX_RECEIPTS


# --- keys ------------------------------------------------------------------------------------------


def test_what_was_signed_before_a_key_was_replaced_counts_by_the_bundle_of_then() -> None:
    after = World({**WORLD.identities, "relay": Identity.generate("relay")}, WORLD.roots, WORLD.now)
    one, two = chain(RELAY[:2], RELAY[2:])
    lines = [
        ("theirs", THEIRS),
        ("one", signed(one)),
        ("two", receipt.write(two, after.identities["relay"].sign[-1])[0]),
    ]
    whole = verify(lines, [after.trust(2), WORLD.trust()], WORLD.now)
    assert (whole.problems, whole.unended) == ([], [])
    now_alone = verify(lines, [after.trust(2)], WORLD.now)
    assert "one: page 0 of relay on thumbs" in now_alone.problems[0]
    assert "signed with a key that no bundle given has" in now_alone.problems[0]


def test_a_bundle_says_nothing_of_the_time_after_its_end() -> None:
    issued = WORLD.now - 2 * HOUR  # good for one
    old = Trust.verify(sign_payload(WORLD.payload(1, issued), WORLD.roots), WORLD.roots_json(), issued)
    lines = [("one", signed(page("relay", RELAY))), ("two", THEIRS)]
    found = verify(lines, [old], WORLD.now)
    assert len(found.problems) == 2
    assert all("had expired; name the one that followed" in each for each in found.problems)
    early = [("one", signed(page("relay", RELAY, time=issued))), ("two", signed(page("bunny", BUNNY, time=issued)))]
    assert verify(early, [old], WORLD.now).problems == []
    assert verify(early, [WORLD.trust()], WORLD.now).problems == []  # a later one says whose the key is, too


# --- chains ----------------------------------------------------------------------------------------


def chain(*parts: tuple[Receipt, ...]) -> list[Page]:
    """Pages that follow one another."""
    pages: list[Page] = []
    first, previous = 0, NOTHING_BEFORE
    for number, receipts in enumerate(parts):
        made = page("relay", receipts, page=number, first=first, previous=previous)
        pages.append(made)
        previous = receipt.read(signed(made)).digest
        first += len(receipts)
    return pages


def test_pages_that_do_not_follow_one_another_are_told() -> None:
    one, two, three = chain(RELAY[:1], RELAY[1:3], RELAY[3:])
    assert problems(THEIRS, *map(signed, (one, two, three))) == []
    other = replace(two, receipts=(about(Event.SUBMITTED, "bunny"), RELAY[2]), time=WORLD.now + 1)
    assert any("page 2 does not follow" in each for each in problems(THEIRS, *map(signed, (one, other, three))))
    assert any("another page 1" in each for each in problems(THEIRS, *map(signed, (one, two, other, three))))
    skipped = replace(two, first=5)
    assert any("receipts 1 to 4 were never stored" in each for each in problems(THEIRS, *map(signed, (one, skipped))))
    again = replace(two, first=0)
    assert any("counts receipts that the page before" in each for each in problems(THEIRS, *map(signed, (one, again))))


def test_pages_that_are_missing_are_named_with_what_stood_in_them() -> None:
    one, two, three = map(signed, chain(RELAY[:1], RELAY[1:3], RELAY[3:]))
    chain_of = f"relay on thumbs, session {SESSION}: "
    assert f"{chain_of}page 1 with receipts 1 to 2 missing" in problems(THEIRS, one, three)
    assert f"{chain_of}pages 0 to 1 with receipts 0 to 2 missing" in problems(THEIRS, three)
    assert f"{chain_of}page 0 with receipts 0 to 0 missing" in problems(THEIRS, two, three)


def test_a_chain_begins_and_ends_where_it_says() -> None:
    headless = page("relay", RELAY[1:])
    assert any("is not opened by receipt 0" in each for each in problems(THEIRS, signed(headless)))
    twice = page("relay", (RELAY[0], *RELAY))
    assert any("is opened again by receipt 1" in each for each in problems(THEIRS, signed(twice)))
    after = page("relay", (RELAY[0], RELAY[3], *RELAY[1:]))
    assert any("more follows receipt 1, which closes it" in each for each in problems(THEIRS, signed(after)))
    tail = account(THEIRS, signed(page("relay", RELAY[:-1])))
    assert (tail.problems, len(tail.unended)) == ([], 1)


# --- jobs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "other", "problem"),
    [
        (2, {"result": b"x" * 32}, "receipts name 2 results"),
        (2, {"outcome": "failed"}, "receipts call it failed and succeeded"),
        (2, {"attempt": 2}, "attempt 2 succeeded and was not accepted"),
        (2, {"result": b""}, "succeeded, and no result is named"),
        (2, {"outcome": "answered"}, "answered, and nobody says that it finished it so"),
        (2, {"outcome": "poisoned", "result": b""}, "poisoned: a result stands that nobody may have signed"),
        (2, {"outcome": "retried", "result": b""}, "accepted, and not finished"),
        (1, {"digest": b"x" * 32}, "not submitted; other bytes were submitted"),
        (1, {"generation": 1}, "attempt 1 succeeded and was not accepted"),
    ],
)
def test_what_the_two_sides_do_not_agree_on_is_told(place: int, other: dict[str, Any], problem: str) -> None:
    said = [*BUNNY]
    said[place] = replace(said[place], **other)
    found = problems(signed(page("relay", RELAY)), signed(page("bunny", tuple(said))))
    assert any(problem in each for each in found), found


def test_a_replay_is_submitted_once_and_need_not_be_received() -> None:
    again = tuple(replace(each, generation=1) for each in BUNNY[1:3])
    replayed = signed(page("bunny", (*BUNNY[:3], *again, BUNNY[3])))
    found = account(signed(page("relay", RELAY)), replayed)
    assert (found.problems, len(found.runs)) == ([], 2)
    of_nothing = tuple(replace(each, digest=b"x" * 32) for each in again)
    made_up = signed(page("bunny", (*BUNNY[:3], *of_nothing, BUNNY[3])))
    (problem,) = problems(signed(page("relay", RELAY)), made_up)
    assert problem.endswith("(generation 1): not submitted")


TWIN = replace(BUNNY[2], outcome="answered", attempt=0)
"""By a worker that found the result of another."""


def test_what_comes_again_is_no_end_that_another_found() -> None:
    put_off = replace(BUNNY[2], outcome="retried")  # no worker names a result then
    found = problems(signed(page("relay", RELAY)), signed(page("bunny", (*BUNNY[:2], put_off, TWIN, BUNNY[3]))))
    assert [line.rpartition(": ")[2] for line in found] == ["answered, and nobody says that it finished it so"]


def test_what_another_found_done_is_whole_by_the_one_who_did_it() -> None:
    found = account(signed(page("relay", RELAY)), signed(page("bunny", (*BUNNY[:3], TWIN, BUNNY[3]))))
    assert found.problems == []
