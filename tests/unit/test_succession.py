"""One authority in the place of another: what is trusted and what is shown, at each step and when it is done again."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge import pki
from bridge.crypto import SigningKey
from bridge.devserver import Folder, turnover
from bridge.devserver.standing import Standing
from bridge.errors import ConfigurationError
from bridge.roots import load_roots, save_root
from tests.support import write_policy


def test_an_authority_takes_the_place_of_another_and_at_no_step_is_what_is_shown_untrusted(tmp_path: Path) -> None:
    policy, folder = write_policy(tmp_path), tmp_path / "pki"
    pki.issue(policy, folder, hosts=pki.DEVELOPMENT_HOSTS)
    here = folder / "aws"
    old, shown = (here / "ca.pem").read_bytes(), pki.fingerprint(here / "leafnodes.pem")

    def sound() -> bool:
        return not any(each.problems for each in pki.check(folder))

    assert pki.begin_root(policy, folder, "aws")
    both = (here / "ca.pem").read_bytes()
    assert not pki.begin_root(policy, folder, "aws"), "the one that was made before"
    assert (here / "ca.pem").read_bytes() == both
    assert (both.startswith(old), both.count(b"BEGIN")) == (True, 2)
    assert pki.fingerprint(here / "leafnodes.pem") == shown
    assert sound()
    with pytest.raises(ConfigurationError, match="not in use yet"):
        pki.finish_root(folder, "aws")
    assert pki.switch_root(policy, folder, "aws")
    assert not pki.switch_root(policy, folder, "aws")
    assert pki.fingerprint(here / "leafnodes.pem") != shown
    assert (here / "ca.pem").read_bytes().endswith(old)
    assert sound()
    assert pki.finish_root(folder, "aws")
    assert not pki.finish_root(folder, "aws")
    new = (here / "ca.pem").read_bytes()
    assert (old in new, new.count(b"BEGIN")) == (False, 1)
    assert sound()
    pki.renew(policy, folder, "aws")
    assert sound(), "the new issuer's key is where renewals look for it"


def test_new_root_keys_that_were_about_to_take_their_place_when_that_was_cut_off_take_it_the_next_time(
    tmp_path: Path,
) -> None:
    at = Standing(write_policy(tmp_path), Folder.at(tmp_path / "here"), {})
    old, new = SigningKey.generate(), SigningKey.generate()
    save_root(old, at.folder.path / "roots.old")  # and none where they are looked for
    save_root(new, at.folder.path / turnover.NEXT)
    turnover._take_over(at)
    assert [key.kid for key in load_roots(at.folder.roots)] == [new.kid]
    assert sorted(path.name for path in at.folder.path.iterdir()) == ["roots"]
