"""Makes what a folder lacks for both clouds to run in it: keys, roots, bundle, certificates, rendered files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge import bundle, pki
from bridge.clock import now_ms
from bridge.crypto import SigningKey, VerifyKey
from bridge.devserver.folder import Folder
from bridge.errors import TrustError
from bridge.files import write_file
from bridge.identity import CA_FILE, IDENTITY_FILE, LEAF_SEED_FILE, ROOTS_FILE, TRUST_FILE, Identity, PublicIdentity
from bridge.policy import Policy, Role
from bridge.render import render
from bridge.roots import load_roots, save_root
from bridge.rotation import published
from bridge.trust import Trust


def prepare(policy: Policy, folder: Folder, *, hosts: Sequence[str] = pki.DEVELOPMENT_HOSTS) -> None:
    """Make the folder fit the policy, keeping every key that is there.

    The trust bundle is signed anew, with a higher version, if it no longer says what the policy says, or half of
    its life has passed. Production keys are made where they are used; these are for development.

    Args:
        policy: The policy.
        folder: Where everything is made.
        hosts: Names and addresses that servers are dialled by besides those of the policy.
    """
    keys = publish(policy, folder)
    sign(policy, folder, keys)
    _certificates(policy, folder, hosts)
    _rendered(policy, folder, keys)
    hand_out(policy, folder)


def publish(policy: Policy, folder: Folder) -> dict[str, PublicIdentity]:
    """Make the identities that are missing, and write the public halves of all as they would be reviewed."""
    keys = {}
    for name, entry in policy.accepted.items():
        place = folder.identity(name)
        if not (place / IDENTITY_FILE).exists():
            Identity.generate(name, link=entry.role is Role.LINK).save(place)
        keys[name] = published(place)
        _write_if_new(folder.keys / f"{name}.json", keys[name].to_json())
    return keys


def sign(policy: Policy, folder: Folder, keys: Mapping[str, PublicIdentity], *, anew: bool = False) -> int:
    """Sign a bundle anew if it would say something else than the one there is, or if asked to; its version."""
    while len(roots := load_roots(folder.roots)) < policy.trust.threshold:
        save_root(SigningKey.generate(), folder.roots)
    public = bundle.build_roots(policy.bridge, policy.trust.threshold, [VerifyKey(root.public) for root in roots])
    _write_if_new(folder.path / ROOTS_FILE, public)
    path, now, version = folder.path / TRUST_FILE, now_ms(), 1
    if path.exists():
        signed = path.read_bytes()
        before = bundle.read_payload(signed)
        version = int(before["version"]) + 1
        wanted = json.loads(bundle.build_payload(policy, keys, version, now))
        fresh = now < (before["issued"] + before["expires"]) / 2
        if not anew and fresh and _lasting(before) == _lasting(wanted) and _verifies(signed, public, now):
            return version - 1
    write_file(path, bundle.sign_payload(bundle.build_payload(policy, keys, version, now), roots))
    return version


def _lasting(value: Any) -> Any:  # noqa: ANN401 - JSON
    """A bundle's payload without version and times."""
    if isinstance(value, dict):
        passing = {"version", "issued", "expires", "not_before", "not_after"}
        return {key: _lasting(each) for key, each in value.items() if key not in passing}
    return [_lasting(each) for each in value] if isinstance(value, list) else value


def _verifies(signed: bytes, roots: bytes, now: int) -> bool:
    try:
        Trust.verify(signed, roots, now)
    except TrustError:
        return False
    return True


def _certificates(policy: Policy, folder: Folder, hosts: Sequence[str]) -> None:
    for cloud in policy.clouds:
        if not (folder.pki / cloud / "ca.pem").exists():
            pki.issue(policy, folder.pki, hosts=hosts, cloud=cloud)
    due = {each.cloud for each in pki.check(folder.pki) if each.renew or each.problems}
    grown = {c.name for c in policy.clouds.values() if c.routes and not (folder.pki / c.name / "cluster.pem").exists()}
    for cloud in (due | grown) & set(policy.clouds):
        pki.renew(policy, folder.pki, cloud, hosts=hosts)


def _rendered(policy: Policy, folder: Folder, keys: dict[str, PublicIdentity]) -> None:
    shutil.rmtree(folder.rendered, ignore_errors=True)  # what a former policy had must not linger
    for path, text in render(policy, keys).items():
        write_file(folder.rendered / path, text)
    for name, entry in policy.identities.items():
        if entry.role is Role.LINK:
            seed = (folder.identity(name) / LEAF_SEED_FILE).read_text()
            write_file(folder.rendered / entry.cloud / LEAF_SEED_FILE, seed, private=True)


def hand_out(policy: Policy, folder: Folder) -> None:
    """Deliver bundle, roots and authorities to every identity folder."""
    for name, entry in policy.identities.items():
        place = folder.identity(name)
        if not place.exists():
            continue  # revoked before it was made; one that was made learns of it by the bundle
        for file in (TRUST_FILE, ROOTS_FILE):
            write_file(place / file, (folder.path / file).read_bytes())
        write_file(place / CA_FILE, (folder.pki / entry.cloud / "ca.pem").read_bytes())


def _write_if_new(path: Path, data: str | bytes) -> None:
    wanted = data.encode() if isinstance(data, str) else data
    if not path.exists() or path.read_bytes() != wanted:
        write_file(path, wanted)
