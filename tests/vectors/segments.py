"""Streams of records, good and bad: made anew on each call, since sealing is random."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from bridge.core import Core
from bridge.envelope import Draft, Sealed, Sealer
from bridge.job import Content, Status
from bridge.segments import Chain, End, pack
from tests.vectors.labels import IDENTITIES, NOW, SESSION
from tests.vectors.refused_envelopes import RELAY

ROWS = [b'{"n":1}', b"", b'{"n":2}', b"3"]

Stream = tuple[list[bytes], bytes]
"""What stands in the places of the segments, and the result."""


def _core(type_: str, job: str, **fields: Any) -> Core:  # noqa: ANN401  of the core
    return Core(
        type_, "thumbs", "resize", job, 0, "bunny", b"", "relay", NOW, NOW + 60_000,
        **{"job_digest": bytes.fromhex("ab" * 32), "attempt": 1, "worker": "pod-1", **fields},
    )  # fmt: skip


def sent(
    records: Sequence[Sequence[bytes]],
    change: Callable[[list[bytes]], list[bytes]] = list,
    lie: Callable[[Core], Core] = lambda core: core,
    end: Callable[[End], End] = lambda end: end,
    run: int = 1,
    job: str = f"{SESSION}.1",
) -> Stream:
    """A stream and its result.

    Args:
        records: Those of each segment.
        change: What a broker makes of the segments.
        lie: What its author says instead of the truth, in the core of each.
        end: What its author says of the end.
        run: Which run.
        job: Of which job.
    """
    bunny, chain = Sealer(IDENTITIES["bunny"]), Chain(run)
    stored: list[Sealed] = []
    for bodies in records:
        core = lie(chain.core(_core("segment", job), list(map(len, bodies))))
        stored.append(bunny.seal(Draft(core, (RELAY,), Content("application/json", pack(bodies))), NOW))
        chain = Chain.at(stored[-1].core, stored[-1].digest)
    result = Draft(_core("result", job), (RELAY,), end(End.of(chain)).content(), Status.SUCCEEDED)
    return change([each.data for each in stored]), bunny.seal(result, NOW).data


THREE = ([ROWS[0]], ROWS[1:3], [ROWS[3]])


def _counting_less(core: Core) -> Core:
    return replace(core, records=1)


CASES: dict[str, tuple[str, Callable[[], Stream]]] = {
    "no-record": ("", lambda: sent([])),
    "one-segment": ("", lambda: sent([ROWS])),
    "three-segments": ("", lambda: sent(THREE)),
    "of-a-later-run": ("", lambda: sent(THREE, run=3)),
    "one-more-than-its-end": ("", lambda: sent(THREE, lambda stored: [*stored, sent([ROWS])[0][0]])),
    "swapped": ("BadSegment", lambda: sent(THREE, lambda stored: [stored[0], stored[2], stored[1]])),
    "doubled": ("BadSegment", lambda: sent(THREE, lambda stored: [stored[0], stored[0], *stored[1:]])),
    "dropped": ("BadSegment", lambda: sent(THREE, lambda stored: [stored[0], stored[2]])),
    "cut-short": ("PartMissing", lambda: sent(THREE, lambda stored: stored[:2])),
    "of-the-same-records-sealed-again": (
        "BadSegment", lambda: sent(THREE, lambda stored: [stored[0], sent(THREE)[0][1], stored[2]]),
    ),
    "of-another-run": ("BadSegment", lambda: sent(THREE, lambda _: sent(THREE, run=2)[0])),
    "records-counted-backwards": ("BadSegment", lambda: sent(THREE, lie=_counting_less)),
    "more-records-than-it-holds": ("BadPrelude", lambda: sent([ROWS], lie=lambda core: replace(core, records=9))),
    "other-bytes-than-it-holds": ("BadPrelude", lambda: sent([ROWS], lie=lambda core: replace(core, size=9))),
    "an-end-with-a-segment-less": ("BadSegment", lambda: sent(THREE, end=lambda end: replace(end, segments=2))),
    "an-end-with-a-segment-more": ("PartMissing", lambda: sent(THREE, end=lambda end: replace(end, segments=4))),
    "an-end-with-a-record-more": ("BadSegment", lambda: sent(THREE, end=lambda end: replace(end, records=5))),
    "an-end-with-a-byte-more": ("BadSegment", lambda: sent(THREE, end=lambda end: replace(end, bytes=end.bytes + 1))),
    "an-end-with-another-digest": ("BadSegment", lambda: sent(THREE, end=lambda end: replace(end, last="ab" * 32))),
    "an-end-of-another-run": ("BadSegment", lambda: sent(THREE, end=lambda end: replace(end, run=2))),
}  # fmt: skip


def summary(records: list[bytes]) -> dict[str, Any]:
    """As the published vectors have it."""
    return {"records": len(records), "sha256": hashlib.sha256(pack(records)).hexdigest()}


def vectors() -> list[dict[str, Any]]:
    """As they are published."""
    found = []
    for name, (refusal, make) in CASES.items():
        stored, result = make()
        expect: dict[str, Any] = {"refusal": refusal} if refusal else summary([] if name == "no-record" else ROWS)
        texts = {
            "segments": [base64.b64encode(each).decode() for each in stored],
            "result": base64.b64encode(result).decode(),
        }
        found.append({"name": name, "expect": expect, **texts})
    return found
