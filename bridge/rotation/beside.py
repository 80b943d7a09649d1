"""``rotation.json`` of an identity folder: keys that are not in use yet, and public halves that are still believed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge import crypto, strict_json
from bridge.crypto import SigningKey, VerifyKey
from bridge.errors import ConfigurationError
from bridge.files import check_private, read_file, write_file
from bridge.identity import Identity, PublicIdentity
from bridge.strict_json import b64, expect_keys, unb64

ROTATION_FILE: Final = "rotation.json"


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands beside the keys of an identity while one takes another's place. Its ``repr`` shows no private key."""

    sign: SigningKey | None = None
    """Made, not yet signed with: others must know it first."""
    nkey_seed: str | None = field(default=None, repr=False)
    """Made, not yet connected with: servers must know it first."""
    former_sign: tuple[tuple[VerifyKey, int], ...] = ()
    """Signed with until then (milliseconds UTC): what they signed may still be waiting."""
    former_nkey: str | None = None
    """Connected with before: servers accept it until the last process has changed over."""

    @classmethod
    def load(cls, folder: Path) -> Beside:
        """Read it; all is empty where there is none.

        Raises:
            ConfigurationError: It is readable by others, or malformed.
        """
        path = folder / ROTATION_FILE
        if not path.exists():
            return cls()
        check_private(path)
        try:
            value = strict_json.parse_object(read_file(path))
            if value.pop("version") != 1 or not set(value) <= {"sign", "nkey_seed", "former_sign", "former_nkey"}:
                raise ValueError
            former = []
            for item in value.get("former_sign", []):
                expect_keys(item, {"public", "until"})
                if type(item["until"]) is not int:
                    raise ValueError
                former.append((VerifyKey(unb64(item["public"])), item["until"]))
            nkey, seed = value.get("former_nkey"), value.get("nkey_seed")
            if (nkey is not None and not crypto.is_nkey(nkey)) or (seed is not None and not crypto.nkey_public(seed)):
                raise ValueError
            sign = SigningKey(unb64(value["sign"])) if "sign" in value else None
            return cls(sign, seed, tuple(former), nkey)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigurationError(f"{path}: not what `bunny rotate` writes; put the last copy of it back") from None

    def save(self, folder: Path) -> None:
        """Write it (0600), or remove it where nothing stands beside."""
        path = folder / ROTATION_FILE
        if self == Beside():
            path.unlink(missing_ok=True)
            return
        value: strict_json.Object = {"version": 1}
        if self.sign is not None:
            value["sign"] = b64(self.sign.seed)
        if self.nkey_seed is not None:
            value["nkey_seed"] = self.nkey_seed
        if self.former_sign:
            value["former_sign"] = [{"public": b64(key.public), "until": until} for key, until in self.former_sign]
        if self.former_nkey is not None:
            value["former_nkey"] = self.former_nkey
        write_file(path, json.dumps(value, indent=2) + "\n", private=True)


def published(folder: Path) -> PublicIdentity:
    """The public half of an identity folder, as it is to be reviewed: what is in use, what comes, and what was.

    Raises:
        ConfigurationError: The folder holds no identity.
    """
    public, beside = Identity.load(folder).public(), Beside.load(folder)
    coming = (VerifyKey(beside.sign.public),) if beside.sign is not None else ()
    also = crypto.nkey_public(beside.nkey_seed) if beside.nkey_seed is not None else beside.former_nkey
    return PublicIdentity(
        public.name,
        public.nkey,
        (*(key for key, _ in beside.former_sign), *public.sign, *coming),
        public.kem,
        also,
    )
