"""Messages that change nothing, whatever lets them through: what streams, consumers and servers refuse, or only read.

Each rests on a check of nats-server 2.15 that is named beside it. A message that is to be refused by a permission is
not even delivered (`bridge.doctor.session.Session.permitted`), and is made like these all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridge.doctor.session import Question
from bridge.prove.calls import STRANGER
from bridge.render.permissions import ACCOUNT_REQUESTS, SERVER_REQUESTS

NOWHERE: Final = {"Nats-Expected-Stream": STRANGER}
"""A stream stores no message that expects another stream: error 10060, before anything else but a counter."""

NO_JSON: Final = b"{"
"""No call of the API acts on it: error 10025, or 10003 of the calls that take no body at all. A pull answers 400."""

_BAD_PULL: Final = b'{"batch":1,"expires":1000000000,"idle_heartbeat":1000000000}'
"""A pull whose heartbeat is more than half of its time: 400, and no job is handed out."""

_IN_PROGRESS: Final = b"+WPI"
"""Of a delivery that never was: there is nothing to extend, and the server says that it heard."""

_STORED: Final = ("jobs.", "delayed.", "results.", "starts.", "dead.", "refused.", "replay.", "parts.", "slots.")
"""Subjects to which nothing but a stream listens: what the stream refuses, nobody hears."""

_TELLING: Final = ("PING", *SERVER_REQUESTS, *ACCOUNT_REQUESTS, "CONNZ")
_MAKING: Final = ("STREAM.CREATE.", "STREAM.UPDATE.", "STREAM.MSG.", "CONSUMER.CREATE.", "CONSUMER.DURABLE.CREATE.")
_READING: Final = ("INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.INFO.", "CONSUMER.NAMES.", "CONSUMER.LIST.")


def unheard(subject: str) -> Question:
    """The message to try a permission with."""
    return Question(subject, NO_JSON, NOWHERE)


def answered(subject: str) -> Question | None:
    """A message that is answered if it gets to where the subject leads; None where none is both sure and harmless.

    A worker or producer that listens would log what it cannot read; a later form of acks has no listener yet.
    """
    kind, _, rest = subject.partition(".")
    if subject.startswith(_STORED):
        return Question(subject, NO_JSON, NOWHERE)
    if subject.startswith("$JS.ACK."):
        return Question(subject, _IN_PROGRESS) if len(subject.split(".")) == _ACK_TOKENS else None
    if kind == "$SYS":
        known = not subject.startswith("$SYS.REQ.SERVER.") or subject.startswith("$SYS.REQ.SERVER.PING")
        return Question(subject) if known and subject.rpartition(".")[2] in _TELLING else None
    if kind != "$JS":
        return None
    call = rest.partition("API.")[2]
    if call.startswith("CONSUMER.MSG.NEXT."):
        return Question(subject, _BAD_PULL)
    if call.startswith("DIRECT.GET."):
        return Question(subject)  # of no message: 404, or 408 where the subject names none
    if call.startswith(_MAKING):
        return Question(subject, NO_JSON)
    return Question(subject) if call.startswith((*_READING, "CONSUMER.INFO.")) else None


_ACK_TOKENS: Final = 9


@dataclass(frozen=True, slots=True)
class Special:
    """A header that has a stream do more than store, with a value that no stream acts on."""

    headers: dict[str, str]
    refused: str
    """What a stream answers that does not take the header: a part of its error."""
    setting: str
    """The setting of a stream that takes it."""


_NEVER_LAST: Final = {"Nats-Expected-Last-Msg-Id": STRANGER}
"""Error 10070, after the checks of headers: a server that knows the header not at all stores nothing either."""

SPECIAL: Final = {
    # The rollup is checked before its value, and that value is none.
    "Nats-Rollup": Special({"Nats-Rollup": STRANGER}, "rollup not permitted", "allow_rollup_hdrs"),
    # Nothing has that sequence: what takes a TTL answers 10071, which comes after.
    "Nats-TTL": Special(
        {"Nats-TTL": "1h", "Nats-Expected-Last-Subject-Sequence": str(2**53)}, '"err_code":10166', "allow_msg_ttl"
    ),
    "Nats-Schedule": Special({"Nats-Schedule": STRANGER, **_NEVER_LAST}, '"err_code":10188', "allow_msg_schedules"),
    # Without the place in its batch no message is taken into one.
    "Nats-Batch-Id": Special({"Nats-Batch-Id": STRANGER, **_NEVER_LAST}, '"err_code":10174', "allow_atomic"),
    # A counter takes no body.
    "Nats-Incr": Special({"Nats-Incr": "1", **_NEVER_LAST}, '"err_code":10168', "allow_msg_counter"),
}
"""By the name of the header. A stream that takes one refuses these for another reason."""
