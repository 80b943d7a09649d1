"""Messages whose content is compressed or padded, good and bad: made anew on each call, since sealing is random."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bridge import crypto
from bridge.core import Core
from bridge.envelope import Draft, Sealer
from bridge.job import Content
from bridge.packing import Packing
from bridge.payload import Manifest
from tests.vectors.forge import spread
from tests.vectors.labels import IDENTITIES, NOW, SESSION
from tests.vectors.payloads import Case, sent
from tests.vectors.refused_envelopes import BUNNY, job

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b"the same words again and again, " * 64 + b"."
PART = 262_144
Option = zstd.CompressionParameter


def framed(data: bytes, **options: int) -> bytes:
    """A zstd frame, written with the options of the library that are named."""
    return zstd.compress(data, options={getattr(Option, name): value for name, value in options.items()})


def wide(data: bytes, window_log: int = 20) -> bytes:
    """A frame that does not say how much it holds, and wants 1 MiB to look back."""
    writer = zstd.ZstdCompressor(options={Option.window_log: window_log, Option.content_size_flag: 0})
    return writer.compress(data) + writer.flush()


def endless(data: bytes) -> bytes:
    """A frame that holds all of the data, in blocks of which none is the last."""
    writer = zstd.ZstdCompressor(options={Option.window_log: 18})
    return writer.compress(data, mode=writer.FLUSH_BLOCK)


def inline(body: bytes, packing: Packing) -> tuple[bytes, list[bytes]]:
    """As the bridge's own sealer packs it."""
    core = Core("job", "thumbs", "resize", f"{SESSION}.1", 0, "relay", b"", "bunny", NOW, NOW + 60_000, b"", "normal")
    draft = Draft(core, (BUNNY,), Content("text/plain", body), packing=packing)
    return Sealer(IDENTITIES["relay"]).seal(draft, NOW).data, []


def forged(data: bytes, body: bytes, **prelude: object) -> tuple[bytes, list[bytes]]:
    """A message whose prelude speaks of a body, and is followed by any data."""
    value = {"content_type": "text/plain", "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    value |= prelude
    return job().with_(prelude={name: it for name, it in value.items() if it is not ...}, body=data).encode(), []


def padded(change: Callable[[bytes], bytes], **prelude: object) -> tuple[bytes, list[bytes]]:
    """A padded message, but for what is changed of the bytes that follow its prelude."""
    value = {"content_type": "text/plain", "length": 4, "sha256": hashlib.sha256(b"body").hexdigest()}
    value |= {"padding": "padme"} | prelude
    before = 2 + len(spread(value)) + 4
    return job().with_(prelude=value, body=change(b"body" + bytes(1024 - before))).encode(), []


def part_of(data: bytes) -> Callable[[int, bytes, bytes], bytes]:
    """Seals other data than it should, whatever the part has."""
    return lambda number, key, _: crypto.seal_body(key, b"bunny-bridge/v1/part\0" + number.to_bytes(4), data)


def in_parts(payload: bytes, packing: Packing, **more: Any) -> tuple[bytes, list[bytes]]:  # noqa: ANN401
    return sent(payload, packing=packing, **more)


def _lie(**changes: Any) -> Callable[[Manifest], Manifest]:  # noqa: ANN401
    return lambda manifest: replace(manifest, **changes)


ZSTD, PADME = Packing.ZSTD, Packing.PADME
ZEROS = bytes(PART)

CASES: dict[str, Case] = {
    "body-compressed": ("", lambda: inline(TEXT, ZSTD)),
    "body-compressed-otherwise": ("", lambda: forged(framed(TEXT, compression_level=19), TEXT, compression="zstd")),
    "body-that-shrinks-most": ("", lambda: forged(framed(ZEROS), ZEROS, compression="zstd")),
    "body-padded": ("", lambda: inline(b"body", PADME)),
    "body-padded-empty": ("", lambda: inline(b"", PADME)),
    "part-compressed": ("", lambda: in_parts(TEXT, ZSTD)),
    "part-that-does-not-shrink": ("", lambda: in_parts(b"x", ZSTD)),
    "part-padded": ("", lambda: in_parts(TEXT, PADME)),
    "compressed-by-another": ("BadPrelude", lambda: forged(TEXT, TEXT, compression="gzip")),
    "padded-by-another": ("BadPrelude", lambda: padded(bytes, padding="power-of-two")),
    "compressed-and-padded": ("BadPrelude", lambda: padded(bytes, compression="zstd")),
    "content-length-of-a-body": ("BadPrelude", lambda: padded(bytes, content_length=4)),
    "frame-of-more": ("BadPacking", lambda: forged(framed(ZEROS), ZEROS[:255], compression="zstd")),
    "frame-of-less": ("BadPacking", lambda: forged(framed(TEXT[:-1]), TEXT, compression="zstd")),
    "frame-of-another": ("BadPrelude", lambda: forged(framed(TEXT[1:] + b"x"), TEXT, compression="zstd")),
    "frame-cut-short": ("BadPacking", lambda: forged(framed(TEXT)[:-1], TEXT, compression="zstd")),
    "frame-and-more": ("BadPacking", lambda: forged(framed(TEXT) + b"\0", TEXT, compression="zstd")),
    "two-frames": ("BadPacking", lambda: forged(framed(TEXT) + framed(TEXT), TEXT * 2, compression="zstd")),
    "no-frame": ("BadPacking", lambda: forged(TEXT, TEXT, compression="zstd")),
    "frame-with-a-wide-window": ("BadPacking", lambda: forged(wide(TEXT), TEXT, compression="zstd")),
    "body-longer-than-inline": (
        "BadPacking",
        lambda: forged(framed(ZEROS + b"\0"), ZEROS + b"\0", compression="zstd"),
    ),
    "padding-of-something": ("BadPacking", lambda: padded(lambda rest: rest[:-1] + b"x")),
    "padding-too-short": ("BadPacking", lambda: padded(lambda rest: rest[:-1])),
    "padding-too-long": ("BadPacking", lambda: padded(lambda rest: rest + bytes(64))),
    "padding-missing": ("BadPacking", lambda: padded(lambda rest: rest[:4])),
    "body-longer-than-padded": ("BadPacking", lambda: padded(bytes, length=1024)),
    "part-of-more": ("BadPacking", lambda: in_parts(TEXT, ZSTD, seal=part_of(framed(ZEROS)))),
    "part-of-less": ("BadPacking", lambda: in_parts(TEXT, ZSTD, seal=part_of(framed(TEXT[:-1])))),
    "part-of-no-frame": ("BadPacking", lambda: in_parts(TEXT, ZSTD, seal=part_of(TEXT[:-1]))),
    "part-longer-than-it-is": ("BadPart", lambda: in_parts(TEXT, ZSTD, seal=part_of(TEXT + b"x"))),
    "part-compressed-and-not-said": ("BadPart", lambda: in_parts(TEXT, PADME, seal=part_of(framed(TEXT)))),
    "part-padded-with-something": (
        "BadPacking",
        lambda: in_parts(TEXT, PADME, seal=part_of(TEXT.ljust(2176, b"x"))),
    ),
    "content-longer-than-padded": ("BadPrelude", lambda: in_parts(TEXT, PADME, lie=_lie(padding=-1))),
    "content-of-another-bucket": ("BadPrelude", lambda: in_parts(TEXT, PADME, lie=_lie(padding=1500))),
}

ACCEPTED: dict[str, bytes] = {
    "body-compressed": TEXT,
    "body-compressed-otherwise": TEXT,
    "body-that-shrinks-most": ZEROS,
    "body-padded": b"body",
    "body-padded-empty": b"",
    "part-compressed": TEXT,
    "part-that-does-not-shrink": b"x",
    "part-padded": TEXT,
}
