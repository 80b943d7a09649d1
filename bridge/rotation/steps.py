"""The acts on one identity folder: each may be done again, and does nothing then.

A new key is made where it is used (`begin`), known to everybody who checks it, put into use (`switch`), and the old one
is dropped once nothing needs it (`finish`). An X-Wing key needs no switch: its owner opens with both from the
beginning, and senders take the newest that the trust bundle has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bridge import crypto
from bridge.clock import now_ms
from bridge.crypto import KemKey, SigningKey, VerifyKey
from bridge.errors import ConfigurationError
from bridge.identity import Identity
from bridge.rotation.beside import Beside
from bridge.trust import Trust

SIGN: Final = "sign"
KEM: Final = "kem"
NKEY: Final = "nkey"
KINDS: Final = (SIGN, KEM, NKEY)


@dataclass(frozen=True, slots=True)
class Step:
    """What an act came to."""

    done: bool
    """Whether it changed anything."""
    says: str
    """One line, of public halves alone."""


def begin(folder: Path, kind: str) -> Step:
    """Make the new key beside the one in use.

    Raises:
        ConfigurationError: The folder holds no identity, or one that has no such key.
    """
    identity, beside = Identity.load(folder), Beside.load(folder)
    if kind != NKEY and not identity.sign:
        raise ConfigurationError(f"{folder}: the identity of a link has a NKey alone; rotate that")
    match kind:
        case "sign":
            if beside.sign is not None:
                return Step(False, f"new signing key {_short(beside.sign.kid)} was made before")
            beside = replace(beside, sign=SigningKey.generate())
            beside.save(folder)
            return Step(True, f"new signing key {_short(_next(beside).kid)} made")
        case "kem":
            if len(identity.kem) > 1:
                return Step(False, f"new key to be sealed to {_epoch(identity.kem[-1])} was made before")
            new = KemKey.generate(identity.kem[-1].epoch + 1)
            replace(identity, kem=(*identity.kem, new)).save(folder, over=True)
            return Step(True, f"new key to be sealed to {_epoch(new)} made; the folder opens with both")
        case _:
            if beside.former_nkey is not None:
                raise ConfigurationError(
                    f"{folder}: servers still accept the NKey before this one; finish that rotation with --retire first"
                )
            if beside.nkey_seed is not None:
                return Step(False, f"new NKey {crypto.nkey_public(beside.nkey_seed)} was made before")
            seed = crypto.new_nkey()
            replace(beside, nkey_seed=seed).save(folder)
            return Step(True, f"new NKey {crypto.nkey_public(seed)} made")


def switch(folder: Path, kind: str, trust: Trust | None) -> Step:
    """Put the new key into use. Services that run take it up within seconds.

    Args:
        folder: The identity folder.
        kind: Which key.
        trust: The bundle that those have who check signatures; None where no signature is concerned.

    Raises:
        ConfigurationError: There is nothing to switch to.
        TrustError: The bundle does not know the new signing key.
    """
    identity, beside = Identity.load(folder), Beside.load(folder)
    match kind:
        case "sign":
            if beside.sign is None:
                return Step(False, f"signs with {_short(identity.sign[-1].kid)}")
            if trust is not None:
                trust.check_mine(identity.name, beside.sign.kid, now_ms())
            former = [(VerifyKey(key.public), now_ms()) for key in identity.sign if key.kid != beside.sign.kid]
            # Its public half is kept before it is put out of use: cut off in between, this is done again.
            known = {key.kid for key, _ in beside.former_sign}
            kept = (*beside.former_sign, *(each for each in former if each[0].kid not in known))
            replace(beside, former_sign=kept).save(folder)
            replace(identity, sign=(beside.sign,)).save(folder, over=True)
            replace(beside, sign=None, former_sign=kept).save(folder)
            return Step(
                True, f"signs with {_short(beside.sign.kid)}; the private half of the old key is gone from here"
            )
        case "kem":
            return Step(False, f"is sealed to {_epoch(identity.kem[-1])}, by whoever has the bundle")
        case _:
            if beside.nkey_seed is None:
                return Step(False, f"connects as {identity.nkey}")
            new = crypto.nkey_public(beside.nkey_seed)
            old = identity.nkey if identity.nkey != new else beside.former_nkey
            replace(beside, former_nkey=old).save(folder)
            replace(identity, nkey_seed=beside.nkey_seed).save(folder, over=True)
            replace(beside, nkey_seed=None, former_nkey=old).save(folder)
            return Step(True, f"connects as {new}")


def finish(folder: Path, kind: str) -> Step:
    """Drop the old key: it is for the caller to know that nothing needs it any more.

    Raises:
        ConfigurationError: The folder holds no identity.
    """
    identity, beside = Identity.load(folder), Beside.load(folder)
    match kind:
        case "sign" if beside.former_sign:
            replace(beside, former_sign=()).save(folder)
            gone = ", ".join(_short(key.kid) for key, _ in beside.former_sign)
            return Step(True, f"{gone} is dropped from the public half")
        case "kem" if len(identity.kem) > 1:
            replace(identity, kem=identity.kem[-1:]).save(folder, over=True)
            gone = ", ".join(map(_epoch, identity.kem[:-1]))
            return Step(True, f"private key {gone} deleted: what is sealed to it cannot be opened any more")
        case "nkey" if beside.former_nkey is not None:
            replace(beside, former_nkey=None).save(folder)
            return Step(True, f"{beside.former_nkey} is dropped from the public half")
    return Step(False, "nothing is left of an earlier one")


def _next(beside: Beside) -> SigningKey:
    if beside.sign is None:
        raise ConfigurationError("no signing key was made")
    return beside.sign


def _short(kid: bytes) -> str:
    return kid.hex()[:16]


def _epoch(key: KemKey) -> str:
    return f"{_short(key.kid)} (epoch {key.epoch})"
