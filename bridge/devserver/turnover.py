"""Certificates, authorities and root keys of a bridge on this machine replaced while it runs, each as one act."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import Sequence
from typing import Final

from bridge import bundle, pki
from bridge.clock import now_ms
from bridge.crypto import SigningKey, VerifyKey, sha256
from bridge.devserver import monitor
from bridge.devserver.prepare import hand_out, publish, sign
from bridge.devserver.rotations import Outcome, Told
from bridge.devserver.standing import LINK_TIMEOUT_S, Standing
from bridge.errors import ConfigurationError
from bridge.files import read_file, write_file
from bridge.identity import ROOTS_FILE, TRUST_FILE
from bridge.jetstream.credentials import tls_context
from bridge.roots import load_roots, save_root
from bridge.trust import Trust

NEXT: Final = "roots.next"
"""Where new root keys lie until services believe them."""


async def renew_certificates(at: Standing, clouds: Sequence[str], told: Told) -> Outcome:
    """Replace the servers' certificates, and have the link dialled with them; the authorities stay."""
    for cloud in _clouds(at, clouds):
        pki.renew(at.policy, at.folder.pki, cloud)
        await at.reload(cloud)
        await _until_shown(at, cloud)
        told(f"{cloud}: its servers show new certificates to its services")
    await at.redial()
    await at.until_linked()
    told("the link was dialled with the certificates that both ends have now")
    return Outcome(True)


async def replace_authorities(at: Standing, clouds: Sequence[str], told: Told) -> Outcome:
    """Replace the authorities of clouds: everybody trusts old and new, then the new one issues, then it is alone."""
    names = _clouds(at, clouds)
    for cloud in names:
        made = pki.begin_root(at.policy, at.folder.pki, cloud)
        told(f"{cloud}: a new authority {'was made' if made else 'had been made'}; its ca.pem trusts old and new")
    await _trusted(at)
    told("servers and services of both clouds trust old and new")
    for cloud in names:
        pki.switch_root(at.policy, at.folder.pki, cloud)
        await at.reload(cloud)
        await _until_shown(at, cloud)
        told(f"{cloud}: its servers show certificates of the new one")
    await at.redial()
    await at.until_linked()
    told("the link was dialled with the certificates that both ends have now")
    for cloud in names:
        pki.finish_root(at.folder.pki, cloud)
    await _trusted(at)
    for cloud in names:
        await _until_shown(at, cloud)
        told(f"{cloud}: the old authority is trusted by nobody any more")
    await at.redial()
    await at.until_linked()
    return Outcome(True)


async def replace_roots(at: Standing, told: Told) -> Outcome:
    """Replace the root keys of the trust bundle: signed by old and new, then roots.json, then by the new alone."""
    folder, policy, place = at.folder, at.policy, at.folder.path / NEXT
    if not place.exists():
        _make(at)
    old, new = load_roots(folder.roots), load_roots(place)
    told(f"{len(new)} new root keys; {policy.trust.threshold} must sign")
    keys = publish(policy, folder)
    public = bundle.build_roots(policy.bridge, policy.trust.threshold, [VerifyKey(key.public) for key in new])
    version = int(bundle.read_payload(read_file(folder.path / TRUST_FILE))["version"]) + 1
    signed = bundle.sign_payload(bundle.build_payload(policy, keys, version, now_ms()), [*old, *new])
    Trust.verify(signed, read_file(folder.path / ROOTS_FILE), now_ms())
    Trust.verify(signed, public, now_ms())
    write_file(folder.path / TRUST_FILE, signed)
    hand_out(policy, folder)
    await at.taken_up()
    told(f"trust bundle {version} is signed by old and new, and lies in every identity folder")
    write_file(folder.path / ROOTS_FILE, public)
    hand_out(policy, folder)
    await at.taken_up()
    told("roots.json in every identity folder names the new root keys alone")
    _take_over(at)
    version = sign(policy, folder, keys, anew=True)
    hand_out(policy, folder)
    for name in at.policy.identities:
        if (folder.identity(name) / TRUST_FILE).exists():
            Trust.load(folder.identity(name), now_ms())
    told(f"trust bundle {version} is signed by the new alone; the old private root keys are deleted from here")
    return Outcome(True)


def _make(at: Standing) -> None:
    """New root keys, all or none."""
    part = at.folder.path / f"{NEXT}.part"
    shutil.rmtree(part, ignore_errors=True)
    for _ in range(max(at.policy.trust.threshold, len(load_roots(at.folder.roots)))):
        save_root(SigningKey.generate(), part)
    part.rename(at.folder.path / NEXT)


def _take_over(at: Standing) -> None:
    """Put the new root keys where the old ones were, and delete those."""
    former = at.folder.path / "roots.old"
    if at.folder.roots.exists():  # else it was cut off between the two, and is done again
        shutil.rmtree(former, ignore_errors=True)
        at.folder.roots.rename(former)
    (at.folder.path / NEXT).rename(at.folder.roots)
    shutil.rmtree(former)


def _clouds(at: Standing, names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in at.policy.clouds:
            raise ConfigurationError(f"{name}: no cloud of the policy; it has {', '.join(sorted(at.policy.clouds))}")
    return list(names) or [at.policy.hub.name, at.policy.leaf.name]


async def _trusted(at: Standing) -> None:
    """Have everybody read the authorities: servers at a SIGHUP, services whenever they dial."""
    hand_out(at.policy, at.folder)
    for cloud in (at.policy.hub.name, at.policy.leaf.name):
        await at.reload(cloud)


async def _until_shown(at: Standing, cloud: str) -> None:
    """Wait until the servers of a cloud show their services the certificate that lies here, and it verifies.

    Raises:
        TransportError: Not in time.
    """
    here = at.folder.pki / cloud
    wanted, context = pki.fingerprint(here / "clients.pem"), tls_context(here / "ca.pem")

    async def shown() -> bool:
        said = at.ready["clouds"][cloud]
        for server in said.get("servers") or [said]:
            host, _, port = str(server["clients"]).removeprefix("tls://").rpartition(":")
            with contextlib.suppress(OSError, ssl.SSLError):
                _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=host)
                try:
                    seen = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                finally:
                    writer.transport.abort()
                if sha256(seen).hex() == wanted:
                    continue
            return False
        return True

    await monitor.until(shown, LINK_TIMEOUT_S, f"{cloud}: its servers to show the certificate in {here}")
