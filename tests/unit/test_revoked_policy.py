"""What a policy with ``revoked`` gives: no key, no grant, no user; and of a link, nothing that crosses."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.bundle import build_payload
from bridge.devserver import Bridge
from bridge.devserver.folder import Folder
from bridge.errors import ConfigurationError, PolicyError
from bridge.identity import Identity
from bridge.policy import Policy, Role
from bridge.render import render
from bridge.strict_json import parse_object
from tests.support import POLICY, write_policy


def revoking(folder: Path, name: str) -> Policy:
    return write_policy(folder, f"{POLICY}revoked: [{name}]\n")


def rendered(policy: Policy) -> dict[str, str]:
    keys = {n: Identity.generate(n, link=e.role is Role.LINK).public() for n, e in policy.accepted.items()}
    return render(policy, keys)


def test_a_revoked_service_has_no_key_and_no_grant_and_no_user(tmp_path: Path) -> None:
    policy = revoking(tmp_path, "bunny")
    keys = {n: Identity.generate(n, link=e.role is Role.LINK).public() for n, e in policy.accepted.items()}
    bundle = parse_object(build_payload(policy, keys, 2, 1_000_000_000_000))
    assert "bunny" not in [each["name"] for each in bundle["principals"]]
    assert {each["queue"] for each in bundle["grants"]} == {"lookup"}, "nobody may send to it, nor it answer"
    files = rendered(policy)
    assert "# bunny: service" not in files["azure/accounts.conf"]
    assert "azure/connections/bunny.yaml" not in files


def test_a_revoked_link_is_offered_nothing_by_the_hub(tmp_path: Path) -> None:
    before = rendered(write_policy(tmp_path))["aws/accounts.conf"]
    after = rendered(revoking(tmp_path, "link-azure"))["aws/accounts.conf"]
    assert "link-azure" in before
    assert "MSG.NEXT.JOBS_thumbs" in before[before.index("BRIDGE") :]
    assert "link-azure" not in after
    assert "JOBS_thumbs" not in after[after.index("BRIDGE") :].split("}\n")[0]


def test_the_digest_is_another_and_what_is_not_revoked_has_the_one_of_before(tmp_path: Path) -> None:
    plain = write_policy(tmp_path).digest
    assert write_policy(tmp_path, POLICY).digest == plain
    assert revoking(tmp_path, "bunny").digest != plain


def test_who_is_no_identity_cannot_be_revoked(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="'buny' is revoked and no identity of this policy; did you mean 'bunny'"):
        revoking(tmp_path, "buny")


async def test_a_link_that_is_revoked_is_not_waited_for(tmp_path: Path) -> None:
    bridge = Bridge(revoking(tmp_path, "link-azure"), Folder.at(tmp_path), {}, {}, ())
    with pytest.raises(ConfigurationError, match="the link is revoked, so nothing crosses it"):
        await bridge.until_flowing()
