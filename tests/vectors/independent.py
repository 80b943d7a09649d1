"""A second opener of envelopes, written from ``docs/spec.md`` alone.

Neither it nor what it is made of imports anything from ``bridge``: where the two agree, the specification says what
the bridge does. It is slow, keeps nothing, and stops at the first refusal, named as the specification names it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.vectors import independent_packing
from tests.vectors import strictness as strict
from tests.vectors.chunked import open_chunked
from tests.vectors.independent_trust import AHEAD_MS, Bundle, kid, verifies
from tests.vectors.strictness import Refused
from tests.vectors.xwing import XWing, open_single_shot

LIFE_MS = 31 * 24 * 60 * 60 * 1_000
ENVELOPE = 768 * 1_024


# --- 4.1 Frame, 4.3 Core ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    core: dict[str, Any]
    wraps: list[tuple[bytes, bytes]]
    before: bytes
    head: bytes
    ct_sha256: bytes
    kid: bytes
    size: int
    index: int
    path: list[bytes]
    signature: bytes
    ciphertext: bytes


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) != count:
            raise Refused("BadFrame", "cut short")
        self.at += count
        return taken

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")


def parse(data: bytes) -> Frame:
    """Step 2, from the front."""
    if len(data) > ENVELOPE:
        raise Refused("BadFrame", "too large")
    reader = _Reader(data)
    if reader.take(4) != b"RB1\0":
        raise Refused("BadFrame", "magic")
    core_len = reader.number(2)
    if core_len > 4_096:
        raise Refused("BadFrame", "length of the core")
    core = check_core(reader.take(core_len))
    wraps = [(reader.take(32), reader.take(1_168)) for _ in range(_at_most(reader.number(1), 8))]
    if len({to for to, _ in wraps}) != len(wraps):
        raise Refused("BadFrame", "two wraps for a key")
    before = data[: reader.at]
    ct_len, ct_sha256 = reader.number(8), reader.take(32)
    head = data[: reader.at]
    by, size, index = reader.take(32), reader.number(8), reader.number(1)
    if not index < size <= 256:
        raise Refused("BadFrame", "index and size")
    path = [reader.take(32) for _ in range(path_length(index, size))]
    signature = reader.take(64)
    ciphertext = reader.take(ct_len)
    if reader.at != len(data):
        raise Refused("BadFrame", "bytes behind the ciphertext")
    if core["type"] == "start":
        if wraps or ciphertext:
            raise Refused("BadFrame", "a start that is sealed")
    elif not wraps:
        raise Refused("BadFrame", "no wraps")
    return Frame(core, wraps, before, head, ct_sha256, by, size, index, path, signature, ciphertext)


def _at_most(count: int, most: int) -> int:
    if count > most:
        raise Refused("BadFrame", "count")
    return count


def path_length(index: int, size: int) -> int:
    """RFC 9162, 2.1.3.1: the tree splits at the largest power of two below its size."""
    if size == 1:
        return 0
    split = 1 << (size - 1).bit_length() - 1
    return 1 + (path_length(index, split) if index < split else path_length(index - split, size - split))


def tree_root(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    if size == 1:
        return leaf
    split = 1 << (size - 1).bit_length() - 1
    if index < split:
        left, right = tree_root(leaf, index, split, path[:-1]), path[-1]
    else:
        left, right = path[-1], tree_root(leaf, index - split, size - split, path[:-1])
    return hashlib.sha256(b"\x01" + left + right).digest()


def check_core(raw: bytes) -> dict[str, Any]:
    core = strict.read(raw, "BadFrame")
    if not strict.one_of(1)(core.get("v")):
        raise Refused("UnknownVersion", "of the core")
    checks: dict[str, strict.Check] = {
        "v": strict.one_of(1),
        "type": strict.one_of("job", "result", "start", "event", "segment", "control", "replay"),
        "queue": strict.name,
        "kind": strict.name,
        "job": strict.matches(r"[0-9a-f]{24}\.(0|[1-9][0-9]{0,15})"),
        "generation": strict.whole(0, 2**31),
        "from": strict.name,
        "from_kid": strict.hex_of(32),
        "to": strict.name,
        "issued": strict.time,
        "expires": strict.time,
    }
    type_ = core.get("type")
    if type_ != "start":
        checks["wrap_id"] = strict.hex_of(16)
    if core.get("type") == "job":
        checks["priority"] = strict.one_of("high", "normal", "low")
    if type_ != "job":
        checks["job_digest"] = strict.hex_of(32)
    if type_ == "control":
        checks["action"] = strict.one_of("cancel")
    if type_ == "replay":
        checks["producer"] = strict.name
    if type_ in ("result", "start", "event", "segment"):
        checks["attempt"] = strict.whole(0, 2**31)
        checks["worker"] = strict.matches(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
    if type_ == "segment":
        checks |= {"run": strict.whole(1, 2**31), "segment": strict.whole(0, 2**31), "previous": strict.hex_of(32)}
        checks |= {"records": strict.whole(1, 2**53 - 1), "bytes": strict.whole(0, 2**34)}
    if core.get("type") in ("job", "result") and "traceparent" in core:
        checks["traceparent"] = strict.matches(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
    if type_ in ("job", "result", "segment") and "args_tag" in core:
        checks["args_tag"] = strict.hex_of(32)
    if type_ == "job" and "concurrency_key" in core:
        checks["concurrency_key"] = strict.hex_of(32)
    if type_ == "job" and "not_before" in core:
        checks["not_before"] = strict.whole(1, 253_402_300_799_999)
    in_parts: dict[str, strict.Check] = {
        "transfer": strict.hex_of(16),
        "index": strict.hex_of(32),
        "length": strict.whole(1, 2**34),
    }
    if type_ in ("job", "result") and in_parts.keys() & core.keys():
        checks |= in_parts
    strict.fields(core, "BadFrame", **checks)
    if type_ == "job" and core["job"].endswith(".0") != ("args_tag" in core):
        raise Refused("BadFrame", "keyed")
    if "not_before" in core and not core["issued"] <= core["not_before"] < core["expires"]:
        raise Refused("BadFrame", "not_before")
    if not core["issued"] < core["expires"] <= core["issued"] + LIFE_MS:
        raise Refused("BadFrame", "times")
    return core


# --- 4.6 Receiving ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    core: dict[str, Any]
    digest: bytes
    status: str | None
    content_type: str | None
    body: bytes
    secret: bytes = b""
    prelude: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """As the published vectors have it."""
        value: dict[str, Any] = {"core": self.core, "digest": self.digest.hex()}
        if self.core["type"] != "start":
            value |= {"content_type": self.content_type, "length": len(self.body)}
            value |= {"sha256": hashlib.sha256(self.body).hexdigest()}
        return value if self.status is None else value | {"status": self.status}


def keys_of(seeds: Iterable[bytes]) -> dict[bytes, XWing]:
    """Private keys by kid."""
    return {kid("xwing", key.public): key for key in map(XWing, seeds)}


def receive(
    data: bytes, bundle: Bundle, now: int, me: str, keys: dict[bytes, XWing], subject: str | None = None
) -> Message:
    """Every step; a start ends with the sixth, since nothing is sealed in it."""
    frame = authenticate(data, bundle, now, subject)
    if frame.core["type"] == "start":
        return Message(frame.core, hashlib.sha256(frame.head).digest(), None, None, b"")
    if frame.core["type"] == "job":
        check_time(frame.core, now)
    return open_sealed(frame, me, keys)


def authenticate(data: bytes, bundle: Bundle, now: int, subject: str | None = None) -> Frame:
    """Steps 1 to 6, with the subject where it is known; nothing private."""
    bundle.check(now)
    frame = parse(data)
    core = frame.core
    signer = bundle.signers.get(frame.kid)
    if signer is None or not signer.not_before <= now <= signer.not_after:
        raise Refused("UnknownKey", "of the signature")
    if core["from_kid"] != frame.kid.hex() or core["from"] != signer.principal:
        raise Refused("BadSignature", "another author")
    root = tree_root(hashlib.sha256(b"\0" + frame.head).digest(), frame.index, frame.size, frame.path)
    signed = b"bunny-bridge/v1/batch\0" + frame.kid + frame.size.to_bytes(8) + root
    if not verifies(signer.key, frame.signature, signed):
        raise Refused("BadSignature", "of the tree")
    if hashlib.sha256(frame.ciphertext).digest() != frame.ct_sha256:
        raise Refused("BadSignature", "another ciphertext")
    producer, worker = core["to"], core["from"]
    if core["type"] in ("job", "control"):
        producer, worker = core["from"], core["to"]
    elif core["type"] == "replay":
        producer, worker = core["producer"], core["to"]
        operator, pool = bundle.principals.get(core["from"]), bundle.principals.get(worker)
        if operator is None or pool is None or operator != ("operator", pool[1]):
            raise Refused("NotAuthorised", "no operator of the workers' cloud")
    if core["kind"] not in bundle.grants.get((core["queue"], producer, worker), ()):
        raise Refused("NotAuthorised", "no grant")
    if subject is not None and subject != subject_of(core):
        raise Refused("WrongSubject", "not that of the core")
    return frame


def subject_of(core: dict[str, Any]) -> str:
    if core["type"] == "job" and "not_before" in core:
        return f"delayed.{core['queue']}.{core['from']}.{core['job']}"
    if core["type"] == "job":
        return f"jobs.{core['queue']}.{core['priority']}.{core['from']}.{core['job']}"
    if core["type"] == "control":
        return f"control.{core['queue']}.{core['from']}.{core['job']}"
    if core["type"] == "event":
        return f"events.{core['queue']}.{core['to']}.{core['job']}"
    if core["type"] == "segment":
        number = f"{core['generation']}-{core['run']}-{core['segment']}"
        return f"parts.{core['queue']}.{core['to']}.{core['job']}.segments.{number}"
    if core["type"] == "replay":
        return f"replay.{core['queue']}.{core['producer']}.{core['job']}.{core['generation']}"
    return f"{core['type']}s.{core['queue']}.{core['to']}.{core['job']}.{core['generation']}"


def check_time(core: dict[str, Any], now: int) -> None:
    """A job's times; those of a result and a start are for the stream that keeps them."""
    if now >= core["expires"]:
        raise Refused("Expired", "too late")
    if core["issued"] > now + AHEAD_MS:
        raise Refused("FromTheFuture", "too early")


def open_sealed(frame: Frame, me: str, keys: dict[bytes, XWing]) -> Message:
    """Steps 7 and 8."""
    core = frame.core
    mine = [(to, wrap) for to, wrap in frame.wraps if to in keys]
    digest = hashlib.sha256(frame.head).digest()
    if core["to"] != me:
        raise Refused("WrongRecipient", "to")
    if not mine:
        raise Refused("WrongRecipient", "no wrap")
    to, wrap = mine[0]
    info = b"bunny-bridge/v1/wrap\0" + frame.kid + to + bytes.fromhex(core["wrap_id"])
    try:
        secret = open_single_shot(keys[to], info, wrap)
        body_info = b"bunny-bridge/v1/body\0" + hashlib.sha256(frame.before).digest()
        key = HKDF(hashes.SHA256(), 32, None, body_info).derive(secret)
        context = b"bunny-bridge/v1/" + core["type"].encode()
        plain = open_chunked("AEAD_AES_256_GCM", hashes.SHA512(), key, context, frame.ciphertext)
    except ValueError:
        raise Refused("BadSeal", "does not open") from None
    return _read(core, digest, plain, secret)


def _read(core: dict[str, Any], digest: bytes, plain: bytes, secret: bytes) -> Message:
    length = int.from_bytes(plain[:2])
    raw, rest = plain[2 : 2 + length], plain[2 + length :]
    if len(plain) < 2 + length or length > 1_024:
        raise Refused("BadPrelude", "length")
    prelude = strict.read(raw, "BadPrelude")
    checks = {"content_type": strict.text, "length": strict.whole(0, 2**53), "sha256": strict.hex_of(32)}
    if core["type"] == "result":
        checks["status"] = strict.one_of("succeeded", "failed", "expired")
    strict.fields(prelude, "BadPrelude", **checks, **independent_packing.checks(prelude, core))
    body = independent_packing.unpack(prelude, core, 2 + length, rest)
    if prelude["length"] != len(body) or prelude["sha256"] != hashlib.sha256(body).hexdigest():
        raise Refused("BadPrelude", "another body")
    return Message(core, digest, prelude.get("status"), prelude["content_type"], body, secret, prelude)
