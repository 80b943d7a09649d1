"""Every key of a bridge on this machine replaced while it runs: each as one act, in the order of docs/rotation.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bridge.clock import now_ms
from bridge.devserver import monitor
from bridge.devserver.standing import Standing
from bridge.errors import ConfigurationError, TransportError
from bridge.identity import Identity
from bridge.policy import Role
from bridge.rotation import KEM, NKEY, SIGN, Beside, begin, finish, switch

Told = Callable[[str], None]
"""Is given one line for each thing that was done."""

GONE_TIMEOUT_S: Final = 30.0
"""How long connections may take to change over to another NKey."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rotation came to."""

    complete: bool
    """Whether nothing of the old key is left; else it is used by nobody, and kept for what needs it."""
    left: str = ""
    """What needs it."""


def chosen(at: Standing, names: Sequence[str], kind: str) -> list[str]:
    """The identities meant: those named, or all that have such a key.

    Raises:
        ConfigurationError: One is none of the policy's, or has no such key.
    """
    known = at.policy.accepted
    able = [name for name, entry in sorted(known.items()) if kind == NKEY or entry.role is not Role.LINK]
    for name in names:
        if name not in known:
            raise ConfigurationError(f"{name}: no identity of the policy; it has {', '.join(sorted(known))}")
        if name not in able:
            raise ConfigurationError(f"{name}: the identity of a link has a NKey alone; rotate that")
    return list(names) or able


async def rotate_sign(at: Standing, names: Sequence[str], told: Told) -> Outcome:
    """Have identities sign with new keys, each once everybody knows it; the old public halves stay believed."""
    names = chosen(at, names, SIGN)
    for name in names:
        told(f"{name}: {begin(at.folder.identity(name), SIGN).says}")
    told(f"trust bundle {at.deliver()} has old and new, and lies in every identity folder")
    await at.taken_up()
    everybody = [name for name, entry in at.policy.accepted.items() if entry.role is not Role.LINK]
    for name in names:
        new = Beside.load(at.folder.identity(name)).sign
        if new is not None:
            for other in everybody:
                at.trust(other).check_mine(name, new.kid, now_ms())
        told(f"{name}: {switch(at.folder.identity(name), SIGN, at.trust(name)).says}")
    await at.taken_up()
    return await retire_sign(at, names, told)


async def retire_sign(at: Standing, names: Sequence[str], told: Told) -> Outcome:
    """Stop believing old signing keys of which nothing is stored any more."""
    kept: list[str] = []
    names = chosen(at, names, SIGN)
    old = {name: {key.kid for key, _ in Beside.load(at.folder.identity(name)).former_sign} for name in names}
    found = await at.left({kid for kids in old.values() for kid in kids})
    for name, kids in old.items():
        if needed := [found[kid].stream for kid in kids if kid in found]:
            kept.append(f"{name}: its old signing key stays believed: {needed[0]} holds what it signed")
            told(kept[-1])
        elif kids:
            told(f"{name}: {finish(at.folder.identity(name), SIGN).says}")
    told(f"trust bundle {at.deliver()} lies in every identity folder")
    return Outcome(not kept, "; ".join(kept))


async def rotate_kem(at: Standing, names: Sequence[str], told: Told) -> Outcome:
    """Have identities be sealed to new keys, once they can open with them; the old ones go when nothing needs them."""
    names = chosen(at, names, KEM)
    for name in names:
        told(f"{name}: {begin(at.folder.identity(name), KEM).says}")
    await at.taken_up()
    told(f"trust bundle {at.deliver()} has both epochs, and lies in every identity folder: the newer is sealed to")
    await at.taken_up()
    return await retire_kem(at, names, told)


async def retire_kem(at: Standing, names: Sequence[str], told: Told) -> Outcome:
    """Delete old private keys that nothing which is stored is sealed to."""
    kept: list[str] = []
    keys = {name: Identity.load(at.folder.identity(name)).kem for name in chosen(at, names, KEM)}
    for name, kem in keys.items():
        if at.trust(name).peer(name).kem_key(now_ms()).kid != kem[-1].kid:
            raise ConfigurationError(f"{name}: the trust bundle has not its newest key; rotate again without --retire")
    found = await at.left({key.kid for kem in keys.values() for key in kem[:-1]})
    for name, kem in keys.items():
        if needed := [found[key.kid].stream for key in kem[:-1] if key.kid in found]:
            kept.append(f"{name}: its old private key stays: {needed[0]} holds what is sealed to it")
            told(kept[-1])
        elif len(kem) > 1:
            told(f"{name}: {finish(at.folder.identity(name), KEM).says}")
    told(f"trust bundle {at.deliver()} lies in every identity folder")
    return Outcome(not kept, "; ".join(kept))


async def rotate_nkey(at: Standing, names: Sequence[str], told: Told) -> Outcome:
    """Have identities connect with new NKeys: servers accept both, services change over, servers forget the old."""
    names = chosen(at, names, NKEY)
    for name in names:
        if Beside.load(at.folder.identity(name)).former_nkey is None:
            told(f"{name}: {begin(at.folder.identity(name), NKEY).says}")
    await at.admit()
    told("servers of both clouds accept old and new")
    for name in names:
        told(f"{name}: {switch(at.folder.identity(name), NKEY, None).says}")
        if at.policy.identities[name].role is Role.LINK:
            await at.seed(name)
            await at.until_linked()
            told(f"{name}: the link was dialled with it")
    return await retire_nkey(at, names, told)


async def retire_nkey(at: Standing, names: Sequence[str], told: Told) -> Outcome:
    """Have servers forget old NKeys that nobody connects with any more."""
    kept: list[str] = []
    for name in chosen(at, names, NKEY):
        former = Beside.load(at.folder.identity(name)).former_nkey
        if former is None:
            continue
        try:
            await monitor.until(partial(_unused, at, former), GONE_TIMEOUT_S, f"{name}: all to change over")
        except TransportError:
            still = ", ".join(sorted(set(await at.connections(former))))
            kept.append(f"{name}: {still} still connected with the old NKey: restart what does not follow its folder")
            told(kept[-1])
        else:
            told(f"{name}: {finish(at.folder.identity(name), NKEY).says}")
    await at.admit()
    await at.until_linked()
    told("servers of both clouds accept what is left, and nothing else")
    return Outcome(not kept, "; ".join(kept))


async def _unused(at: Standing, nkey: str) -> bool:
    return not await at.connections(nkey)
