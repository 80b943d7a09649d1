"""What a stream of records is, written from ``docs/spec.md`` alone (4.8)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tests.vectors.independent import Message
from tests.vectors.strictness import Refused

ENDED = "application/vnd.bunny-bridge.records+json"


def read_stream(stored: Sequence[Message], result: Message) -> list[bytes]:
    """The records of a job that is done, from what stands in the places of its segments, each received by itself."""
    if result.content_type != ENDED:
        raise Refused("UsageError", "no stream")
    end = json.loads(result.body)
    records: list[bytes] = []
    previous, size = "00" * 32, 0
    for number in range(end["segments"]):
        if number >= len(stored):
            raise Refused("PartMissing", str(number))
        core = stored[number].core
        if (core["run"], core["segment"], core["previous"]) != (end["run"], number, previous):
            raise Refused("BadSegment", "another one")
        if core["records"] <= len(records) or core["bytes"] < size:
            raise Refused("BadSegment", "count")
        found = _records(stored[number].body)
        records += found
        size += sum(map(len, found))
        if (core["records"], core["bytes"]) != (len(records), size):
            raise Refused("BadPrelude", "other records")
        previous = stored[number].digest.hex()
    if (end["records"], end["bytes"], end["last"]) != (len(records), size, previous):
        raise Refused("BadSegment", "end")
    return records


def _records(body: bytes) -> list[bytes]:
    found: list[bytes] = []
    while body:
        length = int.from_bytes(body[:4], "big")
        if len(body) < 4 + length or len(found) == 1_000:
            raise Refused("BadPrelude", "body")
        found.append(body[4 : 4 + length])
        body = body[4 + length :]
    return found
