"""Make the published vectors anew: ``python -m tests.vectors.make``, from the project's folder.

Sealing is random, so every run writes other envelopes. What is committed is one run's; it stays as it is until the
specification changes.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bridge.core import Core
from bridge.envelope import Draft, Sealed, Sealer
from bridge.job import Content, Status
from bridge.strict_json import b64
from tests.vectors import (
    bundles,
    composites,
    independent,
    labels,
    packed,
    payloads,
    receipts,
    refused_envelopes,
    segments,
)
from tests.vectors.forge import Forgery, spread
from tests.vectors.independent_trust import Bundle, verify_bundle
from tests.vectors.labels import IDENTITIES, KEM, NOW, SESSION, SIGN
from tests.vectors.refused_envelopes import Case, job, public, result, start

FOLDER = Path(__file__).parent
LABELS = 'a private seed is the SHA-256 of "bunny-bridge test vector: " and its label; these keys protect nothing'


def accepted() -> Iterator[Case]:
    """Envelopes that open: of the bridge's own sealer, and of a sender who writes the same otherwise."""
    yield from _sealed()
    yield from _batches()
    yield from _written_otherwise()


def _core(n: int = 1) -> Core:
    return Core("job", "thumbs", "resize", f"{SESSION}.{n}", 0, "relay", b"", "bunny", NOW, NOW + 60_000, b"", "normal")


def _draft(body: bytes = b'{"width":320}', n: int = 1, content_type: str = "application/json", keys: int = 1) -> Draft:
    recipients = tuple(public(key) for key in IDENTITIES["bunny"].kem[-keys:])
    return Draft(_core(n), recipients, Content(content_type, body))


def _sealed() -> Iterator[Case]:
    relay, bunny = Sealer(IDENTITIES["relay"]), Sealer(IDENTITIES["bunny"])
    first = relay.seal(_draft(), NOW)
    yield Case("job", "", first.data, subject=f"jobs.thumbs.normal.relay.{SESSION}.1")
    yield Case("job-with-the-wrap-of-the-first", "", relay.seal(_draft(n=2), NOW).data)
    yield Case("job-of-bytes", "", relay.seal(_draft(bytes(range(256)), 3, "application/octet-stream"), NOW).data)
    yield Case("job-with-an-empty-body", "", relay.seal(_draft(b"", 4, "application/octet-stream"), NOW).data)
    yield Case("job-to-both-keys-of-the-pool", "", relay.seal(_draft(n=5, keys=2), NOW).data)
    ends = {16_383: "one-below", 16_384: "exactly", 16_385: "one-above", 32_768: "exactly-two"}
    for size, name in ends.items():
        yield Case(f"job-of-{name}-a-chunk", "", relay.seal(_draft(bytes(_body_of(size)), 6, "a/b"), NOW).data)
    answer = Core(
        "result", "thumbs", "resize", f"{SESSION}.1", 0, "bunny", b"", "relay", NOW, NOW + 60_000,
        job_digest=first.digest, attempt=1, worker="pod-1",
    )  # fmt: skip
    to_relay = (public(IDENTITIES["relay"].kem[0]),)
    bodies = {
        Status.SUCCEEDED: b'{"ok":true}',
        Status.FAILED: b'{"type":"ValueError","message":"too wide"}',
        Status.EXPIRED: b"null",
    }
    for status, body in bodies.items():
        draft = Draft(answer, to_relay, Content("application/json", body), status)
        subject = f"results.thumbs.relay.{SESSION}.1.0"
        yield Case(f"result-{status}", "", bunny.seal(draft, NOW).data, "relay", subject=subject)
    begun = Draft(dataclasses.replace(answer, type="start", attempt=2))
    yield Case("start", "", bunny.seal(begun, NOW).data, "relay")


def _body_of(plaintext: int) -> int:
    """How long a body is whose prelude and body are of this length together."""
    spoken = {"content_type": "a/b", "length": plaintext, "sha256": "00" * 32}
    return plaintext - 2 - len(spread(spoken))


def _batches() -> Iterator[Case]:
    for size in (1, 2, 3, 7, 256):
        batch: list[Sealed] = Sealer(IDENTITIES["relay"]).seal_batch([_draft(n=n + 1) for n in range(size)], NOW)
        for index in sorted({0, size // 2, size - 1}):
            yield Case(f"batch-of-{size}-at-{index}", "", batch[index].data)


def _written_otherwise() -> Iterator[Case]:
    good = job()
    assert isinstance(good.core, dict)
    newest = public(IDENTITIES["bunny"].kem[1])
    others = tuple(public(key) for name in SIGN if name != "bunny" for key in IDENTITIES[name].kem)
    backwards = dict(reversed(good.core.items()))
    forgeries: dict[str, Forgery] = {
        "job-to-eight-keys": good.with_(recipients=(*others, newest, public(IDENTITIES["bunny"].kem[0]))),
        "core-with-spaces-and-backwards": good.with_(core=json.dumps(backwards, indent=1).encode()),
        "core-of-4096": good.with_(core=spread(good.core).ljust(4096)),
        "core-with-escapes": good.with_(core=spread(good.core).replace(b'"thumbs"', b'"\\u0074humbs"')),
        "generation-minus-0": good.with_(core=spread(good.core).replace(b'"generation":0', b'"generation":-0')),
        "generation-greatest": good.with_core(generation=2**31),
        "n-of-16-digits": good.with_core(job=f"{SESSION}.{10**16 - 1}"),
        "traced": good.with_core(traceparent=refused_envelopes.TRACE),
        "priority-high": good.with_core(priority="high"),
        "priority-low": good.with_core(priority="low"),
        "with-a-time": good.with_core(not_before=NOW + 5_000),
        "with-a-time-at-once": good.with_core(not_before=NOW),
        "keyed": good.with_core(job=f"{SESSION}.0", args_tag="ab" * 32),
        "with-a-concurrency-key": good.with_core(concurrency_key="cd" * 32),
        "with-a-payload-in-parts": good.with_core(**refused_envelopes.IN_PARTS),
        "with-the-longest-payload": good.with_core(**{**refused_envelopes.IN_PARTS, "length": 2**34}),
        "control": refused_envelopes.control(),
        "kind-probe": good.with_core(kind="probe"),
        "of-another-producer": job("other"),
        "issued-5-minutes-ahead": good.with_core(issued=NOW + 300_000, expires=NOW + 300_001),
        "31-days": good.with_core(expires=NOW + 31 * refused_envelopes.DAY),
        "in-its-last-millisecond": good.with_core(issued=NOW - 1, expires=NOW + 1),
        "prelude-of-1024": good.with_(body=b"", prelude=spread(_prelude_of_nothing()).ljust(1024)),
    }
    yield from (Case(name, "", forgery.encode()) for name, forgery in forgeries.items())
    yield Case("first-wrap-for-another-key", "", good.with_(recipients=(others[0], newest)).encode())
    yield Case(
        "second-wrap-bad",
        "",
        good.with_(wraps=(good.wrap(newest), (refused_envelopes.BUNNY.kid, bytes(1168)))).encode(),
    )
    never_ran = result().with_core(attempt=0, worker="w" * 128)
    yield Case("result-of-a-job-that-never-ran", "", never_ran.encode(), "relay")
    yield Case("result-traced", "", result().with_core(traceparent=refused_envelopes.TRACE).encode(), "relay")
    yield Case("result-long-after", "", result().encode(), "relay", NOW + 3_000_000)
    yield Case("key-at-the-end-of-its-life", "", job("relay-retired").with_core(issued=NOW - 10).encode(), now=NOW - 1)
    yield Case("key-at-the-beginning-of-its-life", "", job("relay-future").encode(), now=NOW + 1)
    keyed = result().with_core(job=f"{SESSION}.0", args_tag="ab" * 32)
    yield Case("result-of-a-keyed-job", "", keyed.encode(), "relay")
    in_parts = result().with_core(**refused_envelopes.IN_PARTS)
    yield Case("result-with-a-payload-in-parts", "", in_parts.encode(), "relay")
    yield Case("event", "", refused_envelopes.event().encode(), "relay")
    segment = refused_envelopes.segment()
    place = f"parts.thumbs.relay.{SESSION}.1.segments.0-1-0"
    yield Case("segment", "", segment.encode(), "relay", subject=place)
    keyed = segment.with_core(job=f"{SESSION}.0", args_tag="ab" * 32)
    yield Case("segment-of-a-keyed-job", "", keyed.encode(), "relay")
    most = {"run": 2**31, "segment": 2**31, "records": 2**53 - 1, "bytes": 2**34}
    yield Case("segment-with-the-greatest-numbers", "", segment.with_core(**most).encode(), "relay")
    yield Case("start-of-attempt-0", "", start().with_core(attempt=0).encode(), "relay")


def _prelude_of_nothing() -> dict[str, Any]:
    return {
        "content_type": "é",
        "length": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }


def _envelope(case: Case, bundle: Bundle) -> dict[str, Any]:
    value: dict[str, Any] = {"name": case.name, "now": case.now, "reader": case.reader}
    if case.subject is not None:
        value["subject"] = case.subject
    expect: dict[str, Any] = {"refusal": case.refusal}
    if not case.refusal:
        keys = independent.keys_of(key.seed for key in IDENTITIES[case.reader].kem)
        expect = independent.receive(case.data, bundle, case.now, case.reader, keys, case.subject).summary()
    return value | {"expect": expect, "envelope": base64.b64encode(case.data).decode()}


def _bundle(case: bundles.Case) -> dict[str, Any]:
    value: dict[str, Any] = {"name": case.name, "now": case.now, "floor": case.floor}
    texts = {"trust": base64.b64encode(case.trust).decode(), "roots": base64.b64encode(case.roots).decode()}
    return value | {"expect": {"refusal": case.refusal} if case.refusal else {"version": 7}} | texts


def _identities() -> dict[str, Any]:
    return {
        name: {
            "sign": [
                {"label": label, "public": b64(key.public)} for label, key in zip(SIGN[name], who.sign, strict=True)
            ],
            "kem": [{"label": label, "public": b64(key.public)} for label, key in zip(KEM[name], who.kem, strict=True)],
        }
        for name, who in IDENTITIES.items()
    }


def _write(name: str, head: dict[str, Any], vectors: list[dict[str, Any]]) -> None:
    """One vector a line, so that a change shows which."""
    above = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items())
    lines = ",\n".join("  " + json.dumps(vector) for vector in vectors)
    (FOLDER / name).write_text(f'{{\n{above} "vectors": [\n{lines}\n ]\n}}\n')


def main() -> None:
    trust, roots = labels.trust(), labels.roots()
    bundle = verify_bundle(trust, roots, NOW)
    head: dict[str, Any] = {"seeds": LABELS, "identities": _identities()}
    head |= {"trust": trust.decode(), "roots": roots.decode()}
    envelopes = [*accepted(), *refused_envelopes.all_refused()]
    _write("envelopes.json", head, [_envelope(case, bundle) for case in envelopes])
    head = {"now": NOW, "reader": "bunny"}
    _write("payloads.json", head, payloads.vectors(payloads.CASES, payloads.ACCEPTED, ("exactly-a-part",)))
    _write("packed.json", head, payloads.vectors(packed.CASES, packed.ACCEPTED, ()))
    _write("segments.json", {"now": NOW, "reader": "relay"}, segments.vectors())
    _write("composites.json", head, composites.vectors())
    _write("receipts.json", {"now": NOW}, receipts.vectors())
    _write("trust.json", {"seeds": LABELS}, [_bundle(case) for case in bundles.all_cases()])


if __name__ == "__main__":
    main()
