"""Envelopes with anything in them, as one could make them who has true keys and keeps to nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from bridge import crypto
from bridge.crypto import KemPublicKey, SigningKey

WRAP_ID = b"w" * 16
SECRET = b"s" * 32


def spread(value: object) -> bytes:
    """Compact JSON; a value that is bytes already stays as it is."""
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Forgery:
    """Each part that is None is made as the specification has it, from the parts before it."""

    core: dict[str, Any] | bytes
    signer: SigningKey
    recipients: tuple[KemPublicKey, ...]
    body: bytes = b'{"width":320}'
    magic: bytes = b"RB1\0"
    core_len: int | None = None
    count: int | None = None
    wraps: tuple[tuple[bytes, bytes], ...] | None = None
    prelude: dict[str, Any] | bytes | None = None
    prelude_len: int | None = None
    plain: bytes | None = None
    context: bytes | None = None
    ciphertext: bytes | None = None
    ct_len: int | None = None
    ct_sha256: bytes | None = None
    kid: bytes | None = None
    size: int = 1
    index: int = 0
    path: tuple[bytes, ...] = ()
    root: bytes | None = None
    signature: bytes | None = None
    sent_ciphertext: bytes | None = None
    trailing: bytes = b""

    def with_(self, **changes: Any) -> Forgery:  # noqa: ANN401  any part
        return dataclasses.replace(self, **changes)

    def with_core(self, **changes: object) -> Forgery:
        """Fields of the core set, or left out where ``...``; a trailing underscore keeps a name from being a word."""
        assert isinstance(self.core, dict)
        core = {**self.core, **{name.rstrip("_"): value for name, value in changes.items()}}
        return self.with_(core={name: value for name, value in core.items() if value is not ...})

    def wrap(self, to: KemPublicKey, sender_kid: bytes | None = None, wrap_id: bytes = WRAP_ID) -> tuple[bytes, bytes]:
        info = b"bunny-bridge/v1/wrap\0" + (sender_kid or self.signer.kid) + to.kid + wrap_id
        return to.kid, to.wrap(SECRET, info)

    def _type(self) -> str:
        return str(self.core.get("type")) if isinstance(self.core, dict) else "job"

    def _sealed(self, before: bytes) -> bytes:
        if self.ciphertext is not None or not self.recipients:
            return self.ciphertext or b""
        prelude: Any = self.prelude
        if prelude is None:
            digest = hashlib.sha256(self.body).hexdigest()
            prelude = {"content_type": "application/json", "length": len(self.body), "sha256": digest}
            if self._type() == "result":
                prelude["status"] = "succeeded"
        raw = spread(prelude)
        length = len(raw) if self.prelude_len is None else self.prelude_len
        plain = length.to_bytes(2) + raw + self.body if self.plain is None else self.plain
        key = crypto.derive_key(SECRET, b"bunny-bridge/v1/body\0" + crypto.sha256(before))
        context = f"bunny-bridge/v1/{self._type()}".encode("utf-8", "replace") if self.context is None else self.context
        return crypto.seal_body(key, context, plain)

    def parts(self) -> tuple[bytes, bytes]:
        """Head and ciphertext."""
        core = spread(self.core)
        wraps = tuple(self.wrap(to) for to in self.recipients) if self.wraps is None else self.wraps
        before = self.magic + (len(core) if self.core_len is None else self.core_len).to_bytes(2) + core
        before += bytes([len(wraps) if self.count is None else self.count]) + b"".join(a + b for a, b in wraps)
        ciphertext = self._sealed(before)
        length = len(ciphertext) if self.ct_len is None else self.ct_len
        digest = crypto.sha256(ciphertext) if self.ct_sha256 is None else self.ct_sha256
        return before + length.to_bytes(8) + digest, ciphertext

    def encode(self) -> bytes:
        head, ciphertext = self.parts()
        kid = self.signer.kid if self.kid is None else self.kid
        root = crypto.leaf_hash(head) if self.root is None else self.root
        signed = b"bunny-bridge/v1/batch\0" + kid + self.size.to_bytes(8) + root
        signature = self.signer.sign(signed) if self.signature is None else self.signature
        block = kid + self.size.to_bytes(8) + bytes([self.index]) + b"".join(self.path) + signature
        sent = ciphertext if self.sent_ciphertext is None else self.sent_ciphertext
        return head + block + sent + self.trailing
