"""Receipts, whole and not. Nothing in them is random, so that they are the same bytes each time they are made."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from bridge import receipt
from bridge.receipt import NOTHING_BEFORE, Event, Page, Receipt
from tests.vectors.labels import BRIDGE, HOUR, IDENTITIES, NOW, SESSION

DIGEST, RESULT = bytes.fromhex("ab" * 32), bytes.fromhex("cd" * 32)
OPENED, CLOSED = Receipt(Event.OPENED, NOW), Receipt(Event.CLOSED, NOW)


def _about(event: Event, peer: str, **more: Any) -> Receipt:  # noqa: ANN401  of a receipt
    return Receipt(event, NOW, f"{SESSION}.1", 0, "resize", peer, DIGEST, **more)


SUBMITTED = _about(Event.SUBMITTED, "bunny")
ACCEPTED = _about(Event.ACCEPTED, "relay", attempt=1)
FINISHED = _about(Event.FINISHED, "relay", attempt=1, outcome="succeeded", result=RESULT)
RECEIVED = _about(Event.RECEIVED, "bunny", outcome="succeeded", result=RESULT)
RETRIED = replace(FINISHED, outcome="retried", result=b"")

MINE, YOURS = (SUBMITTED, RECEIVED, CLOSED), (OPENED, ACCEPTED, FINISHED, CLOSED)

Receipts = Sequence[Receipt]


def chain(signer: str, *parts: Receipts, by: str = "", lie: Callable[[Page], Page] = lambda page: page) -> list[bytes]:
    """Pages that follow one another; ``lie`` is what their author says instead of the truth."""
    lines, first, previous = [], 0, NOTHING_BEFORE
    for number, receipts in enumerate(parts):
        page = Page(BRIDGE, "thumbs", signer, SESSION, number, first, previous, NOW, tuple(receipts))
        line, previous = receipt.write(lie(page), IDENTITIES[by or signer].sign[-1])
        lines.append(line)
        first += len(receipts)
    return lines


THEIRS = chain("bunny", [OPENED, ACCEPTED], [FINISHED, CLOSED])
OURS = chain("relay", [OPENED], [SUBMITTED, RECEIVED], [CLOSED])


def bunny(*receipts: Receipt) -> list[bytes]:
    """What the producer said, and other words of the worker."""
    return [*OURS, *chain("bunny", [OPENED, *receipts, CLOSED])]


def relay(*receipts: Receipt) -> list[bytes]:
    """The other way round."""
    return [*chain("relay", [OPENED, *receipts, CLOSED]), *THEIRS]


def _again(generation: int, **more: Any) -> list[Receipt]:  # noqa: ANN401  of a receipt
    return [replace(each, generation=generation, **more) for each in (ACCEPTED, FINISHED)]


CASES: dict[str, tuple[bool, list[bytes]]] = {
    "one-job": (True, [*OURS, *THEIRS]),
    "in-any-order-and-twice": (True, [*THEIRS[::-1], *OURS, OURS[1]]),
    "retried": (True, bunny(ACCEPTED, RETRIED, replace(ACCEPTED, attempt=2), replace(FINISHED, attempt=2))),
    "failed-before-it-was-accepted": (
        True,
        [*chain("relay", [OPENED, SUBMITTED, replace(RECEIVED, outcome="expired"), CLOSED]),
         *chain("bunny", [OPENED, replace(FINISHED, attempt=0, outcome="expired"), CLOSED])],
    ),
    "answered-again": (True, bunny(ACCEPTED, FINISHED, replace(FINISHED, attempt=0, outcome="answered"))),
    "replayed": (True, bunny(ACCEPTED, FINISHED, *_again(1))),
    "conflict": (
        True,
        [*chain("relay", [OPENED, SUBMITTED, CLOSED]),
         *chain("bunny", [OPENED, replace(FINISHED, outcome="conflict", result=b""), CLOSED])],
    ),
    "without-the-worker": (False, OURS),
    "without-the-producer": (False, THEIRS),
    "a-page-less": (False, [OURS[0], OURS[2], *THEIRS]),
    "without-the-first-page": (False, [*OURS[1:], *THEIRS]),
    "without-the-last-page": (False, [*OURS[:2], *THEIRS]),
    "not-opened": (False, [*chain("relay", [SUBMITTED, RECEIVED, CLOSED]), *THEIRS]),
    "opened-twice": (False, relay(OPENED, SUBMITTED, RECEIVED)),
    "closed-and-gone-on": (False, relay(SUBMITTED, CLOSED, RECEIVED)),
    "numbers-that-leave-some-out": (
        False, [*chain("relay", [OPENED], MINE, lie=lambda p: replace(p, first=3 * p.page)), *THEIRS],
    ),
    "another-page-before": (
        False, [*chain("relay", [OPENED], MINE, lie=lambda p: replace(p, previous=DIGEST)), *THEIRS],
    ),
    "signed-by-another": (False, [*chain("relay", [OPENED, SUBMITTED, RECEIVED, CLOSED], by="other"), *THEIRS]),
    "signed-by-nobody-known": (False, [*chain("outsider", [OPENED, CLOSED]), *OURS, *THEIRS]),
    "of-a-kind-that-is-not-granted": (False, relay(replace(SUBMITTED, kind="crop"), replace(RECEIVED, kind="crop"))),
    "of-the-other-side": (False, relay(ACCEPTED, RECEIVED)),
    "of-another-bridge": (
        False, [*OURS, *chain("bunny", YOURS, lie=lambda p: replace(p, bridge="b"))],
    ),
    "of-the-future": (
        False, [*OURS, *chain("bunny", YOURS, lie=lambda p: replace(p, time=NOW + HOUR))],
    ),
    "of-before-the-bundle": (
        True, [*OURS, *chain("bunny", YOURS, lie=lambda p: replace(p, time=0))],
    ),
    "not-accepted": (False, bunny(FINISHED)),
    "of-another-attempt": (False, bunny(ACCEPTED, replace(FINISHED, attempt=2))),
    "not-finished": (False, bunny(ACCEPTED)),
    "not-received": (False, relay(SUBMITTED)),
    "of-other-bytes": (False, bunny(replace(ACCEPTED, digest=RESULT), replace(FINISHED, digest=RESULT))),
    "two-results": (False, bunny(ACCEPTED, replace(FINISHED, result=DIGEST))),
    "two-outcomes": (False, bunny(ACCEPTED, replace(FINISHED, outcome="failed"))),
    "a-success-without-a-result": (False, bunny(ACCEPTED, replace(FINISHED, result=b""))),
    "answered-by-nobody": (False, bunny(replace(FINISHED, attempt=0, outcome="answered"))),
    "poisoned": (False, bunny(ACCEPTED, replace(FINISHED, outcome="poisoned", result=b""))),
    "a-replay-of-nothing": (False, [*OURS, *THEIRS, *chain("bunny", [OPENED, *_again(1, digest=RESULT), CLOSED],
                                                          lie=lambda p: replace(p, session="f" * 24))]),
    "rubbish": (False, [*OURS, *THEIRS, b"{}\n"]),
}  # fmt: skip


def vectors() -> list[dict[str, Any]]:
    """As they are published."""
    return [
        {"name": name, "expect": {"whole": whole}, "pages": [base64.b64encode(each).decode() for each in lines]}
        for name, (whole, lines) in CASES.items()
    ]
