"""What one agent tells the other: a signed report of its cloud, and how it is read. No I/O.

::

    "RS1\\0" | kid 32 | signature 64 | payload

The signature is Ed25519 over ``"bunny-bridge/v1/stats\\0" ‖ kid ‖ payload``, and the payload strict JSON
(``docs/spec.md`` has its fields). It holds counts and times, which brokers know anyway: so it is signed and not sealed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from bridge import strict_json, subjects
from bridge.crypto import SIGNATURE_LEN, SigningKey
from bridge.errors import BadFrame, BadSignature, Expired, FromTheFuture, NotAuthorised, WrongSubject
from bridge.policy import Role
from bridge.subjects import SESSION, is_name
from bridge.trust import Trust

MAX_REPORT: Final = 512 * 1024
"""Bytes: about a thousand queues, and below every server's limit."""
MAX_AGE_MS: Final = 30_000
"""How old a report may be when it comes, and how far ahead: an old one says what was, and the truth may be zero."""

COUNTS: Final = (
    *("jobs", "jobs_limit", "delayed", "in_flight", "redelivered", "oldest_ms", "waiting", "bytes", "bytes_limit"),
    *("stored", "done", "lag", "silence_ms", "results", "dead", "refused"),
)
"""What may be told of a queue; what is not known is left out."""

_MAGIC: Final = b"RS1\0"
_LABEL: Final = b"bunny-bridge/v1/stats\0"
_HEAD_LEN: Final = len(_MAGIC) + 32 + SIGNATURE_LEN
_FIELDS: Final = {
    *("v", "bridge", "from", "cloud", "session", "n", "issued"),
    *("policy", "trust_version", "trust_expires", "queues"),
}


@dataclass(frozen=True, slots=True)
class Report:
    """What an agent knows of its own cloud. Times are milliseconds UTC."""

    bridge: str
    sender: str
    cloud: str
    session: str
    """24 hex digits, made when the agent started."""
    n: int
    """Counts the session's reports, from 1."""
    issued: int
    policy: str
    """Digest of the policy its servers run, hex; empty where that is not known."""
    trust_version: int
    trust_expires: int
    queues: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By queue, of `COUNTS` what is known."""


def write(report: Report, key: SigningKey) -> bytes:
    """The bytes to be told."""
    payload = strict_json.dump(
        {
            "v": 1,
            "bridge": report.bridge,
            "from": report.sender,
            "cloud": report.cloud,
            "session": report.session,
            "n": report.n,
            "issued": report.issued,
            "policy": report.policy,
            "trust_version": report.trust_version,
            "trust_expires": report.trust_expires,
            "queues": {queue: dict(counts) for queue, counts in report.queues.items()},
        }
    )
    return b"".join((_MAGIC, key.kid, key.sign(_LABEL + key.kid + payload), payload))


def read(data: bytes, subject: str, trust: Trust, now_ms: int) -> Report:
    """Check a report: author, signature, role, place and time. Whether it is a repeat is the caller's to know.

    Raises:
        BundleExpired: The trust bundle is no longer valid; says nothing about the report.
        BadFrame, UnknownKey, BadSignature, NotAuthorised, WrongSubject, Expired, FromTheFuture
    """
    trust.check(now_ms)
    if not data.startswith(_MAGIC) or not _HEAD_LEN < len(data) <= MAX_REPORT:
        raise BadFrame("not a report of an agent")
    kid, signature, payload = data[4:36], data[36:_HEAD_LEN], data[_HEAD_LEN:]
    peer, key = trust.signer(kid, now_ms)
    if not key.verify(signature, _LABEL + kid + payload):
        raise BadSignature("the signature of a report does not verify")
    report = _parse(payload)
    if report.sender != peer.name:
        raise BadSignature("a report names another author than the key that signed it")
    if peer.role != Role.AGENT or report.cloud != peer.cloud or report.bridge != trust.bridge:
        raise NotAuthorised(f"{peer.name} is no agent of the cloud and bridge that its report names")
    if subject != subjects.stats(report.cloud, report.sender):
        raise WrongSubject("a report came on another subject than its author's")
    if report.issued < now_ms - MAX_AGE_MS:
        raise Expired("a report is older than 30 s; check both clocks")
    if report.issued > now_ms + MAX_AGE_MS:
        raise FromTheFuture("a report is signed more than 30 s ahead; check both clocks")
    return report


def _parse(payload: bytes) -> Report:
    try:
        value = strict_json.parse_object(payload)
        strict_json.expect_keys(value, _FIELDS)
        if value["v"] != 1 or not all(type(value[name]) is str for name in ("bridge", "session", "policy")):
            raise ValueError
        if not SESSION.fullmatch(value["session"]) or len(value["policy"]) not in (0, 64):
            raise ValueError
        if any(char not in "0123456789abcdef" for char in value["policy"]) or type(value["queues"]) is not dict:
            raise ValueError
        return Report(
            bridge=value["bridge"],
            sender=_name(value["from"]),
            cloud=_name(value["cloud"]),
            session=value["session"],
            n=_whole(value["n"]),
            issued=_whole(value["issued"]),
            policy=value["policy"],
            trust_version=_whole(value["trust_version"]),
            trust_expires=_whole(value["trust_expires"]),
            queues={_name(queue): _counts(counts) for queue, counts in value["queues"].items()},
        )
    except ValueError:
        raise BadFrame("a report's payload is not as specified") from None


def _counts(value: object) -> dict[str, int]:
    if type(value) is not dict or not value.keys() <= set(COUNTS):
        raise ValueError
    return {name: _whole(count) for name, count in value.items()}


def _name(value: object) -> str:
    if type(value) is not str or not is_name(value):
        raise ValueError
    return value


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError
    return value
