"""Histories that hypothesis makes up: what remembers bundles and messages never says other than what does not."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge.bundle import sign_payload
from bridge.crypto import SigningKey
from bridge.envelope import Opener
from bridge.errors import BridgeError
from bridge.identity import ROOTS_FILE, TRUST_FILE, Identity
from bridge.trust import Trust
from tests.world import World

WORLD = World(roots=[SigningKey.generate() for _ in range(3)])
THRESHOLD = 2
PAYLOADS = {version: WORLD.payload(version) for version in range(1, 6)}
OTHERS = World(roots=WORLD.roots, now=WORLD.now)
"""The same roots and names, other keys: as after a rotation."""
LIFE = 3_600_000


class Floor(RuleBasedStateMachine):
    """An identity's folder, to which bundles are delivered by whoever likes, and services that start in it."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory(prefix="bunny-floor-")
        self.place = Path(self._folder.name)
        (self.place / ROOTS_FILE).write_bytes(WORLD.roots_json(THRESHOLD))
        self.delivered = (0, 0)
        """Version and signers of the threshold's roots."""
        self.accepted = 0

    def teardown(self) -> None:
        self._folder.cleanup()

    @rule(version=st.sampled_from(sorted(PAYLOADS)), signers=st.sets(st.integers(0, 2)), strange=st.booleans())
    def deliver(self, version: int, signers: set[int], strange: bool) -> None:
        keys = [WORLD.roots[n] for n in sorted(signers)] + [SigningKey.generate()] * strange
        if not keys:
            return
        (self.place / TRUST_FILE).write_bytes(sign_payload(PAYLOADS[version], keys))
        self.delivered = (version, len(signers))

    @rule(late=st.sampled_from([0, LIFE - 1, LIFE, -300_001]))
    def start(self, late: int) -> None:
        version, signers = self.delivered
        good = signers >= THRESHOLD and version >= self.accepted and late in (0, LIFE - 1)
        try:
            found = Trust.load(self.place, WORLD.now + late).version
        except BridgeError:
            found = 0
        assert found == (version if good else 0)
        self.accepted = max(self.accepted, found)


class Memory(RuleBasedStateMachine):
    """An opener that lives through bundles and messages says of each what a new one says."""

    def __init__(self) -> None:
        super().__init__()
        self.identity: Identity = WORLD.identities["bunny"]
        self.trust = WORLD.trust()
        self.opener = Opener(self.identity, self.trust)
        jobs = [WORLD.job(n=n) for n in range(1, 4)]
        sealer = WORLD.sealer("relay")
        self.messages = [each.data for each in sealer.seal_batch(jobs, WORLD.now)]
        self.messages += [WORLD.sealer("other").seal(WORLD.job(sender="other"), WORLD.now).data]
        self.messages += [OTHERS.sealer("relay").seal(OTHERS.job(), WORLD.now).data]

    @rule(other=st.booleans())
    def rotate(self, other: bool) -> None:
        self.trust = (OTHERS if other else WORLD).trust(version=2)
        self.opener.trust = self.trust

    @rule(
        which=st.integers(0, 4),
        at=st.integers(0, 2000),
        bit=st.sampled_from([0, 1, 128]),
        late=st.sampled_from([0, LIFE - 1, LIFE]),
    )
    def receive(self, which: int, at: int, bit: int, late: int) -> None:
        data = bytearray(self.messages[which])
        data[at % len(data)] ^= bit
        fresh = self._said(Opener(self.identity, self.trust), bytes(data), WORLD.now + late)
        assert self._said(self.opener, bytes(data), WORLD.now + late) == fresh
        assert bit == 0 or fresh in ("BadFrame", "UnknownVersion", "UnknownKey", "BadSignature", "BundleExpired")

    def _said(self, opener: Opener, data: bytes, now: int) -> object:
        try:
            return opener.open(opener.authenticate(data, now)).content.body
        except BridgeError as refusal:
            return type(refusal).__name__

    @invariant()
    def bounded(self) -> None:
        assert len(self.opener._roots) <= len(self.messages)
        assert len(self.opener._secrets) <= len(self.messages)


TestFloor = Floor.TestCase
TestFloor.settings = settings(max_examples=15, stateful_step_count=20)
TestMemory = Memory.TestCase
TestMemory.settings = settings(max_examples=15, stateful_step_count=20)
