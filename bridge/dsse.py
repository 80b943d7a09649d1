"""DSSE envelopes of one payload type: bytes that several root keys have signed. No I/O.

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
MAX_SIGNATURES: Final = 16
"""The most root keys, and the most signatures on a bundle."""

_KEYID: Final = re.compile(r"[0-9a-f]{64}")

Signature = tuple[bytes, bytes]
"""A kid and its signature."""


def signed_bytes(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: lengths before contents, so that nothing can shift between the two."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def encode(payload: bytes, signatures: Iterable[Signature]) -> bytes:
    """The envelope's JSON, ending in a newline."""
    value: strict_json.Object = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": kid.hex(), "sig": base64.b64encode(sig).decode()} for kid, sig in signatures],
    }
    return strict_json.dump(value) + b"\n"


def decode(envelope: bytes) -> tuple[bytes, list[Signature]]:
    """The payload and its signatures, **not verified**.

    Raises:
        BadBundle: It is not an envelope of this payload type, or holds no signature or more than 16.
    """
    try:
        value = strict_json.parse_object(envelope)
        strict_json.expect_keys(value, {"payloadType", "payload", "signatures"})
        if value["payloadType"] != PAYLOAD_TYPE or not 0 < len(value["signatures"]) <= MAX_SIGNATURES:
            raise ValueError
        signatures = []
        for item in value["signatures"]:
            strict_json.expect_keys(item, {"keyid", "sig"})
            if not _KEYID.fullmatch(item["keyid"]):
                raise ValueError
            signatures.append((bytes.fromhex(item["keyid"]), _unb64(item["sig"])))
        return _unb64(value["payload"]), signatures
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise BadBundle("trust.json: not a DSSE envelope of a trust bundle") from None


def _unb64(text: str) -> bytes:
    """The bytes of padded standard base64, strictly: one text for one value."""
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError
    return data
