"""What keys and replay orders are on the wire, written from ``docs/spec.md`` alone (7.4, 7.5)."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct

from tests.vectors.independent import Frame, authenticate
from tests.vectors.independent_trust import Bundle
from tests.vectors.strictness import Refused


def session_of(secret: bytes, producer: str, queue: str, key: str) -> str:
    message = b""
    for text in (producer, queue, key):
        message += struct.pack(">I", len(text.encode("utf-8"))) + text.encode("utf-8")
    return hmac.new(secret, message, hashlib.sha256).hexdigest()[:24]


def tag_of(secret: bytes, content_type: str, body: bytes) -> str:
    rest = hashlib.sha256(body).digest()
    if content_type == "application/json":
        rest = written(json.loads(body)).encode("utf-8")
    canonical = content_type.encode("ascii") + b"\0" + rest
    return hmac.new(secret, struct.pack(">I", len(canonical)) + canonical, hashlib.sha256).hexdigest()


def written(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{written(key)}:{written(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # one number, text or word


def read_replay(data: bytes, bundle: Bundle, now: int, subject: str, workers: str) -> tuple[Frame, Frame]:
    """The order and the job of a message on a replay subject, verified."""
    (order_len,) = struct.unpack_from(">I", data.ljust(4, b"\0"))
    raw = data[4:]
    if not 0 < order_len < len(raw):
        raise Refused("BadFrame", "lengths")
    order, job = authenticate(raw[:order_len], bundle, now), authenticate(raw[order_len:], bundle, now)
    if (order.core["type"], job.core["type"]) != ("replay", "job"):
        raise Refused("WrongSubject", "types")
    about = [(core["queue"], core["kind"], core["job"], core["to"]) for core in (order.core, job.core)]
    named = (order.core["producer"], order.core["job_digest"])
    if about[0] != about[1] or named != (job.core["from"], hashlib.sha256(job.head).hexdigest()):
        raise Refused("WrongSubject", "another job")
    fields = (order.core["queue"], order.core["producer"], order.core["job"], order.core["generation"])
    if subject != "replay." + ".".join(map(str, fields)) or order.core["to"] != workers:
        raise Refused("WrongSubject", "another subject")
    if order.core["generation"] <= job.core["generation"]:
        raise Refused("WrongSubject", "generation")
    return order, job
