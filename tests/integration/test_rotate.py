"""Keys replaced under traffic, with real servers: nothing is lost, nothing is refused, and the old ones are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge import follow, pki
from bridge.clock import now_ms
from bridge.devserver import Bridge, monitor, rotations, turnover
from bridge.devserver import standing as stand
from bridge.devserver.rotations import Outcome
from bridge.devserver.standing import Standing, standing
from bridge.errors import BelowThreshold, UnknownKey
from bridge.identity import Identity
from bridge.rotation import Beside
from bridge.trust import Trust
from tests.support import POLICY, running_bridge
from tests.traffic import Traffic, flowing

SOON = POLICY.replace("    kinds: [resize, probe]\n", "    kinds: [resize, probe]\n    ack_wait: 5s\n")
"""What a connection that is made anew had on its way comes again after 5 s."""


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK_S", 0.05)
    monkeypatch.setattr(stand, "SETTLE_S", 1.0)


def keys(bridge: Bridge, name: str) -> Identity:
    return Identity.load(bridge.identity(name))


async def refusals(bridge: Bridge) -> int:
    """Messages that workers refused, over all queues."""
    _, body = await monitor.get(bridge.leaf.monitor_port, "/jsz?accounts=1&streams=1")
    details = [stream for account in body["account_details"] for stream in account.get("stream_detail", ())]
    return sum(each["state"]["messages"] for each in details if each["name"].startswith("REFUSED_"))


async def check(bridge: Bridge, traffic: Traffic) -> None:
    assert (traffic.refused, traffic.wrong) == ([], [])
    assert traffic.answered == traffic.sent > 0
    assert await refusals(bridge) == 0


async def test_signing_keys_epochs_and_nkeys_are_replaced_while_jobs_flow(tmp_path: Path) -> None:
    names = ["alpha", "bunny"]
    async with running_bridge(tmp_path, SOON) as bridge:
        before = {name: keys(bridge, name) for name in [*names, "link-azure"]}
        with standing(bridge.policy, bridge.folder) as at:
            async with flowing(bridge.identity("alpha"), bridge.identity("bunny"), 20) as traffic:
                signed = await rotations.rotate_sign(at, names, print)
                sealed = await rotations.rotate_kem(at, names, print)
                connected = await rotations.rotate_nkey(at, [*names, "link-azure"], print)
            await check(bridge, traffic)
            await used(at, before)
            # Results stand: whose they are is believed, and who got them can open them. No job waits any more.
            assert (signed.complete, sealed.complete, connected) == (False, False, Outcome(True))
            assert "RESULTS_thumbs" in signed.left
            assert len(keys(bridge, "bunny").kem) == 1
            assert len(keys(bridge, "alpha").kem) == 2
            believed = Trust.load(bridge.identity("alpha"), now_ms())
            assert believed.signer(before["bunny"].sign[-1].kid, now_ms())[0].name == "bunny"
            assert Beside.load(bridge.identity("link-azure")) == Beside()
            await nothing_stands(at)


async def nothing_stands(at: Standing) -> None:
    """Of an identity of which nothing is stored, the old signing key goes at once."""
    old = Identity.load(at.folder.identity("gamma")).sign[-1].kid
    assert await rotations.rotate_sign(at, ["gamma"], print) == Outcome(True)
    with pytest.raises(UnknownKey):
        Trust.load(at.folder.identity("relay"), now_ms()).signer(old, now_ms())
    assert await rotations.retire_sign(at, ["gamma"], print) == Outcome(True)


async def used(at: Standing, before: dict[str, Identity]) -> None:
    """What is used is new, and servers accept the old NKeys no more."""
    _, body = await monitor.get(int(str(at.ready["clouds"]["aws"]["monitor"]).rpartition(":")[2]), "/connz?auth=1")
    link = [each["authorized_user"] for each in body["connections"] if each["kind"] == "Leafnode"]
    assert link == [Identity.load(at.folder.identity("link-azure")).nkey] != [before["link-azure"].nkey]
    accounts = "".join((at.folder.rendered / cloud / "accounts.conf").read_text() for cloud in at.policy.clouds)
    for name, was in before.items():
        now = Identity.load(at.folder.identity(name))
        assert now.nkey != was.nkey
        assert (was.nkey in accounts, now.nkey in accounts) == (False, True)
        if was.sign:
            assert now.sign[-1].kid != was.sign[-1].kid
            assert now.kem[-1].epoch == was.kem[-1].epoch + 1


async def test_certificates_authorities_and_root_keys_are_replaced_while_jobs_flow(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, SOON) as bridge:
        place = bridge.folder
        link, ca, roots = ((place.pki / "azure" / n).read_bytes() for n in ("link.pem", "ca.pem", "../../roots.json"))
        with standing(bridge.policy, place) as at:
            async with flowing(bridge.identity("alpha"), bridge.identity("bunny"), 20) as traffic:
                assert await turnover.renew_certificates(at, (), print) == Outcome(True)
                assert (place.pki / "azure" / "link.pem").read_bytes() != link
                assert await turnover.replace_authorities(at, (), print) == Outcome(True)
                assert await turnover.replace_roots(at, print) == Outcome(True)
            await check(bridge, traffic)
        new = (bridge.identity("bunny") / "ca.pem").read_bytes()
        assert new.count(b"BEGIN") == 1
        assert new != ca
        assert not any(each.problems for each in pki.check(place.pki))
        async with flowing(bridge.identity("alpha"), bridge.identity("bunny"), 20):
            pass  # who connects now sees the new authority alone
        with pytest.raises(BelowThreshold):
            Trust.verify((bridge.identity("bunny") / "trust.json").read_bytes(), roots, now_ms())
