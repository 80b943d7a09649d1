"""Envelopes that are refused, each for one reason: made anew on each call, since sealing is random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from bridge import crypto
from bridge.crypto import KemKey, KemPublicKey, SigningKey
from tests.vectors.forge import SECRET, WRAP_ID, Forgery, spread
from tests.vectors.labels import HOUR, IDENTITIES, NOW, SESSION

DAY = 24 * HOUR
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
IN_PARTS = {"transfer": "ab" * 16, "index": "cd" * 32, "length": 1}
ORDER = 2**252 + 27742317777372353535851937790883648493


class Case(NamedTuple):
    """An envelope, and what becomes of it."""

    name: str
    refusal: str
    data: bytes
    reader: str = "bunny"
    now: int = NOW
    subject: str | None = None


def public(key: KemKey) -> KemPublicKey:
    return KemPublicKey(key.public)


def sign_key(name: str) -> SigningKey:
    return IDENTITIES[name].sign[0]


BUNNY = public(IDENTITIES["bunny"].kem[0])
RELAY = public(IDENTITIES["relay"].kem[0])
OTHER = public(IDENTITIES["other"].kem[0])
SUBJECT = f"jobs.thumbs.normal.relay.{SESSION}.1"


def core(type_: str, sender: str, recipient: str) -> dict[str, Any]:
    value: dict[str, Any] = {
        "v": 1,
        "type": type_,
        "queue": "thumbs",
        "kind": "resize",
        "job": f"{SESSION}.1",
        "generation": 0,
        "from": sender,
        "from_kid": sign_key(sender).kid.hex(),
        "to": recipient,
        "issued": NOW,
        "expires": NOW + 60_000,
    }
    if type_ == "job":
        return value | {"wrap_id": WRAP_ID.hex(), "priority": "normal"}
    if type_ != "start":
        value["wrap_id"] = WRAP_ID.hex()
    value["job_digest"] = "ab" * 32
    if type_ == "control":
        return value | {"action": "cancel"}
    if type_ == "replay":
        return value | {"producer": "relay"}
    value |= {"attempt": 1, "worker": "pod-1"}
    if type_ == "segment":
        value |= {"run": 1, "segment": 0, "previous": "00" * 32, "records": 1, "bytes": 1}
    return value


def job(sender: str = "relay", recipient: str = "bunny", to: KemPublicKey = BUNNY) -> Forgery:
    return Forgery(core("job", sender, recipient), sign_key(sender), (to,))


def control() -> Forgery:
    return Forgery(core("control", "relay", "bunny"), sign_key("relay"), (BUNNY,), body=b"null")


def event() -> Forgery:
    return Forgery(core("event", "bunny", "relay"), sign_key("bunny"), (RELAY,), body=b"{}")


def segment() -> Forgery:
    return Forgery(core("segment", "bunny", "relay"), sign_key("bunny"), (RELAY,), body=b"\0\0\0\1x")


def result(sender: str = "bunny", recipient: str = "relay") -> Forgery:
    return Forgery(core("result", sender, recipient), sign_key(sender), (RELAY,), body=b'{"ok":true}')


def start(sender: str = "bunny", recipient: str = "relay") -> Forgery:
    return Forgery(core("start", sender, recipient), sign_key(sender), ())


def frames() -> Iterator[Case]:
    good = job()
    head, ciphertext = good.parts()
    data = good.with_(ciphertext=ciphertext).encode()
    wrap = good.wrap(BUNNY)
    first_wrap = 6 + len(spread(good.core)) + 1
    bad = {
        "empty": b"",
        "magic-of-version-2": b"RB2\0" + data[4:],
        "magic-alone": b"RB1\0",
        "cut-in-the-core": data[:40],
        "cut-in-a-wrap": data[: first_wrap + 600],
        "cut-in-the-signature-block": data[: len(head) + 90],
        "cut-by-one-byte": data[:-1],
        "one-byte-too-many": data + b"\0",
        "core-len-past-the-end": good.with_(core_len=4096).encode()[:3000],
        "core-len-one-short": good.with_(core_len=len(spread(good.core)) - 1).encode(),
        "core-longer-than-4096": good.with_(core=spread(good.core) + b" " * 4096).encode(),
        "job-without-wraps": good.with_(wraps=()).encode(),
        "nine-wraps": good.with_(wraps=tuple((bytes([n]) * 32, wrap[1]) for n in range(9))).encode(),
        "count-says-two-of-one": good.with_(count=2).encode(),
        "two-wraps-for-one-key": good.with_(wraps=(wrap, wrap)).encode(),
        "result-without-wraps": result().with_(wraps=()).encode(),
        "start-with-a-wrap": start().with_(wraps=(wrap,)).encode(),
        "start-with-a-ciphertext": start().with_(ciphertext=b"x").encode(),
        "ct-len-one-less": good.with_(ct_len=len(ciphertext) - 1).encode(),
        "ct-len-one-more": good.with_(ct_len=len(ciphertext) + 1).encode(),
        "ct-len-greatest": good.with_(ct_len=2**64 - 1).encode(),
        "size-0": good.with_(size=0).encode(),
        "size-257": good.with_(size=257, path=(bytes(32),) * 9).encode(),
        "size-greatest": good.with_(size=2**64 - 1).encode(),
        "index-is-size": good.with_(size=2, index=2, path=(bytes(32),)).encode(),
        "path-too-short": good.with_(size=3, index=0, path=(bytes(32),)).encode(),
        "path-too-long": good.with_(size=3, index=2, path=(bytes(32),) * 2).encode(),
        "path-of-a-tree-of-one": good.with_(path=(bytes(32),)).encode(),
    }
    yield from (Case(name, "BadFrame", envelope) for name, envelope in bad.items())


def cores() -> Iterator[Case]:
    good = job()
    raw = spread(good.core)
    texts = {
        "byte-order-mark": b"\xef\xbb\xbf" + raw,
        "not-utf-8": raw.replace(b"thumbs", b"thumb\xff"),
        "an-array": b"[" + raw + b"]",
        "text-after-it": raw + b" x",
        "duplicate-key": raw.replace(b'"generation":0', b'"generation":0,"generation":0'),
        "float": raw.replace(b'"generation":0', b'"generation":0.0'),
        "exponent": raw.replace(b'"generation":0', b'"generation":0e0'),
        "nan": raw.replace(b'"generation":0', b'"generation":NaN'),
        "half-a-surrogate-pair": raw.replace(b'"thumbs"', b'"\\ud800"'),
        "single-quotes": raw.replace(b'"', b"'"),
    }
    for name, text in texts.items():
        yield Case(f"core-{name}", "BadFrame", good.with_(core=text).encode())
    fields: dict[str, dict[str, object]] = {
        "null": {"generation": None},
        "true-for-a-number": {"generation": True},
        "text-for-a-number": {"generation": "0"},
        "field-missing": {"priority": ...},
        "field-too-many": {"extra": 1},
        "reserved-field": {"receipt_prev": "00" * 32},
        "traceparent-null": {"traceparent": None},
        "traceparent-of-version-01": {"traceparent": f"01{TRACE[2:]}"},
        "traceparent-upper-case": {"traceparent": TRACE.upper()},
        "traceparent-of-no-trace": {"traceparent": f"00-{'0' * 32}-{'1' * 16}-01"},
        "traceparent-of-no-span": {"traceparent": f"00-{'1' * 32}-{'0' * 16}-01"},
        "traceparent-with-more-behind": {"traceparent": f"{TRACE}-00"},
        "priority-urgent": {"priority": "urgent"},
        "keyed-without-a-tag": {"job": f"{SESSION}.0"},
        "a-tag-without-a-key": {"args_tag": "ab" * 32},
        "a-tag-of-31-bytes": {"job": f"{SESSION}.0", "args_tag": "ab" * 31},
        "may-start-before-it-was-issued": {"not_before": NOW - 1},
        "may-start-when-it-has-expired": {"not_before": NOW + 60_000},
        "may-start-at-0": {"not_before": 0},
        "concurrency-key-of-a-result": {"type": "result", "concurrency_key": "cd" * 32},
        "transfer-alone": {"transfer": "ab" * 16},
        "payload-without-an-index": {"transfer": "ab" * 16, "length": 1},
        "payload-of-no-byte": {**IN_PARTS, "length": 0},
        "payload-too-long": {**IN_PARTS, "length": 2**34 + 1},
        "transfer-of-15-bytes": {**IN_PARTS, "transfer": "ab" * 15},
        "index-upper-case": {**IN_PARTS, "index": "AB" * 32},
        "payload-of-a-control": {**IN_PARTS, "type": "control"},
        "type-event": {"type": "event"},
        "type-missing": {"type": ...},
        "job-with-a-job-digest": {"job_digest": "ab" * 32},
        "queue-empty": {"queue": ""},
        "queue-of-64": {"queue": "q" * 64},
        "queue-with-a-dot": {"queue": "thumbs.a"},
        "queue-with-a-newline": {"queue": "thumbs\n"},
        "queue-upper-case": {"queue": "Thumbs"},
        "kind-ends-in-a-dash": {"kind": "resize-"},
        "session-upper-case": {"job": f"{SESSION.upper()}.1"},
        "session-short": {"job": f"{SESSION[1:]}.1"},
        "n-zero": {"job": f"{SESSION}.0"},
        "n-leading-zero": {"job": f"{SESSION}.01"},
        "n-of-17-digits": {"job": f"{SESSION}.{10**16}"},
        "generation-negative": {"generation": -1},
        "generation-too-great": {"generation": 2**31 + 1},
        "from-kid-upper-case": {"from_kid": sign_key("relay").kid.hex().upper()},
        "wrap-id-short": {"wrap_id": "00" * 15},
        "expires-is-issued": {"expires": NOW},
        "longer-than-31-days": {"expires": NOW + 31 * DAY + 1},
        "time-of-2-to-53": {"issued": 2**53 - 1, "expires": 2**53},
        "issued-negative": {"issued": -1, "expires": NOW},
    }
    for name, change in fields.items():
        yield Case(f"core-{name}", "BadFrame", good.with_core(**change).encode())
    answers: dict[str, dict[str, object]] = {
        "without-a-job-digest": {"job_digest": ...},
        "attempt-negative": {"attempt": -1},
        "worker-empty": {"worker": ""},
        "worker-of-129": {"worker": "w" * 129},
        "worker-with-a-space": {"worker": "pod 1"},
        "with-a-priority": {"priority": "normal"},
    }
    for name, change in answers.items():
        yield Case(f"core-result-{name}", "BadFrame", result().with_core(**change).encode(), "relay")
    counts: dict[str, dict[str, object]] = {
        "of-no-run": {"run": 0},
        "without-a-run": {"run": ...},
        "of-a-run-too-great": {"run": 2**31 + 1},
        "number-negative": {"segment": -1},
        "previous-of-31-bytes": {"previous": "00" * 31},
        "without-the-one-before": {"previous": ...},
        "of-no-record": {"records": 0},
        "bytes-too-many": {"bytes": 2**34 + 1},
        "with-a-payload-in-parts": IN_PARTS,
        "with-a-traceparent": {"traceparent": TRACE},
    }
    for name, change in counts.items():
        yield Case(f"core-segment-{name}", "BadFrame", segment().with_core(**change).encode(), "relay")
    yield Case("core-start-with-a-wrap-id", "BadFrame", start().with_core(wrap_id=WRAP_ID.hex()).encode(), "relay")
    yield Case("core-start-with-a-traceparent", "BadFrame", start().with_core(traceparent=TRACE).encode(), "relay")


def versions() -> Iterator[Case]:
    good = job()
    for name, value in {"2": 2, "0": 0, "text": "1", "true": True, "null": None, "missing": ...}.items():
        yield Case(f"core-version-{name}", "UnknownVersion", good.with_core(v=value).encode())
    other = spread({"v": 2, "anything": [0]})
    behind = b"RB1\0" + len(other).to_bytes(2) + other + b"\xff and whatever a later version has behind its core"
    yield Case("core-version-2-before-another-frame", "UnknownVersion", behind)


def authors() -> Iterator[Case]:
    good = job()
    data = good.encode()
    head, ciphertext = good.parts()
    of_two = crypto.sha256(b"\x01" + crypto.leaf_hash(head) + bytes(32))
    pair = good.with_(ciphertext=ciphertext, size=2, root=of_two)
    at = len(data) - len(ciphertext) - 64
    s = int.from_bytes(data[at + 32 : at + 64], "little")

    def flipped(where: int) -> bytes:
        return data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :]

    for name in ("outsider", "relay-retired", "relay-future"):
        yield Case(f"signed-by-{name}", "UnknownKey", job(name).encode())
    yield Case("kid-flipped", "UnknownKey", flipped(len(head)))
    bad = {
        "from-kid-of-another": good.with_core(from_kid=sign_key("other").kid.hex()).encode(),
        "from-another": good.with_core(from_="other").encode(),
        "kid-of-another-in-the-block": good.with_(kid=sign_key("other").kid).encode(),
        "resigned-by-another": good.with_(signer=sign_key("other")).encode(),
        "signature-of-another-key": good.with_(kid=good.signer.kid, signer=sign_key("other")).encode(),
        "signature-flipped": flipped(at),
        "signature-malleated": data[: at + 32] + (s + ORDER).to_bytes(32, "little") + data[at + 64 :],
        "signature-zero": good.with_(signature=bytes(64)).encode(),
        "queue-changed-after-signing": data.replace(b'"thumbs"', b'"thumbz"', 1),
        "wrap-flipped-after-signing": flipped(6 + len(spread(good.core)) + 1 + 32),
        "ct-sha256-flipped": flipped(len(head) - 1),
        "ciphertext-flipped": flipped(len(data) - 1),
        "other-ciphertext-of-the-same-length": good.with_(sent_ciphertext=bytes(len(ciphertext))).encode(),
        "start-with-the-hash-of-something": start().with_(ct_sha256=bytes(32)).encode(),
        "proof-flipped": pair.with_(path=(b"\x01" + bytes(31),)).encode(),
        "proof-at-another-index": pair.with_(index=1, path=(bytes(32),)).encode(),
        "signed-for-another-size": pair.with_(
            size=1, path=(), signature=pair.encode()[-64 - len(ciphertext) :][:64]
        ).encode(),
        "leaf-hashed-without-its-prefix": good.with_(root=crypto.sha256(head)).encode(),
        "head-signed-without-a-tree": good.with_(signature=good.signer.sign(head)).encode(),
    }
    yield from (Case(name, "BadSignature", envelope) for name, envelope in bad.items())


def authority() -> Iterator[Case]:
    bad = {
        "job-of-a-stranger": job("stranger").encode(),
        "job-of-the-workers": job("bunny").encode(),
        "job-to-a-stranger": job(recipient="stranger").encode(),
        "job-to-a-producer": job(recipient="other").encode(),
        "job-on-another-queue": job().with_core(queue="lookups").encode(),
        "job-of-another-kind": job().with_core(kind="delete").encode(),
        "result-of-a-producer": result("relay", "bunny").encode(),
        "result-of-a-stranger": result("stranger").encode(),
        "result-of-another-kind": result().with_core(kind="delete").encode(),
        "start-of-a-stranger": start("stranger").encode(),
    }
    yield from (Case(name, "NotAuthorised", envelope) for name, envelope in bad.items())
    for name, subject in {
        "n": f"jobs.thumbs.normal.relay.{SESSION}.2",
        "session": f"jobs.thumbs.normal.relay.{SESSION[::-1]}.1",
        "producer": f"jobs.thumbs.normal.other.{SESSION}.1",
        "queue": f"jobs.lookups.normal.relay.{SESSION}.1",
        "priority": f"jobs.thumbs.high.relay.{SESSION}.1",
        "type": f"results.thumbs.relay.{SESSION}.1.0",
    }.items():
        yield Case(f"job-on-the-subject-of-another-{name}", "WrongSubject", job().encode(), subject=subject)
    for name, subject in {
        "generation": f"results.thumbs.relay.{SESSION}.1.1",
        "producer": f"results.thumbs.other.{SESSION}.1.0",
    }.items():
        yield Case(f"result-on-the-subject-of-another-{name}", "WrongSubject", result().encode(), "relay", NOW, subject)
    yield Case("not-granted-and-on-another-subject", "NotAuthorised", bad["job-of-another-kind"], subject="jobs.thumbs")
    later = NOW + 60_000
    yield Case("expired", "Expired", job().encode(), now=later)
    future = job().with_core(issued=NOW + 300_001, expires=NOW + 400_000).encode()
    yield Case("from-the-future", "FromTheFuture", future)
    yield Case("expired-and-for-another", "Expired", job().encode(), reader="other", now=later)
    yield Case("bundle-expired", "BundleExpired", job().encode(), now=NOW + HOUR)
    yield Case("bundle-from-the-future", "BundleExpired", job().encode(), now=NOW - HOUR - 300_001)
    yield Case("no-envelope-under-an-expired-bundle", "BundleExpired", b"", now=NOW + HOUR)


def seals() -> Iterator[Case]:
    good = job()
    for name, reader in {"other": "other", "the-author": "relay"}.items():
        yield Case(f"read-by-{name}", "WrongRecipient", good.encode(), reader)
    yield Case("wrapped-for-another", "WrongRecipient", job(to=OTHER).encode())
    yield Case("wrapped-for-the-author", "WrongRecipient", result().with_(recipients=(BUNNY,)).encode(), "relay")
    kid, wrap = good.wrap(BUNNY)
    _, sealed = good.parts()
    _, chunks = good.with_(body=bytes(33_000)).parts()
    first, second, last = 56, 56 + 16_384 + 16, 56 + 2 * (16_384 + 16)
    newer = public(IDENTITIES["bunny"].kem[1])
    wraps = {
        "of-another-key": (kid, good.wrap(OTHER)[1]),
        "of-another-sender": good.wrap(BUNNY, sender_kid=sign_key("other").kid),
        "of-another-wrap-id": good.wrap(BUNNY, wrap_id=b"x" * 16),
        "with-the-wrap-id-in-hex": good.wrap(BUNNY, wrap_id=WRAP_ID.hex().encode()),
        "of-another-info": (kid, BUNNY.wrap(SECRET, b"")),
        "ml-kem-share-flipped": (kid, bytes([wrap[0] ^ 1]) + wrap[1:]),
        "x25519-share-of-small-order": (kid, wrap[:1088] + bytes(32) + wrap[1120:]),
        "tag-flipped": (kid, wrap[:-1] + bytes([wrap[-1] ^ 1])),
    }
    for name, pair in wraps.items():
        yield Case(f"wrap-{name}", "BadSeal", good.with_(wraps=(pair,)).encode())
    yield Case(
        "first-wrap-bad-second-good", "BadSeal", good.with_(wraps=(wraps["tag-flipped"], good.wrap(newer))).encode()
    )
    ciphertexts = {
        "empty": b"",
        "of-another-envelope": good.with_core(job=f"{SESSION}.2").parts()[1],
        "shorter-than-its-header": bytes(55),
        "header-alone": sealed[:56],
        "salt-flipped": bytes([sealed[0] ^ 1]) + sealed[1:],
        "commitment-flipped": sealed[:24] + bytes([sealed[24] ^ 1]) + sealed[25:],
        "last-chunk-dropped": chunks[:second],
        "chunks-swapped": chunks[:first] + chunks[second:last] + chunks[first:second] + chunks[last:],
        "a-byte-more": sealed + b"\0",
    }
    for name, ciphertext in ciphertexts.items():
        yield Case(f"ciphertext-{name}", "BadSeal", good.with_(ciphertext=ciphertext).encode())
    yield Case(
        "ciphertext-in-the-context-of-a-result", "BadSeal", good.with_(context=b"bunny-bridge/v1/result").encode()
    )


def preludes() -> Iterator[Case]:
    good = job()
    true: dict[str, Any] = {
        "content_type": "application/json",
        "length": len(good.body),
        "sha256": crypto.sha256(good.body).hex(),
    }
    texts: dict[str, Forgery] = {
        "none": good.with_(plain=b""),
        "half-a-length": good.with_(plain=b"\0"),
        "length-0": good.with_(plain=b"\0\0body"),
        "past-the-end": good.with_(prelude_len=1024),
        "of-1025": good.with_(prelude=spread(true) + b" " * (1025 - len(spread(true)))),
        "no-json": good.with_(prelude=b"{"),
        "an-array": good.with_(prelude=b"[]"),
        "byte-order-mark": good.with_(prelude=b"\xef\xbb\xbf" + spread(true)),
        "duplicate-key": good.with_(prelude=spread(true)[:-1] + b',"length":13}'),
        "half-a-surrogate-pair": good.with_(prelude=true | {"content_type": "\ud800"}),
        "length-float": good.with_(prelude=true | {"length": float(len(good.body))}),
    }
    changes: dict[str, dict[str, object]] = {
        "length-of-another-body": {"length": 12},
        "sha256-of-another-body": {"sha256": "00" * 32},
        "sha256-upper-case": {"sha256": true["sha256"].upper()},
        "content-type-empty": {"content_type": ""},
        "content-type-null": {"content_type": None},
        "field-too-many": {"extra": 1},
        "of-a-job-with-a-status": {"status": "succeeded"},
        "of-a-job-with-a-null-status": {"status": None},
        "of-a-job-with-an-unknown-status": {"status": "done"},
    }
    for name, change in changes.items():
        texts[name] = good.with_(prelude=true | change)
    for name in true:
        texts[f"without-{name}"] = good.with_(prelude={key: value for key, value in true.items() if key != name})
    yield from (Case(f"prelude-{name}", "BadPrelude", forgery.encode()) for name, forgery in texts.items())
    answer = result()
    spoken = {**true, "length": len(answer.body), "sha256": crypto.sha256(answer.body).hex()}
    statuses: dict[str, dict[str, object]] = {"unknown": {"status": "done"}, "null": {"status": None}, "missing": {}}
    for name, status in statuses.items():
        data = answer.with_(prelude={**spoken, **status}).encode()
        yield Case(f"prelude-of-a-result-status-{name}", "BadPrelude", data, "relay")


def all_refused() -> list[Case]:
    makers = (frames, cores, versions, authors, authority, seals, preludes)
    return [case for maker in makers for case in maker()]
