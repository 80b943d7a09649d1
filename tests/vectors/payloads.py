"""Messages with payloads in parts, good and bad: made anew on each call, since sealing is random."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bridge import crypto
from bridge.core import Core
from bridge.envelope import Draft, Sealer
from bridge.job import Content
from bridge.packing import Packing
from bridge.payload import Manifest, PartSealer
from tests.vectors.labels import IDENTITIES, NOW, SESSION
from tests.vectors.refused_envelopes import BUNNY

SHORT = bytes(range(250)) * 4
"""Vectors are published: a payload of one part does for most of them."""

Change = Callable[[list[bytes]], list[bytes]]


def sent(
    payload: bytes | None,
    change: Change = list,
    lie: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    seal: Callable[[int, bytes, bytes], bytes] | None = None,
    content_type: str = "application/octet-stream",
    body: bytes = b"",
    packing: Packing | None = None,
) -> tuple[bytes, list[bytes]]:
    """A job with a payload in parts, and the messages of its transfer.

    Args:
        payload: What its author has; None is no payload in parts.
        change: What a broker makes of the messages.
        lie: What its author says instead of the truth.
        seal: How its author seals, given the number, the key and the bytes of a part.
        content_type: What the prelude says.
        body: Of the message itself.
        packing: How it is packed.
    """
    relay = Sealer(IDENTITIES["relay"])
    core = Core("job", "thumbs", "resize", f"{SESSION}.1", 0, "relay", b"", "bunny", NOW, NOW + 60_000, b"", "normal")
    content = Content(content_type, body)
    if payload is None:
        return relay.seal(Draft(core, (BUNNY,), content), NOW).data, []
    wrap = relay.wrap((BUNNY,), NOW)
    sealer = PartSealer(wrap.secret, packing)
    payload += bytes(sealer.padding(len(payload)))
    stored = [sealer.seal(payload[at : at + 262_144])[1] for at in range(0, len(payload), 262_144)]
    pieces, manifest = [piece for _, piece in sealer.pieces()], sealer.manifest()
    if seal is not None:
        key = crypto.derive_key(wrap.secret, b"bunny-bridge/v1/parts\0" + sealer.transfer)
        stored = [
            seal(number, key, payload[at : at + 262_144]) for number, at in enumerate(range(0, len(payload), 262_144))
        ]
        pieces = [b"".join(map(crypto.sha256, stored))]
        manifest = replace(manifest, index=crypto.sha256(pieces[0]))
    draft = Draft(core, (BUNNY,), content).naming(lie(manifest), wrap)
    return relay.seal(draft, NOW).data, change([*stored, *pieces])


def _flipped(stored: list[bytes]) -> list[bytes]:
    return [stored[0][:-1] + bytes([stored[0][-1] ^ 1]), *stored[1:]]


def _in_place_of(other: int) -> Callable[[int, bytes, bytes], bytes]:
    return lambda _, key, data: crypto.seal_body(key, b"bunny-bridge/v1/part\0" + other.to_bytes(4), data)


def _without_its_end(number: int, key: bytes, data: bytes) -> bytes:
    return crypto.seal_body(key, b"bunny-bridge/v1/part\0" + number.to_bytes(4), data[:-1])


Case = tuple[str, Callable[[], tuple[bytes, list[bytes]]]]
"""The refusal, or none, and what makes a message and the messages of its transfer."""

CASES: dict[str, Case] = {
    "one-part": ("", lambda: sent(SHORT)),
    "one-byte": ("", lambda: sent(b"x")),
    "exactly-a-part": ("", lambda: sent(bytes(262_144))),
    "part-flipped": ("BadPart", lambda: sent(SHORT, _flipped)),
    "part-cut-short": ("BadPart", lambda: sent(SHORT, lambda stored: [stored[0][:-1], *stored[1:]])),
    "part-of-another-payload": ("BadPart", lambda: sent(SHORT, lambda stored: [sent(SHORT)[1][0], *stored[1:]])),
    "all-of-another-payload": ("BadPart", lambda: sent(SHORT, lambda _: sent(SHORT)[1])),
    "index-cut-short": ("BadPart", lambda: sent(SHORT, lambda stored: [*stored[:-1], stored[-1][:-1]])),
    "index-one-digest-longer": ("BadPart", lambda: sent(SHORT, lambda stored: [*stored, bytes(32)])),
    "length-one-more": ("BadPart", lambda: sent(SHORT, lie=lambda m: replace(m, length=m.length + 1))),
    "length-one-less": ("BadPart", lambda: sent(SHORT, lie=lambda m: replace(m, length=m.length - 1))),
    "length-of-two-parts": ("BadPart", lambda: sent(SHORT, lie=lambda m: replace(m, length=m.length + 262_144))),
    "another-transfer": ("BadSeal", lambda: sent(SHORT, lie=lambda m: replace(m, transfer=bytes(16)))),
    "another-index": ("BadPart", lambda: sent(SHORT, lie=lambda m: replace(m, index=bytes(32)))),
    "sealed-in-the-place-of-another": ("BadSeal", lambda: sent(SHORT, seal=_in_place_of(1))),
    "sealed-without-its-last-byte": ("BadPart", lambda: sent(SHORT, seal=_without_its_end)),
}

ACCEPTED = {"one-part": SHORT, "one-byte": b"x"}


def vectors(cases: dict[str, Case], payloads: dict[str, bytes], leaves_out: tuple[str, ...]) -> list[dict[str, Any]]:
    """As they are published.

    Args:
        cases: All of them.
        payloads: Those of what is accepted, by name.
        leaves_out: A third of a megabyte: made anew where it is needed.
    """
    found = []
    for name, (refusal, make) in cases.items():
        if name in leaves_out:
            continue
        envelope, stored = make()
        payload = payloads.get(name, b"")
        expect: dict[str, Any] = {"refusal": refusal}
        if not refusal:
            expect = {"length": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
        texts = {
            "envelope": base64.b64encode(envelope).decode(),
            "messages": [base64.b64encode(each).decode() for each in stored],
        }
        found.append({"name": name, "expect": expect, **texts})
    return found
