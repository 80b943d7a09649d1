"""What a payload in parts is, written from ``docs/spec.md`` alone (4.7)."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.vectors.chunked import open_chunked
from tests.vectors.independent import Message
from tests.vectors.independent_packing import expand
from tests.vectors.strictness import Refused

PART = 262_144


def read_payload(message: Message, stored: list[bytes]) -> bytes:
    """The payload of a message, from the messages of its transfer in order."""
    length, transfer = message.core["length"], bytes.fromhex(message.core["transfer"])
    parts = (length + PART - 1) // PART
    index = b"".join(stored[parts:])
    if len(index) != 32 * parts or hashlib.sha256(index).hexdigest() != message.core["index"]:
        raise Refused("BadPart", "index")
    info = b"bunny-bridge/v1/parts\0" + transfer
    key = HKDF(hashes.SHA256(), 32, None, info).derive(message.secret)
    payload = b""
    for number, sealed in enumerate(stored[:parts]):
        if hashlib.sha256(sealed).digest() != index[32 * number : 32 * (number + 1)]:
            raise Refused("BadPart", "another part")
        context = b"bunny-bridge/v1/part\0" + number.to_bytes(4, "big")
        try:
            data = open_chunked("AEAD_AES_256_GCM", hashes.SHA512(), key, context, sealed)
        except ValueError:
            raise Refused("BadSeal", "part") from None
        whole = min(PART, length - number * PART)
        if message.prelude.get("compression") == "zstd" and len(data) < whole:
            data = expand(data, whole)
        if len(data) != whole:
            raise Refused("BadPart", "length")
        payload += data
    content = message.prelude.get("content_length", length)
    if payload[content:].strip(b"\0"):
        raise Refused("BadPacking", "padding")
    return payload[:content]
