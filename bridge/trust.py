"""The trust bundle: who may send what to whom until when. It verifies, raises by name, or stays valid.

``trust.json`` is a DSSE envelope (github.com/secure-systems-lab/dsse) over a payload of principals and grants, signed
offline by root keys. ``roots.json`` says which roots, and how many must have signed; it is delivered apart from
the bundle, and never by a broker. The receiver enforces the bundle; broker permissions are only the second wall.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridge import dsse, strict_json
from bridge.crypto import KemPublicKey, VerifyKey
from bridge.errors import (
    BadBundle,
    BelowThreshold,
    BundleExpired,
    BundleRolledBack,
    ConfigurationError,
    IdentityRevoked,
    NotAuthorised,
    RepeatedSigner,
    UnknownKey,
)
from bridge.files import read_file, write_file
from bridge.identity import ROOTS_FILE, TRUST_FILE
from bridge.policy import Role
from bridge.strict_json import expect_keys, unb64
from bridge.subjects import is_name
from bridge.versions import newer

MIN_VERSION_ENVIRONMENT: Final = "BUNNY_TRUST_MIN_VERSION"
"""The least bundle version that a pod without memory accepts."""
FLOOR_FILE: Final = "trust.floor"
"""Beside the bundle: the highest version accepted so far, where the folder can be written."""
SKEW_MS: Final = 300_000
"""How far ahead of ours another clock may be."""
_REMEDY: Final = "see `bunny trust show`, and ask the bridge's owners for a bundle that does"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When a key may be used, in milliseconds UTC, both ends included."""

    not_before: int
    not_after: int

    def covers(self, now_ms: int) -> bool:
        """Whether the key is valid at that time."""
        return self.not_before <= now_ms <= self.not_after


@dataclass(frozen=True, slots=True)
class Peer:
    """A principal as the bundle has it: another's public half, and its own."""

    name: str
    cloud: str
    role: str
    sign: tuple[tuple[VerifyKey, Lifetime], ...]
    kem: tuple[tuple[KemPublicKey, int, Lifetime], ...]
    """Key, epoch, lifetime."""

    def kem_key(self, now_ms: int) -> KemPublicKey:
        """What to seal to now: the valid key of the highest epoch.

        Raises:
            UnknownKey: None is valid.
        """
        newest, highest = None, -1
        for key, epoch, lifetime in self.kem:
            if epoch > highest and lifetime.covers(now_ms):
                newest, highest = key, epoch
        if newest is None:
            raise UnknownKey(f"{self.name} has no key to be sealed to that is valid now; sign a new trust bundle")
        return newest


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of authority: a producer may send these kinds of job on a queue to its workers, which answer."""

    queue: str
    sender: str
    recipient: str
    kinds: frozenset[str]


class Trust:
    """A bundle that verified. Build it with `load` or `verify`."""

    def __init__(self, payload: strict_json.Object) -> None:
        self.bridge = _name(payload["bridge"])
        self.version = _whole(payload["version"])
        self.issued_ms = _whole(payload["issued"])
        self.expires_ms = _whole(payload["expires"])
        self.peers: Mapping[str, Peer] = {p.name: p for p in map(_peer, _list(payload["principals"]))}
        self.grants: tuple[Grant, ...] = tuple(map(_grant, _list(payload["grants"])))
        self._signers = {k.kid: (peer, k, life) for peer in self.peers.values() for k, life in peer.sign}
        self._granted: dict[tuple[str, str | None, str], frozenset[str]] = {
            (g.queue, g.sender, g.recipient): g.kinds for g in self.grants
        }
        if len(self.peers) != len(payload["principals"]) or len(self._granted) != len(self.grants):
            raise ValueError
        kids = [k.kid for p in self.peers.values() for k, _ in p.sign]
        kids += [k.kid for p in self.peers.values() for k, _, _ in p.kem]
        if len(set(kids)) != len(kids) or self.expires_ms <= self.issued_ms or self.version < 1:
            raise ValueError
        if any(name not in self.peers for g in self.grants for name in (g.sender, g.recipient)):
            raise ValueError

    @classmethod
    def load(cls, folder: Path, now_ms: int, min_version: int = 0) -> Trust:
        """Verify ``trust.json`` of an identity folder against its ``roots.json``.

        The version must reach ``BUNNY_TRUST_MIN_VERSION`` and whatever this folder accepted before.

        Args:
            folder: The identity folder.
            now_ms: The time.
            min_version: A version that it must reach as well: of a folder that cannot be written, the last accepted.

        Raises:
            TrustError: By name, what is wrong with it.
            ConfigurationError: A file is missing.
        """
        floor_file, least = folder / FLOOR_FILE, max(least_version(folder), min_version)
        trust = cls.verify(read_file(folder / TRUST_FILE), read_file(folder / ROOTS_FILE), now_ms, least)
        if trust.version > _floor(floor_file) and os.access(folder, os.W_OK):
            write_file(floor_file, f"{trust.version}\n")
        return trust

    @classmethod
    def verify(cls, bundle: bytes, roots: bytes, now_ms: int, min_version: int = 0) -> Trust:
        """Check signatures first, then parse, then check version and expiry.

        Raises:
            BadBundle, BelowThreshold, RepeatedSigner, WeakKey, BundleRolledBack, BundleExpired
        """
        keys, threshold, bridge = read_roots(roots)
        payload = _verified_payload(bundle, keys, threshold)
        try:
            value = strict_json.parse_object(payload)
            if (problem := newer("trust.json", value.get("v"))) is not None:
                raise BadBundle(problem)
            expect_keys(value, {"v", "bridge", "version", "issued", "expires", "principals", "grants"})
            if _whole(value["v"]) != 1:
                raise ValueError
            trust = cls(value)
        except (ValueError, KeyError, TypeError):
            raise BadBundle("trust.json: its payload is not a trust bundle of version 1") from None
        if trust.bridge != bridge:
            raise BadBundle("trust.json: signed for another bridge than roots.json names")
        if trust.version < min_version:
            raise BundleRolledBack(
                f"trust.json: version {trust.version} is older than {min_version}, which was accepted before; "
                "deliver the newest bundle"
            )
        trust.check(now_ms)
        return trust

    def check(self, now_ms: int) -> None:
        """Raise once the bundle is no longer valid.

        Raises:
            BundleExpired: Its expiry has passed, or it was signed further ahead of our clock than the skew allows.
        """
        if now_ms >= self.expires_ms:
            raise BundleExpired(f"trust.json: version {self.version} has expired; sign and deliver a new one")
        if self.issued_ms > now_ms + SKEW_MS:
            raise BundleExpired(
                f"trust.json: version {self.version} is signed in the future; check this machine's clock"
            )

    def check_mine(self, name: str, kid: bytes, now_ms: int) -> None:
        """Raise once others do not take what an identity signs.

        Args:
            name: Whose the key is.
            kid: The key that it signs with.
            now_ms: The time.

        Raises:
            BundleExpired: As `check`.
            IdentityRevoked: The key is not in the bundle, or not valid now.
        """
        self.check(now_ms)
        peer, _, lifetime = self._signers.get(kid, (None, None, None))
        if peer is None or peer.name != name or lifetime is None:
            problem = f"has not the key that {name} signs with: it is revoked, or too new"
        elif not lifetime.covers(now_ms):
            problem = f"has the key that {name} signs with, but not for now: it has expired, or is not valid yet"
        else:
            return
        raise IdentityRevoked(f"trust.json: version {self.version} {problem}; ask the bridge's owners")

    def signer(self, kid: bytes, now_ms: int) -> tuple[Peer, VerifyKey]:
        """The principal whose signing key this is, and the key.

        Raises:
            UnknownKey: No principal has it, or it is not valid now.
        """
        found = self._signers.get(kid)
        if found is None:
            raise UnknownKey("signed with a key that is not in the trust bundle")
        peer, key, lifetime = found
        if not lifetime.covers(now_ms):
            raise UnknownKey(f"signed with a key of {peer.name} that is not valid now")
        return peer, key

    def owner(self, kid: bytes) -> tuple[Peer, VerifyKey, Lifetime] | tuple[None, None, None]:
        """The principal whose signing key this is, the key, and when it may be used; all None if nobody has it."""
        return self._signers.get(kid, (None, None, None))

    def peer(self, name: str) -> Peer:
        """The principal of that name.

        Raises:
            NotAuthorised: The bundle does not know it.
        """
        try:
            return self.peers[name]
        except KeyError:
            raise NotAuthorised(f"trust.json: version {self.version} does not know {name}; {_REMEDY}") from None

    def authorise(
        self, type_: str, queue: str, kind: str, sender: str, recipient: str, producer: str | None = None
    ) -> None:
        """Check that one principal may send another a message of this type.

        A grant lets ``from`` send jobs and controls to ``to``, and ``to`` answer with starts, events, segments and
        results. An operator of the workers' cloud may order a replay of any job that a grant allows.

        Args:
            type_: The message's type.
            queue: Its queue.
            kind: Its kind of job.
            sender: Who signed it.
            recipient: Whom it is for.
            producer: Of a replay: whose job it is.

        Raises:
            NotAuthorised: Nothing says so.
        """
        match type_:
            case "job" | "control":
                allowed = kind in self._granted.get((queue, sender, recipient), ())
            case "result" | "start" | "event" | "segment":
                allowed = kind in self._granted.get((queue, recipient, sender), ())
            case "replay":
                operator, worker = self.peer(sender), self.peer(recipient)
                allowed = (operator.role, operator.cloud) == (Role.OPERATOR, worker.cloud)
                allowed = allowed and kind in self._granted.get((queue, producer, recipient), ())
            case _:
                allowed = False
        if not allowed:
            raise NotAuthorised(
                f"trust.json: version {self.version} does not let {sender} send {recipient} this {type_} of kind {kind}"
                f" on queue {queue}; {_REMEDY}"
            )


def least_version(folder: Path) -> int:
    """The least bundle version that a folder accepts: ``BUNNY_TRUST_MIN_VERSION``, or what it accepted before.

    Raises:
        ConfigurationError: One of them is not a version.
    """
    pinned = _integer(os.environ.get(MIN_VERSION_ENVIRONMENT, "0"), MIN_VERSION_ENVIRONMENT)
    return max(pinned, _floor(folder / FLOOR_FILE))


def read_roots(roots: bytes, *, partial: bool = False) -> tuple[dict[bytes, VerifyKey], int, str]:
    """The root keys of ``roots.json`` by kid, how many must sign, and the bridge's name.

    Args:
        roots: The file's bytes.
        partial: Whether fewer keys than must sign will do: while their holders still add theirs.

    Raises:
        BadBundle, WeakKey: It is not a roots file.
    """
    try:
        value = strict_json.parse_object(roots)
        expect_keys(value, {"version", "bridge", "threshold", "keys"})
        keys = {}
        for item in value["keys"]:
            expect_keys(item, {"kid", "public"})
            key = VerifyKey(unb64(item["public"]))
            if key.kid.hex() != item["kid"] or key.kid in keys:
                raise ValueError
            keys[key.kid] = key
        threshold = value["threshold"]
        if (
            _whole(value["version"]) != 1
            or type(threshold) is not int
            or not 1 <= threshold <= (dsse.MAX_SIGNATURES if partial else len(keys))
            or not 1 <= len(keys) <= dsse.MAX_SIGNATURES
        ):
            raise ValueError
        return keys, threshold, _name(value["bridge"])
    except (ValueError, KeyError, TypeError):
        raise BadBundle("roots.json: not a roots file; make one with `bunny trust init`") from None


def _verified_payload(bundle: bytes, keys: Mapping[bytes, VerifyKey], threshold: int) -> bytes:
    payload, signatures = dsse.decode(bundle)
    message = dsse.signed_bytes(payload)
    # Whether or not the signatures verify: the answer must not depend on their order.
    if len({kid for kid, _ in signatures}) != len(signatures):
        raise RepeatedSigner("trust.json: one root key signed it twice; remove the second signature")
    valid = sum(kid in keys and keys[kid].verify(signature, message) for kid, signature in signatures)
    if valid < threshold:
        raise BelowThreshold(
            f"trust.json: {valid} of the roots in roots.json signed it, {threshold} must; add signatures with "
            "`bunny trust sign`"
        )
    return payload


def _peer(value: strict_json.Object) -> Peer:
    expect_keys(value, {"name", "cloud", "role", "sign", "kem"})
    sign = []
    for item in _list(value["sign"]):
        expect_keys(item, {"kid", "public", "not_before", "not_after"})
        key = VerifyKey(unb64(item["public"]))
        if key.kid.hex() != item["kid"]:
            raise ValueError
        sign.append((key, _lifetime(item)))
    kem = []
    for item in _list(value["kem"]):
        expect_keys(item, {"kid", "public", "epoch", "not_before", "not_after"})
        public = KemPublicKey(unb64(item["public"]))
        if public.kid.hex() != item["kid"]:
            raise ValueError
        kem.append((public, _whole(item["epoch"]), _lifetime(item)))
    return Peer(_name(value["name"]), _name(value["cloud"]), _text(value["role"]), tuple(sign), tuple(kem))


def _grant(value: strict_json.Object) -> Grant:
    expect_keys(value, {"queue", "from", "to", "kinds"})
    kinds = frozenset(map(_name, _list(value["kinds"])))
    return Grant(_name(value["queue"]), _name(value["from"]), _name(value["to"]), kinds)


def _lifetime(value: strict_json.Object) -> Lifetime:
    return Lifetime(_whole(value["not_before"]), _whole(value["not_after"]))


def _name(value: object) -> str:
    if type(value) is not str or not is_name(value):
        raise ValueError
    return value


def _list(value: object) -> list[Any]:
    if type(value) is not list:
        raise ValueError
    return value


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError
    return value


def _text(value: object) -> str:
    if type(value) is not str or not 0 < len(value) <= 128:
        raise ValueError
    return value


def _integer(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise ConfigurationError(f"{where}: {text[:20]!r} is not a version; write a whole number")
    return int(text)


def _floor(path: Path) -> int:
    # A floor that is damaged must not silently become 0, or deleting one byte would undo the protection.
    return _integer(read_file(path).decode("ascii", "replace").strip(), str(path)) if path.exists() else 0
