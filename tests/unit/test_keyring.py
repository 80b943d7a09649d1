"""Keys that are replaced while they are in use: what was sealed before opens, and what comes after is the new ones'."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.bundle import build_payload, sign_payload
from bridge.crypto import KemKey, SigningKey, new_nkey, random_bytes
from bridge.envelope import Draft, Opener, Sealer
from bridge.errors import ConfigurationError, WrongRecipient
from bridge.identity import Identity
from bridge.keyring import Keyring
from bridge.payload import PartSealer
from bridge.trust import Trust
from tests.world import POLICY, World


def knowing(world: World, *identities: Identity) -> Trust:
    """A bundle that has these public halves in the place of the world's."""
    keys = {name: identity.public() for name, identity in world.identities.items()}
    keys |= {identity.name: identity.public() for identity in identities}
    return Trust.verify(
        sign_payload(build_payload(POLICY, keys, 2, world.now), world.roots), world.roots_json(), world.now
    )


def test_a_sealer_signs_with_the_key_that_it_has_now_and_each_message_with_the_one_that_its_core_names() -> None:
    world = World()
    relay, new = world.identities["relay"], SigningKey.generate()
    both = replace(relay, sign=(relay.sign[0], new))
    ring, opener = Keyring(relay), Opener(world.identities["bunny"], knowing(world, both))
    sealer = Sealer(ring)
    before, wrap = sealer.close(world.job(b'"before"'), world.now), sealer.wrap(world.job().recipients, world.now)
    ring.take_up(replace(relay, sign=(new,)))
    within = sealer.close(Draft(world.job(n=2).core, world.job().recipients, world.job().content, wrap=wrap), world.now)
    after = sealer.close(world.job(b'"after"', n=3), world.now)
    sealed = sealer.sign([before, within, after])
    opened = [opener.open(opener.authenticate(each.data, world.now)) for each in sealed]
    assert [each.core.sender_kid for each in opened] == [relay.sign[0].kid, new.kid, new.kid]
    assert [opened[0].content.body, opened[2].content.body] == [b'"before"', b'"after"']


def test_a_payload_that_was_stored_under_keys_that_are_dropped_by_now_is_named_under_those_of_now() -> None:
    world = World()
    relay, bunny = world.identities["relay"], world.identities["bunny"]
    signing, sealing = SigningKey.generate(), KemKey.generate(1)
    ring = Keyring(relay)
    sealer = Sealer(ring)
    wrap = sealer.wrap(world.job().recipients, world.now)
    parts = PartSealer(wrap.secret)
    _, part = parts.seal(b"begun before")
    after, into = replace(relay, sign=(signing,)), replace(bunny, kem=(sealing,))
    ring.take_up(after)
    trust = knowing(world, after, into)
    draft = Draft(world.job().core, (trust.peer("bunny").kem_key(world.now),), world.job(b"").content)
    sealed = sealer.seal(draft.naming(parts.manifest(), wrap), world.now)
    opener = Opener(into, trust)
    opened = opener.open(opener.authenticate(sealed.data, world.now))
    assert opened.payload is not None
    opened.payload.learn([piece for _, piece in parts.pieces()])
    assert opened.payload.open(0, part) == b"begun before"


def test_an_opener_opens_with_both_epochs_while_it_has_both() -> None:
    world = World()
    bunny, new = world.identities["bunny"], KemKey.generate(1)
    both = replace(bunny, kem=(*bunny.kem, new))
    ring, sealer = Keyring(bunny), world.sealer("relay")
    trust = knowing(world, both)
    opener = Opener(ring, trust)
    old = sealer.seal(world.job(), world.now)
    key = trust.peer("bunny").kem_key(world.now)
    assert key.kid == new.kid, "the highest epoch is what is sealed to"
    fresh = sealer.seal(Draft(world.job(n=2).core, (key,), world.job().content), world.now)
    with pytest.raises(WrongRecipient):
        opener.open(opener.authenticate(fresh.data, world.now))
    ring.take_up(both)
    for each in (old, fresh):
        assert opener.open(opener.authenticate(each.data, world.now)).content.body == b'{"width":320}'
    ring.take_up(replace(bunny, kem=(new,)))
    with pytest.raises(WrongRecipient):
        opener.open(opener.authenticate(old.data, world.now))


def test_a_keyring_takes_no_keys_of_another_and_keeps_its_secret() -> None:
    relay = Identity.generate("relay")
    ring, told = Keyring(relay), list[str]()
    forget = ring.on_change(lambda: told.append(ring.identity.nkey))
    with pytest.raises(ConfigurationError, match="cannot take the place"):
        ring.take_up(Identity.generate("other"))
    with pytest.raises(ConfigurationError, match="dedup_secret"):
        ring.take_up(replace(relay, dedup_secret=random_bytes(32)))
    other = replace(relay, nkey_seed=new_nkey())
    ring.take_up(other)
    assert (told, ring.identity) == ([other.nkey], other)
    forget()
    ring.take_up(relay)
    assert len(told) == 1
