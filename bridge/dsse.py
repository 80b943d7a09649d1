"""DSSE envelopes: bytes of a named type that one key or several have signed. No I/O.

The format is that of github.com/secure-systems-lab/dsse, version 1.0; standard base64, ``keyid`` the hex kid.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

from bridge import strict_json
from bridge.errors import BadBundle

PAYLOAD_TYPE: Final = "application/vnd.bunny-bridge.trust.v1+json"
"""A trust bundle."""
PROOF_TYPE: Final = "application/vnd.bunny-bridge.proof.v1+json"
"""What one identity found of what it may do (`bridge.prove.report`)."""
MAX_SIGNATURES: Final = 16
"""The most root keys, and the most signatures on a bundle."""

_KEYID: Final = re.compile(r"[0-9a-f]{64}")

Signature = tuple[bytes, bytes]
"""A kid and its signature."""


def signed_bytes(payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """DSSE's pre-authentication encoding: lengths before contents, so that nothing can shift between the two."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def encode(payload: bytes, signatures: Iterable[Signature], kind: str = PAYLOAD_TYPE) -> bytes:
    """The envelope's JSON, ending in a newline."""
    value: strict_json.Object = {
        "payloadType": kind,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": kid.hex(), "sig": base64.b64encode(sig).decode()} for kid, sig in signatures],
    }
    return strict_json.dump(value) + b"\n"


def decode(envelope: bytes, kind: str = PAYLOAD_TYPE) -> tuple[bytes, list[Signature]]:
    """The payload and its signatures, **not verified**.

    Raises:
        BadBundle: It is not an envelope of this payload type, or holds no signature or more than 16.
    """
    try:
        value = strict_json.parse_object(envelope)
        strict_json.expect_keys(value, {"payloadType", "payload", "signatures"})
        if value["payloadType"] != kind or not 0 < len(value["signatures"]) <= MAX_SIGNATURES:
            raise ValueError
        signatures = []
        for item in value["signatures"]:
            strict_json.expect_keys(item, {"keyid", "sig"})
            if not _KEYID.fullmatch(item["keyid"]):
                raise ValueError
            signatures.append((bytes.fromhex(item["keyid"]), _unb64(item["sig"])))
        return _unb64(value["payload"]), signatures
    except (ValueError, KeyError, TypeError, binascii.Error):
        what = "trust.json: not a DSSE envelope of a trust bundle" if kind == PAYLOAD_TYPE else "not a DSSE envelope"
        raise BadBundle(what) from None


def _unb64(text: str) -> bytes:
    """The bytes of padded standard base64, strictly: one text for one value."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError
    return data
