"""A rotation where two parties must act: each run does the next step of one identity folder, and says what follows."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bridge.cli.frame import NotAsAsked
from bridge.cli.out import Out, when
from bridge.cli.where import find_policy, private_folder, read_policy
from bridge.cli.who import connect_soon
from bridge.clock import now_ms
from bridge.errors import ConfigurationError, IdentityRevoked
from bridge.files import write_file
from bridge.identity import (
    CONNECTION_FILE,
    IDENTITY_FILE,
    LEAF_SEED_FILE,
    NATS_SEED_FILE,
    TRUST_FILE,
    Connection,
    Identity,
)
from bridge.policy import Policy
from bridge.render.lifetimes import keys_ms
from bridge.rotation import (
    KEM,
    NKEY,
    ROTATION_FILE,
    SIGN,
    Beside,
    Leftover,
    Step,
    begin,
    ends_of,
    finish,
    left,
    published,
    switch,
)
from bridge.trust import Trust

_AFTER_BEGIN: Final = {
    SIGN: (
        "put {half} into keys/ beside bridge.yaml, to review",
        "holders of root keys: `bunny trust sign`; deliver trust.json to every service of both clouds",
        "then run this again: it signs with the new key from then on",
    ),
    KEM: (
        "wait until every process that uses {folder} has taken it up (`keys_reloaded` in its log)",
        "only then put {half} into keys/ beside bridge.yaml, to review",
        "holders of root keys: `bunny trust sign`; deliver trust.json to every service of both clouds",
        "then, when nothing that the old key opens is stored, `--retire`",
    ),
    NKEY: (
        "put {half} into keys/ beside bridge.yaml, to review",
        "whoever runs the servers: `bunny render`, accounts.conf to them, SIGHUP (the hub's, for a link)",
        "then run this again: it connects with the new NKey from then on",
    ),
}
_AFTER_SWITCH: Final = {
    SIGN: ("when nothing that the old key signed is stored any more, `--retire`",),
    KEM: ("when nothing that the old key opens is stored any more, `--retire`",),
    NKEY: (
        "of a link: leaf-seed.conf to the leaf's servers, SIGHUP; they dial anew",
        "when nobody is connected with the old NKey (`keys_reloaded` in every log), `--retire`",
    ),
}
_AFTER_FINISH: Final = {
    SIGN: ("put {half} into keys/, sign and deliver: the old public half leaves the bundle",),
    KEM: ("put {half} into keys/, sign and deliver: the old public half leaves the bundle",),
    NKEY: ("put {half} into keys/; `bunny render`, accounts.conf to the servers, SIGHUP: they refuse the old NKey",),
}
_KEYS: Final = (IDENTITY_FILE, ROTATION_FILE, NATS_SEED_FILE, LEAF_SEED_FILE)
"""What a step changes of a folder."""


def stepwise(
    out: Out,
    kind: str,
    folder: Path,
    policy: Path | None,
    keys: Path | None,
    changed: Path | None,
    inspectors: Sequence[Path],
    *,
    retire: bool,
    dry_run: bool,
) -> None:
    """Do the next step of a rotation, or its end.

    Raises:
        ConfigurationError: The folder is no identity's, the old key is still needed, or the new one is not in the
            bundle that was delivered here.
    """
    name = Identity.load(folder).name
    begun = _begun(folder, kind)
    if dry_run:
        does = (
            "drop the old key" if retire else "put the new key into use" if begun and kind != KEM else "make a new key"
        )
        out.say(f"would {does} of {name}")
        out.result({"kind": kind, "name": name, "step": does, "dry_run": True})
        return
    if retire:
        _check_unneeded(kind, folder, policy, inspectors)
    place = _writable(folder, changed, out)
    step: Step
    after: tuple[str, ...]
    if retire:
        step, after = finish(place, kind), _AFTER_FINISH[kind]
    elif begun and kind != KEM:
        trust = _that_knows(folder, name) if kind == SIGN else None
        if kind == NKEY:
            _check_accepted(folder)
        step, after = switch(place, kind, trust), _AFTER_SWITCH[kind]
    else:
        step, after = begin(place, kind), _AFTER_BEGIN[kind]
    half = (keys or find_policy(policy).parent / "keys") / f"{name}.json"
    write_file(half, published(place).to_json())
    follows = [line.format(half=half, folder=place) for line in after]
    if place != folder:
        follows.insert(0, f"{folder} cannot be written: put {place} in its place (the Secret), for all its pods")
    _tell(out, kind, name, step, place, half, follows)


def _tell(out: Out, kind: str, name: str, step: Step, place: Path, half: Path, follows: list[str]) -> None:
    out.say(f"{name}: {step.says}", "bold")
    out.say(f"private  {place / IDENTITY_FILE}")
    out.say(f"public   {half}")
    out.say()
    for number, line in enumerate(follows, 1):
        out.say(f"{number}. {line}")
    out.result(
        {
            "kind": kind,
            "name": name,
            "changed": step.done,
            "says": step.says,
            "folder": str(place),
            "public": str(half),
            "next": follows,
        }
    )


def _begun(folder: Path, kind: str) -> bool:
    beside = Beside.load(folder)
    match kind:
        case "sign":
            return beside.sign is not None
        case "nkey":
            return beside.nkey_seed is not None
    return len(Identity.load(folder).kem) > 1


def _writable(folder: Path, changed: Path | None, out: Out) -> Path:
    """The folder itself, or a copy of it where it cannot be written: a Secret that is mounted, say."""
    if changed is None and os.access(folder, os.W_OK):
        return folder
    place = changed or Path(f"{folder.name}.next")
    made = not place.exists()
    if made:
        private_folder(place)
        out.say(f"copied   {folder} to {place}")
    elif Identity.load(place).name != Identity.load(folder).name:
        raise ConfigurationError(f"{place}: holds another identity; name another folder with --out")
    elif _is_older(place, folder):
        raise ConfigurationError(f"{place}: holds older keys than {folder}; remove it, or name another with --out")
    for file in sorted(folder.iterdir()):
        # Of a copy that was changed before all but its keys is as it is now: a bundle may have come since.
        if file.is_file() and (made or file.name not in _KEYS):
            shutil.copyfile(file, place / file.name)
            (place / file.name).chmod(0o600)
    return place


def _is_older(place: Path, folder: Path) -> bool:
    """Whether a copy is of before what the folder has been through since."""
    copy, identity, beside = Identity.load(place), Identity.load(folder), Beside.load(folder)
    epochs = [max((key.epoch for key in each.kem), default=0) for each in (copy, identity)]
    former = {key.kid for key, _ in beside.former_sign}
    return epochs[0] < epochs[1] or copy.nkey == beside.former_nkey or any(key.kid in former for key in copy.sign)


def _that_knows(folder: Path, name: str) -> Trust:
    """The bundle of a folder, if it has the key that is to be signed with from now on.

    Raises:
        ConfigurationError: It has not, or not yet.
    """
    trust, beside = Trust.load(folder, now_ms()), Beside.load(folder)
    try:
        trust.check_mine(name, (beside.sign or Identity.load(folder).sign[-1]).kid, now_ms())
    except IdentityRevoked:
        raise ConfigurationError(
            f"{folder / TRUST_FILE}: has not the new signing key of {name}; sign and deliver one that has it first"
        ) from None
    return trust


def _check_unneeded(kind: str, folder: Path, policy: Path | None, inspectors: Sequence[Path]) -> None:
    """Raise where the old key may still be needed.

    Raises:
        ConfigurationError: Something that needs it is stored, or may be and nobody looked.
    """
    identity, beside = Identity.load(folder), Beside.load(folder)
    if kind == NKEY:
        return
    values, now = read_policy(find_policy(policy)), now_ms()
    if kind == KEM:
        old, since = {key.kid for key in identity.kem[:-1]}, None
        if old and Trust.load(folder, now).peer(identity.name).kem_key(now).kid != identity.kem[-1].kid:
            raise ConfigurationError(
                f"{folder / TRUST_FILE}: has not the newest key of {identity.name}; deliver it first"
            )
    else:
        old = {key.kid for key, _ in beside.former_sign}
        since = max((until for _, until in beside.former_sign), default=None)
    if not old or (since is not None and now > since + keys_ms(values)):
        return
    missing = set(values.clouds)
    for inspector in (*inspectors, *inspectors[:-1]):
        connection = Connection.load(inspector)
        found = asyncio.run(_look(inspector, values, connection, old))
        for each in found.values():
            raise NotAsAsked(
                ConfigurationError(
                    f"{each.stream}: holds what needs the old key, {each.subject} of {when(each.issued)}; "
                    "try again when that is gone"
                )
            )
        missing.discard(connection.cloud)
    if missing:
        until = f", or wait until {when(since + keys_ms(values))}" if since is not None else ""
        raise ConfigurationError(
            f"nobody looked what is stored in {', '.join(sorted(missing))}: name an inspector of each cloud with "
            f"--inspector{until}"
        )


def _check_accepted(folder: Path) -> None:
    """Raise where servers do not accept the NKey that was made; those of a link are not asked, nor from elsewhere.

    Raises:
        TransportError: They do not, or do not answer.
    """
    seed = Beside.load(folder).nkey_seed
    if seed is not None and (folder / CONNECTION_FILE).exists():
        asyncio.run(_connect(folder, seed))


async def _connect(folder: Path, seed: str) -> None:
    async with await connect_soon(Connection.load(folder), seed, folder, "rotate"):
        pass


async def _look(folder: Path, policy: Policy, connection: Connection, old: set[bytes]) -> dict[bytes, Leftover]:
    async with await connect_soon(connection, Identity.load(folder).nkey_seed, folder, "rotate") as transport:
        return await left(transport, policy, connection.cloud, old, ends_of(transport))
