"""Receipts: signed lines about jobs, in pages that are chained to one another, and the names they have. No I/O.

A process that takes part in a job says so when something has happened, in a *receipt*. Its receipts about one queue are
a chain: they are numbered, and written in pages of up to `MAX_RECEIPTS`. A page is a DSSE envelope on one line; it has
the number of its first receipt and the digest of the page before it. So a receipt that is changed, dropped, moved or
doubled is seen by whoever has the pages, and the last receipt says that it is the last. They name jobs by digest:
nothing in them is sealed, and nothing in them is content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic_core import to_json

from bridge import dsse, strict_json
from bridge.crypto import SigningKey, VerifyKey, sha256
from bridge.errors import BadBundle, BadReceipts
from bridge.subjects import DECIMAL, SESSION, is_name
from bridge.values import value

PAYLOAD_TYPE: Final = "application/vnd.bunny-bridge.receipts.v1+json"
MAX_RECEIPTS: Final = 256
"""Of a page: as many as messages may share a signature."""
MAX_PAGE_LEN: Final = 512 * 1024
"""Bytes of a page as it is stored: 256 receipts with names of 63 characters each have 260 KiB."""
NOTHING_BEFORE: Final = bytes(32)
"""In place of the digest of the page before the first one."""

_HEX: Final = re.compile(r"[0-9a-f]{64}")
_JOB_ID: Final = re.compile(rf"{SESSION.pattern}\.(?:{DECIMAL.pattern})")


class Event(StrEnum):
    """What a receipt says has happened."""

    OPENED = "opened"
    """The chain begins here."""
    SUBMITTED = "submitted"
    """By the producer: the local server has stored the job."""
    ACCEPTED = "accepted"
    """By the worker: the job has passed every check, and its handler is about to run."""
    FINISHED = "finished"
    """By the worker: what the attempt, or the delivery, came to; a result that it names is stored."""
    RECEIVED = "received"
    """By the producer: the job's result has come home and verifies."""
    CLOSED = "closed"
    """The chain ends here."""


ENDS: Final = (Event.OPENED, Event.CLOSED)
OF_WORKERS: Final = (Event.ACCEPTED, Event.FINISHED)

STATUSES: Final = ("succeeded", "failed", "expired", "cancelled")
"""Outcomes that a result has, and that its producer receives."""
OUTCOMES: Final = (
    *STATUSES,
    *("answered", "repeated", "conflict", "poisoned", "retried", "snoozed", "waiting", "crowded", "parked"),
)
"""What a delivery may come to (`consumers.settle`)."""


@value(frozen=True, slots=True)
class Receipt:
    """What somebody says of a job. Times are milliseconds UTC; digests are raw bytes."""

    event: Event
    time: int
    job: str = ""
    """``<session>.<n>``; empty for the two ends of a chain, which speak of no job."""
    generation: int = 0
    kind: str = ""
    peer: str = ""
    """The other side: the workers where a producer speaks, the producer where they do."""
    digest: bytes = b""
    """The job's."""
    attempt: int = 0
    """Accepted and finished: from 1; 0 where the job did not run."""
    outcome: str = ""
    """Finished and received."""
    result: bytes = b""
    """Received, and finished where one stands: the digest of the result."""


@dataclass(frozen=True, slots=True)
class Page:
    """Receipts of one chain that follow one another."""

    bridge: str
    queue: str
    signer: str
    session: str
    """24 hex digits: of one producer or worker, for as long as it lives."""
    page: int
    """Which of the chain, from 0."""
    first: int
    """The number of its first receipt, from 0."""
    previous: bytes
    """The digest of the page before it."""
    time: int
    """When it was signed."""
    receipts: tuple[Receipt, ...]

    @property
    def last(self) -> int:
        """The number of its last receipt."""
        return self.first + len(self.receipts) - 1


@dataclass(frozen=True, slots=True)
class Signed:
    """A page and its signature, **not verified**."""

    page: Page
    payload: bytes
    kid: bytes
    signature: bytes

    @property
    def digest(self) -> bytes:
        """What the next page names it by."""
        return sha256(self.payload)

    def verifies(self, key: VerifyKey) -> bool:
        """Whether it is that key's."""
        return key.verify(self.signature, dsse.signed_bytes(self.payload, PAYLOAD_TYPE))


# --- names -----------------------------------------------------------------------------------------


def receipts_stream(queue: str) -> str:
    """The receipts about a queue's jobs, in the cloud of whoever signed them."""
    return f"RECEIPTS_{queue}"


def subject(queue: str, signer: str, session: str, page: int) -> str:
    """``receipts.<queue>.<signer>.<session>.<page>``"""
    return f"receipts.{queue}.{signer}.{session}.{page}"


def any_page(queue: str, signer: str = "*") -> str:
    """The pages of a queue, of one signer where given."""
    return f"receipts.{queue}.{signer}.*.*"


# --- writing and reading ---------------------------------------------------------------------------


def write(page: Page, key: SigningKey) -> tuple[bytes, bytes]:
    """A page as it is stored, on one line, and its digest."""
    payload = to_json(
        {
            "v": 1,
            "bridge": page.bridge,
            "queue": page.queue,
            "from": page.signer,
            "session": page.session,
            "page": page.page,
            "first": page.first,
            "previous": page.previous.hex(),
            "time": page.time,
            "receipts": [_written(each) for each in page.receipts],
        }
    )
    signature = key.sign(dsse.signed_bytes(payload, PAYLOAD_TYPE))
    return dsse.encode(payload, [(key.kid, signature)], PAYLOAD_TYPE), sha256(payload)


def read(line: bytes) -> Signed:
    """A page, **not verified**.

    Raises:
        BadReceipts: It is none.
    """
    try:
        if len(line) > MAX_PAGE_LEN:
            raise ValueError
        payload, ((kid, signature),) = dsse.decode(line, PAYLOAD_TYPE)
        held = strict_json.parse_object(payload)
        strict_json.expect_keys(held, _PAGE)
        receipts = held["receipts"]
        if type(held["v"]) is not int or held["v"] != 1 or type(receipts) is not list:
            raise ValueError
        if not 0 < len(receipts) <= MAX_RECEIPTS:
            raise ValueError
        page = Page(
            bridge=_name(held["bridge"]),
            queue=_name(held["queue"]),
            signer=_name(held["from"]),
            session=_matching(SESSION, held["session"]),
            page=_whole(held["page"]),
            first=_whole(held["first"]),
            previous=_digest(held["previous"]),
            time=_whole(held["time"]),
            receipts=tuple(map(_receipt, receipts)),
        )
        return Signed(page, payload, kid, signature)
    except (BadBundle, ValueError, KeyError, TypeError):
        raise BadReceipts("not a page of receipts") from None


def _written(receipt: Receipt) -> dict[str, Any]:
    held: dict[str, Any] = {"event": receipt.event, "time": receipt.time}
    if receipt.event in ENDS:
        return held
    held["job"], held["generation"] = receipt.job, receipt.generation
    held["kind"], held["peer"], held["digest"] = receipt.kind, receipt.peer, receipt.digest.hex()
    if receipt.event in OF_WORKERS:
        held["attempt"] = receipt.attempt
    if receipt.outcome:
        held["outcome"] = receipt.outcome
    if receipt.result:
        held["result"] = receipt.result.hex()
    return held


def _receipt(held: Any) -> Receipt:  # noqa: ANN401  anything that JSON has
    event = Event(held["event"])
    named = _FIELDS[event]
    if event is Event.FINISHED and "result" not in held:
        named = {name: each for name, each in named.items() if name != "result"}
    strict_json.expect_keys(held, {"event", *named})
    return Receipt(event, **{name: each(held[name]) for name, each in named.items()})


def _name(held: object) -> str:
    if type(held) is str and is_name(held):
        return held
    raise ValueError


def _matching(pattern: re.Pattern[str], held: object) -> str:
    if type(held) is str and pattern.fullmatch(held):
        return held
    raise ValueError


def _job_id(held: object) -> str:
    return _matching(_JOB_ID, held)


def _digest(held: object) -> bytes:
    return bytes.fromhex(_matching(_HEX, held))


def _whole(held: object) -> int:
    if type(held) is int and 0 <= held < 2**53:
        return held
    raise ValueError


def _one_of(allowed: Sequence[str]) -> Callable[[object], str]:
    def read(held: object) -> str:
        if type(held) is str and held in allowed:
            return held
        raise ValueError

    return read


_PAGE: Final = {"v", "bridge", "queue", "from", "session", "page", "first", "previous", "time", "receipts"}
_Fields = Mapping[str, Callable[[Any], Any]]
_END: Final[_Fields] = {"time": _whole}
_ABOUT: Final[_Fields] = {
    "time": _whole,
    "job": _job_id,
    "generation": _whole,
    "kind": _name,
    "peer": _name,
    "digest": _digest,
}
_FIELDS: Final[Mapping[Event, _Fields]] = {
    Event.OPENED: _END,
    Event.SUBMITTED: _ABOUT,
    Event.ACCEPTED: {**_ABOUT, "attempt": _whole},
    Event.FINISHED: {**_ABOUT, "attempt": _whole, "outcome": _one_of(OUTCOMES), "result": _digest},
    Event.RECEIVED: {**_ABOUT, "outcome": _one_of(STATUSES), "result": _digest},
    Event.CLOSED: _END,
}
